"""Several labels: any number of classes per example, or a binary label."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import keras
import numpy as np

from keras_transfer.evaluation.evaluation import Evaluation, evaluate_outputs
from keras_transfer.evaluation.metrics import check_labels
from keras_transfer.probes import Probe, fit_binary
from keras_transfer.tasks.task import Outputs, Task, Weighing, WrongLabel


@keras.saving.register_keras_serializable("keras_transfer")
class DecisionAccuracy(keras.metrics.BinaryAccuracy):
    """`keras.metrics.BinaryAccuracy`, also for labels between 0 and 1.

    A label is yes above 0.5.
    """

    def update_state(
        self, y_true: Any, y_pred: Any, sample_weight: Any = None
    ) -> Any:
        """Counts decisions.

        Args:
            y_true: Labels in [0, 1].
            y_pred: Outputs.
            sample_weight: Weights of the examples. Defaults to `None`.
        """
        decisions = keras.ops.cast(y_true, "float32") > 0.5
        return super().update_state(
            keras.ops.cast(decisions, "float32"), y_pred, sample_weight
        )


@keras.saving.register_keras_serializable("keras_transfer")
class ColumnWeightedCrossentropy(keras.losses.Loss):
    """Binary cross-entropy whose columns have weights of their own.

    `loss = mean_c w_c (-y_c ln p_c - (1 - y_c) ln(1 - p_c))`

    Args:
        weights: The weight of each output.
        from_logits: Whether outputs are logits. Defaults to `False`.
        label_smoothing: Fraction of each label that is moved to 1/2. Defaults
            to `0.0`.
        **options: `reduction`, `name` and `dtype`, as for `keras.losses.Loss`.
    """

    def __init__(
        self,
        weights: Sequence[float],
        from_logits: bool = False,
        label_smoothing: float = 0.0,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.weights = tuple(float(weight) for weight in weights)
        self.from_logits = from_logits
        self.label_smoothing = label_smoothing
        # A variable, since traced steps read it.
        self._in_force = keras.Variable(
            1.0, trainable=False, autocast=False, name="in_force"
        )

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """Returns the loss of each example.

        Args:
            y_true: Labels in [0, 1], `(n, outputs)`.
            y_pred: Outputs `(n, outputs)`.
        """
        # `y_pred` as it is: Keras finds the logits below its sigmoid.
        y_true = keras.ops.cast(y_true, y_pred.dtype)
        y_true = y_true * (1 - self.label_smoothing) + self.label_smoothing / 2
        terms = keras.ops.binary_crossentropy(
            y_true, y_pred, from_logits=self.from_logits
        )  # [n, outputs]
        weights = keras.ops.convert_to_tensor(self.weights, terms.dtype)
        weights = keras.ops.where(self._in_force > 0, weights, 1)
        return keras.ops.mean(terms * weights, axis=-1)

    def weigh(self, in_force: bool) -> None:
        """Puts the weights in force, or sets all of them to 1.

        Args:
            in_force: Whether the weights count.
        """
        self._in_force.assign(float(in_force))

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments."""
        return super().get_config() | {
            "weights": self.weights,
            "from_logits": self.from_logits,
            "label_smoothing": self.label_smoothing,
        }


def weigh_columns(
    loss: Any, weights: Sequence[float]
) -> ColumnWeightedCrossentropy:
    """Returns a loss of several labels, with the weights of its columns.

    Args:
        loss: The loss without weights.
        weights: The weight of each column.

    Raises:
        ValueError: If the loss is not Keras' binary cross-entropy.
    """
    if loss is keras.losses.binary_crossentropy:
        return ColumnWeightedCrossentropy(weights)
    if type(loss) is not keras.losses.BinaryCrossentropy:
        name = getattr(loss, "__name__", type(loss).__name__)
        raise ValueError(
            "`class_weight` must be None where `loss` is not the binary "
            "cross-entropy of several labels: weigh the labels in your loss. "
            f"Received: loss={name}"
        )
    config = loss.get_config()
    return ColumnWeightedCrossentropy(
        weights,
        from_logits=config["from_logits"],
        label_smoothing=config["label_smoothing"],
        reduction=config["reduction"],
        name=config["name"],
    )


