"""Trainable state, layer by layer, and a record of layers the user froze."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterator, Sequence

import keras

from keras_transfer._utils.checks import did_you_mean
from keras_transfer.structure import graph, lora_layers
from keras_transfer.structure.blocks import Block
from keras_transfer.structure.model_parts import parts_of

_FROZEN = "_frozen_by_keras_transfer"


def copy_mark(old: keras.Layer, new: keras.Layer) -> None:
    """Copies the mark of a layer that the user froze."""
    if getattr(old, _FROZEN, False):
        setattr(new, _FROZEN, True)


def _all_layers(
    layers: Sequence[keras.layers.Layer],
) -> Iterator[keras.layers.Layer]:
    for layer in layers:
        yield from graph.layers_below(layer)


def remember_frozen(blocks: Sequence[Block], frozen: bool) -> None:
    """Marks the layers of blocks as frozen, or not, by the user.

    `fine_tune` needs the mark, since its phases freeze and unfreeze blocks
    themselves: builders freeze layers too, so `trainable` does not tell who
    froze a layer.
    """
    for block in blocks:
        for layer in _all_layers(block.layers):
            setattr(layer, _FROZEN, frozen)


def frozen_by_user(model: keras.Model) -> frozenset[int]:
    """Returns the ids of the layers that the user froze, not the builder.

    These are the layers that `freeze` froze; all layers of a backbone that is
    closed as a whole, which builders leave open; frozen layers in a block that
    is trainable otherwise, which were frozen by hand; and, in a model without a
    builder, all frozen layers.

    Args:
        model: A model made by `build_classifier` or `build_regressor`, or any
            functional model.

    Returns:
        Frozen set of `id(layer)`, of layers with weights of their own.
    """
    parts = parts_of(model)
    built = parts.head is not None
    is_closed = backbone_is_closed(model)
    hidden = frozenset() if built else _hidden_layers(model)
    frozen = set()
    for block in parts.blocks:
        layers = [
            layer
            for layer in _all_layers(block.layers)
            if layer.weights and not graph.is_functional(layer)
        ]
        frozen |= {
            id(layer)
            for layer in layers
            if is_closed
            or (getattr(layer, _FROZEN, False) and not layer.trainable)
        }
        # `unfreeze` leaves BatchNormalization frozen in trainable blocks.
        others = [
            layer
            for layer in layers
            if not isinstance(layer, keras.layers.BatchNormalization)
        ]
        if not built or any(layer.trainable for layer in others):
            frozen |= {
                id(layer)
                for layer in others
                if not layer.trainable or id(layer) in hidden
            }
    return frozenset(frozen)


def marked_frozen(model: keras.Model) -> frozenset[int]:
    """Returns the ids of the layers that `freeze` froze."""
    return frozenset(
        id(layer)
        for layer in graph.layers_below(model)
        if getattr(layer, _FROZEN, False)
    )


def backbone_is_closed(model: keras.Model) -> bool:
    """Tells whether `model`, or its backbone, is frozen as a whole.

    Builders freeze the layers of a backbone and leave the backbone itself
    trainable, so that this is the work of the user.
    """
    return not (model.trainable and parts_of(model).backbone.trainable)


def _hidden_layers(model: keras.Model) -> frozenset[int]:
    """Returns the ids of the layers within frozen containers.

    Keras does not train them, whatever their own flags.
    """
    return frozenset(
        id(layer)
        for container in graph.layers_below(model)
        if graph.is_functional(container) and not container.trainable
        for layer in graph.layers_below(container)
    )


def train_only(
    model: keras.Model,
    opened: Sequence[Block],
    *,
    train_batch_norm: bool = False,
    closed: frozenset[int] = frozenset(),
) -> None:
    """Makes the layers of some blocks trainable and freezes all other blocks.

    Args:
        model: A model made by `build_classifier` or `build_regressor`, or any
            functional model.
        opened: The blocks to train.
        train_batch_norm: Whether BatchNormalization layers train, as in
            `unfreeze`. Defaults to `False`.
        closed: Ids of layers that stay frozen in any case. Defaults to
            `frozenset()`.
    """
    chosen = {id(layer) for block in opened for layer in block.layers}
    states = {
        id(layer): id(layer) in chosen
        for block in parts_of(model).blocks
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
    blocks: Sequence[Block], patterns: Sequence[str]
) -> tuple[Block, ...]:
    """Returns the blocks whose names match one of the patterns.

    Args:
        blocks: The blocks of a model.
        patterns: Names, or patterns such as `"conv2_*"`.

    Returns:
        Tuple of `Block`, in the order of the patterns.

    Raises:
        ValueError: If a pattern matches no block.
    """
    chosen = []
    for pattern in patterns:
        matches = [b for b in blocks if fnmatch.fnmatchcase(b.name, pattern)]
        if not matches:
            known = [b.name for b in blocks]
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
    """Sets `trainable` of layers of the backbone and undoes a compile.

    Args:
        model: Any functional model.
        states: The new state by `id(layer)`; other layers keep theirs.
        made_trainable: Whether to return the variables that became trainable,
            or those that no longer are.
        train_batch_norm: Whether BatchNormalization layers may train. Defaults
            to `True`.
        closed: Ids of layers that are frozen whatever `states` holds. Defaults
            to `frozenset()`.

    Returns:
        Tuple of the paths of the variables that changed, input to output.
    """
    before = {id(v) for v in model.trainable_variables}
    layers = list(_all_layers(model.layers))
    old_states = [layer.trainable for layer in layers]
    backbone = parts_of(model).backbone
    _unfreeze_containers(model, backbone)
    inner_layers = list(graph.layers_below(backbone))
    # If there are adapters, only the layers that hold one train.
    holders = {
        id(layer)
        for layer in inner_layers
        if lora_layers.adapted_layers(graph.layers_below(layer))
    }
    for step in graph.steps(backbone):
        if id(step.operation) not in states:
            continue
        # Set each inner layer: a container whose state does not change would
        # not pass it on to the layers within.
        for layer in graph.layers_below(step.operation):
            is_norm = isinstance(layer, keras.layers.BatchNormalization)
            state = states[id(step.operation)] and id(layer) not in closed
            state = state and (not holders or id(layer) in holders)
            layer.trainable = state and (train_batch_norm or not is_norm)
    lora_layers.freeze_adapted_kernels(inner_layers)
    after = model.trainable_variables
    if made_trainable:
        changed = [v for v in after if id(v) not in before]
    else:
        ids = {id(v) for v in after}
        changed = [
            v for v in model.variables if id(v) in before and id(v) not in ids
        ]
    if [layer.trainable for layer in layers] != old_states:
        # Keras would silently continue with the trainable set that it fixed
        # before; now `fit` raises until the model is compiled again.
        model.compiled = False
    return tuple(v.path for v in changed)


def _unfreeze_containers(model: keras.Model, backbone: keras.Model) -> None:
    """Makes model and backbone trainable, but no layer within them.

    Keras hides the trainable variables of a frozen model, and passes
    `trainable` of a container on to every layer inside.
    """
    if model.trainable and backbone.trainable:
        return
    states = [
        (layer, model.trainable and child.trainable and layer.trainable)
        for child in model.layers
        for layer in graph.layers_below(child)
        if layer is not backbone
    ]
    model.trainable = backbone.trainable = True
    for layer, state in states:
        layer.trainable = state
