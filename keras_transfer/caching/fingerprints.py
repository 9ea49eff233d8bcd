"""Digests of networks, by everything that determines their outputs.

The same network in another process has the same digest; a different weight,
constant, layer or connection changes it. Names, `trainable` flags and the
nesting of models do not count: a frozen network always runs in inference mode.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import os
import types
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np

from keras_transfer.structure import graph

# Fields of a layer's config that do not count. Shapes follow from weights and
# inputs; a SavedModel has a digest of its content beside its folder.
_NEUTRAL = frozenset(("name", "trainable", "build_config", "saved_model"))


# Layers of this package count by their registered names, not by module path, so
# that moving code invalidates no cache. Raise `_LAYERS_VERSION` when one of
# them computes different values than before.
_PACKAGE = "keras_transfer"


_LAYERS_VERSION = 1


def digest_network(
    network: keras.Model, layer_digests: dict[int, bytes] | None = None
) -> str:
    """Returns a digest of structure and weights.

    Each tensor of the graph has a digest: that of its layer and those of the
    layer's inputs. Layers that do not lead to the outputs have no effect.

    Args:
        network: A functional model.
        layer_digests: Digests of layers by their `id`, read and extended, for
            networks that share layers. Defaults to `None`.

    Returns:
        Hexadecimal digits.
    """
    layer_digests = {} if layer_digests is None else layer_digests
    inputs = graph.tensors_in(network)
    input_digests = [
        _digest(f"input {i} {tensor.dtype}") for i, tensor in enumerate(inputs)
    ]
    return _digest(*_follow(network, input_digests, layer_digests)).hex()


def describe_software() -> dict[str, str]:
    """Returns versions and device, on which results depend as well."""
    import PIL
    import tensorflow as tf

    return {
        "tensorflow": tf.__version__,
        "keras": keras.__version__,
        "pillow": PIL.__version__,
        "device": "GPU" if tf.config.list_logical_devices("GPU") else "CPU",
    }


def make_key(description: Mapping[str, Any]) -> str:
    """Returns the key of an entry: the digest of its description."""
    return _digest(_to_json(description)).hex()


def _follow(
    model: keras.Model,
    input_digests: Sequence[bytes],
    layer_digests: dict[int, bytes],
) -> list[bytes]:
    """Returns the digests of the outputs of a graph, from those of its inputs.

    Args:
        model: A functional model.
        input_digests: Digests of its inputs.
        layer_digests: Digests of layers by their `id`.
    """
    digests = {
        id(tensor): digest
        for tensor, digest in zip(
            graph.tensors_in(model), input_digests, strict=True
        )
    }
    for step in graph.steps(model):
        if not step.inputs:
            continue
        inputs = [digests[id(tensor)] for tensor in step.inputs]
        if graph.is_functional(step.operation):
            ends = graph.tensors_in(step.operation)
            # Keras casts the inputs of a model.
            cast = [
                digest
                if tensor.dtype == end.dtype
                else _digest(f"cast {end.dtype}", digest)
                for tensor, end, digest in zip(
                    step.inputs, ends, inputs, strict=True
                )
            ]
            outputs = _follow(step.operation, cast, layer_digests)
        else:
            if id(step.operation) not in layer_digests:
                layer_digests[id(step.operation)] = _digest_operation(
                    step.operation
                )
            call = _digest(
                layer_digests[id(step.operation)], _call_of(step), *inputs
            )
            outputs = [
                _digest(f"output {i}", call) for i in range(len(step.outputs))
            ]
        digests |= zip(map(id, step.outputs), outputs, strict=True)
    return [digests[id(tensor)] for tensor in graph.tensors_out(model)]


def _digest_operation(operation: keras.Operation) -> bytes:
    """Digests class, config, weights and the source of user code."""
    parts: list[str | bytes | memoryview] = [_to_json(_config_of(operation))]
    for layer in graph.layers_below(operation):
        kinds = [kind for kind in type(layer).__mro__ if _is_own(kind)]
        functions = [
            value
            for value in vars(layer).values()
            if isinstance(value, types.FunctionType) and _is_own(value)
        ]
        parts += [_source_of(code) for code in (*kinds, *functions)]
    for variable in getattr(operation, "weights", ()):
        array = np.ascontiguousarray(keras.ops.convert_to_numpy(variable))
        parts.append(f"{variable.shape} {array.dtype}")
        parts.append(array.reshape(-1).view(np.uint8).data)
    return _digest(*parts)


def _config_of(value: Any) -> Any:
    """Serializes an operation, or an argument of its call."""
    try:
        return _nameless(keras.saving.serialize_keras_object(value))
    except (NotImplementedError, AttributeError, TypeError, ValueError):
        if isinstance(value, keras.layers.Layer):
            # Some layers of KerasHub have no `get_config`.
            parts = list(graph.layers_below(value))[1:]
            return [_attributes_of(value), [_config_of(x) for x in parts]]
        return _unique_text(value)


def _unique_text(value: Any) -> str:
    """Returns a text that is unique in this and any other process."""
    return f"{type(value).__qualname__} {id(value)} of process {os.getpid()}"


def _attributes_of(layer: keras.layers.Layer) -> Any:
    """Describes the attributes of a layer besides weights and sublayers."""
    every_layer = vars(keras.layers.Layer())
    held = {
        name: value
        for name, value in vars(layer).items()
        # Attributes with this prefix are TensorFlow's.
        if name not in every_layer and not name.startswith("_self_")
    }
    return [_name_of(type(layer)), _held(held)]


def _held(value: Any) -> Any:
    """Describes the value of an attribute."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Mapping):
        return {str(name): _held(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_held(each) for each in value]
    if isinstance(value, keras.layers.Layer | keras.Variable):
        return "described where it belongs"
    if isinstance(value, type | types.FunctionType):
        return _source_of(value) if _is_own(value) else _name_of(value)
    if isinstance(value, np.ndarray) or keras.ops.is_tensor(value):
        array = np.ascontiguousarray(keras.ops.convert_to_numpy(value))
        digest = _digest(array.reshape(-1).view(np.uint8).data)
        return [str(array.dtype), list(array.shape), digest.hex()]
    return _unique_text(value)


def _call_of(step: graph.Step) -> str:
    """Describes the arguments of a call besides tensors, in order."""
    args, kwargs = keras.tree.map_structure(
        lambda value: (
            "tensor"
            if isinstance(value, keras.KerasTensor)
            else _config_of(value)
        ),
        step.arguments,
    )
    decisive = {
        name: value
        for name, value in kwargs.items()
        if name != "training" and value is not None
    }
    return _to_json([args, decisive])


def _nameless(config: Any) -> Any:
    """Removes names from a config; Keras numbers those of layers by process."""
    if isinstance(config, dict):
        if "DTypePolicy" in str(config.get("class_name")):
            return config  # Its name is its content.
        config = {k: v for k, v in config.items() if k not in _NEUTRAL}
        registered = str(config.get("registered_name"))
        if registered.startswith(f"{_PACKAGE}>"):
            config["module"] = f"{_PACKAGE} {_LAYERS_VERSION}"
        return {key: _nameless(value) for key, value in config.items()}
    if isinstance(config, list | tuple):
        return [_nameless(value) for value in config]
    return config


def _is_own(code: Any) -> bool:
    """Returns whether a class or function is the user's, not a library's."""
    libraries = ("keras", "tensorflow", "builtins", "abc", _PACKAGE)
    return _top_of(code) not in libraries


def _name_of(code: Any) -> str:
    """Returns the name of a class or function of a library."""
    module = code.__module__
    if _top_of(code) == _PACKAGE:
        module = f"{_PACKAGE} {_LAYERS_VERSION}"
    return f"{module}.{code.__qualname__}"


def _top_of(code: Any) -> str:
    return str(code.__module__).partition(".")[0]


def _source_of(code: Any) -> str:
    """Returns the source of a class, or of a function and its closure."""
    held: list[Any] = []
    if isinstance(code, types.FunctionType):
        cells = code.__closure__ or ()
        held = [code.__defaults__, [cell.cell_contents for cell in cells]]
    try:
        return inspect.getsource(code) + _to_json(held)
    except (OSError, TypeError, ValueError):
        # Typed at a prompt: there is no source to compare across processes.
        return f"{code.__qualname__} {id(code)} of process {os.getpid()}"


def _digest(*parts: str | bytes | memoryview) -> bytes:
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        content = part.encode() if isinstance(part, str) else part
        # The length goes first, so that no two lists of parts collide.
        digest.update(len(content).to_bytes(8, "little"))
        digest.update(content)
    return digest.digest()


def _to_json(value: Any) -> str:
    return json.dumps(value, sort_keys=True, default=_plain)


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray | np.generic):
        return np.asarray(value).tolist()
    if isinstance(value, bytes):
        return value.hex()
    return repr(value)
