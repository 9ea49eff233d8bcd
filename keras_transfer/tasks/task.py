"""`Task`: loss, metrics, exact head and evaluation of a prediction."""

from __future__ import annotations

import abc
import copy
import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, NamedTuple, Self, TypeAlias

import keras
import numpy as np

from keras_transfer.evaluation.evaluation import Evaluation
from keras_transfer.probes import Probe
from keras_transfer.structure.outputs import output_activation
from keras_transfer.tasks.extra_metrics import (
    ExtraMetric,
    for_logits,
    join,
)

LossLike: TypeAlias = str | keras.losses.Loss | Callable[..., Any]


class Outputs(NamedTuple):
    """Properties of the output of a model.

    Attributes:
        activation: Name of the output activation.
        units: Size of the last axis.
        is_regressor: Whether the model was built by `build_regressor`.
        is_classifier: Whether it was built for classes. Defaults to `False`.
    """

    activation: str | None
    units: int
    is_regressor: bool
    is_classifier: bool = False

    @property
    def are_logits(self) -> bool:
        """`True` if neither softmax nor sigmoid is applied."""
        return self.activation not in ("softmax", "sigmoid")


def read_outputs(model: keras.Model) -> Outputs:
    """Reads the output of a model.

    Args:
        model: A model with one output.

    Returns:
        `Outputs`.

    Raises:
        ValueError: If the model has several outputs.
    """
    if len(model.outputs) != 1:
        raise ValueError(
            "`model` must have one output. Received: model "
            f"{model.name!r} with {len(model.outputs)}."
        )
    return Outputs(
        output_activation(model),
        model.output_shape[-1],
        model.name.endswith("_regressor"),
        model.name.endswith("_classifier"),
    )


class WrongLabel(NamedTuple):
    """A label that does not fit the task.

    Attributes:
        row: Its row.
        rule: Description of the labels that fit.
        cure: Advice.
    """

    row: int
    rule: str
    cure: str


class Weighing(NamedTuple):
    """Effect of class weights on a training.

    Attributes:
        loss: The loss that is minimised.
        of_examples: Function from labels `(n, ...)`, an array or a tensor, to
            the weights of the examples, float32 `(n,)`; `None` where `loss`
            weighs them.
    """

    loss: keras.losses.Loss | Callable[..., Any]
    of_examples: Callable[[Any], Any] | None


