"""Keras callback that sets the learning rate of each step."""

from __future__ import annotations

import warnings
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
        yields: Whether to set no more rates, and warn, once another callback
            has set one. Defaults to `False`: rates of others last for a step.

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
        self,
        schedule: Callable[[int], float | None],
        initial_step: int = 0,
        *,
        yields: bool = False,
    ) -> None:
        super().__init__()
        if not is_integer(initial_step) or initial_step < 0:
            raise ValueError(
                "`initial_step` must be an integer of at least 0. Received: "
                f"initial_step={initial_step!r}"
            )
        self._schedule = schedule
        self._step = initial_step
        self._yields = yields
        self._has_yielded = False
        self._expected: float | None = None

    def on_train_begin(self, logs: dict[str, float] | None = None) -> None:
        """Reads the learning rate; called by Keras.

        Args:
            logs: Not used. Defaults to `None`.
        """
        self._has_yielded = False
        self._expected = self._read() if self._yields else None

    def on_train_batch_begin(
        self, batch: int, logs: dict[str, float] | None = None
    ) -> None:
        """Sets the learning rate; called by Keras.

        Args:
            batch: Index of the batch within its epoch, not used.
            logs: Not used. Defaults to `None`.
        """
        if self._yields and self._should_yield():
            return
        rate = self._schedule(self._step)
        if rate is None:
            raise ValueError(
                "`schedule` must have a rate for every step that is trained. "
                f"Received: None at step {self._step}. Train for "
                f"{self._step} steps in all."
            )
        self.model.optimizer.learning_rate = rate
        self._step += 1
        if self._yields:
            self._expected = self._read()

    def _should_yield(self) -> bool:
        """Tells whether another callback has set the rate; warns once."""
        current = self._read()
        if not self._has_yielded and current != self._expected:
            self._has_yielded = True
            warnings.warn(
                f"A callback set the learning rate to {current:g}: from step "
                f"{self._step + 1} of the phase on, its schedule is not "
                'followed. `Phase(schedule="constant")` has none.',
                stacklevel=2,
            )
        return self._has_yielded

    def _read(self) -> float:
        rate = keras.ops.convert_to_numpy(self.model.optimizer.learning_rate)
        return float(rate)
