"""Chooses the phases of a call of `fine_tune`."""

from __future__ import annotations

from collections.abc import Sequence

import keras

from keras_transfer.strategies.exact_probe_conditions import (
    begins_with_exact_probe,
    check_head,
)
from keras_transfer.strategies.phase import Depth, Phase
from keras_transfer.strategies.strategies import resolve
from keras_transfer.strategies.trainable_sets import keep_opened
from keras_transfer.structure.model_parts import parts_of


def default_strategy(model: keras.Model) -> str:
    """Returns the name of the default strategy."""
    return "lp-ft" if begins_with_exact_probe(model) else "fine-tune"


def choose_phases(
    model: keras.Model,
    strategy: str | Sequence[Phase] | None,
    *,
    depth: Depth = None,
    learning_rate: float | None = None,
    epochs: int | None = None,
) -> tuple[Phase, ...]:
    """Returns the phases of a strategy for a model.

    Args:
        model: The model as the user left it.
        strategy: A name, phases, or `None` for the default of the model.
        depth: Blocks to train. Defaults to `None`.
        learning_rate: Highest rate. Defaults to `None`.
        epochs: Epochs of the main phase. Defaults to `None`.

    Returns:
        Tuple of `Phase`.

    Raises:
        ValueError: If they do not fit each other, or the model.
        TypeError: If an argument is of another type.
    """
    if strategy is None:
        strategy = default_strategy(model)
    phases = resolve(
        strategy,
        depth=depth,
        learning_rate=learning_rate,
        epochs=epochs,
        has_head=parts_of(model).head is not None,
    )
    if depth is None and isinstance(strategy, str):
        phases = keep_opened(model, phases)
    if any(phase.exact_probe for phase in phases):
        check_head(model)
    return phases
