"""Inner layers and output activation of a model."""

from __future__ import annotations

from typing import Any

import keras

from keras_transfer.structure import graph

# Bounds of the outputs of an activation.
BOUNDS = {
    "sigmoid": (0.0, 1.0),
    "hard_sigmoid": (0.0, 1.0),
    "softmax": (0.0, 1.0),
    "tanh": (-1.0, 1.0),
    "softsign": (-1.0, 1.0),
}


def layers_of(model: keras.Model) -> tuple[keras.layers.Layer, ...]:
    """Returns the layers of a model, nested models replaced by theirs."""
    if not graph.is_functional(model):
        layers = graph.layers_below(model)
        return tuple(x for x in layers if not isinstance(x, keras.Model))
    by_id: dict[int, keras.layers.Layer] = {}
    for step in graph.steps(model):
        operation = step.operation
        nested = isinstance(operation, keras.Model)
        inner = (
            layers_of(operation) if nested else graph.layers_below(operation)
        )
        by_id.update({id(layer): layer for layer in inner})
    return tuple(by_id.values())


def output_activation(model: keras.Model) -> str | None:
    """Returns the name of the last activation, or `None` if unknown.

    Args:
        model: Any model.

    Returns:
        A name such as `"softmax"`, whether the activation is an argument of a
        layer, a layer or an operation, also inside nested models.
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
        # A user's function of that name may compute anything.
        known = getattr(keras.activations, name, None) is function
        return name if known and name else None
    return type(operation).__name__.lower()  # keras.ops.softmax
