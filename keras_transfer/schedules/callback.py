"""Keras callback that sets the learning rate of each step."""

from __future__ import annotations

from collections.abc import Callable

import keras

from keras_transfer._utils.checks import is_integer


class ScheduledLearningRate(keras.callbacks.Callback):
    """Sets the optimizer's learning rate before each step.

    A callback, not a schedule inside the optimizer, so that a saved model loads
    without this package.

    Args:
        schedule: Function from the step, counted from 0 over all epochs, to
            the learning rate, a float.
        initial_step: Number of steps already taken, to resume training.
            Defaults to `0`.

    Raises:
        ValueError: If `initial_step` is negative; during training, if
            `schedule` returns `None` because it has ended.

    Example:

    >>> rate = functools.partial(
    ...     one_cycle, total_steps=100, learning_rate=0.1
    ... )
    >>> callback = ScheduledLearningRate(rate)
    """

    def __init__(
        self, schedule: Callable[[int], float | None], initial_step: int = 0
    ) -> None:
        super().__init__()
        if not is_integer(initial_step) or initial_step < 0:
            raise ValueError(
                "`initial_step` must be an integer of at least 0. Received: "
                f"initial_step={initial_step!r}"
            )
        self._schedule = schedule
        self._step = initial_step

    def on_train_batch_begin(
        self, batch: int, logs: dict[str, float] | None = None
    ) -> None:
        """Sets the learning rate; called by Keras.

        Args:
            batch: Index of the batch within its epoch, not used.
            logs: Not used. Defaults to `None`.
        """
        rate = self._schedule(self._step)
        if rate is None:
            raise ValueError(
                "`schedule` must have a rate for every step that is trained. "
                f"Received: None at step {self._step}. Train for "
                f"{self._step} steps in all."
            )
        self.model.optimizer.learning_rate = rate
        self._step += 1
