"""The graph of a functional Keras model: steps, liveness, cut points.

This is the only module that touches Keras' graph nodes, which have no public
accessor.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np


class Step(NamedTuple):
    """One call of an operation in a functional graph.

    Attributes:
        operation: The operation, often a layer.
        inputs: The tensors among the arguments.
        outputs: The tensors that the call returns.
        arguments: All arguments of the call, by position and by name.
    """

    operation: keras.Operation
    inputs: tuple[keras.KerasTensor, ...]
    outputs: tuple[keras.KerasTensor, ...]
    arguments: tuple[tuple[Any, ...], dict[str, Any]]


class GraphCut(NamedTuple):
    """A cut of a functional graph into two halves.

    Attributes:
        tensors: All tensors that cross from the first half to the second.
        steps: Indices (into `steps(model)`) of the first half.
        name: Name of the last operation of the first half.
    """

    tensors: tuple[keras.KerasTensor, ...]
    steps: frozenset[int]
    name: str


def is_functional(model: object) -> bool:
    """Tells whether `model` has a graph: Functional, or a built Sequential."""
    return isinstance(model, keras.Model) and hasattr(
        _functional(model), "_nodes_by_depth"
    )


def _functional(model: keras.Model) -> keras.Model:
    # A built Sequential runs a private functional model.
    return getattr(model, "_functional", None) or model


def steps(model: keras.Model) -> tuple[Step, ...]:
    """Returns the calls in the graph of `model`, inputs first.

    Args:
        model: A Functional model or a built Sequential one.

    Returns:
        Tuple of `Step`, each after all the steps that it depends on.
    """
    by_depth = _functional(model)._nodes_by_depth
    return tuple(
        Step(
            node.operation,
            tuple(node.input_tensors),
            tuple(node.outputs),
            (node.arguments.args, node.arguments.kwargs),
        )
        for depth in sorted(by_depth, reverse=True)
        for node in by_depth[depth]
    )


def tensors_in(model: keras.Model) -> tuple[keras.KerasTensor, ...]:
    """Returns the input tensors of the graph of `model`."""
    return tuple(keras.tree.flatten(_functional(model).inputs))


def tensors_out(model: keras.Model) -> tuple[keras.KerasTensor, ...]:
    """Returns the output tensors of the graph of `model`."""
    return tuple(keras.tree.flatten(_functional(model).outputs))


def takes_texts(model: keras.Model) -> bool:
    """Tells whether the input of a model is text instead of numbers."""
    return [tensor.dtype for tensor in tensors_in(model)] == ["string"]


def single(
    tensors: Sequence[keras.KerasTensor],
) -> keras.KerasTensor | list[keras.KerasTensor]:
    """Returns the only tensor, or a list of several."""
    return tensors[0] if len(tensors) == 1 else list(tensors)


def view(model: keras.Model) -> keras.Model:
    """Makes another model of the same layers, to be called or compiled instead.

    Keras stores every symbolic call of a model for as long as the model lives,
    so a model of the user should not be called again and again.

    Args:
        model: A Functional model or a built Sequential one.

    Returns:
        A model of the same name.

    Example:

    >>> model = build_classifier("ResNet20", num_classes=3)
    >>> view(model.get_layer("head")).name
    'head'
    """
    inputs, outputs = single(tensors_in(model)), single(tensors_out(model))
    return keras.Model(inputs, outputs, name=model.name)


def input_like(tensor: keras.KerasTensor, name: str) -> keras.KerasTensor:
    """Returns a new input of the shape and dtype of a symbolic tensor."""
    return keras.Input(tensor.shape[1:], dtype=tensor.dtype, name=name)


def layers_below(operation: keras.Operation) -> Iterator[keras.layers.Layer]:
    """Yields a layer and all layers within it; nothing for an operation."""
    if isinstance(operation, keras.layers.Layer):
        yield from operation._flatten_layers()


def set_weights(model: keras.layers.Layer, arrays: list[np.ndarray]) -> None:
    """Sets the weights of a model or layer and the constants derived from them.

    After Keras' own `set_weights` a Normalization layer still computes with
    constants derived from its old mean and variance, until it is saved and
    loaded again.

    Args:
        model: Any model or layer.
        arrays: The weights, in the order of `model.get_weights()`.
    """
    model.set_weights(arrays)
    for layer in layers_below(model):
        if isinstance(layer, keras.layers.Normalization) and layer.weights:
            layer.finalize_state()


def cuts(
    model: keras.Model, max_width: int, within: frozenset[int] | None = None
) -> tuple[GraphCut, ...]:
    """Finds the places where few tensors separate input from output.

    For a step `v`, let `D` be `v` and all its ancestors. The tensors made in
    `D` and used outside it are *live*: they are all that the rest of the graph
    needs, whatever the order of execution. If only one tensor is live, every
    path from input to output passes through it.

    Args:
        model: A Functional model or a built Sequential one.
        max_width: Largest number of live tensors that counts as a cut.
        within: Step indices to consider. Defaults to `None`, all of them.

    Returns:
        Tuple of `GraphCut`, input to output. Without `within`, the last one
        holds the whole graph, with all outputs of the model.
    """
    graph = steps(model)
    producer = {
        id(t): index for index, step in enumerate(graph) for t in step.outputs
    }
    # A set of steps is an integer with a bit per step, so that a network of a
    # thousand steps is read in well under a second.
    consumers = dict.fromkeys(producer, 0)
    ancestors: list[int] = []
    for index, step in enumerate(graph):
        bits = 1 << index
        for tensor in step.inputs:
            consumers[id(tensor)] |= 1 << index
            bits |= ancestors[producer[id(tensor)]]
        ancestors.append(bits)
    caller = 1 << len(graph)  # one more step, which reads the outputs
    for tensor in tensors_out(model):
        consumers[id(tensor)] |= caller

    all_cuts = []
    for index, step in enumerate(graph):
        if within is not None and index not in within:
            continue
        live = []
        for other in range(index, -1, -1):
            if not ancestors[index] >> other & 1:
                continue
            live += [
                t
                for t in graph[other].outputs
                if consumers[id(t)] & ~ancestors[index]
            ]
            if len(live) > max_width:
                break
        if 0 < len(live) <= max_width and step.inputs:
            first_half = frozenset(
                i for i in range(index + 1) if ancestors[index] >> i & 1
            )
            name = step.operation.name
            all_cuts.append(GraphCut(tuple(live), first_half, name))
    everything = frozenset(range(len(graph)))
    if within is None and not any(c.steps == everything for c in all_cuts):
        outputs = tensors_out(model)
        name = outputs[0]._keras_history.operation.name
        all_cuts.append(GraphCut(outputs, everything, name))
    return tuple(sorted(all_cuts, key=lambda cut: len(cut.steps)))


def propagate(
    model: keras.Model, shapes: Sequence[tuple[int, ...]]
) -> Iterator[tuple[keras.Operation | None, list[tuple[int, ...]]]]:
    """Propagates input shapes through the graph.

    No layer is called, since a call stays in the layer's graph forever.

    Args:
        model: A Functional model or a built Sequential one.
        shapes: Shapes of the inputs, without the batch axis.

    Yields:
        Each operation, also those within nested models, with the shapes of its
        outputs without the batch axis; finally `None`, with the output shapes
        of the model.
    """
    known: dict[int, keras.KerasTensor] = {
        id(t): keras.KerasTensor((1, *shape), t.dtype)
        for t, shape in zip(tensors_in(model), shapes, strict=True)
    }

    def replaced(value: Any) -> Any:
        return known.get(id(value), value)

    for step in steps(model):
        if not step.inputs:
            continue
        if is_functional(step.operation):
            inner = [tuple(known[id(t)].shape[1:]) for t in step.inputs]
            output_shapes: list[tuple[int, ...]] = []
            for operation, output_shapes in propagate(step.operation, inner):
                if operation is not None:
                    yield operation, output_shapes
            # The last pair that a nested model yields holds its own outputs.
            outputs = [
                keras.KerasTensor((1, *shape), t.dtype)
                for shape, t in zip(output_shapes, step.outputs, strict=True)
            ]
        else:
            args, kwargs = keras.tree.map_structure(replaced, step.arguments)
            spec = step.operation.compute_output_spec(*args, **kwargs)
            outputs = keras.tree.flatten(spec)
            yield step.operation, [tuple(t.shape[1:]) for t in outputs]
        for old, new in zip(step.outputs, outputs, strict=True):
            known[id(old)] = new
    yield None, [tuple(known[id(t)].shape[1:]) for t in tensors_out(model)]


def inline(
    model: keras.Model,
    inputs: Any,
    parts: Callable[[keras.Operation], Callable[..., Any] | None] | None = None,
) -> Any:
    """Calls the layers of `model` one by one, also those of nested models.

    Args:
        model: A Functional model or a built Sequential one.
        inputs: A symbolic tensor to call the model on, or a list of several.
        parts: A function that returns the replacement of an operation, or
            `None` to call the operation itself. Defaults to `None`, no
            replacements.

    Returns:
        The outputs, in a graph without nested models: a tensor, or a list of
        several.
    """

    def called(operation: keras.Operation) -> Callable[..., Any]:
        if is_functional(operation):
            return lambda x, **_: inline(operation, x, parts)
        return parts and parts(operation) or operation

    outputs = _functional(model)._run_through_graph(inputs, operation_fn=called)
    flat = keras.tree.flatten(outputs)
    return flat[0] if len(flat) == 1 else outputs
