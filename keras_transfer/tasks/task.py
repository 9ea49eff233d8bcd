"""`Task`: loss, metrics, exact head and evaluation of a prediction."""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, NamedTuple, TypeAlias

import keras
import numpy as np

from keras_transfer.evaluation.evaluation import Evaluation
from keras_transfer.probes import Probe
from keras_transfer.structure.outputs import output_activation

LossLike: TypeAlias = str | keras.losses.Loss | Callable[..., Any]


class Outputs(NamedTuple):
    """Properties of the output of a model.

    Attributes:
        activation: Name of the output activation.
        units: Size of the last axis.
        is_regressor: Whether the model was built by `build_regressor`.
    """

    activation: str | None
    units: int
    is_regressor: bool

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
    )


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
            class `"indices"`, or `"numbers"`. Defaults to `"numbers"`.
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

    @abc.abstractmethod
    def metrics(self) -> list[keras.metrics.Metric]:
        """Makes new metrics for one `compile`."""

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
        class_weight: Mapping[int, float] | None = None,
    ) -> Probe:
        """Solves for one dense layer on frozen features.

        Args:
            features: Features, float32 `(n, d)`.
            labels: Array `(n, ...)`, in the format of the task.
            units: Number of outputs of the layer.
            validation: Features and labels that select lambda. Defaults to
                `None`: cross-validation.
            sample_weight: Weights of the examples, `(n,)`. Defaults to `None`.
            class_weight: Weight of each class index. Defaults to `None`.

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


def custom_loss(loss: LossLike, label_format: str) -> Any:
    """Returns the loss passed by the user; raises if labels do not fit it.

    Args:
        loss: A Keras loss, its name, or a function.
        label_format: Format of the labels.

    Returns:
        A `keras.losses.Loss` or a function.

    Raises:
        ValueError: If a sparse loss meets one-hot rows.
    """
    instance = keras.losses.get(loss)
    name = getattr(instance, "__name__", type(instance).__name__)
    if "sparse" in name.lower() and label_format == "one-hot":
        raise ValueError(
            "`loss` must fit labels that are one-hot rows. Received: "
            f"loss={loss!r:.100}. Leave it out, or use "
            '"categorical_crossentropy".'
        )
    return instance
