"""Blocks, cut points and depth: what of a backbone trains and what is frozen.

A *block* is what an engineer calls one: conv5_block3 of ResNet50, block_16 of
MobileNetV2, mixed10 of InceptionV3. Blocks are read off the graph, so they are
found as well in a reloaded file and in a network nobody has seen before.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Sequence
from typing import Literal, NamedTuple

import keras

from keras_transfer import _graph
from keras_transfer._errors import nearest

# How networks name their blocks. One convention a line; the first that matches
# the beginning of a layer's name gives the block's name.
_NAMING = re.compile(
    r"""
    ^(
        \w*?stage_?\d+_block_?\d+      # ConvNeXt, embedded ResNet20
      | conv\d+_block\d+               # ResNet, DenseNet
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


def blocks(model: keras.Model) -> tuple[Block, ...]:
    """Returns the blocks of the backbone of a model, input to output.

    Each weight lies in exactly one block, and what leaves a block is all that
    the later ones need. Layers before the first named block are the block
    `"stem"`; those between two belong to the later one, those after the last
    to the last.

    Args:
        model: A model made by `build_classifier` or `build_regressor`, or any
            functional or Sequential model, which is then taken whole.

    Returns:
        Tuple of `Block`.

    Raises:
        TypeError: If `model` has no graph to read.

    Example:

    >>> backbone = load_backbone("ResNet50", weights=None)
    >>> [block.name for block in blocks(backbone.model)][-1]
    'conv5_block3'
    """
    backbone = _backbone(model)
    graph = _graph.steps(backbone)
    grouped: list[tuple[str | None, list[int], _graph.Cut]] = []
    done: frozenset[int] = frozenset()
    for cut in _cuts(backbone):
        new = sorted(cut.steps - done)
        done = cut.steps
        grouped.append((_key([graph[i] for i in new], cut), new, cut))
    found = [
        Block(name or _first_weighted(graph, members), layers, cut.tensors)
        for name, members, cut in _merge(graph, grouped)
        if (layers := _weighted(graph, members))
    ]
    return tuple(_merge_shared(found))


def split(
    model: keras.Model, depth: int | Literal["all"]
) -> tuple[keras.Model, keras.Model]:
    """Cuts a model below its last `depth` blocks.

    Both halves share the model's own layers: training the second one trains
    the model. `suffix(prefix(images))` equals `model(images)`.

    Args:
        model: A model made by `build_classifier` or `build_regressor`, or any
            functional model.
        depth: Integer in `[0, num_blocks]`, or `"all"`. Blocks, counted from
            the output, that go to the suffix; `0` leaves it the head alone.

    Returns:
        Tuple `(prefix, suffix)`. The prefix maps images to the activations at
        the cut (a list where several tensors cross it), the suffix these to
        the model's output.

    Raises:
        ValueError: If `depth` is out of range, or there is nothing on one
            side of the cut.
        TypeError: If `model` has no graph to read.

    Example:

    >>> model = build_classifier("ResNet20", num_classes=3)
    >>> prefix, suffix = split(model, depth=1)
    >>> predictions = suffix(prefix(images))
    """
    found = blocks(model)
    depth = _check_depth(model, depth, len(found))
    backbone = _backbone(model)
    whole = backbone is model
    if whole and depth in (0, len(found)):
        raise ValueError(
            f"`depth` must be an integer in [1, {len(found) - 1}] for a model "
            f"without head and preprocessing. Received: depth={depth}"
        )
    entry = _single(_graph.tensors_in(backbone))
    if depth == len(found):
        cut = entry
    else:
        cut = _single(found[len(found) - depth - 1].outputs)
    images = keras.Input(model.input_shape[1:], name="image")
    x = images if whole else model.get_layer("preprocessing")(images)
    if depth < len(found):
        x = keras.Model(entry, cut)(x)
    prefix = keras.Model(images, x, name="prefix")
    # A new input for each tensor that crosses, as wide as it really is.
    crossing = _single(
        [
            keras.Input(t.shape[1:], dtype=t.dtype, name=f"activation_{i}")
            for i, t in enumerate(keras.tree.flatten(x))
        ]
    )
    x = crossing
    if depth:
        exit_ = _single(_graph.tensors_out(backbone))
        x = keras.Model(cut, exit_)(x)
    if not whole:
        x = model.get_layer("head")(x)
    return prefix, keras.Model(crossing, x, name="suffix")


def _single(
    tensors: Sequence[keras.KerasTensor],
) -> keras.KerasTensor | list[keras.KerasTensor]:
    return tensors[0] if len(tensors) == 1 else list(tensors)


def freeze(
    model: keras.Model, names: str | Sequence[str] = "*"
) -> tuple[str, ...]:
    """Freezes the backbone of a model, or some of its blocks.

    A frozen layer keeps its weights and, a BatchNormalization, its moving
    statistics, to the bit. Compile afterwards: a compiled model is set back,
    so that it cannot be trained on by mistake.

    Args:
        model: A model made by `build_classifier` or `build_regressor`, or any
            functional model.
        names: Names of blocks, or patterns for them such as `"conv2_*"`.
            Defaults to `"*"`.

    Returns:
        Tuple of the paths of the variables that were trainable and no longer
        are, input to output.

    Raises:
        ValueError: If a name matches no block.
        TypeError: If `model` has no graph to read.

    Example:

    >>> model = build_classifier("ResNet20", num_classes=3)
    >>> paths = unfreeze(model, depth=2)
    >>> freeze(model, "stage3_*") == paths
    True
    """
    found = blocks(model)
    patterns = [names] if isinstance(names, str) else list(names)
    chosen = []
    for pattern in patterns:
        matches = [b for b in found if fnmatch.fnmatchcase(b.name, pattern)]
        if not matches:
            known = [b.name for b in found]
            raise ValueError(
                f"`names` must match blocks of model {model.name!r}, which are "
                f"{', '.join(known)}. Received: {pattern!r}."
                f"{nearest(pattern, known)}"
            )
        chosen += matches
    states = {id(layer): False for b in chosen for layer in b.layers}
    return _set_trainable(model, states, made_trainable=False)


def unfreeze(
    model: keras.Model,
    depth: int | Literal["all"],
    *,
    train_batch_norm: bool = False,
) -> tuple[str, ...]:
    """Makes the last `depth` blocks of the backbone trainable.

    Earlier blocks keep their state. Compile afterwards, since Keras fixes the
    trainable set at `compile()`: a compiled model is set back, so that it
    cannot be trained on by mistake.

    Args:
        model: A model made by `build_classifier` or `build_regressor`, or any
            functional model.
        depth: Integer in `[0, num_blocks]`, or `"all"`. Blocks counted from
            the output; `0` changes nothing.
        train_batch_norm: Whether BatchNormalization layers train too. If so,
            they normalise by the batch and their moving statistics move, as in
            training from scratch; if not, they stay in inference mode, frozen
            to the bit, which small batches and small data need. Defaults to
            `False`.

    Returns:
        Tuple of the paths of the variables that became trainable, input to
        output.

    Raises:
        ValueError: If `depth` is out of range.
        TypeError: If `model` has no graph to read.

    Example:

    >>> model = build_classifier("ResNet20", num_classes=3)
    >>> unfreeze(model, depth=1)
    ('stage3_block3_1_conv/kernel', 'stage3_block3_2_conv/kernel')

    Reference:
        - Howard & Ruder, 2018, https://arxiv.org/abs/1801.06146
        - https://github.com/keras-team/keras/issues/20285 (why passing
          `training=False` does not protect BatchNormalization)
    """
    found = blocks(model)
    depth = _check_depth(model, depth, len(found))
    states = {
        id(layer): True
        for block in found[len(found) - depth :]
        for layer in block.layers
    }
    return _set_trainable(
        model, states, made_trainable=True, train_batch_norm=train_batch_norm
    )


def trainable_summary(model: keras.Model) -> str:
    """Returns a table of what is trainable in a model, block by block.

    Args:
        model: A model made by `build_classifier` or `build_regressor`, or any
            functional model.

    Returns:
        A string, one line a block: depth counted from the output, name,
        parameters, trainable parameters, state of the BatchNormalization
        layers.

    Raises:
        TypeError: If `model` has no graph to read.

    Example:

    >>> model = build_classifier("ResNet20", num_classes=3)
    >>> print(trainable_summary(model).splitlines()[-1])
           total               273,587             195
    """
    found = blocks(model)
    rows = [
        (str(len(found) - index), block.name, block.layers)
        for index, block in enumerate(found)
    ]
    if _backbone(model) is not model:
        rows.append(("", "head", (model.get_layer("head"),)))
    width = max(len(name) for _, name, _ in rows)
    lines = [
        f"{'depth':>5}  {'block':<{width}}  {'parameters':>12}  "
        f"{'trainable':>12}  batch norm"
    ]
    total = trained = 0
    for depth, name, layers in rows:
        count = sum(layer.count_params() for layer in layers)
        trainable = _count(layers)
        total, trained = total + count, trained + trainable
        lines.append(
            f"{depth:>5}  {name:<{width}}  {count:>12,}  {trainable:>12,}  "
            f"{_batch_norm_state(layers)}"
        )
    lines.append(f"{'':>5}  {'total':<{width}}  {total:>12,}  {trained:>12,}")
    return "\n".join(lines)


def _backbone(model: keras.Model) -> keras.Model:
    if not _graph.is_functional(model):
        raise TypeError(
            "`model` must be a functional or built Sequential model, since "
            "blocks are read off its graph. Received: a "
            f"{type(model).__name__}."
        )
    for layer in model.layers:
        if layer.name == "backbone" and _graph.is_functional(layer):
            return layer
    return model


def _check_depth(
    model: keras.Model, depth: int | Literal["all"], num_blocks: int
) -> int:
    if depth == "all":
        return num_blocks
    is_integer = isinstance(depth, int) and not isinstance(depth, bool)
    if is_integer and 0 <= depth <= num_blocks:
        return depth
    raise ValueError(
        f'`depth` must be an integer in [0, {num_blocks}] or "all" for '
        f"model {model.name!r} ({num_blocks} blocks). Received: "
        f"depth={depth!r}"
    )


def _cuts(backbone: keras.Model) -> tuple[_graph.Cut, ...]:
    """The chain of cuts, input to output.

    Single tensors where possible. Where they leave more than half of the
    weighted layers in one piece (NASNet, whose cells read the last two), that
    piece is cut again where two tensors cross, at the joins of branches.
    """
    graph = _graph.steps(backbone)
    single = _graph.cuts(backbone, max_width=1)
    total = len(_weighted(graph, range(len(graph))))
    chain: list[_graph.Cut] = []
    done: frozenset[int] = frozenset()
    for cut in single:
        piece = cut.steps - done
        if 2 * len(_weighted(graph, piece)) > total > 2:
            chain += _joins(backbone, cut, piece, done)
        chain.append(cut)
        done = cut.steps
    return tuple(chain)


def _joins(
    backbone: keras.Model,
    end: _graph.Cut,
    piece: frozenset[int],
    done: frozenset[int],
) -> list[_graph.Cut]:
    graph = _graph.steps(backbone)
    joins = frozenset(i for i in piece if len(graph[i].inputs) > 1)
    chain: list[_graph.Cut] = []
    upper = end.steps
    for cut in reversed(_graph.cuts(backbone, max_width=2, within=joins)):
        # A chain: each first half within the next one's.
        if done < cut.steps < upper:
            chain.insert(0, cut)
            upper = cut.steps
    return chain


def _key(members: Sequence[_graph.Step], cut: _graph.Cut) -> str | None:
    """The block that the layers of a piece say they belong to, if any."""
    weighted = [s for s in members if getattr(s.operation, "weights", None)]
    names = [cut.name, *(step.operation.name for step in weighted)]
    for name in names:
        match = _NAMING.match(name)
        if match:
            number = match["number"]
            return f"conv_{number}" if number else match[0]
    return None


_Group = tuple[str | None, list[int], _graph.Cut]


def _merge(
    graph: tuple[_graph.Step, ...], pieces: list[_Group]
) -> list[_Group]:
    """Merges neighbouring pieces into blocks."""
    if not any(key for key, _, _ in pieces):
        # Nobody named blocks: each piece with weights is one, and takes along
        # the activations and poolings that follow it.
        merged: list[_Group] = []
        for key, members, cut in pieces:
            if merged and not _weighted(graph, members):
                key, before, _ = merged.pop()
                members = before + members
            merged.append((key, members, cut))
        return merged
    merged = []
    waiting: list[int] = []  # pieces without a name, which join the next block
    for key, members, cut in pieces:
        unnamed = key is None
        if unnamed and merged and not _weighted(graph, members):
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


def _merge_shared(found: list[Block]) -> list[Block]:
    """Merges blocks that share a layer, with all between them."""
    merged: list[Block] = []
    for block in found:
        ids = {id(layer) for layer in block.layers}
        for index, earlier in enumerate(merged):
            if ids & {id(layer) for layer in earlier.layers}:
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
    graph: tuple[_graph.Step, ...], members: Sequence[int] | frozenset[int]
) -> tuple[keras.layers.Layer, ...]:
    layers = {
        id(operation): operation
        for index in sorted(members)
        if getattr(operation := graph[index].operation, "weights", None)
    }
    return tuple(layers.values())


