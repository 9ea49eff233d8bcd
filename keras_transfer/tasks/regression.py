"""Regression: numbers for each example."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import keras
import numpy as np

from keras_transfer.evaluation.evaluation import Evaluation, evaluate_outputs
from keras_transfer.probes import Probe, fit_binary, fit_logistic, fit_ridge
from keras_transfer.structure.outputs import BOUNDS
from keras_transfer.tasks.task import Outputs, Task, Weighing, WrongLabel


class Regression(Task):
    """Outputs that are compared with numbers."""

    name: ClassVar[str] = "regression"
    unchecked: ClassVar[tuple[str, ...]] = ()

    @staticmethod
    def fits(outputs: Outputs, label_format: str, compared: str) -> bool:
        """Tells whether they are of this task; see `Kind.fits`."""
        if outputs.is_regressor:
            return True
        if outputs.activation == "softmax":
            if label_format in ("numbers", "fractions"):
                raise ValueError(
                    "`data` must hold classes for a model that ends in a "
                    "softmax: integers, one-hot rows, or rows of shares that "
                    "sum to 1. Received: other numbers."
                )
            return False
        if outputs.activation == "sigmoid":
            if outputs.is_classifier or compared == "classes":
                return False
            # Fractions are probabilities, as 0 and 1 are: the loss must not
            # depend on which of them come first.
            of_numbers = ["numbers"]
            if compared == "numbers":
                of_numbers.append("fractions")
            return label_format in of_numbers
        if label_format == "numbers":
            return True
        exclusive = label_format in ("one-hot", "indices")
        if compared == "numbers":
            return outputs.units == 1 or not exclusive
        if compared == "classes" or outputs.is_classifier:
            return False
        # One linear output is a number whatever the values of the labels, but
        # for the second of two named classes.
        is_number = outputs.units == 1 and label_format != "multi-hot"
        return is_number or label_format == "fractions"

    @staticmethod
    def default_loss(
        outputs: Outputs, label_format: str, label_smoothing: float
    ) -> keras.losses.Loss:
        """Makes the mean squared error; see `Kind.default_loss`."""
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
    ) -> Probe:
        """Fits the numbers below the output activation; see `Task.fit_head`.

        Ridge regression, or logistic regression on numbers between the bounds
        of an activation.
        """
        targets = labels.reshape(-1, units)
        if self.activation not in ("sigmoid", "softmax", "tanh"):
            return fit_ridge(features, targets, sample_weight=sample_weight)
        held_out = None
        if validation is not None:
            held_out = validation[0], validation[1].reshape(-1, units)
        if self.activation == "softmax":
            return fit_logistic(
                features,
                targets,
                units,
                validation=held_out,
                sample_weight=sample_weight,
            )
        # tanh(s) = 2 sigmoid(2 s) - 1
        is_tanh = self.activation == "tanh"
        if is_tanh:
            targets = (targets + 1) / 2
        if is_tanh and held_out is not None:
            held_out = held_out[0], (held_out[1] + 1) / 2
        probe = fit_binary(
            features, targets, validation=held_out, sample_weight=sample_weight
        )
        scale = 0.5 if is_tanh else 1.0
        return probe._replace(
            kernel=scale * probe.kernel, bias=scale * probe.bias
        )

    def weigh_classes(self, weights: Sequence[float], units: int) -> Weighing:
        """Raises: numbers have no classes; see `Task.weigh_classes`."""
        raise ValueError(
            "`class_weight` must be None for regression, which has no classes. "
            "Weigh the examples: a tf.data.Dataset of (inputs, labels, weights)"
            ". If the labels are classes, use `build_classifier`. Received: "
            f"weights of {len(weights)} classes"
        )

    def wrong_label(self, labels: np.ndarray, units: int) -> WrongLabel | None:
        """Finds a number that no output can have; see `Task.wrong_label`."""
        low, high = BOUNDS.get(self.activation or "", (-np.inf, np.inf))
        fits = np.isfinite(labels) & (labels >= low) & (labels <= high)
        wrong = np.flatnonzero(~fits.reshape(len(labels), -1).all(axis=1))
        if not len(wrong):
            return None
        rule = "finite numbers"
        if np.isfinite(high):
            rule = (
                f"numbers from {low:g} to {high:g}, like the outputs of a "
                f"{self.activation}"
            )
        return WrongLabel(
            int(wrong[0]),
            rule,
            'Scale the labels, or build the model with `activation="linear"`.',
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
