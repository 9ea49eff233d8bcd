"""What a TensorFlow 2 SavedModel has to run: its functions and variables."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import tensorflow as tf


FILE = "saved_model.pb"


# What TF-Hub's format for TensorFlow 1 has beside it.
_OLD_FILE = "tfhub_module.pb"


class Program(NamedTuple):
    """What a layer runs.

    Attributes:
        loaded: The restored object; it keeps its variables alive.
        function: From one tensor to a tensor, or a structure of them.
        takes_training: Whether it has a `training` argument.
        input_name: Keyword of its input, or `None` where it is the first
            argument.
        spec: What it takes: shape with the batch, and dtype.
        trainable: Its trainable variables.
        frozen: Its other variables, such as moving averages.
        losses: Functions that give its regularization losses.
    """

    loaded: Any
    function: Any
    takes_training: bool
    input_name: str | None
    spec: tf.TensorSpec
    trainable: tuple[tf.Variable, ...]
    frozen: tuple[tf.Variable, ...]
    losses: tuple[Any, ...]


def read_program(folder: Path, signature: str | None) -> Program:
    """Loads a SavedModel and finds what to run in it.

    Args:
        folder: Where `saved_model.pb` is.
        signature: Name of the signature, or `None` for `__call__`.

    Returns:
        A `Program`.

    Raises:
        ValueError: If it cannot be run, with the reason.
    """
    import tensorflow as tf

    if not (folder / FILE).is_file():
        raise ValueError(
            f"`saved_model` must be a folder with {FILE!r}. Received: "
            f"saved_model={str(folder)!r}"
        )
    if (folder / _OLD_FILE).exists():
        raise ValueError(
            "`saved_model` must hold a SavedModel of TensorFlow 2. Received: "
            f"saved_model={str(folder)!r}, which is in TF-Hub's format for "
            "TensorFlow 1: its graph cannot be trained or saved anew. Look for "
            "a newer version of the same model."
        )
    try:
        loaded = tf.saved_model.load(str(folder))
    except (OSError, RuntimeError, tf.errors.OpError) as err:
        reason = str(err).splitlines()[0]
        raise ValueError(
            "`saved_model` must hold a whole SavedModel, of operations that "
            "this TensorFlow has. Received: "
            f"saved_model={str(folder)!r}: {reason}"
        ) from err
    signatures = sorted(getattr(loaded, "signatures", {}))
    if signature is None and callable(loaded):
        return _reusable(loaded)
    if signature is None or signature not in signatures:
        raise ValueError(
            "`signature` must be one of "
            f"{', '.join(map(repr, signatures)) or 'none: it has none'}"
            f"{', or None for `__call__`' if callable(loaded) else ''}. "
            f"Received: signature={signature!r}"
        )
    function = loaded.signatures[signature]
    given = function.structured_input_signature[1]
    if len(given) != 1:
        raise ValueError(
            f"`signature` must take one input. Received: {signature!r}, which "
            f"takes {', '.join(sorted(given)) or 'none'}."
        )
    ((name, spec),) = given.items()
    learn = {id(v) for v in function.trainable_variables}
    return Program(
        loaded,
        function,
        takes_training=False,
        input_name=name,
        spec=_dense(spec),
        trainable=tuple(function.trainable_variables),
        frozen=tuple(v for v in function.variables if id(v) not in learn),
        losses=(),
    )


def _reusable(loaded: Any) -> Program:
    traces = loaded.__call__.concrete_functions
    if not traces:
        raise ValueError(
            "`saved_model` must hold a SavedModel whose `__call__` was traced. "
            "Received: one that can be called with nothing."
        )
    specs, flags = [], set()
    for trace in traces:
        args, kwargs = trace.structured_input_signature
        specs.append(args[0] if args else next(iter(kwargs.values())))
        named = {**dict(enumerate(args)), **kwargs}
        flags |= {value for value in named.values() if isinstance(value, bool)}
    # Not every object lists them; those that the function reads are known.
    used = {id(v): v for trace in traces for v in trace.variables}
    every = tuple(getattr(loaded, "variables", used.values()))
    trainable = getattr(loaded, "trainable_variables", None)
    if trainable is None:
        trainable = [v for v in every if v.trainable]
    learn = {id(v) for v in trainable}
    return Program(
        loaded,
        loaded,
        takes_training=bool(flags),
        input_name=None,
        spec=_dense(specs[0]),
        trainable=tuple(trainable),
        frozen=tuple(v for v in every if id(v) not in learn),
        losses=tuple(getattr(loaded, "regularization_losses", ())),
    )


def _dense(spec: Any) -> tf.TensorSpec:
    import tensorflow as tf

    if not isinstance(spec, tf.TensorSpec):
        raise ValueError(
            "`saved_model` must hold a SavedModel that takes one dense tensor. "
            f"Received: one that takes {type(spec).__name__}."
        )
    return spec


def digest_folder(folder: Path) -> str:
    """Returns a digest of a SavedModel's graph and assets, not its values."""
    digest = hashlib.blake2b(digest_size=16)
    files = [folder / FILE, *sorted((folder / "assets").rglob("*"))]
    for file in files:
        if file.is_file():
            digest.update(file.relative_to(folder).as_posix().encode())
            digest.update(file.read_bytes())
    return digest.hexdigest()


def is_same(folder: Path, known: Mapping[str, Any]) -> bool:
    """Whether a folder has the SavedModel that was written down."""
    found = (folder / FILE).is_file()
    return found and digest_folder(folder) == known["digest"]
