"""The range of pixels that a model expects, read off its graph."""

from __future__ import annotations

import keras
import numpy as np

from keras_transfer.structure import graph
from keras_transfer.structure.model_parts import has_children

RANDOM_LAYERS = tuple(
    getattr(keras.layers, name)
    for name in dir(keras.layers)
    if name.startswith("Random")
    or name in ("AugMix", "CutMix", "MixUp", "RandAugment")
)

# Numbers of channels of images; feature maps have more.
_IMAGE_CHANNELS = (1, 2, 3, 4)

# Layers that hardly change the range of pixels.
_KEEP_RANGE = (
    *RANDOM_LAYERS,
    keras.layers.CenterCrop,
    keras.layers.Concatenate,
    keras.layers.Cropping2D,
    keras.layers.Dropout,
    keras.layers.Flatten,
    keras.layers.Identity,
    keras.layers.Permute,
    keras.layers.Reshape,
    keras.layers.Resizing,
    keras.layers.ZeroPadding2D,
)


def expected_pixels(model: keras.Model) -> str | None:
    """Returns the range of pixels that a model on images expects.

    `"[0, 255]"` or `"[0, 1]"` if its first layers scale that range, `"scaled"`
    if no layer does, `None` if unknown.
    """
    if not graph.is_functional(model):
        return None
    shapes = [tensor.shape for tensor in graph.tensors_in(model)]
    if len(shapes) != 1 or len(shapes[0]) != 4:
        return None
    if shapes[0][-1] not in _IMAGE_CHANNELS:
        return None
    if has_children(model):
        return "[0, 255]"
    return _first_scaling(model)


def _first_scaling(model: keras.Model) -> str | None:
    """Follows the graph from the input to the first layer that scales."""
    reached = {id(tensor) for tensor in graph.tensors_in(model)}
    for operation, inputs, outputs, _ in graph.steps(model):
        if not any(id(tensor) in reached for tensor in inputs):
            continue
        if graph.is_functional(operation):
            inner = _first_scaling(operation)
            if inner != "scaled" or operation.weights:
                return inner
        elif isinstance(operation, keras.layers.Rescaling):
            return _range_of_divisor(1 / np.abs(operation.scale).max())
        elif isinstance(operation, keras.layers.Normalization):
            variance = getattr(operation, "variance", None)
            if variance is None:
                return None
            return _range_of_divisor(np.sqrt(np.asarray(variance)).max())
        elif not isinstance(operation, _KEEP_RANGE):
            # A layer with weights takes its inputs as they come; an unknown
            # layer may scale them.
            weighted = isinstance(
                operation,
                keras.layers.Conv2D
                | keras.layers.DepthwiseConv2D
                | keras.layers.SeparableConv2D
                | keras.layers.Dense,
            )
            return "scaled" if weighted else None
        reached |= {id(tensor) for tensor in outputs}
    return "scaled"


def _range_of_divisor(divisor: float) -> str | None:
    """Returns the range of pixels that a layer divides by a number."""
    if divisor > 10:
        return "[0, 255]"
    return "[0, 1]" if divisor <= 2 else None
