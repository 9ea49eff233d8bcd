"""Low-rank adapters of single layers: selection, creation and training."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Sequence

import keras

# Names of the layers that project queries and values in attention.
ATTENTION_NAMES = (
    *("query", "query_dense", "query_proj", "q_proj"),
    *("value", "value_dense", "value_proj", "v_proj"),
    "qkv",
)

# Names of the variables that an adapter is added to; they stay frozen.
_ADAPTED_VARIABLES = ("kernel", "embeddings")


def adapted_layers(
    layers: Iterable[keras.layers.Layer],
) -> list[keras.layers.Layer]:
    """Returns the layers that have an adapter."""
    return [x for x in layers if getattr(x, "lora_enabled", False)]


def adaptable_layers(
    layers: Iterable[keras.layers.Layer],
) -> list[keras.layers.Layer]:
    """Returns the layers that can have an adapter and do not yet."""
    return [
        layer
        for layer in layers
        if hasattr(layer, "enable_lora")
        and not isinstance(layer, keras.Model)
        and not layer.lora_enabled
    ]


def add_adapters(
    layers: Iterable[keras.layers.Layer], rank: int, names: Sequence[str]
) -> list[keras.layers.Layer]:
    """Adds an adapter to each layer with one of the names.

    Args:
        layers: The layers to choose from, nested ones included.
        rank: Rank of the adapters.
        names: Names of layers, or patterns for them.

    Returns:
        The layers that received an adapter.
    """
    chosen = [
        layer
        for layer in adaptable_layers(layers)
        if any(fnmatch.fnmatchcase(layer.name, name) for name in names)
    ]
    for layer in chosen:
        layer.enable_lora(rank)
    return chosen


def freeze_adapted_kernels(layers: Iterable[keras.layers.Layer]) -> None:
    """Freezes the kernels of layers that have an adapter.

    Keras makes them trainable together with the layer: after `trainable` was
    set to `False` and back, they would silently train as well.
    """
    for layer in adapted_layers(layers):
        for variable in layer.variables:
            if variable.name in _ADAPTED_VARIABLES:
                variable.trainable = False
