"""Blocks and depth: freezing, unfreezing and splitting a backbone.

A *block* is the unit of an architecture: conv5_block3 of ResNet50, block_16 of
MobileNetV2, mixed10 of InceptionV3. Blocks are read from the graph, so they are
also found in a model loaded from a file and in an unknown architecture.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import keras

from keras_transfer._utils.checks import is_integer, refuse
from keras_transfer.structure import graph
from keras_transfer.structure.blocks import Block
from keras_transfer.structure.model_parts import parts_of
from keras_transfer.structure.trainable import (
    backbone_is_closed,
    match_blocks,
    remember_frozen,
    set_trainable,
)


def blocks(model: keras.Model) -> tuple[Block, ...]:
    """Returns the blocks of the backbone of a model, input to output.

    Each weight lies in exactly one block, and the outputs of a block are all
    that later blocks need. Layers before the first named block form the block
    `"stem"`; layers between two blocks belong to the later one, and layers
    after the last block to the last.

    Args:
        model: A model made by `build_classifier` or `build_regressor`, or any
            functional or Sequential model, which is then read as a whole. A
            nested model counts as one layer; `load_backbone` takes it apart.

    Returns:
        Tuple of `Block`.

    Raises:
        TypeError: If `model` has no graph to read.
        ValueError: If `model` has several inputs.

    Example:

    >>> backbone = load_backbone("ResNet50", weights=None)
    >>> [block.name for block in blocks(backbone.model)][-1]
    'conv5_block3'
    """
    return parts_of(model).blocks


def split(
    model: keras.Model, depth: int | Literal["all"], *, pooled: bool = False
) -> tuple[keras.Model, keras.Model]:
    """Cuts a model below its last `depth` blocks.

    Both halves share the model's own layers: training the second one trains
    the model. `suffix(prefix(images))` equals `model(images)`.

    Args:
        model: A model made by `build_classifier` or `build_regressor`, or any
            functional model.
        depth: Integer in `[0, num_blocks]`, or `"all"`. Blocks, counted from
            the output, that go to the suffix; `0` leaves only the head.
        pooled: Whether, with `depth=0`, the pooling of the head goes to the
            prefix, so that a vector crosses instead of a feature map. Defaults
            to `False`.

    Returns:
        Tuple `(prefix, suffix)`, not compiled. Unfreeze first, then split; a
        suffix that was compiled before the trainable set changed must be
        compiled again. The prefix maps images to the activations at the cut (a
        list where several tensors cross it), and the suffix maps these to the
        model's output.

    Raises:
        ValueError: If `depth` is out of range, or there is nothing on one
            side of the cut; or if `pooled` and there is no pooling at it.
        TypeError: If `model` has no graph to read.

    Example:

    >>> model = build_classifier("ResNet20", num_classes=3)
    >>> prefix, suffix = split(model, depth=1)
    >>> predictions = suffix(prefix(images))
    """
    parts = parts_of(model)
    all_blocks, backbone = parts.blocks, parts.backbone
    depth = check_depth(model, depth, len(all_blocks))
    whole = parts.head is None
    if whole and depth in (0, len(all_blocks)):
        raise ValueError(
            f"`depth` must be an integer in [1, {len(all_blocks) - 1}] for a "
            f"model without head and preprocessing. Received: depth={depth}."
        )
    pooling = parts.pooling if pooled else None
    if pooled and (depth or pooling is None):
        raise ValueError(
            "`pooled` must be False unless `depth` is 0 and the head begins "
            f"with pooling. Received: pooled=True, depth={depth}, model "
            f"{model.name!r}."
        )
    entry = graph.single(graph.tensors_in(backbone))
    if depth == len(all_blocks):
        cut = entry
    else:
        cut = graph.single(all_blocks[len(all_blocks) - depth - 1].outputs)
    (model_input,) = graph.tensors_in(model)
    images = graph.input_like(model_input, model_input.name)
    x = images
    if parts.preprocessing is not None:
        x = graph.view(parts.preprocessing)(images)
    if depth < len(all_blocks):
        x = _call_below(entry, cut, x)
    head = None if parts.head is None else graph.view(parts.head)
    if pooling is not None:
        x = keras.Model(graph.single(graph.tensors_in(head)), pooling)(x)
        head = keras.Model(pooling, graph.single(graph.tensors_out(head)))
    prefix = keras.Model(images, x, name="prefix")
    # A new input for each tensor that crosses the cut, of its actual shape.
    crossing = graph.single(
        [
            graph.input_like(t, f"activation_{i}")
            for i, t in enumerate(keras.tree.flatten(x))
        ]
    )
    x = crossing
    if depth:
        exit_ = graph.single(graph.tensors_out(backbone))
        x = keras.Model(cut, exit_)(x)
    if head is not None:
        x = head(x)
    return prefix, keras.Model(crossing, x, name="suffix")


def _call_below(entry: Any, cut: Any, x: keras.KerasTensor) -> Any:
    """Calls the layers between a model's input and a cut on `x`."""
    tensors = keras.tree.flatten(cut)
    reached = [tensor for tensor in tensors if tensor is not entry]
    outputs = iter(keras.tree.flatten(keras.Model(entry, reached)(x)))
    # Later blocks may also read the input of the first one. An output must not
    # be the same tensor as the input.
    return graph.single(
        [
            keras.layers.Identity()(x) if tensor is entry else next(outputs)
            for tensor in tensors
        ]
    )


