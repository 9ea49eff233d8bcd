"""Chooses the task of a model and its labels."""

from __future__ import annotations

from typing import Any, Protocol

import keras

from keras_transfer.structure.outputs import output_activation
from keras_transfer.tasks.classification import Classification
from keras_transfer.tasks.multi_label import MultiLabel
from keras_transfer.tasks.regression import Regression
from keras_transfer.tasks.task import (
    LossLike,
    Outputs,
    Task,
    custom_loss,
    read_outputs,
)


class Kind(Protocol):
    """A row of `TASKS`: a class of task that can be chosen."""

    def __call__(self, loss: Any, from_logits: bool, label_format: str) -> Task:
        """Makes the task."""
        ...

    def fits(self, outputs: Outputs, label_format: str) -> bool:
        """Tells whether a model and its labels are of this task.

        Args:
            outputs: The outputs of the model.
            label_format: The format of the labels.

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
TASKS: tuple[Kind, ...] = (MultiLabel, Regression, Classification)


def is_binary(model: keras.Model) -> bool:
    """Returns whether the model has a single sigmoid output."""
    units = model.output_shape[-1] if len(model.outputs) == 1 else 0
    return units == 1 and output_activation(model) == "sigmoid"


def choose_task(
    model: keras.Model,
    label_format: str,
    *,
    loss: LossLike | None = None,
    label_smoothing: float = 0.0,
) -> Task:
    """Chooses the task by the output activation and the labels.

    Softmax: categorical cross-entropy; sigmoid: binary cross-entropy; linear:
    cross-entropy on logits for classes, the mean squared error for numbers.

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
    predicts_numbers = outputs.is_regressor or outputs.units == 1
    if outputs.are_logits and predicts_numbers and loss is None:
        # One linear output is a number whatever the values of the labels.
        label_format = "numbers"
    kind = next(kind for kind in TASKS if kind.fits(outputs, label_format))
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
        if isinstance(task_loss, keras.losses.Loss):
            from_logits = task_loss.get_config().get("from_logits", from_logits)
    return kind(task_loss, from_logits, label_format)
