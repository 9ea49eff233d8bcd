"""What a decoupled penalty asks of an optimizer."""

from __future__ import annotations

from typing import NamedTuple

import keras


class DecoupledDecay(NamedTuple):
    """A variable drawn towards a point at each step, outside the gradient.

    `w <- w - learning_rate * strength * (w - start)`, before the step.

    Attributes:
        variable: What is drawn.
        strength: A scalar variable, so that it changes without a retrace.
        start: Of the shape of `variable`; `None` stands for zero.
    """

    variable: keras.Variable
    strength: keras.Variable
    start: keras.Variable | None
