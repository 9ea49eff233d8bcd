"""Backbones, cut at the blocks whose outputs are wanted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import keras

from keras_transfer._utils.checks import did_you_mean
from keras_transfer.backbones import (
    Backbone,
    load_backbone,
    load_text_backbone,
    tokens,
)
from keras_transfer.caching.compiled import Compute
from keras_transfer.caching.engines import choose_engine
from keras_transfer.structure import graph
from keras_transfer.structure.blocks import Block, find_blocks, has_children
from keras_transfer.structure.trainable import match_blocks

if TYPE_CHECKING:
    import tensorflow as tf


BackboneLike: TypeAlias = str | Path | Backbone | keras.Model


class Loaded(NamedTuple):
    """A backbone, wherever it comes from."""

    name: str
    preprocessing: keras.Model
    model: keras.Model

    @property
    def input_shape(self) -> tuple[int | None, ...]:
        """`(height, width, channels)`, `None` where free; `()` of texts."""
        return tuple(self.preprocessing.input_shape[1:])

    @property
    def takes_texts(self) -> bool:
        """Whether texts go in."""
        return graph.takes_texts(self.preprocessing)


class Outputs(NamedTuple):
    """A backbone and what is wanted of it."""

    name: str
    engine: str
    compute: Compute  # from pixels to all outputs, for all splits
    targets: tuple[keras.Model, ...]  # from pixels to each
    blocks: tuple[str, ...]


def load(backbone: BackboneLike, shape: tuple[int, ...]) -> Loaded:
    """Returns a backbone for examples of a shape.

    Args:
        backbone: A name, a file, what `load_backbone` returned, or a model
            made by a builder.
        shape: `(height, width, channels)` of the examples.

    Returns:
        `Loaded`.

    Raises:
        ValueError: If the examples do not fit it.
        TypeError: If it is something else.
    """
    if isinstance(backbone, keras.Model):
        if not has_children(backbone):
            raise TypeError(
                "`backbones` must be names, what `load_backbone` returned, or "
                "models made by a builder. Received: another model. Wrap it: "
                '`load_backbone(model, pixel_range="[0, 255]")`.'
            )
        loaded = _of_model(backbone)
    elif isinstance(backbone, Backbone):
        loaded = Loaded(backbone.name, backbone.preprocessing, backbone.model)
    elif isinstance(backbone, str | Path):
        if len(shape) not in (0, 3):
            raise ValueError(
                "`data` must hold images (n, height, width, channels) or "
                f"texts. Received: examples of shape {shape}."
            )
        if shape:
            height, width, channels = shape
            found = load_backbone(
                backbone, input_shape=(height, width, channels)
            )
        else:
            found = load_text_backbone(backbone)
        loaded = Loaded(found.name, found.preprocessing, found.model)
    else:
        raise TypeError(
            "`backbones` must be names, what `load_backbone` returned, or "
            f"models made by a builder. Received: {type(backbone).__name__}"
        )
    if loaded.takes_texts != (not shape):
        taken, given = ("texts", "images") if shape else ("images", "texts")
        raise ValueError(
            f"`data` must be {taken if loaded.takes_texts else 'images'} for "
            f"{loaded.name}. Received: {given}."
        )
    wanted = loaded.input_shape
    fits = len(shape) == len(wanted) and all(
        want in (None, size) for want, size in zip(wanted, shape, strict=True)
    )
    if not fits:
        raise ValueError(
            f"`data` must have images of shape {loaded.input_shape} for "
            f"{loaded.name} (None: any). Received: {shape}. Load one of them "
            "anew: `load_images(..., image_size=...)` or `load_backbone(..., "
            "input_shape=...)`."
        )
    return loaded


def _of_model(model: keras.Model) -> Loaded:
    name = model.name.removesuffix("_classifier").removesuffix("_regressor")
    return Loaded(
        name, model.get_layer("preprocessing"), model.get_layer("backbone")
    )


def check_layers(layers: Any, names: Sequence[str]) -> None:
    """Raises for a dict of blocks with names of other backbones."""
    if isinstance(layers, Mapping):
        unknown = sorted(set(layers) - set(names))
        if unknown:
            raise ValueError(
                f"`layers` must have names of the backbones, {', '.join(names)}"
                f", as keys. Received: {unknown[0]!r}."
                f"{did_you_mean(unknown[0], names)}"
            )


def cut_at(
    backbone: Loaded,
    layers: str | Sequence[str] | Mapping[str, Sequence[str]] | None,
    pooling: str | None,
    shape: tuple[int, ...],
    engine: str,
    count: int,
    strategy: tf.distribute.Strategy | None = None,
) -> Outputs:
    """Makes the networks from pixels to the blocks that are wanted.

    Args:
        backbone: The backbone.
        layers: Names of blocks or patterns, by backbone or for all, or `None`
            for the output.
        pooling: `"avg"`, `"max"` or `None`.
        shape: `(height, width, channels)` of the examples.
        engine: What computes.
        count: How many examples there are.
        strategy: What splits a batch over the devices of this process. Defaults
            to `None`: one device.

    Returns:
        `Outputs`.

    Raises:
        ValueError: If a name matches no block, or there is none.
    """
    if isinstance(layers, Mapping):
        layers = layers.get(backbone.name)
    found = find_blocks(backbone.model)
    if not found:
        raise ValueError(
            "`backbones` must have layers with weights. Received: "
            f"{backbone.name!r}, which has none."
        )
    chosen: tuple[Block, ...] = (found[-1],)
    if layers is not None:
        patterns = [layers] if isinstance(layers, str) else list(layers)
        picked = match_blocks(found, patterns)
        chosen = tuple(block for block in found if block in picked)
    ends = [
        backbone.model.outputs if layers is None else list(block.outputs)
        for block in chosen
    ]
    (given,) = graph.tensors_in(backbone.preprocessing)
    pixels = graph.input_like(given, given.name)
    flat = [tensor for end in ends for tensor in end]
    inner = keras.Model(backbone.model.inputs[0], flat)
    given_to = backbone.preprocessing(pixels)
    flat = keras.tree.flatten(inner(given_to))
    if backbone.takes_texts:
        outputs = [
            _of_tokens(tensor, given_to, pooling) for tensor in _own(flat, ends)
        ]
    elif not _is_map(ends):
        outputs = [_pool(tensor, pooling) for tensor in _own(flat, ends)]
    else:
        outputs = [_pool(tensor, pooling) for tensor in flat]
        if len(outputs) > len(ends):
            outputs = _join(outputs, ends, pooling)
    return Outputs(
        backbone.name,
        *choose_engine(
            engine, keras.Model(pixels, outputs), shape, count, strategy
        ),
        tuple(
            keras.Model(pixels, output, name=block.name)
            for block, output in zip(chosen, outputs, strict=True)
        ),
        tuple(block.name for block in chosen),
    )


def _is_map(ends: list[list[keras.KerasTensor]]) -> bool:
    """Whether all that leaves the blocks are feature maps (NASNet: several)."""
    return all(len(tensor.shape) == 4 for end in ends for tensor in end)


def _own(
    outputs: list[keras.KerasTensor], ends: list[list[keras.KerasTensor]]
) -> list[keras.KerasTensor]:
    """Takes what each block made itself of what leaves it.

    The rest is what later blocks read as well: a mask, positions.
    """
    tensors = iter(outputs)
    return [[next(tensors) for _ in end][0] for end in ends]


def _of_tokens(
    features: keras.KerasTensor,
    token_ids: keras.KerasTensor,
    pooling: str | None,
) -> keras.KerasTensor:
    """Pools vectors of tokens; vectors of texts are as they are."""
    if len(features.shape) != 3:
        return features
    if pooling is not None:
        return tokens.pool(features, token_ids >= 0, pooling)
    if features.shape[1] is None:
        raise ValueError(
            "`pooling` must be given for texts of different lengths "
            "(`bucketing=True`). Received: pooling=None"
        )
    return features


def _pool(tensor: keras.KerasTensor, pooling: str | None) -> keras.KerasTensor:
    rank = len(tensor.shape)
    if pooling is None or rank not in (3, 4):
        return tensor
    layers = keras.layers
    if pooling == "max":
        maximum = (layers.GlobalMaxPooling1D, layers.GlobalMaxPooling2D)
        return maximum[rank - 3]()(tensor)
    average = (layers.GlobalAveragePooling1D, layers.GlobalAveragePooling2D)
    return average[rank - 3]()(tensor)


def _join(
    outputs: list[keras.KerasTensor],
    ends: list[list[keras.KerasTensor]],
    pooling: str | None,
) -> list[keras.KerasTensor]:
    """Joins the tensors of blocks that several leave (NASNet)."""
    if pooling is None:
        raise ValueError(
            "`pooling` must be given for blocks that several tensors leave. "
            "Received: pooling=None"
        )
    joined = []
    tensors = iter(outputs)
    for end in ends:
        some = [next(tensors) for _ in end]
        whole = len(some) == 1
        joined.append(some[0] if whole else keras.layers.Concatenate()(some))
    return joined
