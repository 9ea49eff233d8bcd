"""Several labels: any number of classes per example, or a binary label."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import keras
import numpy as np

from keras_transfer.evaluation.evaluation import Evaluation, evaluate_outputs
from keras_transfer.probes import Probe, fit_binary
from keras_transfer.tasks.task import Outputs, Task


class MultiLabel(Task):
    """A decision for each class: sigmoids, or their logits."""

    name: ClassVar[str] = "multi-label"
    unchecked: ClassVar[tuple[str, ...]] = ()

    @staticmethod
    def fits(outputs: Outputs, label_format: str) -> bool:
        """Tells whether they are of this task; see `Kind.fits`."""
        if label_format == "multi-hot" and outputs.activation == "softmax":
            raise ValueError(
                "`model` must end in a sigmoid for several labels per example: "
                "the classes of a softmax exclude each other. Received: a "
                "softmax and rows with several labels or none."
            )
        return outputs.activation == "sigmoid" or label_format == "multi-hot"

    @staticmethod
    def default_loss(
        outputs: Outputs, label_format: str, label_smoothing: float
    ) -> keras.losses.Loss:
        """Makes the binary cross-entropy; see `Kind.default_loss`."""
        return keras.losses.BinaryCrossentropy(
            from_logits=outputs.are_logits, label_smoothing=label_smoothing
        )

    @property
    def names_classes(self) -> bool:
        """`True`: the outputs belong to named classes."""
        return True

    @property
    def _threshold(self) -> float:
        """The output above which a decision is yes: a probability of 0.5."""
        return 0.0 if self.from_logits else 0.5

    def metrics(self) -> list[keras.metrics.Metric]:
        """Makes the accuracy of all decisions."""
        return [
            keras.metrics.BinaryAccuracy(
                name="accuracy", threshold=self._threshold
            )
        ]

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
        """Fits a logistic regression per class; see `Task.fit_head`."""
        if validation is not None:
            validation = validation[0], validation[1].reshape(-1, units)
        return fit_binary(
            features,
            labels.reshape(-1, units),
            validation=validation,
            sample_weight=sample_weight,
        )

    def example_scores(self, outputs: Any, labels: Any) -> Any:
        """Returns the share of correct decisions; see `Task.example_scores`."""
        import tensorflow as tf

        units = outputs.shape[-1]
        # [1, examples, units], the same for all runs.
        truth = tf.cast(tf.reshape(labels, [1, -1, units]), tf.float32)
        is_correct = tf.equal(outputs > self._threshold, truth > 0.5)
        return tf.reduce_mean(tf.cast(is_correct, tf.float32), -1)

    def evaluate(
        self, outputs: np.ndarray, labels: np.ndarray, **details: Any
    ) -> Evaluation:
        """Measures all decisions at 0.5; see `Task.evaluate`."""
        return evaluate_outputs(
            outputs,
            labels,
            kind=self.name,
            from_logits=self.from_logits,
            **details,
        )
