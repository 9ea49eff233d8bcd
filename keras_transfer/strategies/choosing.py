"""Chooses the phases of a call of `fine_tune`."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import keras

from keras_transfer.optimizers.given_rate import OptimizerRate
from keras_transfer.strategies.exact_probe_conditions import (
    begins_with_exact_probe,
    check_head,
)
from keras_transfer.strategies.phase import Depth, Phase, is_keras_schedule
from keras_transfer.strategies.strategies import GradualUnfreezing, resolve
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
    optimizer_rate: OptimizerRate = None,
) -> tuple[Phase, ...]:
    """Returns the phases of a strategy for a model.

    Args:
        model: The model as the user left it.
        strategy: A name, phases, or `None` for the default of the model.
        depth: Blocks to train. Defaults to `None`.
        learning_rate: Highest rate. Defaults to `None`.
        epochs: Epochs of the main phase. Defaults to `None`.
        optimizer_rate: The rate that the user gave to the optimizer, a number
            or a schedule of Keras, or `None` for a default one. It counts
            where `learning_rate` is `None`. Defaults to `None`.

    Returns:
        Tuple of `Phase`.

    Raises:
        ValueError: If they do not fit each other, or the model.
        TypeError: If an argument is of another type.
    """
    if strategy is None:
        strategy = default_strategy(model)
    if strategy == "gradual-unfreezing" and depth is None:
        # Its default depth is that of a network with many blocks.
        weighted = [block for block in parts_of(model).blocks if block.layers]
        default = GradualUnfreezing()[-1].depth
        depth = min(int(default or 0), len(weighted))
        strategy = strategy if depth else "linear-probe"
    if optimizer_rate is not None:
        _check_rate(strategy, learning_rate, optimizer_rate)
        if learning_rate is None and not is_keras_schedule(optimizer_rate):
            learning_rate = optimizer_rate
    phases = resolve(
        strategy,
        depth=depth,
        learning_rate=learning_rate,
        epochs=epochs,
        has_head=parts_of(model).head is not None,
    )
    if depth is None and isinstance(strategy, str):
        phases = keep_opened(model, phases)
    if is_keras_schedule(optimizer_rate):
        rate = Phase.learning_rate  # The default: the schedule has its own.
        phases = tuple(
            dataclasses.replace(
                phase,
                schedule=optimizer_rate,
                learning_rate=rate,
            )
            for phase in phases
        )
    if any(phase.exact_probe for phase in phases):
        check_head(model)
    return phases


def _check_rate(
    strategy: str | Sequence[Phase],
    learning_rate: float | None,
    optimizer_rate: OptimizerRate,
) -> None:
    """Raises where two arguments set the rate, and neither wins."""
    if isinstance(optimizer_rate, int | float):
        received, advice = f"{optimizer_rate:g}", f"={optimizer_rate:g}"
    else:
        received, advice = f"a {type(optimizer_rate).__name__}", ""
    if not isinstance(strategy, str):
        raise ValueError(
            "`optimizer` must have the default rate of its class where the "
            "phases of `strategy` set the rate. Received: an optimizer with "
            f"learning_rate {received}. Use `Phase(learning_rate{advice})` or "
            "`Phase(schedule=...)`, or the strategy's name."
        )
    if learning_rate is not None and is_keras_schedule(optimizer_rate):
        raise ValueError(
            "`learning_rate` must be None where `optimizer` has a schedule. "
            f"Received: learning_rate={learning_rate}, and {received}."
        )
