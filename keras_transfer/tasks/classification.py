"""Classification: one class out of several for each example."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import keras
import numpy as np

from keras_transfer.evaluation.evaluation import Evaluation, evaluate_outputs
from keras_transfer.probes import Probe, fit_logistic
from keras_transfer.tasks.task import Outputs, Task


class Classification(Task):
    """One class per example: softmax, or logits of classes."""

    name: ClassVar[str] = "classification"
    unchecked: ClassVar[tuple[str, ...]] = ()

    @staticmethod
    def fits(outputs: Outputs, label_format: str) -> bool:
        """Tells whether they are of this task; see `Kind.fits`."""
        return label_format in ("one-hot", "indices")

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
        class_weight: Mapping[int, float] | None = None,
    ) -> Probe:
        """Fits a multinomial logistic regression; see `Task.fit_head`."""
        indices = _indices(labels)
        if class_weight is not None:
            factors = [class_weight.get(int(label), 1.0) for label in indices]
            sample_weight = np.asarray(factors) * (
                1 if sample_weight is None else sample_weight
            )
        if validation is not None:
            validation = validation[0], _indices(validation[1])
        return fit_logistic(
            features,
            indices,
            units,
            validation=validation,
            sample_weight=sample_weight,
        )

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


def _indices(labels: np.ndarray) -> np.ndarray:
    if labels.ndim == 2 and labels.shape[1] > 1:
        return labels.argmax(axis=-1)
    return labels.reshape(-1).astype(int)
