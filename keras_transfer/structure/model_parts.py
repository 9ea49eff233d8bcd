"""`ModelParts`: preprocessing, backbone, head and blocks of a model."""

from __future__ import annotations

import dataclasses
import functools

import keras

from keras_transfer.structure import graph
from keras_transfer.structure.blocks import Block, find_blocks

# Names of the three children that builders give a model.
_CHILDREN = {"preprocessing", "backbone", "head"}

# Layers at the start of a head that have no weights and draw no random numbers.
_POOLINGS = (
    keras.layers.InputLayer,
    keras.layers.GlobalAveragePooling1D,
    keras.layers.GlobalAveragePooling2D,
    keras.layers.GlobalMaxPooling1D,
    keras.layers.GlobalMaxPooling2D,
    keras.layers.Flatten,
    keras.layers.Concatenate,
)


@dataclasses.dataclass(frozen=True, eq=False)
class ModelParts:
    """The parts of a model; made by `parts_of`.

    Attributes:
        model: The model.
        backbone: The pretrained network. A model without the children of a
            builder is its own backbone.
        preprocessing: The preprocessing. Defaults to `None`.
        head: The head. Defaults to `None`.
    """

    model: keras.Model
    backbone: keras.Model
    preprocessing: keras.Model | None = None
    head: keras.Model | None = None

    @functools.cached_property
    def blocks(self) -> tuple[Block, ...]:
        """The blocks of the backbone, input to output."""
        return find_blocks(self.backbone)

    @functools.cached_property
    def pooling(self) -> keras.KerasTensor | None:
        """The output of the pooling that the head begins with.

        A symbolic tensor within the head, the last one that depends on no
        weights of the head; `None` if there is no pooling or no head.
        """
        if self.head is None:
            return None
        steps = graph.steps(self.head)
        pooled = None
        for cut in graph.cuts(self.head, max_width=1):
            operations = [steps[index].operation for index in cut.steps]
            if not all(_is_pooling(operation) for operation in operations):
                break
            if len(cut.steps) > 1:
                pooled = cut.tensors[0]
        return pooled


def has_children(model: keras.Model) -> bool:
    """Tells whether a model consists of preprocessing, backbone and head."""
    return {layer.name for layer in model.layers} >= _CHILDREN


def is_readable(model: keras.Model) -> bool:
    """Tells whether `parts_of` can read a model."""
    return graph.is_functional(model) and len(graph.tensors_in(model)) == 1


def parts_of(model: keras.Model) -> ModelParts:
    """Reads the parts of a model.

    Args:
        model: A model made by a builder, or any functional model.

    Returns:
        `ModelParts`.

    Raises:
        TypeError: If `model` has no graph to read.
        ValueError: If the backbone has several inputs.

    Example:

    >>> parts = parts_of(build_classifier("ResNet20", num_classes=3))
    >>> len(parts.blocks), parts.pooling.shape
    (10, (None, 64))
    """
    if not graph.is_functional(model):
        raise TypeError(
            "`model` must be a functional or built Sequential model, since "
            "blocks are read off its graph. Received: a "
            f"{type(model).__name__}."
        )
    parts = ModelParts(model, model)
    if has_children(model):
        children = {name: model.get_layer(name) for name in _CHILDREN}
        parts = ModelParts(model, **children)
    inputs = len(graph.tensors_in(parts.backbone))
    if inputs != 1:
        raise ValueError(
            "`model` must have one input, so that depth can be counted from "
            f"it. Received: model {model.name!r} with {inputs}."
        )
    return parts


def _is_pooling(operation: keras.Operation) -> bool:
    """Tells whether an operation of a head has no weights and no randomness."""
    if isinstance(operation, keras.layers.Layer):
        return isinstance(operation, _POOLINGS)
    return True  # an operation of keras.ops, as in GeM
