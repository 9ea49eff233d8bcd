"""Learning-rate schedules: pure functions of the step."""

from __future__ import annotations

import math
from collections.abc import Callable

import keras


def one_cycle(
    step: int,
    *,
    total_steps: int,
    learning_rate: float,
    warmup: float = 0.25,
    start_divisor: float = 25.0,
    final_divisor: float = 1e5,
) -> float:
    """Returns the learning rate of the one-cycle policy at a step.

    Half a cosine from `learning_rate / start_divisor` up to `learning_rate`
    over the first part of training, and another one down to `learning_rate /
    final_divisor` over the rest.

    Args:
        step: Integer in `[0, total_steps]`, counted from 0.
        total_steps: Number of training steps, positive.
        learning_rate: The peak.
        warmup: Fraction in `(0, 1)` of the steps before the peak. Defaults to
            `0.25`.
        start_divisor: Peak over first rate. Defaults to `25.0`.
        final_divisor: Peak over last rate. Defaults to `1e5`.

    Returns:
        The learning rate, a float.

    Raises:
        ValueError: If `step`, `total_steps` or `warmup` is out of range.

    Example:

    >>> one_cycle(25, total_steps=100, learning_rate=0.1)
    0.1

    Reference:
        - Smith, 2018, https://arxiv.org/abs/1803.09820
    """
    if total_steps < 1 or not 0 <= step <= total_steps:
        raise ValueError(
            "`step` must be in [0, total_steps] and `total_steps` positive. "
            f"Received: step={step}, total_steps={total_steps}"
        )
    if not 0 < warmup < 1:
        raise ValueError(
            f"`warmup` must be a fraction in (0, 1). Received: warmup={warmup}"
        )
    peak = warmup * total_steps
    first = learning_rate / start_divisor
    last = learning_rate / final_divisor
    if step <= peak:
        return _half_cosine(first, learning_rate, step / peak)
    return _half_cosine(
        learning_rate, last, (step - peak) / (total_steps - peak)
    )


def _half_cosine(start: float, end: float, fraction: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * fraction)) / 2


class ScheduledLearningRate(keras.callbacks.Callback):
    """Sets the optimizer's learning rate before each step.

    A callback and not a schedule inside the optimizer, so that a saved model
    needs no code of ours to load.

    Args:
        schedule: Function from the step, counted from 0 over all epochs, to
            the learning rate.

    Example:

    >>> rate = functools.partial(
    ...     one_cycle, total_steps=100, learning_rate=0.1
    ... )
    >>> callback = ScheduledLearningRate(rate)
    """

    def __init__(self, schedule: Callable[[int], float]) -> None:
        super().__init__()
        self._schedule = schedule
        self._step = 0

    def on_train_batch_begin(
        self, batch: int, logs: dict[str, float] | None = None
    ) -> None:
        """Called by Keras.

        Args:
            batch: Index of the batch within its epoch.
            logs: Not used. Defaults to `None`.
        """
        self.model.optimizer.learning_rate = self._schedule(self._step)
        self._step += 1
