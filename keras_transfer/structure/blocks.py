"""Blocks of a network, found in its graph."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

import keras

from keras_transfer.structure import graph

# Naming conventions of blocks, one per line. The first that matches the
# beginning of a layer's name gives the name of the block.
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

# Largest number of tensors that may cross a cut.
_MAX_WIDTH = 4


class Block(NamedTuple):
    """A run of layers between two cut points of a backbone.

    Attributes:
        name: Name of the block, taken from the names of its layers, such as
            `"conv5_block3"`.
        layers: The layers with weights, input to output. Empty for the only
            block of a network without weights.
        outputs: The symbolic tensors that leave the block: one, or several
            where later blocks also read earlier tensors (NASNet).
    """

    name: str
    layers: tuple[keras.layers.Layer, ...]
    outputs: tuple[keras.KerasTensor, ...]

    @property
    def weights(self) -> tuple[keras.Variable, ...]:
        """The variables of all layers, each once."""
        return tuple(w for layer in self.layers for w in layer.weights)


# Name of a block if its layers tell it, indices of its steps, and the cut
# behind it.
_Piece = tuple[str | None, list[int], graph.GraphCut]


def find_blocks(network: keras.Model) -> tuple[Block, ...]:
    """Returns the blocks of a network with one input, input to output."""
    steps = graph.steps(network)
    pieces: list[_Piece] = []
    done: frozenset[int] = frozenset()
    for cut in _chain_of_cuts(network):
        new = sorted(cut.steps - done)
        done = cut.steps
        pieces.append((_block_name([steps[i] for i in new], cut), new, cut))
    blocks = [
        Block(name or _first_weighted(steps, members), layers, cut.tensors)
        for name, members, cut in _merge_pieces(steps, pieces)
        if (layers := _weighted(steps, members))
    ]
    if not blocks:
        # Nothing can train. It is one block, so that there is a place above it.
        last = steps[-1].operation.name
        return (Block(last, (), graph.tensors_out(network)),)
    return tuple(_merge_shared(blocks))


def _chain_of_cuts(backbone: keras.Model) -> tuple[graph.GraphCut, ...]:
    """Returns the cuts between which blocks lie, input to output.

    A cut crosses a single tensor where possible. If that leaves more than half
    of the weighted layers in one piece, the piece is cut again where branches
    join and at layers that are blocks themselves, with as few tensors as
    possible: two in NASNet, whose cells read the last two outputs, and in BERT,
    whose blocks all read the mask; three in DINOv3, whose blocks all read sines
    and cosines of the positions, and in DeBERTa.
    """
    steps = graph.steps(backbone)
    single = graph.cuts(backbone, max_width=1)
    total = len(_weighted(steps, range(len(steps))))
    chain: list[graph.GraphCut] = []
    done: frozenset[int] = frozenset()
    for cut in single:
        piece = cut.steps - done
        if 2 * len(_weighted(steps, piece)) > total > 2:
            chain += _cuts_within(backbone, cut, piece, done)
        chain.append(cut)
        done = cut.steps
    return tuple(chain)


def _cuts_within(
    backbone: keras.Model,
    end: graph.GraphCut,
    piece: frozenset[int],
    done: frozenset[int],
) -> list[graph.GraphCut]:
    """Returns cuts of several tensors within a piece that ends at `end`."""
    steps = graph.steps(backbone)
    candidates = frozenset(
        i for i in piece if len(steps[i].inputs) > 1 or _is_block(steps[i])
    )
    has_block_layers = any(_is_block(steps[i]) for i in piece)
    best: tuple[int, list[graph.GraphCut]] = (0, [])
    for width in range(2, _MAX_WIDTH + 1):
        chain: list[graph.GraphCut] = []
        upper = end.steps
        for cut in reversed(graph.cuts(backbone, width, candidates)):
            # In a chain, each first half lies within the next one.
            if done < cut.steps < upper:
                chain.insert(0, cut)
                upper = cut.steps
        chain = _with_stem(backbone, chain, width, done)
        num_pieces = sum(
            bool(_weighted(steps, one.steps - other))
            for one, other in zip(
                chain, [done, *(cut.steps for cut in chain)], strict=False
            )
        )
        # Prefer fewer tensors, unless a wider cut doubles the pieces.
        if num_pieces >= 2 * best[0] > 0 or not best[0]:
            best = (num_pieces, chain)
        if best[1] and not has_block_layers:
            break
    return best[1]


def _is_block(step: graph.Step) -> bool:
    """Tells whether a step is a composite layer, as in transformers."""
    layers = list(graph.layers_below(step.operation))
    return len([layer for layer in layers if layer.weights]) > 2


def _with_stem(
    backbone: keras.Model,
    chain: list[graph.GraphCut],
    width: int,
    done: frozenset[int],
) -> list[graph.GraphCut]:
    """Adds a cut before the first block layer, if there is none.

    The layers below it are embeddings, and not part of the first block.
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


def _block_name(
    members: Sequence[graph.Step], cut: graph.GraphCut
) -> str | None:
    """Returns the block that the layers of a piece are named after, if any."""
    weighted = [s for s in members if getattr(s.operation, "weights", None)]
    names = [cut.name, *(step.operation.name for step in weighted)]
    for name in names:
        match = _NAMING.match(name)
        if match:
            number = match["number"]
            return f"conv_{number}" if number else match[0]
    return None


def _merge_pieces(
    steps: tuple[graph.Step, ...], pieces: list[_Piece]
) -> list[_Piece]:
    """Merges neighbouring pieces into blocks."""
    if not any(name for name, _, _ in pieces):
        return _merge_unnamed(steps, pieces)
    merged: list[_Piece] = []
    waiting: list[int] = []  # pieces without a name, which join the next block
    for name, members, cut in pieces:
        unnamed = name is None
        if unnamed and merged and not _weighted(steps, members):
            # An activation or pooling belongs to the layers before it, so
            # that a smaller tensor crosses the cut.
            if waiting:
                waiting += members
                continue
            name, before, _ = merged.pop()
            merged.append((name, before + members, cut))
        elif unnamed and merged and merged[-1][0] != _STEM:
            waiting += members
        elif unnamed:
            before = merged.pop()[1] if merged else []
            merged.append((_STEM, before + members, cut))
        elif merged and merged[-1][0] == name and not waiting:
            merged.append((name, merged.pop()[1] + members, cut))
        else:
            merged.append((name, waiting + members, cut))
            waiting = []
    if waiting:
        name, members, _ = merged.pop()
        merged.append((name, members + waiting, pieces[-1][2]))
    return merged


def _merge_unnamed(
    steps: tuple[graph.Step, ...], pieces: list[_Piece]
) -> list[_Piece]:
    """Makes a block of each weighted piece if no layer names a block.

    Normalizations, activations and poolings join the piece before them.
    """
    merged: list[_Piece] = []
    for name, members, cut in pieces:
        if merged and _only_normalizes(_weighted(steps, members)):
            name, before, _ = merged.pop()
            members = before + members
        merged.append((name, members, cut))
    return merged


def _only_normalizes(layers: Sequence[keras.layers.Layer]) -> bool:
    """Tells whether all layers are normalizations, also user-defined ones."""
    return all("Norm" in type(layer).__name__ for layer in layers)


def _merge_shared(blocks: list[Block]) -> list[Block]:
    """Merges blocks that share weights, and the blocks between them."""
    merged: list[Block] = []
    for block in blocks:
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