def _first_weighted(
    graph: tuple[_graph.Step, ...], members: Sequence[int]
) -> str:
    layers = _weighted(graph, members)
    return layers[0].name if layers else ""


def _set_trainable(
    model: keras.Model,
    states: dict[int, bool],
    *,
    made_trainable: bool,
    train_batch_norm: bool = True,
) -> tuple[str, ...]:
    before = {id(v) for v in model.trainable_variables}
    backbone = _backbone(model)
    _open(model, backbone)
    layers = [step.operation for step in _graph.steps(backbone)]
    for layer in layers:
        if id(layer) not in states:
            continue
        layer.trainable = states[id(layer)]
        if not train_batch_norm:
            for part in _graph.layers_below(layer):
                if isinstance(part, keras.layers.BatchNormalization):
                    part.trainable = False
    after = model.trainable_variables
    if made_trainable:
        changed = [v for v in after if id(v) not in before]
    else:
        ids = {id(v) for v in after}
        changed = [
            v for v in model.variables if id(v) in before and id(v) not in ids
        ]
    if changed:
        # Keras would go on with the trainable set of the last `compile()`, in
        # silence; now it asks for a new one.
        model.compiled = False
    return tuple(v.path for v in changed)


def _open(model: keras.Model, backbone: keras.Model) -> None:
    """Makes the containers trainable and leaves all in them as it was.

    Keras hides the variables of a closed container, and passes `trainable` of
    a container on to everything inside.
    """
    if model.trainable and backbone.trainable:
        return
    states = [
        (part, model.trainable and child.trainable and part.trainable)
        for child in model.layers
        for part in _graph.layers_below(child)
        if part is not backbone
    ]
    model.trainable = True
    for part, state in states:
        part.trainable = state


def _count(layers: Sequence[keras.layers.Layer]) -> int:
    return sum(
        int(variable.value.shape.num_elements())
        for layer in layers
        for variable in layer.trainable_variables
    )


def _batch_norm_state(layers: Sequence[keras.layers.Layer]) -> str:
    states = {
        "training" if part.trainable else "frozen"
        for layer in layers
        for part in _graph.layers_below(layer)
        if isinstance(part, keras.layers.BatchNormalization)
    }
    return " and ".join(sorted(states)) or "none"
