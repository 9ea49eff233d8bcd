"""What decides the numbers that a network gives, as a digest.

The same network in another process has the same digest; another weight,
constant, layer or wiring has another one. Names and what is trainable decide
nothing: a frozen network always computes as in inference.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import inspect
import json
import os
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from keras_transfer import _graph

_NEUTRAL = frozenset(("name", "trainable"))


def digest_network(network: keras.Model) -> str:
    """Returns a digest of structure and weights.

    Args:
        network: A functional model.

    Returns:
        Hexadecimal digits.
    """
    found = hashlib.blake2b(digest_size=16)
    config = _nameless(network.get_config())
    found.update(json.dumps(config, sort_keys=True, default=_plain).encode())
    for layer in _graph.layers_below(network):
        if not type(layer).__module__.startswith("keras."):
            found.update(_source_of(type(layer)).encode())
    for variable in network.weights:
        array = np.ascontiguousarray(variable)
        found.update(f"{array.shape} {array.dtype}".encode())
        found.update(array.reshape(-1).view(np.uint8).data)
    return found.hexdigest()


def describe_software() -> dict[str, str]:
    """Returns versions and device, which numbers depend on as well."""
    import tensorflow as tf

    packages = ("tensorflow", "keras", "pillow")
    versions = {name: importlib.metadata.version(name) for name in packages}
    gpus = tf.config.list_logical_devices("GPU")
    return {**versions, "device": "GPU" if gpus else "CPU"}


def make_key(description: Mapping[str, Any]) -> str:
    """Returns the key of an entry: a digest of what it is made of."""
    text = json.dumps(description, sort_keys=True, default=_plain)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def _nameless(config: Any, places: Mapping[str, int] | None = None) -> Any:
    """Replaces the names of layers in a config by their places in it.

    Keras numbers names by process, but wires layers by name.
    """
    if isinstance(config, dict):
        layers = config.get("layers")
        if isinstance(layers, list) and "output_layers" in config:
            places = {layer["name"]: i for i, layer in enumerate(layers)}
        return {
            key: _wired(value, places)
            if key in ("keras_history", "input_layers", "output_layers")
            else _nameless(value, places)
            for key, value in config.items()
            if key not in _NEUTRAL
        }
    if isinstance(config, list | tuple):
        return [_nameless(value, places) for value in config]
    return config


def _wired(value: Any, places: Mapping[str, int] | None) -> Any:
    if isinstance(value, str):
        return (places or {}).get(value, value)
    if isinstance(value, list | tuple):
        return [_wired(item, places) for item in value]
    return value


def _source_of(kind: type) -> str:
    try:
        return inspect.getsource(kind)
    except (OSError, TypeError):
        # Typed at a prompt: nobody can tell whether it is the same elsewhere.
        return f"{kind.__qualname__} of process {os.getpid()}"


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray | np.generic):
        return np.asarray(value).tolist()
    if isinstance(value, bytes):
        return value.hex()
    return repr(value)
