"""Dropout of pretrained networks."""

from __future__ import annotations

import keras

from keras_transfer.structure import graph

# Attributes of dropout layers that hold the fraction.
_RATES = ("rate", "drop_prob")


def turn_off_dropout(model: keras.Model) -> None:
    """Turns off dropout, so that a network is deterministic in `fit` too.

    EfficientNet drops whole blocks at random whenever `training=True`, frozen
    or not, and a frozen prefix would give different outputs in each epoch.

    Args:
        model: Any model; dropout layers stay in place, with rate 0.
    """
    for layer in graph.layers_below(model):
        if "Drop" in type(layer).__name__:
            for name in _RATES:
                if hasattr(layer, name):
                    setattr(layer, name, 0.0)
