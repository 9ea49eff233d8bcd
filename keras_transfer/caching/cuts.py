"""Where a model can be cut so that all below is frozen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import keras

from keras_transfer.caching.policy import Ineligible
from keras_transfer.structure import graph
from keras_transfer.structure.blocks import Block
from keras_transfer.structure.depth import around, split
from keras_transfer.structure.model_parts import ModelParts, parts_of


class Cut(NamedTuple):
    """A place in a model that activations are kept at.

    Attributes:
        depth: Blocks above it, counted from the output.
        pooled: Whether it is above the pooling of the head.
        name: For people.
    """

    depth: int
    pooled: bool
    name: str

    @property
    def order(self) -> tuple[int, bool]:
        """Grows from output to input."""
        return self.depth, not self.pooled


def find_cut(model: keras.Model) -> Cut | Ineligible:
    """Finds the last place below which nothing trains, moves or is random.

    Args:
        model: A model, with what trains open and the rest closed.

    Returns:
        A `Cut`, or why there is none.
    """
    parts = parts_of(model)
    backbone, found = parts.backbone, parts.blocks
    whole = parts.head is None
    preprocessing = parts.preprocessing
    if preprocessing is not None and (
        _moves(preprocessing) or _stirs(preprocessing)
    ):
        return Ineligible("the preprocessing is random, or moves")
    frozen = 0
    reason = "its first block trains"
    for block in found:
        moving = [_moves(layer) for layer in block.layers]
        if any(moving):
            break
        frozen += 1
    while frozen and (what := _random_below(backbone, found[frozen - 1])):
        frozen -= 1
        reason = f"layer {what} of its first blocks is random"
    if whole and frozen == len(found):
        frozen -= 1
        reason = "it is one block"
    if not frozen:
        return Ineligible(reason)
    depth = len(found) - frozen
    name = f"after {found[frozen - 1].name}"
    pooled = depth == 0 and parts.pooling is not None
    return Cut(depth, pooled, "after pooling" if pooled else name)


def network_to(
    model: keras.Model, ends: Sequence[Cut], start: Cut | None = None
) -> keras.Model:
    """Makes the network from the inputs, or from one cut, to others.

    Args:
        model: The model.
        ends: The cuts that it leads to.
        start: The cut that it begins at. Defaults to `None`, the inputs.

    Returns:
        A model over the layers of `model`, with the tensors of all ends in a
        row as its outputs.
    """
    parts = parts_of(model)
    backbone, found = parts.backbone, parts.blocks
    entry = list(graph.tensors_in(backbone))
    tensors = [_tensors(found, end) for end in ends]
    if start is None:
        (given,) = graph.tensors_in(model)
        inputs = [graph.input_like(given, given.name)]
        x = inputs[0]
        if parts.preprocessing is not None:
            x = around(parts.preprocessing)(x)
        xs = [x]
    else:
        entry = _tensors(found, start)
        inputs = [
            graph.input_like(t, f"activation_{i}") for i, t in enumerate(entry)
        ]
        xs = inputs
    outputs = []
    # All at once: one pass gives them all.
    flat = [t for some in tensors for t in some]
    reached = {id(t): t for t in flat if not _among(t, entry)}
    values = {id(t): x for t, x in zip(entry, xs, strict=True)}
    if reached:
        inner = keras.Model(entry, list(reached.values()))
        results = keras.tree.flatten(inner(xs if len(xs) > 1 else xs[0]))
        values |= dict(zip(reached, results, strict=True))
    for end, some in zip(ends, tensors, strict=True):
        for tensor in some:
            value = values[id(tensor)]
            outputs.append(_pooled(parts, value) if end.pooled else value)
    return keras.Model(inputs if len(inputs) > 1 else inputs[0], outputs)


def halves(model: keras.Model, cut: Cut) -> tuple[keras.Model, keras.Model]:
    """Returns what is below and above a cut, over the layers of the model."""
    return split(model, cut.depth, pooled=cut.pooled)


def own_layers(network: keras.Model) -> list[keras.layers.Layer]:
    """Returns the layers of a network that are none of Keras' own."""
    return [
        part
        for part in graph.layers_below(network)
        if not type(part).__module__.startswith("keras.")
    ]


def width(model: keras.Model, cut: Cut) -> int:
    """Returns how many tensors cross a cut."""
    return len(_tensors(parts_of(model).blocks, cut))


def _tensors(found: Sequence[Block], cut: Cut) -> list[keras.KerasTensor]:
    return list(found[len(found) - cut.depth - 1].outputs)


def _among(
    tensor: keras.KerasTensor, others: Sequence[keras.KerasTensor]
) -> bool:
    return any(tensor is other for other in others)


def _pooled(parts: ModelParts, features: keras.KerasTensor) -> object:
    head: Any = parts.head
    return keras.Model(head.inputs[0], parts.pooling)(features)


def _moves(layer: keras.layers.Layer) -> bool:
    """Whether anything in a layer changes in training."""
    return any(
        part.trainable_variables
        or (
            isinstance(part, keras.layers.BatchNormalization) and part.trainable
        )
        for part in graph.layers_below(layer)
    )


def _stirs(model: keras.Model) -> list[str]:
    """Names of the layers that draw random numbers, or add a loss."""
    return [
        part.name
        for part in graph.layers_below(model)
        if not graph.is_functional(part) and _is_random(part)
    ]


def _is_random(layer: keras.layers.Layer) -> bool:
    if getattr(layer, "activity_regularizer", None) is not None:
        return True
    draws = any(
        isinstance(value, keras.random.SeedGenerator)
        for value in vars(layer).values()
    )
    rate = getattr(layer, "rate", getattr(layer, "drop_prob", 1))
    return draws and rate != 0


def _random_below(backbone: keras.Model, block: Block) -> str | None:
    below = keras.Model(backbone.inputs, list(block.outputs))
    names = _stirs(below)
    return names[0] if names else None
