"""Sets what of a model trains, layer by layer, and remembers who closed it."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterator, Sequence

import keras

from keras_transfer._utils.checks import did_you_mean
from keras_transfer.structure import adapters, graph
from keras_transfer.structure.blocks import Block, backbone_of, find_blocks

_FROZEN = "_frozen_by_keras_transfer"


def copy_mark(old: keras.Layer, new: keras.Layer) -> None:
    """Notes that a copy of a layer was frozen by the user, if it was."""
    if getattr(old, _FROZEN, False):
        setattr(new, _FROZEN, True)


def _parts(
    layers: Sequence[keras.layers.Layer],
) -> Iterator[keras.layers.Layer]:
    for layer in layers:
        yield from graph.layers_below(layer)


def remember_frozen(blocks: Sequence[Block], frozen: bool) -> None:
    """Notes on the layers of blocks that the user closed or opened them.

    For `fine_tune`, whose phases close and open blocks themselves: that a
    layer is frozen does not say who froze it, since builders do, too.
    """
    for block in blocks:
        for part in _parts(block.layers):
            setattr(part, _FROZEN, frozen)


def frozen_by_user(model: keras.Model) -> frozenset[int]:
    """Returns the ids of the layers that the user closed, not the builder.

    Those that `freeze` closed; those closed by hand, which is seen in blocks
    that are open otherwise; in a model without builder, all that are closed.

    Args:
        model: A model made by `build_classifier` or `build_regressor`, or any
            functional model.

    Returns:
        Frozen set of `id(layer)`, of layers with weights of their own.
    """
    built = backbone_of(model) is not model
    closed = set()
    for block in find_blocks(backbone_of(model)):
        parts = [
            part
            for part in _parts(block.layers)
            if part.weights and not graph.is_functional(part)
        ]
        closed |= {id(p) for p in parts if getattr(p, _FROZEN, False)}
        # BatchNormalization is closed in open blocks by `unfreeze`, too.
        plain = [
            part
            for part in parts
            if not isinstance(part, keras.layers.BatchNormalization)
        ]
        if not built or any(part.trainable for part in plain):
            closed |= {id(part) for part in plain if not part.trainable}
    return frozenset(closed)


def train_only(
    model: keras.Model,
    opened: Sequence[Block],
    *,
    train_batch_norm: bool = False,
    closed: frozenset[int] = frozenset(),
) -> None:
    """Makes the layers of some blocks of the backbone trainable, and no others.

    Args:
        model: A model made by `build_classifier` or `build_regressor`, or any
            functional model.
        opened: Blocks of the model.
        train_batch_norm: As for `unfreeze`. Defaults to `False`.
        closed: Ids of layers that stay closed. Defaults to
            `frozenset()`.
    """
    chosen = {id(layer) for block in opened for layer in block.layers}
    states = {
        id(layer): id(layer) in chosen
        for block in find_blocks(backbone_of(model))
        for layer in block.layers
    }
    set_trainable(
        model,
        states,
        made_trainable=True,
        train_batch_norm=train_batch_norm,
        closed=closed,
    )


def match_blocks(
    found: Sequence[Block], patterns: Sequence[str]
) -> tuple[Block, ...]:
    """Returns the blocks whose names match one of the patterns.

    Args:
        found: The blocks of a model.
        patterns: Names, or patterns such as `"conv2_*"`.

    Returns:
        Tuple of `Block`, in the order of the patterns.

    Raises:
        ValueError: If a pattern matches no block.
    """
    chosen = []
    for pattern in patterns:
        matches = [b for b in found if fnmatch.fnmatchcase(b.name, pattern)]
        if not matches:
            known = [b.name for b in found]
            raise ValueError(
                f"`names` must match blocks of the model, which are "
                f"{', '.join(known)}. Received: {pattern!r}."
                f"{did_you_mean(pattern, known)}"
            )
        chosen += matches
    return tuple(chosen)


def set_trainable(
    model: keras.Model,
    states: dict[int, bool],
    *,
    made_trainable: bool,
    train_batch_norm: bool = True,
    closed: frozenset[int] = frozenset(),
) -> tuple[str, ...]:
    """Sets layers of the backbone trainable or not, and takes a compile back.

    Args:
        model: Any functional model.
        states: The wanted state by `id(layer)`; other layers keep theirs.
        made_trainable: Whether to return what became trainable or what no
            longer is.
        train_batch_norm: Whether BatchNormalization layers may train. Defaults
            to `True`.
        closed: Ids of layers that are closed whatever `states` says. Defaults
            to `frozenset()`.

    Returns:
        Tuple of the paths of the variables that changed, input to output.
    """
    before = {id(v) for v in model.trainable_variables}
    parts = [p for child in model.layers for p in graph.layers_below(child)]
    was = [part.trainable for part in parts]
    backbone = backbone_of(model)
    _open(model, backbone)
    below = list(graph.layers_below(backbone))
    # Where there are adapters, they train and nothing else.
    holders = {
        id(part) for part in below if adapters.adapted(graph.layers_below(part))
    }
    for step in graph.steps(backbone):
        if id(step.operation) not in states:
            continue
        # One by one: a container that has the state already would not pass it
        # on to what is inside.
        for part in graph.layers_below(step.operation):
            is_norm = isinstance(part, keras.layers.BatchNormalization)
            state = states[id(step.operation)] and id(part) not in closed
            state = state and (not holders or id(part) in holders)
            part.trainable = state and (train_batch_norm or not is_norm)
    adapters.settle(below)
    after = model.trainable_variables
    if made_trainable:
        changed = [v for v in after if id(v) not in before]
    else:
        ids = {id(v) for v in after}
        changed = [
            v for v in model.variables if id(v) in before and id(v) not in ids
        ]
    if any(p.trainable != old for p, old in zip(parts, was, strict=True)):
        # Keras would go on with the trainable set of the last `compile()`, in
        # silence; now it asks for a new one.
        model.compiled = False
    return tuple(v.path for v in changed)


def _open(model: keras.Model, backbone: keras.Model) -> None:
    """Makes the containers trainable and leaves all in them as it was.

    Keras hides the variables of a closed model, and passes `trainable` of a
    container on to everything inside.
    """
    if model.trainable and backbone.trainable:
        return
    states = [
        (part, model.trainable and child.trainable and part.trainable)
        for child in model.layers
        for part in graph.layers_below(child)
        if part is not backbone
    ]
    model.trainable = backbone.trainable = True
    for part, state in states:
        part.trainable = state
