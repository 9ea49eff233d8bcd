"""Low-rank adaptation: small new weights added to frozen pretrained ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import keras

from keras_transfer._utils.checks import is_integer, refuse
from keras_transfer.structure import graph, lora_layers
from keras_transfer.structure.depth import check_depth
from keras_transfer.structure.model_parts import parts_of
from keras_transfer.structure.trainable import set_trainable


def add_lora(
    model: keras.Model,
    rank: int = 8,
    *,
    depth: int | Literal["all"] = "all",
    names: str | Sequence[str] = lora_layers.ATTENTION_NAMES,
) -> tuple[str, ...]:
    """Adds low-rank adapters to the backbone of a model.

    A kernel `W` becomes `W + (alpha / r) A B` with `A` of `r` columns and
    `alpha = r`. `B` starts at zero, so the outputs of the model do not change.
    From then on `unfreeze` and `fine_tune` train, in the blocks that they
    unfreeze, only the adapters and the biases of the layers with adapters; the
    rest of the backbone stays frozen. In a saved model, `A B` is added to the
    kernels.

    Args:
        model: A model made by a builder, or any functional model.
        rank: Rank of the adapters, an integer above 0. Defaults to `8`.
        depth: Number of blocks that receive adapters, counted from the output.
            Defaults to `"all"`.
        names: Names of the layers that receive an adapter, or patterns for
            them, among Dense, EinsumDense, Embedding and Conv layers. Defaults
            to `lora_layers.ATTENTION_NAMES`: the projections of queries and
            values in attention, as Keras and KerasHub name them.

    Returns:
        Tuple of the paths of the variables in the backbone that are trainable
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
        refuse("rank", "an integer above 0", rank)
    blocks = parts_of(model).blocks
    num_opened = check_depth(model, depth, len(blocks), least=1)
    opened = blocks[len(blocks) - num_opened :]
    layers = [
        inner
        for block in opened
        for layer in block.layers
        for inner in graph.layers_below(layer)
    ]
    patterns = [names] if isinstance(names, str) else list(names)
    already = lora_layers.adapted_layers(layers)
    if not lora_layers.add_adapters(layers, int(rank), patterns):
        others = sorted({x.name for x in lora_layers.adaptable_layers(layers)})
        raise ValueError(
            "`names` must match layers of the backbone that can have an "
            f"adapter: {', '.join(others[:12]) or 'there are none'}"
            f"{', ...' if len(others) > 12 else ''}. Received: "
            f"names={tuple(patterns)}"
            + (", which have one already." if already else ".")
        )
    states = {id(x): b in opened for b in blocks for x in b.layers}
    set_trainable(model, states, made_trainable=True)
    model.compiled = False
    weights = {id(v) for block in blocks for v in block.weights}
    return tuple(v.path for v in model.trainable_variables if id(v) in weights)
