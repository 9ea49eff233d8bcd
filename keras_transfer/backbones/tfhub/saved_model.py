"""Functions and variables of a TensorFlow 2 SavedModel."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import tensorflow as tf


FILE = "saved_model.pb"


# Additional file in TF-Hub's format for TensorFlow 1.
_OLD_FILE = "tfhub_module.pb"


class Program(NamedTuple):
    """A function of a SavedModel, and its variables.

    Attributes:
        loaded: The restored object, which keeps its variables alive.
        function: Function from one tensor to a tensor, or a structure of them.
        modes: The values of its argument `training` that it was traced with;
            empty if it has none.
        input_name: Keyword of its input, or `None` for the first positional
            argument.
        spec: Shape, batch included, and dtype of its input.
        trainable: Trainable variables.
        frozen: Other variables, such as moving averages.
        losses: Functions that return the regularization losses.
    """

    loaded: Any
    function: Any
    modes: frozenset[bool]
    input_name: str | None
    spec: tf.TensorSpec
    trainable: tuple[tf.Variable, ...]
    frozen: tuple[tf.Variable, ...]
    losses: tuple[Any, ...]


def read_program(folder: Path, signature: str | None) -> Program:
    """Loads a SavedModel, and selects a function of it.

    Args:
        folder: Folder with `saved_model.pb`.
        signature: Name of the signature, or `None` for `__call__`.

    Returns:
        A `Program`.

    Raises:
        ValueError: If it cannot run; the message tells the reason.
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
            "TensorFlow 1, and cannot be trained or saved again. Look for a "
            "newer version of the same model."
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
    inputs = function.structured_input_signature[1]
    if len(inputs) != 1:
        raise ValueError(
            f"`signature` must take one input. Received: {signature!r}, which "
            f"takes {', '.join(sorted(inputs)) or 'none'}."
        )
    ((name, spec),) = inputs.items()
    trainable = {id(v) for v in function.trainable_variables}
    return Program(
        loaded,
        function,
        modes=frozenset(),
        input_name=name,
        spec=_batched([spec]),
        trainable=tuple(function.trainable_variables),
        frozen=tuple(v for v in function.variables if id(v) not in trainable),
        losses=(),
    )


def _reusable(loaded: Any) -> Program:
    traces = loaded.__call__.concrete_functions
    if not traces:
        raise ValueError(
            "`saved_model` must hold a SavedModel whose `__call__` was traced. "
            "Received: one without any traced call."
        )
    calls = [_arguments(loaded, trace) for trace in traces]
    specs = [_only_tensor(call) for call in calls]
    modes = {call["training"] for call in calls if _has_mode(call)}
    # Not every object lists its variables, but its traces do.
    used = {id(v): v for trace in traces for v in trace.variables}
    variables = tuple(getattr(loaded, "variables", used.values()))
    trainable = getattr(loaded, "trainable_variables", None)
    if trainable is None:
        trainable = [v for v in variables if v.trainable]
    trainable_ids = {id(v) for v in trainable}
    return Program(
        loaded,
        loaded,
        modes=frozenset(modes),
        input_name=None,
        spec=_batched(specs),
        trainable=tuple(trainable),
        frozen=tuple(v for v in variables if id(v) not in trainable_ids),
        losses=tuple(getattr(loaded, "regularization_losses", ())),
    )


def _arguments(loaded: Any, trace: Any) -> dict[str, Any]:
    """Returns the arguments of a traced call, by name."""
    args, kwargs = trace.structured_input_signature
    described = getattr(loaded.__call__, "function_spec", None)
    names = list(getattr(described, "arg_names", None) or ())
    if len(names) < len(args):
        names = [f"argument {place}" for place in range(len(args))]
    return {**dict(zip(names, args, strict=False)), **kwargs}


def _only_tensor(call: dict[str, Any]) -> Any:
    """Returns the type of the input of a call, which must be the only one."""
    import tensorflow as tf

    values = tf.nest.flatten(list(call.values()))
    specs = [value for value in values if isinstance(value, tf.TypeSpec)]
    if len(specs) != 1:
        raise ValueError(
            "`saved_model` must hold a SavedModel that takes one tensor. "
            f"Received: one whose call takes {len(specs)}: "
            f"{', '.join(map(str, call))}."
        )
    return specs[0]


def _has_mode(call: dict[str, Any]) -> bool:
    return isinstance(call.get("training"), bool)


def _batched(specs: Sequence[Any]) -> tf.TensorSpec:
    """Returns the first type that takes batches of any size; raises if none."""
    import tensorflow as tf

    for spec in specs:
        if not isinstance(spec, tf.TensorSpec):
            raise ValueError(
                "`saved_model` must hold a SavedModel that takes one dense "
                f"tensor. Received: one that takes {type(spec).__name__}."
            )
    for spec in specs:
        if spec.shape.rank and spec.shape[0] is None:
            return spec
    shapes = ", ".join(str(spec.shape) for spec in specs)
    raise ValueError(
        "`saved_model` must hold a SavedModel that takes batches of any size: "
        "its input must have a known number of dimensions, of which the first "
        f"is None. Received: one that takes {shapes}. Export it again with "
        "`tf.TensorSpec((None, ...))` as its input."
    )


def digest_folder(folder: Path) -> str:
    """Returns a digest of a SavedModel's graph and assets, without values."""
    digest = hashlib.blake2b(digest_size=16)
    files = [folder / FILE, *sorted((folder / "assets").rglob("*"))]
    for file in files:
        if file.is_file():
            digest.update(file.relative_to(folder).as_posix().encode())
            digest.update(file.read_bytes())
    return digest.hexdigest()


def is_same(folder: Path, known: Mapping[str, Any]) -> bool:
    """Returns `True` if a folder has the SavedModel of a description."""
    exists = (folder / FILE).is_file()
    return exists and digest_folder(folder) == known["digest"]
