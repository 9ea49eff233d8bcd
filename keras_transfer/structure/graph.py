"""Reads the graph of a functional Keras model: steps, liveness, cut points.

The only place that touches Keras' graph nodes, which have no public accessor.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np


class Step(NamedTuple):
    """One call of an operation in a functional graph.

    `arguments` are all those of the call, by position and by name; `inputs`
    are the tensors among them.
    """

    operation: keras.Operation
    inputs: tuple[keras.KerasTensor, ...]
    outputs: tuple[keras.KerasTensor, ...]
    arguments: tuple[tuple[Any, ...], dict[str, Any]]


class Cut(NamedTuple):
    """A place where a functional graph falls into two halves.

    `tensors` is all that crosses from the first half to the second; `steps`
    are the indices (into `steps(model)`) of the first half.
    """

    tensors: tuple[keras.KerasTensor, ...]
    steps: frozenset[int]
    name: str


def is_functional(model: object) -> bool:
    """Whether `model` has a graph to read: a Functional or built Sequential."""
    return isinstance(model, keras.Model) and hasattr(
        _functional(model), "_nodes_by_depth"
    )


def _functional(model: keras.Model) -> keras.Model:
    # A Sequential keeps the functional model that it runs to itself.
    return getattr(model, "_functional", None) or model


def steps(model: keras.Model) -> tuple[Step, ...]:
    """Returns the calls of the graph of `model`, inputs first.

    Args:
        model: A Functional model or a built Sequential one.

    Returns:
        Tuple of `Step`, each after all those that it depends on.
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
    """Whether texts go into a model, not numbers."""
    return [end.dtype for end in tensors_in(model)] == ["string"]


def view(model: keras.Model) -> keras.Model:
    """Makes another model of the same layers, to be compiled apart."""
    model = _functional(model)
    return keras.Model(model.inputs, model.outputs, name=model.name)


def input_like(tensor: keras.KerasTensor, name: str) -> keras.KerasTensor:
    """Returns a new input of the shape and dtype of a symbolic tensor."""
    return keras.Input(tensor.shape[1:], dtype=tensor.dtype, name=name)


def layers_below(operation: keras.Operation) -> Iterator[keras.layers.Layer]:
    """Yields the layers that `operation` is made of, itself included."""
    if isinstance(operation, keras.layers.Layer):
        yield from operation._flatten_layers()


def set_weights(model: keras.layers.Layer, arrays: list[np.ndarray]) -> None:
    """Sets the weights of a model or layer and what derives from them.

    Keras' own `set_weights` leaves a Normalization layer with the constants
    of its old mean and variance, which is what it computes with until it is
    saved and loaded again.

    Args:
        model: Any model or layer.
        arrays: As `model.get_weights()` returns them.
    """
    model.set_weights(arrays)
    for layer in layers_below(model):
        if isinstance(layer, keras.layers.Normalization) and layer.weights:
            layer.finalize_state()


def cuts(
    model: keras.Model, max_width: int, within: frozenset[int] | None = None
) -> tuple[Cut, ...]:
    """Finds where at most `max_width` tensors separate input from output.

    For a step `v`, let `D` be `v` and all its ancestors. The tensors made in
    `D` and used outside it are *live*: they are all that the rest of the graph
    needs, whatever the order of execution. Where only one is live, every path
    from input to output passes through it.

    Args:
        model: A Functional model or a built Sequential one.
        max_width: Largest number of live tensors that counts as a cut.
        within: Step indices to consider. Defaults to `None`, all of them.

    Returns:
        Tuple of `Cut`, input to output. The last one is everything, with the
        outputs of the model, however many there are.
    """
    graph = steps(model)
    producer = {
        id(t): index for index, step in enumerate(graph) for t in step.outputs
    }
    # Sets of steps are bits of an integer: a network of a thousand steps is
    # then read in well under a second.
    consumers = dict.fromkeys(producer, 0)
    ancestors: list[int] = []
    for index, step in enumerate(graph):
        bits = 1 << index
        for tensor in step.inputs:
            consumers[id(tensor)] |= 1 << index
            bits |= ancestors[producer[id(tensor)]]
        ancestors.append(bits)
    beyond = 1 << len(graph)  # the caller of the model, who wants the outputs
    for tensor in tensors_out(model):
        consumers[id(tensor)] |= beyond

    found = []
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
            found.append(Cut(tuple(live), first_half, step.operation.name))
    everything = frozenset(range(len(graph)))
    if within is None and not any(cut.steps == everything for cut in found):
        outputs = tensors_out(model)
        name = outputs[0]._keras_history.operation.name
        found.append(Cut(outputs, everything, name))
    return tuple(sorted(found, key=lambda cut: len(cut.steps)))


def propagate(
    model: keras.Model, shapes: Sequence[tuple[int, ...]]
) -> Iterator[tuple[keras.Operation | None, list[tuple[int, ...]]]]:
    """Walks the graph with the shapes that inputs of a known shape have.

    Calls no layer, which would add to the layer's graph for good.

    Args:
        model: A Functional model or a built Sequential one.
        shapes: Shapes of the inputs, without the batch.

    Yields:
        Each operation, those of models within it one by one, with the shapes
        of its outputs without the batch; at last `None`, with those of the
        model.
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
            found: list[tuple[int, ...]] = []
            for operation, found in propagate(step.operation, inner):
                if operation is not None:
                    yield operation, found
            outputs = [
                keras.KerasTensor((1, *shape), t.dtype)
                for shape, t in zip(found, step.outputs, strict=True)
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
    """Calls the layers of `model` one by one, and those of models within it.

    Args:
        model: A Functional model or a built Sequential one.
        inputs: Symbolic tensor to call it on, or a list of several.
        parts: Gives for an operation what to call in its place, or `None`.
            Defaults to `None`, no such function.

    Returns:
        Its output on `inputs`, in a graph without nested models: a tensor, or
        a list of several.
    """

    def called(operation: keras.Operation) -> Callable[..., Any]:
        if is_functional(operation):
            return lambda x, **_: inline(operation, x, parts)
        return parts and parts(operation) or operation

    outputs = _functional(model)._run_through_graph(inputs, operation_fn=called)
    flat = keras.tree.flatten(outputs)
    return flat[0] if len(flat) == 1 else outputs
