"""Multipliers of the learning rate for the blocks of a model."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterator, Mapping

import keras

from keras_transfer._utils.checks import (
    check_multiplier,
    check_multipliers,
    did_you_mean,
)
from keras_transfer.structure import graph
from keras_transfer.structure.blocks import backbone_of, find_blocks

_HEAD = "head"


def layer_decay(
    model: keras.Model, decay: float, *, head: float = 1.0
) -> dict[str, float]:
    """Returns multipliers that fall from block to block, output to input.

    `multiplier = decay^k`, where `k` counts groups below the head: 1 for the
    last block, 2 for the one before. This is BEiT's count; ELECTRA's code
    gives the last block `k = 0`, like the head.

    Args:
        model: A model made by `build_classifier` or `build_regressor`, or any
            functional model. In a model without a layer `head`, the last
            block, which makes the outputs, takes the place of the head.
        decay: Factor in `(0, 1]` from one block to the next; 0.65 to 0.9 are
            usual, and ULMFiT's is 1 / 2.6.
        head: Multiplier of the head, at least 0. Defaults to `1.0`.

    Returns:
        Dictionary from `variable.path` to multiplier, input to output, over
        all weights that can train, frozen now or not. Weights of the
        preprocessing never train.

    Raises:
        TypeError: If `model` has no graph to read.
        ValueError: If `decay` or `head` is out of range, or `model` has
            several inputs, or one path for weights of different groups.

    Example:

    >>> model = build_classifier("ResNet20", num_classes=3)
    >>> multipliers = layer_decay(model, 0.5)
    >>> multipliers["stage3_block2_1_conv/kernel"]
    0.25

    Reference:
        - Bao et al., 2021, https://arxiv.org/abs/2106.08254
        - Howard & Ruder, 2018, https://arxiv.org/abs/1801.06146
    """
    if not 0 < decay <= 1:
        raise ValueError(
            f"`decay` must be a factor in (0, 1]. Received: decay={decay!r}"
        )
    check_multiplier("head", head)
    groups = _groups(model)
    last = len(groups) - 1
    return _by_path(
        (layers, decay ** (last - index) if index < last else head)
        for index, (_, layers) in enumerate(groups)
    )


def block_multipliers(
    model: keras.Model,
    multipliers: Mapping[str, float],
    *,
    default: float = 1.0,
) -> dict[str, float]:
    """Returns multipliers set by the names of blocks.

    Args:
        model: A model made by `build_classifier` or `build_regressor`, or any
            functional model.
        multipliers: Mapping from block names, patterns for them such as
            `"conv2_*"`, or `"head"`, to floats of at least 0. Patterns match
            blocks and never the head. Where several match, the last one wins.
        default: Multiplier of the blocks that no key matches. Defaults to
            `1.0`.

    Returns:
        Dictionary from `variable.path` to multiplier, input to output, over
        all weights that can train, frozen now or not. Weights of the
        preprocessing never train.

    Raises:
        TypeError: If `multipliers` is not a mapping, or `model` has no graph to
            read.
        ValueError: If a key matches nothing or a multiplier is negative, or
            `model` has several inputs, or one path for weights of different
            groups.

    Example:

    >>> model = build_classifier("ResNet20", num_classes=3)
    >>> multipliers = block_multipliers(model, {"*": 0.1, "stage3_*": 0.5})
    >>> multipliers["stem_conv/kernel"]
    0.1
    """
    multipliers = check_multipliers(multipliers)
    check_multiplier("default", default)
    groups = _groups(model)
    has_head = backbone_of(model) is not model
    block_names = [name for name, _ in groups[: -1 if has_head else None]]
    values = [default] * len(groups)
    for key, value in multipliers.items():
        matches = [
            index
            for index, name in enumerate(block_names)
            if fnmatch.fnmatchcase(name, key)
        ]
        if has_head and key == _HEAD:
            matches.append(len(groups) - 1)
        if not matches:
            known = [name for name, _ in groups]
            raise ValueError(
                f"`multipliers` must name parts of model {model.name!r}, which "
                f"are {', '.join(known)}. Received: {key!r}."
                f"{did_you_mean(key, known)}"
            )
        for index in matches:
            values[index] = value
    return _by_path(
        (layers, value)
        for (_, layers), value in zip(groups, values, strict=True)
    )


def multiplier_of(
    variable: keras.Variable, multipliers: Mapping[str, float] | None
) -> float:
    """Returns the multiplier of a variable, 1 for `None` for all of them.

    Raises:
        ValueError: If `multipliers` lack the variable.
    """
    if multipliers is None:
        return 1.0
    if variable.path not in multipliers:
        raise ValueError(
            "`multipliers` must hold the path of every variable that "
            f"trains, and lack {variable.path!r}."
            f"{did_you_mean(variable.path, multipliers)} Make them "
            "from the model that is trained, with `layer_decay` or "
            "`block_multipliers`."
        )
    return multipliers[variable.path]


_Layers = tuple[keras.layers.Layer, ...]


def _groups(model: keras.Model) -> list[tuple[str, _Layers]]:
    """Returns the blocks, and the head if there is one, input to output."""
    backbone = backbone_of(model)
    groups = [(block.name, block.layers) for block in find_blocks(backbone)]
    if backbone is not model:
        groups.append((_HEAD, (model.get_layer(_HEAD),)))
    return groups


def _by_path(groups: Iterator[tuple[_Layers, float]]) -> dict[str, float]:
    by_path: dict[str, float] = {}
    for layers, multiplier in groups:
        for layer in layers:
            for part in graph.layers_below(layer):
                # The public property is empty while the layer is frozen.
                for variable in part._trainable_variables:
                    if by_path.setdefault(variable.path, multiplier) != (
                        multiplier
                    ):
                        raise ValueError(
                            "Weights of different groups must have different "
                            f"paths. Received: two with {variable.path!r}. "
                            "Give the layers of the model other names."
                        )
    return by_path
