"""What Keras remembers of a compiled model's trainable variables.

The only place that reads it; Keras has no public accessor. Where an attribute
is missing, nothing is reported.

Keras 3.15 fixes the set twice, and neither time at `compile`: the first `fit`
traces the training step, which reads `trainable` once, and builds the
optimizer. A change before it is honoured. A change after it is not, without a
word; and an optimizer out of a file is built already, so that there what was
unfrozen is refused.
"""

from __future__ import annotations

from typing import NamedTuple

import keras


class Stale(NamedTuple):
    """Paths of variables that `fit` would not treat as their layers say.

    Attributes:
        unfrozen: Trainable, yet not known to the optimizer.
        frozen: No longer trainable, yet still trained.
        traced: Whether the training step is there already, so that `fit` says
            nothing; it refuses what is unfrozen otherwise.
    """

    unfrozen: tuple[str, ...]
    frozen: tuple[str, ...]
    traced: bool


def read_stale(model: keras.Model) -> Stale:
    """Compares what is trainable with what the next `fit` would train."""
    optimizer = model.optimizer if model.compiled else None
    known = getattr(optimizer, "_trainable_variables", None)
    traced = model.compiled and model.train_function is not None
    if not known or not getattr(optimizer, "built", False):
        return Stale((), (), traced)
    trainable = {id(v): v for v in model.trainable_variables}
    inside = {id(v): v for v in known}
    unfrozen = tuple(v.path for v in trainable.values() if id(v) not in inside)
    frozen: tuple[str, ...] = ()
    # An optimizer that was compiled again may know more than the step trains:
    # only a change since then is one that the step does not see.
    at_compile = getattr(model, "_compiled_trainable_state", {})
    changed = any(layer.trainable != old for layer, old in at_compile.items())
    if traced and changed and not model.run_eagerly:
        closed = {id(v) for v in model.non_trainable_variables}
        frozen = tuple(v.path for v in known if id(v) in closed)
    return Stale(unfrozen, frozen, traced)
