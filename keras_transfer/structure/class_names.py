"""Class names, stored in a model."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import keras

_CLASS_NAMES = "class_names="


def encode_class_names(names: Sequence[str]) -> str:
    """Encodes class names as the name of an input layer."""
    # Keras gives slashes in names a meaning; JSON allows an escape instead.
    return _CLASS_NAMES + json.dumps(list(names)).replace("/", "\\u002f")


def find_class_names(config: dict[str, Any]) -> tuple[str, ...] | None:
    """Returns the class names in the configuration of a model, or `None`."""
    name = str(config.get("name", ""))
    if name.startswith(_CLASS_NAMES):
        return tuple(json.loads(name[len(_CLASS_NAMES) :]))
    for layer in config.get("layers", ()):
        names = find_class_names(layer["config"])
        if names is not None:
            return names
    return None


def class_names(model: keras.Model | str | Path) -> tuple[str, ...]:
    """Returns the names of the classes that a model was built for.

    The names are part of the model's configuration (in the name of the head's
    input), so they survive saving, loading and cloning, with or without
    keras_transfer.

    Args:
        model: A model made by `build_classifier`, possibly loaded from a file,
            or the path of its `.keras` or legacy `.h5` file, which is read
            without loading the model.

    Returns:
        Tuple of names; index `i` is output `i`. A single output is the second
        of two names.

    Raises:
        ValueError: If the model has no class names or the file holds no
            model.
        TypeError: If `model` is neither a model nor a path.

    Example:

    >>> model = build_classifier("ResNet20", class_names=["cat", "dog"])
    >>> class_names(model)
    ('cat', 'dog')
    """
    if isinstance(model, keras.Model):
        config = model.get_config()
    else:
        if not isinstance(model, str | Path):
            raise TypeError(
                "`model` must be a keras.Model or the path of its `.keras` or "
                "`.h5` file. "
                f"Received: model={model!r}"
            )
        config = read_config(Path(model))
    names = find_class_names(config)
    if names is not None:
        return names
    raise ValueError(
        "`model` must have been built with class names: pass `data` or "
        f"`class_names` to `build_classifier`. Received: {model!r}"
    )


def read_config(path: Path) -> dict[str, Any]:
    """Reads the configuration in a `.keras` or legacy `.h5` file."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            if "config.json" in archive.namelist():
                return json.loads(archive.read("config.json"))["config"]
    if path.is_file() and h5py.is_hdf5(path):
        with h5py.File(path, "r") as file:
            config = file.attrs.get("model_config")
        if config is None:
            raise ValueError(
                "`model` must be the path of a whole model. Received: "
                f"model={str(path)!r}, which holds weights alone."
            )
        return json.loads(config)["config"]
    problem = "is something else" if path.exists() else "does not exist"
    raise ValueError(
        "`model` must be a keras.Model or the path of its `.keras` or "
        "`.h5` file. "
        f"Received: model={str(path)!r}, which {problem}."
    )
