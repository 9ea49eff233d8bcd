"""Dropout of pretrained networks."""

from __future__ import annotations

import keras

from keras_transfer.structure import graph

# How layers that drop something at random call the fraction.
_RATES = ("rate", "drop_prob")


def still_dropout(model: keras.Model) -> None:
    """Makes a pretrained network a function of its input, also in `fit`.

    EfficientNet drops whole blocks at random whenever `training=True`, frozen
    or not: a frozen prefix would compute something else in each epoch.

    Args:
        model: Any model; its layers keep their place and drop nothing.
    """
    for layer in graph.layers_below(model):
        if "Drop" in type(layer).__name__:
            for name in _RATES:
                if hasattr(layer, name):
                    setattr(layer, name, 0.0)
