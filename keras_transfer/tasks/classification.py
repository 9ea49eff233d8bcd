"""Classification: one class out of several for each example."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import keras
import numpy as np

from keras_transfer._utils.checks import SUM_TOLERANCE
from keras_transfer.evaluation.evaluation import Evaluation, evaluate_outputs
from keras_transfer.probes import Probe, fit_logistic
from keras_transfer.tasks.task import Outputs, Task, Weighing, WrongLabel


class Classification(Task):
    """One class per example: softmax, or logits of classes."""

    name: ClassVar[str] = "classification"
    unchecked: ClassVar[tuple[str, ...]] = ()

    @staticmethod
    def fits(outputs: Outputs, label_format: str, compared: str) -> bool:
        """Tells whether they are of this task; see `Kind.fits`."""
        return label_format in ("one-hot", "indices", "soft")

    @staticmethod
    def default_loss(
        outputs: Outputs, label_format: str, label_smoothing: float
    ) -> keras.losses.Loss:
        """Makes the categorical cross-entropy; see `Kind.default_loss`."""
        if label_format != "indices":
            return keras.losses.CategoricalCrossentropy(
                from_logits=outputs.are_logits, label_smoothing=label_smoothing
            )
        if label_smoothing:
            raise ValueError(
                "`label_smoothing` needs one-hot labels. Received: "
                f"label_smoothing={label_smoothing} and integers. Use "
                "`keras.utils.to_categorical(labels, num_classes)`."
            )
        return keras.losses.SparseCategoricalCrossentropy(
            from_logits=outputs.are_logits
        )

    @property
    def names_classes(self) -> bool:
        """`True`: the outputs belong to named classes."""
        return True

    def metrics(self) -> list[keras.metrics.Metric]:
        """Makes the accuracy."""
        if self.label_format == "indices":
            return [keras.metrics.SparseCategoricalAccuracy(name="accuracy")]
        return [keras.metrics.CategoricalAccuracy(name="accuracy")]

    def fit_head(
        self,
        features: np.ndarray,
        labels: np.ndarray,
        units: int,
        *,
        validation: tuple[np.ndarray, np.ndarray] | None = None,
        sample_weight: np.ndarray | None = None,
    ) -> Probe:
        """Fits a multinomial logistic regression; see `Task.fit_head`."""
        if validation is not None:
            validation = validation[0], _classes(validation[1])
        return fit_logistic(
            features,
            _classes(labels),
            units,
            validation=validation,
            sample_weight=sample_weight,
        )

    def weigh_classes(self, weights: Sequence[float], units: int) -> Weighing:
        """Weighs each example by its class; see `Task.weigh_classes`.

        An example with shares of several classes has the mean of their weights.
        """
        import tensorflow as tf

        table = np.asarray(weights, np.float32)

        def of_examples(labels: Any) -> Any:
            labels = tf.convert_to_tensor(labels)
            if labels.shape.rank == 2 and labels.shape[1] != 1:
                return tf.linalg.matvec(tf.cast(labels, tf.float32), table)
            classes = tf.cast(tf.reshape(labels, [-1]), tf.int32)
            return tf.gather(table, classes)

        return Weighing(self.loss, of_examples)

    def wrong_label(self, labels: np.ndarray, units: int) -> WrongLabel | None:
        """Finds a label without a class; see `Task.wrong_label`."""
        rows = labels.reshape(len(labels), -1)
        if rows.shape[1] == 1:
            whole = rows[:, 0] == np.floor(rows[:, 0])
            fits = whole & (rows[:, 0] >= 0) & (rows[:, 0] < units)
            rule = f"integers from 0 to {units - 1}"
            cure = (
                "Build the model for all classes of the data, or correct the "
                "labels."
            )
        else:
            sums = np.isclose(rows.sum(axis=1), 1, atol=SUM_TOLERANCE)
            fits = sums & (rows >= 0).all(axis=1)
            rule = "rows of classes that exclude each other, which sum to 1"
            cure = (
                "For several labels per example build the model with "
                '`activation="sigmoid"`.'
            )
        wrong = np.flatnonzero(~fits)
        return WrongLabel(int(wrong[0]), rule, cure) if len(wrong) else None

    def example_scores(self, outputs: Any, labels: Any) -> Any:
        """Returns 1 where the class is correct; see `Task.example_scores`."""
        import tensorflow as tf

        sparse = self.label_format == "indices"
        truth = labels if sparse else tf.argmax(labels, -1)
        truth = tf.cast(tf.reshape(truth, [-1]), tf.int64)  # [examples]
        is_correct = tf.equal(tf.argmax(outputs, -1), truth)  # [runs, examples]
        return tf.cast(is_correct, tf.float32)

    def evaluate(
        self, outputs: np.ndarray, labels: np.ndarray, **details: Any
    ) -> Evaluation:
        """Measures accuracy, confusion and mistakes; see `Task.evaluate`."""
        return evaluate_outputs(
            outputs,
            labels,
            kind=self.name,
            from_logits=self.from_logits,
            **details,
        )


def _classes(labels: np.ndarray) -> np.ndarray:
    """Returns class indices `(n,)`, or shares of the classes `(n, classes)`."""
    if labels.ndim == 1 or labels.shape[1] == 1:
        return labels.reshape(-1).astype(int)
    if ((labels == 0) | (labels == 1)).all():
        return labels.argmax(axis=-1)
    return labels
