"""`Phase`: one call of `fit` with one set of trainable blocks."""

from __future__ import annotations

import dataclasses
import inspect
import math
from collections.abc import Callable
from typing import Any, Literal, TypeGuard

import keras

from keras_transfer._utils.checks import (
    check_is_described,
    is_integer,
    is_number,
    refuse,
)
from keras_transfer.schedules import schedules

Depth = int | Literal["all"] | None


_SCHEDULES: dict[str, Callable[..., float]] = {
    "constant": schedules.constant,
    "one-cycle": schedules.one_cycle,
    "cosine": schedules.warmup_cosine,
    "slanted-triangular": schedules.slanted_triangular,
}


@dataclasses.dataclass(frozen=True)
class Phase:
    """One call of `fit`, in which the same variables train.

    Args:
        name: Name of the phase, such as `"linear probe"`. Defaults to
            `"phase"`.
        depth: Blocks of the backbone that train, counted from the output: an
            integer, `"all"`, or `None` for the current `trainable` flags. The
            head trains unless the user froze it. Defaults to `None`.
        epochs: Passes over the data; `0` for the exact probe alone. Defaults to
            `1`.
        learning_rate: The highest rate, that of the head. Defaults to `1e-3`.
        schedule: `"one-cycle"`, `"cosine"` (after a linear warm-up),
            `"slanted-triangular"` or `"constant"`, over the steps of the phase;
            a function `(step, total_steps, learning_rate) -> rate` that is
            called with these keywords; or a schedule of Keras, which counts
            the steps of the phase and has its own rates: `learning_rate` is
            then its first one. Defaults to `"one-cycle"`.
        layer_decay: Factor in `(0, 1]`: the block `k` below the head trains at
            `learning_rate * layer_decay ** k`. Defaults to `1.0`.
        head_multiplier: Factor of the head's rate. Defaults to `1.0`.
        blocks: Names of blocks, or patterns, to train instead of the last
            `depth`. Defaults to `None`.
        train_batch_norm: Whether BatchNormalization trains, and its statistics
            update. On several devices they are those of the whole batch;
            `"per-replica"` computes them on the shard of each device, as Keras
            does, which is faster. Defaults to `False`.
        exact_probe: Whether the output layer first takes the weights of the
            logistic (or ridge) regression on the frozen features. Defaults to
            `False`.
        reinitialize: Whether backbone and head first take new random weights,
            and BatchNormalization a momentum of at most 0.9, so that the new
            statistics follow quickly. Defaults to `False`.

    Raises:
        ValueError: If a value is out of range.
        TypeError: If a value has another type.

    Example:

    >>> probe = Phase("probe", depth=0, epochs=3)
    >>> whole = Phase("all", depth="all", epochs=5, learning_rate=1e-4)
    >>> strategy = (probe, whole)
    """

    name: str = "phase"
    depth: Depth = None
    epochs: int = 1
    learning_rate: float = 1e-3
    schedule: str | Callable[..., float] = "one-cycle"
    layer_decay: float = 1.0
    head_multiplier: float = 1.0
    blocks: tuple[str, ...] | None = None
    train_batch_norm: bool | str = False
    exact_probe: bool = False
    reinitialize: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name:
            refuse("name", "a non-empty string", self.name)
        is_valid = self.depth in (None, "all") or is_integer(self.depth)
        if not is_valid or (is_integer(self.depth) and int(self.depth) < 0):  # type: ignore[arg-type]
            refuse("depth", 'an integer from 0, "all" or None', self.depth)
        minimum = 0 if self.exact_probe else 1
        if not is_integer(self.epochs) or self.epochs < minimum:
            refuse("epochs", f"an integer of at least {minimum}", self.epochs)
        for field in ("learning_rate", "layer_decay", "head_multiplier"):
            value = getattr(self, field)
            if not is_number(value) or not 0 < value < math.inf:
                refuse(field, "a finite number above 0", value)
        if self.layer_decay > 1:
            refuse("layer_decay", "a factor in (0, 1]", self.layer_decay)
        self._check_schedule()
        if self.train_batch_norm not in (True, False, "per-replica"):
            rule = 'True, False or "per-replica"'
            refuse("train_batch_norm", rule, self.train_batch_norm)
        if self.blocks is not None:
            if not isinstance(self.blocks, tuple) or not self.blocks:
                refuse("blocks", "a tuple of names", self.blocks)
            if self.depth is not None:
                refuse("depth", "None where `blocks` is given", self.depth)

    def _check_schedule(self) -> None:
        schedule = self.schedule
        if is_keras_schedule(schedule):
            check_is_described("schedule", schedule)
            first = float(schedule(0))
            default = type(self).learning_rate
            if not any(
                math.isclose(self.learning_rate, rate, rel_tol=1e-6)
                for rate in (default, first)
            ):
                refuse(
                    "learning_rate",
                    f"left out where `schedule` is a {type(schedule).__name__} "
                    f"of Keras, whose first rate is {first:g}",
                    self.learning_rate,
                )
            if 0 < first < math.inf:
                object.__setattr__(self, "learning_rate", first)
            return
        if isinstance(schedule, str) and schedule in _SCHEDULES:
            return
        if not callable(schedule) or not _takes_steps(schedule):
            choices = ", ".join(f'"{name}"' for name in _SCHEDULES)
            refuse(
                "schedule",
                f"{choices}, a schedule of Keras, or a function (step, "
                "total_steps, learning_rate) -> rate",
                schedule,
            )

    def rate(self, step: int, total_steps: int) -> float:
        """Returns the learning rate at a step of the phase.

        Args:
            step: Integer in `[0, total_steps]`.
            total_steps: Steps of the whole phase.

        Returns:
            The rate, a float.
        """
        schedule = self.schedule
        if isinstance(schedule, str):
            schedule = _SCHEDULES[schedule]
        if is_keras_schedule(schedule):
            return float(schedule(step))
        return schedule(
            step, total_steps=total_steps, learning_rate=self.learning_rate
        )


def is_keras_schedule(schedule: object) -> TypeGuard[Callable[[int], Any]]:
    """Tells whether a schedule is one of Keras."""
    kind = keras.optimizers.schedules.LearningRateSchedule
    return isinstance(schedule, kind)


def _takes_steps(schedule: Callable[..., float]) -> bool:
    """Tells whether a function takes the arguments of a schedule."""
    try:
        signature = inspect.signature(schedule)
    except ValueError:  # A function in C, which does not tell.
        return True
    try:
        signature.bind(0, total_steps=1, learning_rate=1.0)
    except TypeError:
        return False
    return True
