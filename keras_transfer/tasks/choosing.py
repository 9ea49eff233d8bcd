"""Chooses the task of a model and its labels."""

from __future__ import annotations

from typing import Any, Protocol

import keras

from keras_transfer.tasks.classification import Classification
from keras_transfer.tasks.multi_label import MultiLabel
from keras_transfer.tasks.regression import Regression
from keras_transfer.tasks.task import (
    LossLike,
    Outputs,
    Task,
    compared_by,
    custom_loss,
    read_outputs,
)


class Kind(Protocol):
    """A row of `TASKS`: a class of task that can be chosen."""

    def __call__(
        self,
        loss: Any,
        from_logits: bool,
        label_format: str,
        activation: str | None,
    ) -> Task:
        """Makes the task."""
        ...

    def fits(self, outputs: Outputs, label_format: str, compared: str) -> bool:
        """Tells whether a model, its labels and its loss are of this task.

        Args:
            outputs: The outputs of the model.
            label_format: The format of the labels.
            compared: The kind of labels that the loss compares, as
                `compared_by` returns it.

        Raises:
            ValueError: If labels and outputs contradict each other.
        """
        ...

    def default_loss(
        self, outputs: Outputs, label_format: str, label_smoothing: float
    ) -> keras.losses.Loss:
        """Makes the loss where none is named.

        Args:
            outputs: The outputs of the model.
            label_format: The format of the labels.
            label_smoothing: Fraction of each label that is spread over all
                classes.

        Raises:
            ValueError: If the task has no label smoothing.
        """
        ...


# The first that fits is taken.
TASKS: tuple[Kind, ...] = (Regression, MultiLabel, Classification)


def is_binary(model: keras.Model) -> bool:
    """Returns whether the model has a single output, as for yes or no."""
    return len(model.outputs) == 1 and model.output_shape[-1] == 1


def check_predicts_classes(model: keras.Model) -> None:
    """Raises for a model of numbers, whose labels cannot be classes."""
    if model.name.endswith("_regressor"):
        raise ValueError(
            "`model` must predict classes, which these data have as labels. "
            f"Received: {model.name!r}, from `build_regressor`. Pass arrays "
            "(inputs, numbers), or use `build_classifier`."
        )


def choose_task(
    model: keras.Model,
    label_format: str,
    *,
    loss: LossLike | None = None,
    label_smoothing: float = 0.0,
) -> Task:
    """Chooses the task by the builder of the model, its outputs and labels.

    A model from `build_regressor` predicts numbers. Others: softmax,
    categorical cross-entropy; sigmoid, binary cross-entropy, for fractions too;
    linear, the mean squared error for numbers and for a single output,
    cross-entropy on logits for classes. A loss of Keras that compares numbers
    (`"mae"`) or classes decides where these leave both open.

    Args:
        model: A model with one output.
        label_format: The format, as `TrainingData.label_format`.
        loss: A loss that replaces the chosen one. Defaults to `None`.
        label_smoothing: Fraction in `[0, 1)` of each label that is spread over
            all classes. Defaults to `0.0`.

    Returns:
        A `Task`.

    Raises:
        ValueError: If arguments do not fit each other.
    """
    if not 0 <= label_smoothing < 1:
        raise ValueError(
            "`label_smoothing` must be a fraction in [0, 1). Received: "
            f"label_smoothing={label_smoothing!r}"
        )
    outputs = read_outputs(model)
    compared = compared_by(loss)
    kind = next(k for k in TASKS if k.fits(outputs, label_format, compared))
    if kind is Regression:
        label_format = "numbers"
    from_logits = outputs.are_logits and kind is not Regression
    if loss is None:
        task_loss = kind.default_loss(outputs, label_format, label_smoothing)
    elif label_smoothing:
        raise ValueError(
            "`label_smoothing` must be left out where `loss` is given: set it "
            f"there. Received: label_smoothing={label_smoothing}"
        )
    else:
        task_loss = custom_loss(loss, label_format)
        if isinstance(task_loss, keras.losses.Loss) and from_logits:
            from_logits = task_loss.get_config().get("from_logits", from_logits)
    return kind(task_loss, from_logits, label_format, outputs.activation)
