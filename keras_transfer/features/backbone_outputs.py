"""Backbones, cut at the blocks whose outputs are features."""

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
from keras_transfer.structure.blocks import Block, find_blocks
from keras_transfer.structure.model_parts import has_children
from keras_transfer.structure.trainable import match_blocks

if TYPE_CHECKING:
    import tensorflow as tf


BackboneLike: TypeAlias = str | Path | Backbone | keras.Model


class LoadedBackbone(NamedTuple):
    """A backbone of any origin, with its preprocessing."""

    name: str
    preprocessing: keras.Model
    model: keras.Model

    @property
    def input_shape(self) -> tuple[int | None, ...]:
        """`(height, width, channels)`, `None` for any size; `()` for texts."""
        return tuple(self.preprocessing.input_shape[1:])

    @property
    def takes_texts(self) -> bool:
        """Tells whether the inputs are texts."""
        return graph.takes_texts(self.preprocessing)


class BackboneOutputs(NamedTuple):
    """A backbone and the networks that compute its outputs.

    Attributes:
        name: Name of the backbone.
        engine: Name of the engine that computes.
        compute: Function from pixels to all outputs, for all splits.
        targets: A network from pixels to each output.
        blocks: Names of the blocks, one per output.
    """

    name: str
    engine: str
    compute: Compute
    targets: tuple[keras.Model, ...]
    blocks: tuple[str, ...]


def load(backbone: BackboneLike, shape: tuple[int, ...]) -> LoadedBackbone:
    """Returns a backbone for examples of a shape.

    Args:
        backbone: A name, a file, a `Backbone` from `load_backbone`, or a model
            made by a builder.
        shape: Shape `(height, width, channels)` of the examples.

    Returns:
        A `LoadedBackbone`.

    Raises:
        ValueError: If the examples do not fit the backbone.
        TypeError: If `backbone` is of another type.
    """
    if isinstance(backbone, keras.Model):
        if not has_children(backbone):
            raise TypeError(
                "`backbones` must be names, `Backbone`s or models made by a "
                "builder. Received: another model. Wrap it: "
                '`load_backbone(model, pixel_range="[0, 255]")`.'
            )
        loaded = _of_model(backbone)
    elif isinstance(backbone, Backbone):
        loaded = _of_backbone(backbone)
    elif isinstance(backbone, str | Path):
        if len(shape) not in (0, 3):
            raise ValueError(
                "`data` must hold images (n, height, width, channels) or "
                f"texts. Received: examples of shape {shape}."
            )
        if shape:
            height, width, channels = shape
            loaded = _of_backbone(
                load_backbone(backbone, input_shape=(height, width, channels))
            )
        else:
            loaded = _of_backbone(load_text_backbone(backbone))
    else:
        raise TypeError(
            "`backbones` must be names, `Backbone`s or models made by a "
            f"builder. Received: {type(backbone).__name__}."
        )
    if loaded.takes_texts != (not shape):
        expected = "texts" if loaded.takes_texts else "images"
        raise ValueError(
            f"`data` must be {expected} for {loaded.name}. Received: "
            f"{'images' if shape else 'texts'}."
        )
    expected_shape = loaded.input_shape
    fits = len(shape) == len(expected_shape) and all(
        expected_size in (None, size)
        for expected_size, size in zip(expected_shape, shape, strict=True)
    )
    if not fits:
        raise ValueError(
            f"`data` must have images of shape {expected_shape} for "
            f"{loaded.name} (None: any). Received: {shape}. Load one of them "
            "again: `load_images(..., image_size=...)` or `load_backbone(..., "
            "input_shape=...)`."
        )
    return loaded


def _of_backbone(backbone: Backbone) -> LoadedBackbone:
    return LoadedBackbone(backbone.name, backbone.preprocessing, backbone.model)


def _of_model(model: keras.Model) -> LoadedBackbone:
    name = model.name.removesuffix("_classifier").removesuffix("_regressor")
    return LoadedBackbone(
        name, model.get_layer("preprocessing"), model.get_layer("backbone")
    )


