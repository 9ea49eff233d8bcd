"""Checks the labels of a `tf.data.Dataset` while they pass."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from keras_transfer.data.adapters.training_data import TrainingData
from keras_transfer.tasks.task import Task

if TYPE_CHECKING:
    import tensorflow as tf

_VALUES_SHOWN = 8


class LabelCheck:
    """Raises for the first batch whose labels do not fit the task.

    The format of the labels is read off the first batch, and only reading all
    of them could tell that the others have it.

    Args:
        task: The task.
        units: Number of outputs of the model.
    """

    def __init__(self, task: Task, units: int) -> None:
        self._task = task
        self._units = units
        self._error: ValueError | None = None

    def on(self, batches: tf.data.Dataset, name: str) -> tf.data.Dataset:
        """Returns the same batches, checked.

        Args:
            batches: Batches of (inputs, labels) or (inputs, labels, weights).
            name: Name of the split.
        """
        import tensorflow as tf

        def check(place: np.ndarray, labels: np.ndarray) -> np.int64:
            error = self._find(int(place), labels, name)
            if error is not None:
                # The first one: batches are read ahead of their use.
                self._error = self._error or error
                raise error
            return np.int64(place)

        def checked(place: tf.Tensor, batch: Any) -> Any:
            inputs, labels, *weights = batch
            done = tf.numpy_function(check, [place, labels], tf.int64)
            with tf.control_dependencies([done]):
                return inputs, tf.identity(labels), *weights

        return batches.enumerate().map(checked)

    @contextlib.contextmanager
    def raising(self) -> Iterator[None]:
        """Raises what was found, in place of the error of TensorFlow.

        Yields:
            Nothing.

        Raises:
            ValueError: If the labels of a batch do not fit.
        """
        import tensorflow as tf

        try:
            yield
        except tf.errors.OpError:
            if self._error is None:
                raise
            raise self._error from None

    def _find(
        self, place: int, labels: np.ndarray, name: str
    ) -> ValueError | None:
        wrong = self._task.wrong_label(labels, self._units)
        if wrong is None:
            return None
        values = np.ravel(labels[wrong.row])
        shown = ", ".join(f"{value:g}" for value in values[:_VALUES_SHOWN])
        if len(values) > _VALUES_SHOWN:
            shown += ", ..."
        return ValueError(
            f"`data` must hold labels that are {wrong.rule}. Received: {shown} "
            f"in row {wrong.row} of batch {place + 1} of {name}. {wrong.cure}"
        )


def with_checked_labels(
    data: TrainingData, task: Task, units: int
) -> TrainingData:
    """Returns the data with the labels of every batch checked.

    Args:
        data: The data; those with an index are checked as a whole elsewhere.
        task: The task.
        units: Number of outputs of the model.
    """
    never = type(task).wrong_label is Task.wrong_label
    if "train" in data.indexed or never:
        return data
    check = LabelCheck(task, units)
    train, plain, validation = data.train, data.plain, data.validation
    return dataclasses.replace(
        data,
        train=lambda epoch: check.on(train(epoch), "train"),
        plain=lambda: check.on(plain(), "train"),
        validation=None
        if validation is None
        else lambda: check.on(validation(), "validation"),
        reading=check.raising,
    )