def freeze(
    model: keras.Model, names: str | Sequence[str] = "*"
) -> tuple[str, ...]:
    """Freezes the backbone of a model, or some of its blocks.

    The weights of a frozen layer stay bit-identical, and so do the moving
    statistics of a BatchNormalization layer. Compile afterwards: a compiled
    model loses its compiled state, so that it cannot be trained by mistake.

    Args:
        model: A model made by `build_classifier` or `build_regressor`, or any
            functional model.
        names: Names of blocks, or patterns for them such as `"conv2_*"`.
            Defaults to `"*"`.

    Returns:
        Tuple of the paths of the variables that were trainable and no longer
        are, input to output.

    Raises:
        ValueError: If a name matches no block, or `model` has several inputs.
        TypeError: If `names` holds anything but strings, or `model` has no
            graph to read.

    Example:

    >>> model = build_classifier("ResNet20", num_classes=3)
    >>> paths = unfreeze(model, depth=2)
    >>> freeze(model, "stage3_*") == paths
    True
    """
    all_blocks = blocks(model)
    patterns = [names] if isinstance(names, str) else names
    if not isinstance(patterns, Sequence) or not all(
        isinstance(pattern, str) for pattern in patterns
    ):
        raise TypeError(
            "`names` must be names of blocks or patterns for them. Received: "
            f"names={names!r:.100}. To count blocks, use `unfreeze(model, "
            "depth)`."
        )
    chosen = match_blocks(all_blocks, patterns)
    states = {id(layer): False for b in chosen for layer in b.layers}
    _remember_closed(model, all_blocks)
    changed = set_trainable(model, states, made_trainable=False)
    remember_frozen(chosen, True)
    return changed


def unfreeze(
    model: keras.Model,
    depth: int | Literal["all"],
    *,
    train_batch_norm: bool = False,
) -> tuple[str, ...]:
    """Makes the last `depth` blocks of the backbone trainable.

    Earlier blocks keep their state. Compile afterwards: a compiled model loses
    its compiled state, so that it cannot be trained with an outdated set of
    trainable variables.

    Args:
        model: A model made by `build_classifier` or `build_regressor`, or any
            functional model.
        depth: Integer in `[0, num_blocks]`, or `"all"`. Blocks counted from
            the output; `0` changes nothing.
        train_batch_norm: Whether BatchNormalization layers train too. If so,
            they normalise by the batch and update their moving statistics, as
            in training from scratch; if not, they stay in inference mode and
            bit-identical, which small batches and small data sets need.
            Defaults to `False`.

    Returns:
        Tuple of the paths of the variables that became trainable, input to
        output.

    Raises:
        ValueError: If `depth` is out of range, or `model` has several inputs.
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
    all_blocks = blocks(model)
    weighted = [block for block in all_blocks if block.layers]
    depth = check_depth(model, depth, len(weighted))
    opened = all_blocks[len(all_blocks) - depth :]
    states = {id(layer): True for block in opened for layer in block.layers}
    _remember_closed(model, all_blocks)
    remember_frozen(opened, False)
    return set_trainable(
        model, states, made_trainable=True, train_batch_norm=train_batch_norm
    )


def _remember_closed(model: keras.Model, all_blocks: Sequence[Block]) -> None:
    """Marks the layers of a backbone that the user closed as a whole.

    What follows opens the backbone, but not the layers within.
    """
    if parts_of(model).head is not None and backbone_is_closed(model):
        remember_frozen(all_blocks, True)


def trainable_summary(model: keras.Model) -> str:
    """Returns a table of the trainable parameters of a model, by block.

    Args:
        model: A model made by `build_classifier` or `build_regressor`, or any
            functional model.

    Returns:
        A string with one line per block: depth counted from the output, name,
        number of parameters, number of trainable parameters, and state of the
        BatchNormalization layers.

    Raises:
        TypeError: If `model` has no graph to read.
        ValueError: If `model` has several inputs.

    Example:

    >>> model = build_classifier("ResNet20", num_classes=3)
    >>> print(trainable_summary(model).splitlines()[-1])
           total               273,587             195
    """
    all_blocks = blocks(model)
    rows = [
        (str(len(all_blocks) - index), block.name, block.layers)
        for index, block in enumerate(all_blocks)
    ]
    head = parts_of(model).head
    if head is not None:
        rows.append(("", "head", (head,)))
    width = max(len(name) for _, name, _ in rows)
    lines = [
        f"{'depth':>5}  {'block':<{width}}  {'parameters':>12}  "
        f"{'trainable':>12}  batch norm"
    ]
    total = trained = 0
    for depth, name, layers in rows:
        count = sum(layer.count_params() for layer in layers)
        trainable = _count_trainable(layers)
        total, trained = total + count, trained + trainable
        lines.append(
            f"{depth:>5}  {name:<{width}}  {count:>12,}  {trainable:>12,}  "
            f"{_batch_norm_state(layers)}"
        )
    lines.append(f"{'':>5}  {'total':<{width}}  {total:>12,}  {trained:>12,}")
    return "\n".join(lines)


def check_depth(
    model: keras.Model,
    depth: int | Literal["all"],
    num_blocks: int,
    least: int = 0,
) -> int:
    """Returns the number of blocks that `depth` means; raises out of range."""
    if depth == "all":
        return num_blocks
    if is_integer(depth) and least <= depth <= num_blocks:
        return int(depth)
    refuse(
        "depth",
        f'an integer in [{least}, {num_blocks}] or "all" for model '
        f"{model.name!r} ({num_blocks} blocks)",
        depth,
    )


def _count_trainable(layers: Sequence[keras.layers.Layer]) -> int:
    return sum(
        int(variable.value.shape.num_elements())
        for layer in layers
        for variable in layer.trainable_variables
    )


def _batch_norm_state(layers: Sequence[keras.layers.Layer]) -> str:
    states = {
        "training" if part.trainable else "frozen"
        for layer in layers
        for part in graph.layers_below(layer)
        if isinstance(part, keras.layers.BatchNormalization)
    }
    return " and ".join(sorted(states)) or "none"
