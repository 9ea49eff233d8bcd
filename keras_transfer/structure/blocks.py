"""Finds the blocks of a network by reading its graph."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

import keras

from keras_transfer.structure import graph

# How networks name their blocks. One convention a line; the first that matches
# the beginning of a layer's name gives the block's name.
_NAMING = re.compile(
    r"""
    ^(
        \w*?stage_?\d+_block_?\d+      # ConvNeXt, embedded ResNet20
      | (conv|stack)\d+_block\d+       # ResNet, DenseNet
      | block\d+_\d+(?=_|$)            # InceptionResNetV2: block35_1
      | block_?\d+[a-z]?(?=_|$)        # VGG, MobileNetV2, EfficientNet
      | expanded_conv(_\d+)?(?=_|$)    # MobileNetV3
      | mixed_?\d+[a-z]?$              # Inception
      | (normal|reduction)_concat_\w+  # NASNet cells
    )
    | ^conv_(?:dw|pw|pad)_(?P<number>\d+)  # MobileNet
    """,
    re.VERBOSE,
)


_STEM = "stem"


# More tensors than this between two halves are no place to cut.
_MAX_WIDTH = 4


class Block(NamedTuple):
    """A run of layers between two cut points of a backbone.

    Attributes:
        name: As the architecture's own layers say, such as `"conv5_block3"`.
        layers: The layers with weights, input to output.
        outputs: The symbolic tensors that leave it: one, or several where
            later blocks reach back over it (NASNet).
    """

    name: str
    layers: tuple[keras.layers.Layer, ...]
    outputs: tuple[keras.KerasTensor, ...]

    @property
    def weights(self) -> tuple[keras.Variable, ...]:
        """The variables of all layers, each once."""
        return tuple(w for layer in self.layers for w in layer.weights)


_Group = tuple[str | None, list[int], graph.Cut]


_CHILDREN = {"preprocessing", "backbone", "head"}


def has_children(model: keras.Model) -> bool:
    """Whether the model has the three children that builders give it."""
    return {layer.name for layer in model.layers} >= _CHILDREN


def backbone_of(model: keras.Model) -> keras.Model:
    """Returns the child `backbone` of a built model, or any other one itself.

    Raises:
        TypeError: If `model` has no graph to read.
        ValueError: If it has several inputs.
    """
    if not graph.is_functional(model):
        raise TypeError(
            "`model` must be a functional or built Sequential model, since "
            "blocks are read off its graph. Received: a "
            f"{type(model).__name__}."
        )
    backbone = model
    if has_children(model):
        backbone = model.get_layer("backbone")
    inputs = len(graph.tensors_in(backbone))
    if inputs != 1:
        raise ValueError(
            "`model` must have one input, so that depth can be counted from "
            f"it. Received: model {model.name!r} with {inputs}."
        )
    return backbone


def find_blocks(network: keras.Model) -> tuple[Block, ...]:
    """Returns the blocks of a network with one input, input to output."""
    steps = graph.steps(network)
    grouped: list[_Group] = []
    done: frozenset[int] = frozenset()
    for cut in _cuts(network):
        new = sorted(cut.steps - done)
        done = cut.steps
        grouped.append((_key([steps[i] for i in new], cut), new, cut))
    found = [
        Block(name or _first_weighted(steps, members), layers, cut.tensors)
        for name, members, cut in _merge(steps, grouped)
        if (layers := _weighted(steps, members))
    ]
    return tuple(_merge_shared(found))


def _cuts(backbone: keras.Model) -> tuple[graph.Cut, ...]:
    """The chain of cuts, input to output.

    Single tensors where possible. Where they leave more than half of the
    weighted layers in one piece, that piece is cut again at the joins of
    branches and at layers that are blocks, where few tensors cross: two in
    NASNet, whose cells read the last two, and in BERT, whose blocks all read
    the mask; three in DINOv3, whose blocks all read sines and cosines of the
    positions, and in DeBERTa.
    """
    steps = graph.steps(backbone)
    single = graph.cuts(backbone, max_width=1)
    total = len(_weighted(steps, range(len(steps))))
    chain: list[graph.Cut] = []
    done: frozenset[int] = frozenset()
    for cut in single:
        piece = cut.steps - done
        if 2 * len(_weighted(steps, piece)) > total > 2:
            chain += _joins(backbone, cut, piece, done)
        chain.append(cut)
        done = cut.steps
    return tuple(chain)


def _joins(
    backbone: keras.Model,
    end: graph.Cut,
    piece: frozenset[int],
    done: frozenset[int],
) -> list[graph.Cut]:
    steps = graph.steps(backbone)
    places = frozenset(
        i for i in piece if len(steps[i].inputs) > 1 or _is_block(steps[i])
    )
    made_of_others = any(_is_block(steps[i]) for i in piece)
    best: tuple[int, list[graph.Cut]] = (0, [])
    for width in range(2, _MAX_WIDTH + 1):
        chain: list[graph.Cut] = []
        upper = end.steps
        for cut in reversed(graph.cuts(backbone, width, places)):
            # A chain: each first half within the next one's.
            if done < cut.steps < upper:
                chain.insert(0, cut)
                upper = cut.steps
        chain = _with_stem(backbone, chain, width, done)
        pieces = sum(
            bool(_weighted(steps, one.steps - other))
            for one, other in zip(
                chain, [done, *(cut.steps for cut in chain)], strict=False
            )
        )
        # Fewer tensors, unless more of them give twice the pieces.
        if pieces >= 2 * best[0] > 0 or not best[0]:
            best = (pieces, chain)
        if best[1] and not made_of_others:
            break
    return best[1]


def _is_block(step: graph.Step) -> bool:
    """Whether a step is a layer made of others, as those of transformers."""
    parts = list(graph.layers_below(step.operation))
    return len([part for part in parts if part.weights]) > 2


def _with_stem(
    backbone: keras.Model,
    chain: list[graph.Cut],
    width: int,
    done: frozenset[int],
) -> list[graph.Cut]:
    """Cuts before the first join that is a block itself and no mere sum.

    What is below it are embeddings, and not part of the first block.
    """
    steps = graph.steps(backbone)
    for place, cut in enumerate(chain):
        join = max(cut.steps)
        if not _weighted(steps, [join]):
            continue
        start = chain[place - 1].steps if place else done
        below = [
            other
            for other in graph.cuts(backbone, width, cut.steps - start)
            if start < other.steps < cut.steps
            and _weighted(steps, other.steps - start)
        ]
        if below:
            return [*chain[:place], below[-1], *chain[place:]]
    return chain


def _key(members: Sequence[graph.Step], cut: graph.Cut) -> str | None:
    """The block that the layers of a piece say they belong to, if any."""
    weighted = [s for s in members if getattr(s.operation, "weights", None)]
    names = [cut.name, *(step.operation.name for step in weighted)]
    for name in names:
        match = _NAMING.match(name)
        if match:
            number = match["number"]
            return f"conv_{number}" if number else match[0]
    return None


def _merge(steps: tuple[graph.Step, ...], pieces: list[_Group]) -> list[_Group]:
    """Merges neighbouring pieces into blocks."""
    if not any(key for key, _, _ in pieces):
        # Nobody named blocks: each piece with weights is one, and takes along
        # the normalizations, activations and poolings that follow it.
        merged: list[_Group] = []
        for key, members, cut in pieces:
            if merged and _belongs_before(_weighted(steps, members)):
                key, before, _ = merged.pop()
                members = before + members
            merged.append((key, members, cut))
        return merged
    merged = []
    waiting: list[int] = []  # pieces without a name, which join the next block
    for key, members, cut in pieces:
        unnamed = key is None
        if unnamed and merged and not _weighted(steps, members):
            # Activation or pooling: part of what it follows, so that the cut
            # comes where the tensor is smaller.
            if waiting:
                waiting += members
                continue
            key, before, _ = merged.pop()
            merged.append((key, before + members, cut))
        elif unnamed and merged and merged[-1][0] != _STEM:
            waiting += members
        elif unnamed:
            before = merged.pop()[1] if merged else []
            merged.append((_STEM, before + members, cut))
        elif merged and merged[-1][0] == key and not waiting:
            merged.append((key, merged.pop()[1] + members, cut))
        else:
            merged.append((key, waiting + members, cut))
            waiting = []
    if waiting:
        key, members, _ = merged.pop()
        merged.append((key, members + waiting, pieces[-1][2]))
    return merged


def _belongs_before(layers: Sequence[keras.layers.Layer]) -> bool:
    """Whether there is nothing but normalizations, whoever wrote them."""
    return all("Norm" in type(layer).__name__ for layer in layers)


def _merge_shared(found: list[Block]) -> list[Block]:
    """Merges blocks that share weights, with all between them."""
    merged: list[Block] = []
    for block in found:
        ids = {id(weight) for weight in block.weights}
        for index, earlier in enumerate(merged):
            if ids & {id(weight) for weight in earlier.weights}:
                run = [*merged[index:], block]
                layers = {id(x): x for b in run for x in b.layers}
                block = Block(
                    earlier.name, tuple(layers.values()), block.outputs
                )
                del merged[index:]
                break
        merged.append(block)
    return merged


def _weighted(
    steps: tuple[graph.Step, ...], members: Sequence[int] | frozenset[int]
) -> tuple[keras.layers.Layer, ...]:
    layers = {
        id(operation): operation
        for index in sorted(members)
        if getattr(operation := steps[index].operation, "weights", None)
    }
    return tuple(layers.values())


def _first_weighted(
    steps: tuple[graph.Step, ...], members: Sequence[int]
) -> str:
    layers = _weighted(steps, members)
    return layers[0].name if layers else ""
