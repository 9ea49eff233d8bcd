"""Sets the trainable layers of each phase, except those the user froze."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Sequence

import keras

from keras_transfer._utils.checks import is_integer
from keras_transfer._utils.seeding import seeded
from keras_transfer.strategies.phase import Phase
from keras_transfer.structure import graph
from keras_transfer.structure.blocks import Block
from keras_transfer.structure.model_parts import parts_of
from keras_transfer.structure.trainable import (
    frozen_by_user,
    marked_frozen,
    match_blocks,
    train_only,
)


class TrainableSets:
    """Opens and closes the blocks of a model for each phase.

    Args:
        model: The model as the user left it.
        phases: The phases; checked immediately.

    Raises:
        ValueError: If a phase names blocks that the model does not have, or
            opens only blocks that the user froze.
    """

    def __init__(self, model: keras.Model, phases: Sequence[Phase]) -> None:
        self._model = model
        self._blocks = parts_of(model).blocks
        self._closed = frozen_by_user(model)
        self._has_head = parts_of(model).head is not None
        self._whole = model.trainable
        self._states = [
            (part, part.trainable)
            for child in model.layers
            for part in graph.layers_below(child)
        ]
        # LoRA freezes single variables in a trainable layer.
        self._variables = [(v, v.trainable) for v in model.variables]
        self._pinned = [
            v
            for part, state in self._states
            if state and not graph.is_functional(part)
            for v in part.variables
            if not v.trainable
        ]
        for phase in phases:
            blocks = self._opened(phase)
            if phase.reinitialize and self._closed:
                raise ValueError(
                    f"Phase {phase.name!r} must not reinitialize frozen "
                    "layers. Received: a model with layers frozen by "
                    "`freeze` or by hand. Open them with `unfreeze(model, "
                    '"all")` first.'
                )
            self._check_opens(phase, blocks)

    def apply(self, phase: Phase) -> tuple[str, ...]:
        """Sets the `trainable` flags of a phase.

        Args:
            phase: The phase.

        Returns:
            Tuple of the paths of the trainable variables, input to output.

        Raises:
            ValueError: If nothing would be trainable.
        """
        if phase.depth is None and phase.blocks is None:
            for part, state in self._states:
                part.trainable = state
        else:
            train_only(
                self._model,
                self._opened(phase),
                train_batch_norm=bool(phase.train_batch_norm),
                closed=self._closed,
            )
        for variable in self._pinned:
            variable.trainable = False
        paths = tuple(v.path for v in self._model.trainable_variables)
        if not paths:
            raise ValueError(
                f"Phase {phase.name!r} must have something to train. Received: "
                f"depth={phase.depth!r} and a model in which nothing is "
                "trainable then. Give a `depth` above 0, or open the head: "
                '`model.get_layer("head").trainable = True`.'
            )
        return paths

    def restore(self) -> None:
        """Restores the `trainable` flags that the user left."""
        self._model.trainable = self._whole
        for (
            part,
            state,
        ) in self._states:  # Containers first: they set their sublayers.
            part.trainable = state
        for variable, state in self._variables:
            variable.trainable = state

    def _opened(self, phase: Phase) -> tuple[Block, ...]:
        if phase.blocks is not None:
            return match_blocks(self._blocks, phase.blocks)
        # A network without weights has one block, which has nothing to open.
        count = sum(bool(block.layers) for block in self._blocks)
        depth = count if phase.depth == "all" else phase.depth or 0
        if not is_integer(depth) or depth > count:
            raise ValueError(
                f'`depth` must be an integer in [0, {count}] or "all" for '
                f"model {self._model.name!r} ({count} blocks with weights). "
                f"Received: depth={phase.depth!r}"
            )
        return tuple(self._blocks[len(self._blocks) - depth :])

    def _check_opens(self, phase: Phase, blocks: Sequence[Block]) -> None:
        """Raises where the blocks of a phase are all closed by the user."""
        layers = _trainable_layers(blocks)
        opened = {id(layer) for layer in layers} - self._closed
        if blocks and not opened:
            raise ValueError(
                f"`depth` must leave something to train in phase "
                f"{phase.name!r}. Received: depth={phase.depth!r}, blocks="
                f"{phase.blocks!r}, all of whose layers were frozen by "
                "`freeze` or by hand. Open them with `unfreeze(model, "
                'depth)` first, or train the head alone with `strategy="linear'
                '-probe"`.'
            )
        if self._has_head or phase.depth == "all":
            return
        # The head of a model without a builder is part of its blocks.
        closed = {id(layer) for layer in layers} & self._closed
        open_before = {
            id(layer) for layer in _trainable_layers(self._blocks)
        } - self._closed
        output = [x for x in layers if id(x) in opened][-1:]
        is_output = opened == {id(layer) for layer in output}
        by_hand = closed - marked_frozen(self._model)
        if closed and (is_output or (by_hand and opened == open_before)):
            names = ", ".join(
                layer.name for layer in layers if id(layer) in opened
            )
            raise ValueError(
                f"`depth` must open something that is not trainable already "
                f"in phase {phase.name!r}. Received: depth={phase.depth!r}, "
                f"blocks={phase.blocks!r}, in which {len(closed)} layers were "
                f"frozen by `freeze` or by hand and stay so: {names:.200} "
                "would train alone. Open them with `unfreeze(model, depth)` "
                "first, or omit `depth` to train what is open."
            )


def _trainable_layers(blocks: Sequence[Block]) -> list[keras.layers.Layer]:
    """Returns the layers with weights that opening some blocks opens."""
    return [
        part
        for block in blocks
        for layer in block.layers
        for part in graph.layers_below(layer)
        if part.weights
        and not graph.is_functional(part)
        and not isinstance(part, keras.layers.BatchNormalization)
    ]


def keep_opened(
    model: keras.Model, phases: Sequence[Phase]
) -> tuple[Phase, ...]:
    """Restricts phases that open all blocks to those that the user opened.

    Args:
        model: The model as the user left it.
        phases: Phases of a strategy given by name, without a depth.

    Returns:
        The phases, with depth `None` for `"all"` where the backbone is partly
        open.
    """
    backbone = parts_of(model).backbone
    if backbone is model or not (
        model.trainable and backbone.trainable_weights
    ):
        return tuple(phases)
    return tuple(
        dataclasses.replace(phase, depth=None)
        if phase.depth == "all" and not phase.reinitialize
        else phase
        for phase in phases
    )


def reinitialize(model: keras.Model, seed: int) -> None:
    """Gives backbone and head new random weights: architecture transfer.

    Statistics of Normalization layers describe pixels and stay. The momentum of
    BatchNormalization is lowered to 0.9 where it is higher: with MobileNet's
    0.999 the new statistics would need thousands of steps to follow.

    Args:
        model: A model made by a builder, or any functional one.
        seed: Seed of the weights.
    """
    parts = parts_of(model)
    trained = [model]
    if parts.head is not None:
        trained = [parts.backbone, parts.head]
    for part in trained:
        with seeded(seed):
            fresh = keras.models.clone_model(part)
        for old, new in zip(
            graph.layers_below(part), graph.layers_below(fresh), strict=True
        ):
            if graph.is_functional(old) or isinstance(
                old, keras.layers.Normalization
            ):
                continue
            if isinstance(old, keras.layers.BatchNormalization):
                old.momentum = min(old.momentum, 0.9)
            if old.weights:
                old.set_weights(new.get_weights())


@contextlib.contextmanager
def computing_in(model: keras.Model, policy: str | None) -> Iterator[None]:
    """Makes the layers compute in half precision within the context.

    Weights stay float32, and so do the preprocessing and the output layer.

    Args:
        model: The model.
        policy: `"mixed_float16"`, `"mixed_bfloat16"`, or `None` for no change.

    Yields:
        Nothing.
    """
    changed = []
    if policy is not None:
        children = [c for c in model.layers if c.name != "preprocessing"]
        layers = [p for child in children for p in graph.layers_below(child)]
        last = [layer for layer in layers if layer.weights][-1]
        for layer in layers:
            plain = layer.dtype_policy.name == "float32"
            if plain and layer is not last:
                changed.append((layer, layer.dtype_policy))
    try:
        for layer, _ in changed:
            layer.dtype_policy = keras.dtype_policies.get(policy)
        yield
    finally:
        for layer, before in changed:
            layer.dtype_policy = before
