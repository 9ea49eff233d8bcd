"""`LossAdder`: a layer that adds a loss of its inputs, in training alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras


class LossAdder(keras.layers.Layer):
    """Passes its first input on and adds a loss of the others, in training.

    What `loss` reads is hidden in it: it is not tracked, so that nobody can
    train or save the weights of a reference network by mistake.

    Args:
        loss: Function from the other inputs to a number.
        name: The name of the layer.
    """

    def __init__(self, loss: Callable[..., Any], name: str) -> None:
        # No cast on entry: what is passed on keeps its type.
        super().__init__(name=name, dtype="float32", autocast=False)
        self._loss_of = loss

    def call(self, inputs: Sequence[Any], training: bool | None = None) -> Any:
        """Passes the first input on."""
        passed, *observed = inputs
        if training:
            self.add_loss(self._loss_of(*observed))
        return passed
