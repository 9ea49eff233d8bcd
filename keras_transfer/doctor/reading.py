"""Reads off a model's graph what it expects and what it gives."""

from __future__ import annotations

import re
from typing import Any

import keras
import numpy as np

from keras_transfer.structure import graph
from keras_transfer.structure.blocks import has_children

RANDOM_LAYERS = tuple(
    getattr(keras.layers, name)
    for name in dir(keras.layers)
    if name.startswith("Random")
    or name in ("AugMix", "CutMix", "MixUp", "RandAugment")
)


_RANDOM_OPERATION = re.compile(
    r"(Stateless|Stateful)?(Random(?!Dataset)|SampleDistorted|Rng)"
)


CHANNELS = (1, 2, 3, 4)  # of images; features have more


# Layers that leave the range of pixels about as it is.
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
    """Returns the pixels that a model on images expects.

    `"[0, 255]"` or `"[0, 1]"` where its first layers scale those, `"scaled"`
    where none does, `None` where it cannot be told.
    """
    if not graph.is_functional(model):
        return None
    shapes = [tensor.shape for tensor in graph.tensors_in(model)]
    if len(shapes) != 1 or len(shapes[0]) != 4 or shapes[0][-1] not in CHANNELS:
        return None
    if has_children(model):
        return "[0, 255]"
    return _first_scaling(model)


def _first_scaling(model: keras.Model) -> str | None:
    reached = {id(tensor) for tensor in graph.tensors_in(model)}
    for operation, inputs, outputs, _ in graph.steps(model):
        if not any(id(tensor) in reached for tensor in inputs):
            continue
        if graph.is_functional(operation):
            found = _first_scaling(operation)
            if found != "scaled" or operation.weights:
                return found
        elif isinstance(operation, keras.layers.Rescaling):
            return _by_divisor(1 / np.abs(operation.scale).max())
        elif isinstance(operation, keras.layers.Normalization):
            variance = getattr(operation, "variance", None)
            if variance is None:
                return None
            return _by_divisor(np.sqrt(np.asarray(variance)).max())
        elif not isinstance(operation, _KEEP_RANGE):
            learns = isinstance(
                operation,
                keras.layers.Conv2D
                | keras.layers.DepthwiseConv2D
                | keras.layers.SeparableConv2D
                | keras.layers.Dense,
            )
            return "scaled" if learns else None
        reached |= {id(tensor) for tensor in outputs}
    return "scaled"


def _by_divisor(divisor: float) -> str | None:
    """What pixels are divided by tells where they come from."""
    if divisor > 10:
        return "[0, 255]"
    return "[0, 1]" if divisor <= 2 else None


def cached_after_random(dataset: Any) -> bool:
    """Whether a `tf.data.Dataset` keeps the result of a random map.

    Reads the graph of the pipeline and runs nothing. Tensors in memory are part
    of that graph (600 MB take 6 seconds), so that it is made only where
    something is cached at all. What draws in Python is not seen.
    """
    import tensorflow as tf

    describe = getattr(dataset, "__debug_string__", None)
    if describe is None or "CacheDataset" not in describe():
        return False
    try:
        serialized = tf.raw_ops.DatasetToGraphV2(
            input_dataset=tf.data.experimental.to_variant(dataset),
            external_state_policy=1,  # ignore what has a state
        )
    except tf.errors.OpError:
        return False  # A source that cannot be written down.
    graph = tf.compat.v1.GraphDef.FromString(serialized.numpy())
    functions = {f.signature.name: f for f in graph.library.function}
    nodes = {node.name: node for node in graph.node}

    def is_random(node: Any, seen: frozenset[str] = frozenset()) -> bool:
        if _RANDOM_OPERATION.match(node.op):
            return True
        called = {
            name
            for value in node.attr.values()
            for name in (value.func.name, *(f.name for f in value.list.func))
            if name in functions
        } - seen
        return any(
            is_random(inner, seen | called)
            for name in called
            for inner in functions[name].node_def
        )

    waiting = [n for n in graph.node if n.op.startswith("CacheDataset")]
    seen = set()
    while waiting:
        for name in waiting.pop().input:
            parent = nodes.get(name.lstrip("^").split(":")[0])
            if parent is None or parent.name in seen:
                continue
            if is_random(parent):
                return True
            seen.add(parent.name)
            waiting.append(parent)
    return False
