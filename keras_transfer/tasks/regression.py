"""Regression: numbers for each example."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import keras
import numpy as np

from keras_transfer.evaluation.evaluation import Evaluation, evaluate_outputs
from keras_transfer.probes import Probe, fit_ridge
from keras_transfer.tasks.task import Outputs, Task


class Regression(Task):
    """Linear outputs, compared with numbers."""

    name: ClassVar[str] = "regression"
    unchecked: ClassVar[tuple[str, ...]] = ()

    @staticmethod
    def fits(outputs: Outputs, label_format: str) -> bool:
        """Returns whether a model and its labels are of this task."""
        if label_format == "numbers" and outputs.activation == "softmax":
            raise ValueError(
                "`data` must hold classes for a model that ends in a softmax: "
                "integers or one-hot rows. Received: other numbers."
            )
        return label_format == "numbers"

    @staticmethod
    def default_loss(
        outputs: Outputs, label_format: str, label_smoothing: float
    ) -> keras.losses.Loss:
        """Makes the mean squared error."""
        if label_smoothing:
            raise ValueError(
                "`label_smoothing` must be 0 for regression. Received: "
                f"label_smoothing={label_smoothing}"
            )
        return keras.losses.MeanSquaredError()

    def metrics(self) -> list[keras.metrics.Metric]:
        """Makes the mean absolute error."""
        return [keras.metrics.MeanAbsoluteError(name="mae")]

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
        """Fits a ridge regression, with lambda chosen by the evidence."""
        return fit_ridge(
            features, labels.reshape(-1, units), sample_weight=sample_weight
        )

    def example_scores(self, outputs: Any, labels: Any) -> Any:
        """Returns the absolute errors; see `Task.example_scores`."""
        import tensorflow as tf

        units = outputs.shape[-1]
        # [1, examples, units], the same for all runs.
        truth = tf.cast(tf.reshape(labels, [1, -1, units]), tf.float32)
        return tf.reduce_mean(tf.abs(outputs - truth), -1)

    def evaluate(
        self, outputs: np.ndarray, labels: np.ndarray, **details: Any
    ) -> Evaluation:
        """Measures the errors; see `Task.evaluate`."""
        return evaluate_outputs(outputs, labels, kind=self.name, **details)
