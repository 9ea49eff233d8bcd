"""Low-rank adaptation: small new weights beside frozen pretrained ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import keras

from keras_transfer._utils.checks import is_integer
from keras_transfer.structure import adapters, graph
from keras_transfer.structure.blocks import backbone_of, find_blocks
from keras_transfer.structure.trainable import set_trainable


def add_lora(
    model: keras.Model,
    rank: int = 8,
    *,
    depth: int | Literal["all"] = "all",
    names: str | Sequence[str] = adapters.NAMES,
) -> tuple[str, ...]:
    """Puts low-rank adapters into the backbone of a model.

    A kernel `W` becomes `W + (alpha / r) A B` with `A` of `r` columns and
    `alpha = r`. `B` begins at zero: the model computes what it did. From then
    on `unfreeze` and `fine_tune` open only the layers with adapters, in the
    blocks that they open, and in these the adapters and the biases; all else
    of the backbone stays as it is. A saved model has `A B` added to its
    kernels.

    Args:
        model: A model made by a builder, or any functional model.
        rank: Integer above 0. Defaults to `8`.
        depth: How many blocks get adapters, counted from the output. Defaults
            to `"all"`.
        names: Names of the layers that get one, or patterns for them, among
            Dense, EinsumDense, Embedding and Conv layers. Defaults to
            `adapters.NAMES`: queries and values of attention, under the names
            that Keras and KerasHub give them.

    Returns:
        Tuple of the paths of the variables that are trainable in the backbone
        now. Compile afterwards.

    Raises:
        ValueError: If an argument is out of range, or no layer has one of the
            names: the backbone of a CNN has no attention.
        TypeError: If `model` has no graph to read.

    Example:

    >>> model = build_classifier("ResNet20", num_classes=3)
    >>> paths = add_lora(model, rank=2, depth=1, names="*_conv")
    >>> [path.rpartition("/")[2] for path in paths[:2]]
    ['lora_kernel_a', 'lora_kernel_b']

    Reference:
        - Hu et al., 2021, https://arxiv.org/abs/2106.09685
    """
    if not is_integer(rank) or rank < 1:
        raise ValueError(
            f"`rank` must be an integer above 0. Received: rank={rank!r}"
        )
    found = find_blocks(backbone_of(model))
    if depth != "all" and not (is_integer(depth) and 0 < depth <= len(found)):
        raise ValueError(
            f'`depth` must be an integer in [1, {len(found)}] or "all". '
            f"Received: depth={depth!r}"
        )
    opened = found if depth == "all" else found[len(found) - depth :]
    parts = [
        part
        for block in opened
        for layer in block.layers
        for part in graph.layers_below(layer)
    ]
    patterns = [names] if isinstance(names, str) else list(names)
    already = adapters.adapted(parts)
    if not adapters.enable(parts, int(rank), patterns):
        others = sorted({layer.name for layer in adapters.able(parts)})
        raise ValueError(
            "`names` must match layers of the backbone that can have an "
            f"adapter: {', '.join(others[:12]) or 'there are none'}"
            f"{', ...' if len(others) > 12 else ''}. Received: "
            f"names={tuple(patterns)}"
            + (", which have one already." if already else ".")
        )
    states = {id(x): b in opened for b in found for x in b.layers}
    set_trainable(model, states, made_trainable=True)
    model.compiled = False
    below = {id(v) for block in found for v in block.weights}
    return tuple(v.path for v in model.trainable_variables if id(v) in below)
