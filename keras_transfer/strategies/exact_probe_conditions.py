"""Checks that the head of a model can be solved for exactly."""

from __future__ import annotations

import keras

from keras_transfer.structure.model_parts import parts_of
from keras_transfer.structure.outputs import output_activation

# Activations that an exact solution is known for, or that change little: a
# ridge regression of their outputs starts well below them.
_SOLVABLE = (
    "linear",
    "softmax",
    "sigmoid",
    "tanh",
    "relu",
    "leaky_relu",
    "elu",
    "softplus",
)


def has_exact_probe(model: keras.Model) -> bool:
    """Returns whether the exact probe of the head is defined and settable."""
    return not _reason_against(model)


def begins_with_exact_probe(model: keras.Model) -> bool:
    """Returns whether training starts with the exact probe by default.

    Not where the head has dropout: the weights of the probe rely on all
    features at once, and are large where few examples are easily separable.
    """
    if not has_exact_probe(model):
        return False
    return not any(
        isinstance(layer, keras.layers.Dropout) and layer.rate
        for layer in model.get_layer("head").layers
    )


def check_head(model: keras.Model) -> None:
    """Raises unless the exact probe of the head is defined."""
    reason = _reason_against(model)
    if reason:
        raise ValueError(
            "`model` must have a trainable head of pooling and one dense layer "
            f"for an exact probe. Received: {reason}. Train it instead: "
            '`strategy="fine-tune"`, or `Phase(depth=0, epochs=...)`.'
        )


def _reason_against(model: keras.Model) -> str:
    head = parts_of(model).head
    if head is None:
        return f"model {model.name!r}, which has no head"
    layers = head.layers
    weighted = [layer for layer in layers if layer.weights]
    if len(weighted) != 1:
        names = ", ".join(layer.name for layer in weighted)
        return f"a head with {names}"
    if not weighted[0].trainable:
        return "a frozen head, which would be overwritten"
    activation = output_activation(model)
    if activation not in _SOLVABLE:
        return f"a head that ends in {activation or 'an unknown activation'}"
    return ""
