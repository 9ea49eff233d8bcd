"""Compiled state: the variables that Keras will train, whatever layers say.

This is the only module that reads it, since Keras has no public accessor. If an
attribute is missing, nothing is reported.

Keras 3.15 fixes the trainable set twice, and neither time in `compile`: the
first `fit` traces the training step, which reads `trainable` once, and builds
the optimizer. A change before the first `fit` takes effect; a change after it
is silently ignored. The optimizer of a loaded model is built already, so `fit`
raises an error for variables that were unfrozen after loading.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import keras


class Stale(NamedTuple):
    """Variables whose `trainable` differs from what the next `fit` trains.

    Attributes:
        unfrozen: Paths of variables that are trainable, but unknown to the
            optimizer.
        frozen: Paths of variables that are no longer trainable, but would
            still be trained.
        traced: Whether the training step is traced already. If so, `fit`
            silently ignores unfrozen variables; otherwise it raises.
    """

    unfrozen: tuple[str, ...]
    frozen: tuple[str, ...]
    traced: bool


def compiled_metrics(model: keras.Model) -> tuple[Any, ...]:
    """Returns the metrics that the user compiled a model with.

    Args:
        model: A compiled model.

    Returns:
        Names, metrics and functions, as they were passed.
    """
    compiled = getattr(model, "_compile_metrics", None)
    names = ("_user_metrics", "_user_weighted_metrics")
    return tuple(
        metric
        for name in names
        for metric in keras.tree.flatten(getattr(compiled, name, None))
        if metric is not None
    )


def read_stale(model: keras.Model) -> Stale:
    """Compares the trainable variables with those that `fit` would train."""
    optimizer = model.optimizer if model.compiled else None
    known = getattr(optimizer, "_trainable_variables", None)
    traced = model.compiled and model.train_function is not None
    if not known or not getattr(optimizer, "built", False):
        return Stale((), (), traced)
    trainable = {id(v): v for v in model.trainable_variables}
    inside = {id(v): v for v in known}
    unfrozen = tuple(v.path for v in trainable.values() if id(v) not in inside)
    frozen: tuple[str, ...] = ()
    # An optimizer that was compiled again may know more variables than the
    # step trains; the step misses only changes since the last `compile`.
    at_compile = getattr(model, "_compiled_trainable_state", {})
    changed = any(layer.trainable != old for layer, old in at_compile.items())
    if traced and changed and not model.run_eagerly:
        not_trained = {id(v) for v in model.non_trainable_variables}
        frozen = tuple(v.path for v in known if id(v) in not_trained)
    return Stale(unfrozen, frozen, traced)
