"""Learning rates by step, read inside the graph."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf


class RateTable:
    """A learning rate for each step, and the position of the next one.

    Args:
        rates: The rate of each step; the last one stays.
        step: Index of the next step.
    """

    def __init__(self, rates: Sequence[float], step: int) -> None:
        self._rates = tf.Variable(rates, False, dtype=tf.float32, shape=[None])
        self._step = tf.Variable(step, False, dtype=tf.int64)

    def assign(self, rates: Sequence[float], step: int) -> None:
        """Replaces rates and position; functions traced before follow."""
        self._rates.assign(rates)
        self._step.assign(step)

    def advance(self) -> Any:
        """Returns the rate of the next step, and moves on by one."""
        last = tf.size(self._rates, tf.int64) - 1
        rate = tf.gather(self._rates, tf.minimum(self._step, last))
        self._step.assign_add(1)
        return rate