@dataclasses.dataclass(frozen=True, eq=False)
class Task(abc.ABC):
    """A kind of prediction: loss, metrics, exact head and evaluation.

    A new task is a subclass in a file of its own and a row in
    `tasks.choosing.TASKS`. Tasks outside of the package are passed to
    `fine_tune(task=...)`; these need to define only `metrics`.

    Attributes:
        loss: A Keras loss, or a function of labels and outputs.
        from_logits: Whether the outputs are logits. Defaults to `False`.
        label_format: Format of the labels: `"one-hot"` and `"multi-hot"` rows,
            class `"indices"`, `"soft"` rows that sum to 1, other `"fractions"`
            in [0, 1], or `"numbers"`. Defaults to `"numbers"`.
        activation: Name of the output activation. Defaults to `None`, unknown.
        extra: Metrics of the user. Defaults to `()`.
    """

    name: ClassVar[str] = ""
    # Findings of `check` about labels that do not apply to every task.
    unchecked: ClassVar[tuple[str, ...]] = (
        "class-count",
        "class-names",
        "missing-class",
        "imbalance",
        "few-examples",
        "label-format",
        "activation-loss",
    )

    loss: keras.losses.Loss | Callable[..., Any]
    from_logits: bool = False
    label_format: str = "numbers"
    activation: str | None = None
    extra: tuple[ExtraMetric, ...] = ()

    @abc.abstractmethod
    def metrics(self) -> list[keras.metrics.Metric]:
        """Makes new metrics for one `compile`."""

    def plain_metrics(self) -> list[keras.metrics.Metric]:
        """Makes those of `metrics` that a saved model can hold."""
        return self.metrics()

    def all_metrics(self) -> list[keras.metrics.Metric]:
        """Makes new metrics for one `compile`, those of the user included."""
        return join(self.metrics(), self.extra)

    def with_extra(self, extra: Sequence[ExtraMetric]) -> Self:
        """Returns the task with metrics of the user.

        Args:
            extra: The metrics.
        """
        if self.from_logits:
            are_exclusive = self.name == "classification"
            extra = for_logits(extra, are_exclusive)
        # A subclass may have an `__init__` of its own.
        task = copy.copy(self)
        object.__setattr__(task, "extra", tuple(extra))
        return task

    @property
    def names_classes(self) -> bool:
        """`True` if the outputs belong to named classes."""
        return False

    def fit_head(
        self,
        features: np.ndarray,
        labels: np.ndarray,
        units: int,
        *,
        validation: tuple[np.ndarray, np.ndarray] | None = None,
        sample_weight: np.ndarray | None = None,
    ) -> Probe:
        """Solves for one dense layer on frozen features.

        Args:
            features: Features, float32 `(n, d)`.
            labels: Array `(n, ...)`, in the format of the task.
            units: Number of outputs of the layer.
            validation: Features and labels that select lambda. Defaults to
                `None`: cross-validation.
            sample_weight: Weights of the examples, `(n,)`, those of their
                classes included. Defaults to `None`.

        Returns:
            Kernel and bias.

        Raises:
            ValueError: If the task has no exact solution.
        """
        raise ValueError(
            "`strategy` must not use the exact probe, which this task does not "
            f"have. Received: a {type(self).__name__}. Use "
            '`strategy="fine-tune"`, or `Phase(depth=0, epochs=...)`.'
        )

    def weigh_classes(self, weights: Sequence[float], units: int) -> Weighing:
        """Returns the effect of class weights on a training.

        Args:
            weights: The weight of each class; two for a single output.
            units: Number of outputs of the model.

        Returns:
            A `Weighing`.

        Raises:
            ValueError: If the task has no classes to weigh.
        """
        raise ValueError(
            "`class_weight` must be None for a task that does not weigh "
            f"classes. Received: a {type(self).__name__}. Weigh the examples: "
            "a tf.data.Dataset of (inputs, labels, weights)."
        )

    def wrong_label(self, labels: np.ndarray, units: int) -> WrongLabel | None:
        """Finds a label that does not fit the task.

        Args:
            labels: Array `(n, ...)`.
            units: Number of outputs of the model.

        Returns:
            The first one, or `None` where all of them fit.
        """
        return None

    def example_scores(self, outputs: Any, labels: Any) -> Any | None:
        """Scores each example for several heads that train together.

        Args:
            outputs: Tensor `(runs, examples, units)`.
            labels: Tensor `(examples, ...)`, in the format of the task.

        Returns:
            Tensor `(runs, examples)` whose mean over the examples is the first
            of `metrics()`; `None` where heads must be trained one by one.
        """
        return None

    def evaluate(
        self, outputs: np.ndarray, labels: np.ndarray, **details: Any
    ) -> Evaluation:
        """Compares outputs with labels.

        Args:
            outputs: Outputs of `model.predict`.
            labels: Array `(n, ...)`.
            **details: `ids` and `class_names`, as `evaluate_outputs` takes
                them.

        Returns:
            An `Evaluation`.

        Raises:
            NotImplementedError: If the task has no evaluation.
        """
        raise NotImplementedError(
            f"{type(self).__name__} has no evaluation. Use `model.evaluate`."
        )


# Losses of Keras that compare numbers, and those that compare classes.
_OF_NUMBERS = (
    "mean_squared_error",
    "mean_absolute_error",
    "mean_absolute_percentage_error",
    "mean_squared_logarithmic_error",
    "huber",
    "log_cosh",
    "poisson",
    "cosine_similarity",
)
_OF_CLASSES = ("crossentropy", "hinge", "kl_divergence", "dice", "tversky")


def compared_by(loss: LossLike | None) -> str:
    """Returns the kind of labels that a loss compares.

    Args:
        loss: A Keras loss, its name, a function, or `None`.

    Returns:
        `"numbers"`, `"classes"`, or `""` for `None` and losses of the user.
    """
    if loss is None:
        return ""
    instance = keras.losses.get(loss)
    function = getattr(instance, "fn", instance)
    name = getattr(function, "__name__", "")
    if getattr(keras.losses, name, None) is not function:
        return ""
    if name in _OF_NUMBERS:
        return "numbers"
    return "classes" if any(part in name for part in _OF_CLASSES) else ""


def custom_loss(loss: LossLike, label_format: str) -> Any:
    """Returns the loss passed by the user; raises if labels do not fit it.

    Args:
        loss: A Keras loss, its name, or a function.
        label_format: Format of the labels.

    Returns:
        A `keras.losses.Loss` or a function.

    Raises:
        ValueError: If a sparse loss meets rows.
    """
    instance = keras.losses.get(loss)
    name = getattr(instance, "__name__", type(instance).__name__)
    if "sparse" in name.lower() and label_format not in ("indices", "numbers"):
        raise ValueError(
            f"`loss` must fit labels that are {label_format} rows. Received: "
            f"loss={loss!r:.100}. Leave it out, or use "
            '"categorical_crossentropy".'
        )
    return instance
