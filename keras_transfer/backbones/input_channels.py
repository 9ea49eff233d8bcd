"""Pretrained weights for images with 2, 4 or more channels."""

from __future__ import annotations

import keras
import numpy as np

from keras_transfer.backbones.preprocessing import for_channels
from keras_transfer.backbones.spec import Normalization, normalization_of
from keras_transfer.structure import graph


def adapt_weights(
    target: keras.Model,
    reference: keras.Model,
    normalization: str | Normalization | None,
) -> None:
    """Copies the weights of an RGB network into one with other channels.

    All arrays are copied unchanged except those of the first convolution. Its
    filters keep their red, green and blue parts; those of further channels
    are zero, so that the new channels have no effect before training. With two
    channels, both get a colour filter times 3/2, which preserves the scale of
    the sum.

    Args:
        target: Network for `n` channels, `n` other than 1 and 3.
        reference: Pretrained network of the same architecture, for 3 channels.
        normalization: Normalization of the family, a key of `NORMALIZATIONS`.
    """
    channels = target.input_shape[-1]
    scaling, own = _weighted(target)
    scaling_of_colour, pretrained = _weighted(reference)
    for layer, source in zip(own, pretrained, strict=True):
        arrays = source.get_weights()
        if [a.shape for a in arrays] != [tuple(w.shape) for w in layer.weights]:
            kernel = arrays[0]
            if (
                normalization is not None
                and normalization_of(normalization).bgr
            ):
                # The filters are in BGR order, the images in RGB.
                kernel = kernel[:, :, ::-1]
            arrays = [_widen(kernel, channels), *arrays[1:]]
        graph.set_weights(layer, arrays)
    for layer, source in zip(scaling, scaling_of_colour, strict=True):
        # In EfficientNet v1 the scaling is a layer with weights.
        mean, variance, count = source.get_weights()
        variance = variance / _rescaled_after(source, reference) ** 2
        arrays = [
            np.array(for_channels(tuple(values), channels), "float32")
            for values in (mean, variance)
        ]
        graph.set_weights(layer, [*arrays, count])


def _weighted(
    model: keras.Model,
) -> tuple[list[keras.layers.Layer], list[keras.layers.Layer]]:
    """Splits the layers with weights into scaling layers and all others."""
    with_weights = [layer for layer in model.layers if layer.weights]
    scaling = [
        layer
        for layer in with_weights
        if isinstance(layer, keras.layers.Normalization)
    ]
    return scaling, [layer for layer in with_weights if layer not in scaling]


def _rescaled_after(
    scaling: keras.layers.Layer, model: keras.Model
) -> np.ndarray:
    """Returns the extra factor in graphs made with `weights="imagenet"`."""
    layers = model.layers
    after = layers[layers.index(scaling) + 1]
    scale = after.scale if isinstance(after, keras.layers.Rescaling) else 1.0
    return np.array(scale, "float32")


def _widen(kernel: np.ndarray, channels: int) -> np.ndarray:
    """Extends `(h, w, 3, filters)` to `(h, w, channels, filters)`."""
    if channels == 2:
        return kernel[:, :, :2] * 1.5
    zeros = np.zeros_like(kernel[:, :, :1])
    return np.concatenate([kernel, *[zeros] * (channels - 3)], axis=2)
