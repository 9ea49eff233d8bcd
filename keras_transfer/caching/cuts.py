"""Cuts of a model below which everything is frozen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import keras

from keras_transfer.caching.eligibility import Ineligible
from keras_transfer.structure import graph
from keras_transfer.structure.blocks import Block
from keras_transfer.structure.depth import split
from keras_transfer.structure.model_parts import ModelParts, parts_of


class Cut(NamedTuple):
    """A place in a model at which activations are cached.

    Attributes:
        depth: Number of blocks above it, counted from the output.
        pooled: Whether it is above the pooling of the head.
        name: Description for people.
    """

    depth: int
    pooled: bool
    name: str

    @property
    def order(self) -> tuple[int, bool]:
        """Sort key that grows from output to input."""
        return self.depth, not self.pooled


def find_cut(model: keras.Model) -> Cut | Ineligible:
    """Finds the last cut below which nothing trains, updates or is random.

    Args:
        model: A model whose `trainable` flags are those of the phase.

    Returns:
        A `Cut`, or the reason that there is none.
    """
    parts = parts_of(model)
    backbone, blocks = parts.backbone, parts.blocks
    whole = parts.head is None
    preprocessing = parts.preprocessing
    if preprocessing is not None and (
        _changes(preprocessing) or _random_layers(preprocessing)
    ):
        return Ineligible("the preprocessing is random or changes in training")
    frozen = 0
    reason = "its first block trains"
    for block in blocks:
        changing = [_changes(layer) for layer in block.layers]
        if any(changing):
            break
        frozen += 1
    while frozen and (layer := _random_below(backbone, blocks[frozen - 1])):
        frozen -= 1
        reason = f"layer {layer} of its first blocks is random"
    if whole and frozen == len(blocks):
        frozen -= 1
        reason = "it is one block"
    if not frozen:
        return Ineligible(reason)
    depth = len(blocks) - frozen
    if depth == 0 and parts.pooling is not None:
        return Cut(0, True, "after pooling")
    return cut_below(blocks, depth)


def cut_below(blocks: Sequence[Block], depth: int) -> Cut:
    """Returns the cut below the last blocks of a model.

    Args:
        blocks: All blocks of the model.
        depth: Number of blocks above the cut.
    """
    return Cut(depth, False, f"after {blocks[len(blocks) - depth - 1].name}")


def network_to(
    model: keras.Model, ends: Sequence[Cut], start: Cut | None = None
) -> keras.Model:
    """Builds the network from the inputs, or from one cut, to other cuts.

    Args:
        model: The model.
        ends: Cuts at which it ends.
        start: Cut at which it starts. Defaults to `None`, the inputs.

    Returns:
        A model over the layers of `model`. Its outputs are the tensors of all
        ends, in order.
    """
    parts = parts_of(model)
    backbone, blocks = parts.backbone, parts.blocks
    entry = list(graph.tensors_in(backbone))
    tensors = [_tensors(blocks, end) for end in ends]
    if start is None:
        (tensor,) = graph.tensors_in(model)
        inputs = [graph.input_like(tensor, tensor.name)]
        x = inputs[0]
        if parts.preprocessing is not None:
            x = graph.view(parts.preprocessing)(x)
        xs = [x]
    else:
        entry = _tensors(blocks, start)
        inputs = [
            graph.input_like(t, f"activation_{i}") for i, t in enumerate(entry)
        ]
        xs = inputs
    outputs = []
    # One model for all ends: a single pass computes them all.
    flat = [t for crossing in tensors for t in crossing]
    reached = {id(t): t for t in flat if not _among(t, entry)}
    values = {id(t): x for t, x in zip(entry, xs, strict=True)}
    if reached:
        inner = keras.Model(entry, list(reached.values()))
        results = keras.tree.flatten(inner(xs if len(xs) > 1 else xs[0]))
        values |= dict(zip(reached, results, strict=True))
    for end, crossing in zip(ends, tensors, strict=True):
        for tensor in crossing:
            value = values[id(tensor)]
            outputs.append(_pooled(parts, value) if end.pooled else value)
    return keras.Model(inputs if len(inputs) > 1 else inputs[0], outputs)


def halves(model: keras.Model, cut: Cut) -> tuple[keras.Model, keras.Model]:
    """Returns the models below and above a cut, over the same layers."""
    return split(model, cut.depth, pooled=cut.pooled)


def own_layers(network: keras.Model) -> list[keras.layers.Layer]:
    """Returns the layers of a network that do not come with Keras."""
    return [
        part
        for part in graph.layers_below(network)
        if not type(part).__module__.startswith("keras.")
    ]


def width(model: keras.Model, cut: Cut) -> int:
    """Returns the number of tensors that cross a cut."""
    return len(_tensors(parts_of(model).blocks, cut))


def _tensors(blocks: Sequence[Block], cut: Cut) -> list[keras.KerasTensor]:
    return list(blocks[len(blocks) - cut.depth - 1].outputs)


def _among(
    tensor: keras.KerasTensor, others: Sequence[keras.KerasTensor]
) -> bool:
    return any(tensor is other for other in others)


def _pooled(parts: ModelParts, features: keras.KerasTensor) -> object:
    head: Any = parts.head
    return keras.Model(head.inputs[0], parts.pooling)(features)


def _changes(layer: keras.layers.Layer) -> bool:
    """Returns whether anything in a layer changes in training."""
    return any(
        part.trainable_variables
        or (
            isinstance(part, keras.layers.BatchNormalization) and part.trainable
        )
        for part in graph.layers_below(layer)
    )


def _random_layers(model: keras.Model) -> list[str]:
    """Returns names of layers that draw random numbers or add a loss."""
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
    names = _random_layers(below)
    return names[0] if names else None
