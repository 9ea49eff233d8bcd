"""Low-rank adapters in the layers of a network: which, and what they train."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Sequence

import keras

# How attention layers call what makes queries and values.
NAMES = (
    *("query", "query_dense", "query_proj", "q_proj"),
    *("value", "value_dense", "value_proj", "v_proj"),
    "qkv",
)


# What an adapter stands beside, and leaves as it is.
_ADAPTED = ("kernel", "embeddings")


def adapted(layers: Iterable[keras.layers.Layer]) -> list[keras.layers.Layer]:
    """Returns those of some layers that have an adapter."""
    return [x for x in layers if getattr(x, "lora_enabled", False)]


def able(layers: Iterable[keras.layers.Layer]) -> list[keras.layers.Layer]:
    """Returns those of some layers that can have an adapter and have none."""
    return [
        layer
        for layer in layers
        if hasattr(layer, "enable_lora")
        and not isinstance(layer, keras.Model)
        and not layer.lora_enabled
    ]


def enable(
    layers: Iterable[keras.layers.Layer], rank: int, names: Sequence[str]
) -> list[keras.layers.Layer]:
    """Gives an adapter to each layer with one of the names.

    Args:
        layers: Layers, those within them included.
        rank: Of the adapters.
        names: Names or patterns for them.

    Returns:
        The layers that have one now.
    """
    chosen = [
        layer
        for layer in able(layers)
        if any(fnmatch.fnmatchcase(layer.name, name) for name in names)
    ]
    for layer in chosen:
        layer.enable_lora(rank)
    return chosen


def settle(layers: Iterable[keras.layers.Layer]) -> None:
    """Closes the kernels that have an adapter.

    Keras opens them with the layer: whoever sets `trainable` to False and back
    trains them too, in silence.
    """
    for layer in adapted(layers):
        for variable in layer.variables:
            if variable.name in _ADAPTED:
                variable.trainable = False
