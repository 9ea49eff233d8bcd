"""`LossAdder`: a layer that adds a loss of its inputs in training."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras


class LossAdder(keras.layers.Layer):
    """Returns its first input and adds a loss of the others in training.

    Keras does not track what the closure `loss` reads, so that the weights of a
    reference network cannot be trained or saved by mistake.

    Args:
        loss: Function from the other inputs to a scalar.
        name: The name of the layer.
    """

    def __init__(self, loss: Callable[..., Any], name: str) -> None:
        # No cast on entry: the first input keeps its dtype.
        super().__init__(name=name, dtype="float32", autocast=False)
        self._loss_of = loss

    def call(self, inputs: Sequence[Any], training: bool | None = None) -> Any:
        """Returns the first input."""
        passed, *observed = inputs
        if training:
            self.add_loss(self._loss_of(*observed))
        return passed