def check_layers(layers: Any, names: Sequence[str]) -> None:
    """Raises if the keys of a dict of blocks are not names of backbones."""
    if isinstance(layers, Mapping):
        unknown = sorted(set(layers) - set(names))
        if unknown:
            raise ValueError(
                "`layers` must have names of the backbones as keys, "
                f"{', '.join(names)}. Received: {unknown[0]!r}."
                f"{did_you_mean(unknown[0], names)}"
            )


def cut_at(
    backbone: LoadedBackbone,
    layers: str | Sequence[str] | Mapping[str, Sequence[str]] | None,
    pooling: str | None,
    shape: tuple[int, ...],
    engine: str,
    count: int,
    strategy: tf.distribute.Strategy | None = None,
) -> BackboneOutputs:
    """Makes the networks from pixels to the outputs of blocks.

    Args:
        backbone: The backbone.
        layers: Names of blocks or patterns, by backbone or for all, or `None`
            for the output of the backbone.
        pooling: Pooling over positions: `"avg"`, `"max"` or `None`.
        shape: Shape `(height, width, channels)` of the examples.
        engine: Name of the engine that computes.
        count: Number of examples.
        strategy: Distribution strategy that splits a batch over the devices of
            this process. Defaults to `None`, one device.

    Returns:
        `BackboneOutputs`.

    Raises:
        ValueError: If a name matches no block.
    """
    if isinstance(layers, Mapping):
        layers = layers.get(backbone.name)
    blocks = find_blocks(backbone.model)
    chosen: tuple[Block, ...] = (blocks[-1],)
    if layers is not None:
        patterns = [layers] if isinstance(layers, str) else list(layers)
        matches = match_blocks(blocks, patterns)
        chosen = tuple(block for block in blocks if block in matches)
    ends = [
        backbone.model.outputs if layers is None else list(block.outputs)
        for block in chosen
    ]
    (model_input,) = graph.tensors_in(backbone.preprocessing)
    pixels = graph.input_like(model_input, model_input.name)
    flat = [tensor for end in ends for tensor in end]
    network = keras.Model(backbone.model.inputs[0], flat)
    preprocessed = backbone.preprocessing(pixels)
    flat = keras.tree.flatten(network(preprocessed))
    if backbone.takes_texts:
        outputs = [
            _pool_tokens(tensor, preprocessed, pooling)
            for tensor in _first_of_each(flat, ends)
        ]
    elif not _are_maps(ends):
        outputs = [_pool(x, pooling) for x in _first_of_each(flat, ends)]
    else:
        outputs = [_pool(tensor, pooling) for tensor in flat]
        if len(outputs) > len(ends):
            outputs = _join(outputs, ends, pooling)
    return BackboneOutputs(
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


def _are_maps(ends: list[list[keras.KerasTensor]]) -> bool:
    """Tells whether all outputs of blocks are feature maps."""
    return all(len(tensor.shape) == 4 for end in ends for tensor in end)


def _first_of_each(
    outputs: list[keras.KerasTensor], ends: list[list[keras.KerasTensor]]
) -> list[keras.KerasTensor]:
    """Returns the first output of each block, which the block computed.

    The others only pass through it, since later blocks read them too: a mask,
    positions.
    """
    tensors = iter(outputs)
    return [[next(tensors) for _ in end][0] for end in ends]


def _pool_tokens(
    features: keras.KerasTensor,
    token_ids: keras.KerasTensor,
    pooling: str | None,
) -> keras.KerasTensor:
    """Pools vectors of tokens; a vector of the whole text is unchanged."""
    if len(features.shape) != 3:
        return features
    if pooling is not None:
        return tokens.pool(features, token_ids >= 0, pooling)
    if features.shape[1] is None:
        raise ValueError(
            '`pooling` must be "avg" or "max" for texts of different lengths '
            "(`bucketing=True`). Received: pooling=None."
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
    """Joins the outputs of each block that has several (NASNet)."""
    if pooling is None:
        raise ValueError(
            '`pooling` must be "avg" or "max" for blocks with several outputs. '
            "Received: pooling=None."
        )
    joined = []
    tensors = iter(outputs)
    for end in ends:
        own = [next(tensors) for _ in end]
        single = len(own) == 1
        joined.append(own[0] if single else keras.layers.Concatenate()(own))
    return joined
