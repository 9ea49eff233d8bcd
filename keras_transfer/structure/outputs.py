"""What the outputs of a model are."""

from __future__ import annotations

from typing import Any

import keras

from keras_transfer.structure import graph


def layers_of(model: keras.Model) -> tuple[keras.layers.Layer, ...]:
    """Returns the layers of a model that are no models, input to output."""
    if not graph.is_functional(model):
        layers = graph.layers_below(model)
        return tuple(x for x in layers if not isinstance(x, keras.Model))
    found: dict[int, keras.layers.Layer] = {}
    for step in graph.steps(model):
        part = step.operation
        nested = isinstance(part, keras.Model)
        inner = layers_of(part) if nested else graph.layers_below(part)
        found.update({id(layer): layer for layer in inner})
    return tuple(found.values())


def output_activation(model: keras.Model) -> str | None:
    """Returns the name of the last activation, or `None` if not known.

    Args:
        model: Any model.

    Returns:
        Such as `"softmax"`, whether in a layer's argument, a layer of its own
        or an operation, inside nested models too.
    """
    if not graph.is_functional(model):
        return None
    outputs = graph.tensors_out(model)
    if len(outputs) != 1:
        return None
    made_by = {
        id(tensor): step for step in graph.steps(model) for tensor in step[2]
    }
    step = made_by[id(outputs[0])]
    while isinstance(step.operation, keras.layers.Identity):
        step = made_by[id(step.inputs[0])]
    operation: Any = step.operation
    if graph.is_functional(operation):
        return output_activation(operation)
    if isinstance(operation, keras.layers.Softmax | keras.layers.ReLU):
        return type(operation).__name__.lower()
    if isinstance(operation, keras.layers.Layer):
        function = getattr(operation, "activation", None)
        name = getattr(function, "__name__", "")
        # An own function of that name may be anything.
        known = getattr(keras.activations, name, None) is function
        return name if known and name else None
    return type(operation).__name__.lower()  # keras.ops.softmax
