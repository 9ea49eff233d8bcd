"""Weight decay towards a point, done by the optimizer."""

from __future__ import annotations

from typing import Any, NamedTuple

import keras


class DecoupledDecay(NamedTuple):
    """Decay of a variable towards a point, decoupled from the gradient.

    `w <- w - learning_rate * strength * (w - start)`, before each step.

    Attributes:
        variable: The variable to decay.
        strength: Scalar variable, so that it can change without a retrace.
        start: Target, of the shape of `variable`; `None` stands for zero.
    """

    variable: keras.Variable
    strength: keras.Variable
    start: keras.Variable | None

    def amount(self, value: Any, learning_rate: Any) -> Any:
        """Returns the tensor to subtract from the variable.

        Args:
            value: The variable; under a `tf.distribute` strategy its copy on
                one device.
            learning_rate: The current rate, multiplier included.
        """
        rate = keras.ops.cast(learning_rate, value.dtype)
        strength = keras.ops.cast(self.strength, value.dtype)
        distance = value
        if self.start is not None:
            distance = value - keras.ops.cast(self.start, value.dtype)
        return distance * rate * strength