def put_in_force(loss: Any, in_force: bool) -> None:
    """Switches the weights of columns, if a loss has them.

    A validation loss is that of the data: without them.

    Args:
        loss: The loss that a model was compiled with.
        in_force: Whether the weights count.
    """
    if isinstance(loss, ColumnWeightedCrossentropy):
        loss.weigh(in_force)


class MultiLabel(Task):
    """A decision for each class: sigmoids, or their logits."""

    name: ClassVar[str] = "multi-label"
    unchecked: ClassVar[tuple[str, ...]] = ()

    @staticmethod
    def fits(outputs: Outputs, label_format: str, compared: str) -> bool:
        """Tells whether they are of this task; see `Kind.fits`."""
        if label_format == "multi-hot" and outputs.activation == "softmax":
            raise ValueError(
                "`model` must end in a sigmoid for several labels per example: "
                "the classes of a softmax exclude each other. Received: a "
                "softmax and rows with several labels or none."
            )
        if outputs.activation == "sigmoid":
            return True
        # A single output is the logit of yes.
        is_binary = outputs.units == 1 and label_format == "indices"
        return is_binary or label_format in ("multi-hot", "fractions")

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
        return [DecisionAccuracy(name="accuracy", threshold=self._threshold)]

    def plain_metrics(self) -> list[keras.metrics.Metric]:
        """Makes Keras' own accuracy, which is defined for labels of 0 and 1."""
        if self.label_format in ("soft", "fractions"):
            return []
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
    ) -> Probe:
        """Fits a logistic regression per class; see `Task.fit_head`.

        Weights of classes do not change it: the classes are independent, and
        each has a lambda of its own.
        """
        if validation is not None:
            validation = validation[0], validation[1].reshape(-1, units)
        return fit_binary(
            features,
            labels.reshape(-1, units),
            validation=validation,
            sample_weight=sample_weight,
        )

    def weigh_classes(self, weights: Sequence[float], units: int) -> Weighing:
        """Weighs the loss of each class; see `Task.weigh_classes`.

        A single output has two classes, no and yes, which weigh examples.
        """
        import tensorflow as tf

        if units > 1:
            return Weighing(weigh_columns(self.loss, weights), None)
        no, yes = (float(weight) for weight in weights)

        def of_examples(labels: Any) -> Any:
            shares = tf.cast(tf.reshape(labels, [-1]), tf.float32)
            return (1 - shares) * no + shares * yes

        return Weighing(self.loss, of_examples)

    def wrong_label(self, labels: np.ndarray, units: int) -> WrongLabel | None:
        """Finds a label outside [0, 1]; see `Task.wrong_label`."""
        fits = ((labels >= 0) & (labels <= 1)).reshape(len(labels), -1)
        wrong = np.flatnonzero(~fits.all(axis=1))
        if not len(wrong):
            return None
        return WrongLabel(
            int(wrong[0]),
            "0, 1 or a fraction between for each output",
            'For one of several classes use `activation="softmax"`; for '
            "numbers, `build_regressor`.",
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
        """Measures all decisions at 0.5; see `Task.evaluate`.

        The class of an example, as an integer, is yes for that class and no for
        all others; a single output is the second of two classes.
        """
        units = outputs.shape[-1]
        if units > 1 and labels.ndim == 1:
            labels = check_labels(labels, units)[:, None] == np.arange(units)
        if units == 1 and labels.shape[1:] == (2,):
            labels = check_labels(labels, 2)[:, None]
        return evaluate_outputs(
            outputs,
            labels,
            kind=self.name,
            from_logits=self.from_logits,
            **details,
        )
