"""Class names inside a model: in the name of its head's input."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

_CLASS_NAMES = "class_names="


def encode_class_names(names: Sequence[str]) -> str:
    """Returns the name of an input that carries names of classes."""
    # A slash has a meaning in Keras' names, and JSON may spell it otherwise.
    return _CLASS_NAMES + json.dumps(list(names)).replace("/", "\\u002f")


def find_class_names(config: dict[str, Any]) -> tuple[str, ...] | None:
    """Returns the class names in the configuration of a model, or `None`."""
    name = str(config.get("name", ""))
    if name.startswith(_CLASS_NAMES):
        return tuple(json.loads(name[len(_CLASS_NAMES) :]))
    for layer in config.get("layers", ()):
        found = find_class_names(layer["config"])
        if found is not None:
            return found
    return None
