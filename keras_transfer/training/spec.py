"""What can be said of the arguments of a run before there are data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras

from keras_transfer.strategies.applying import TrainableSets
from keras_transfer.strategies.choosing import choose_phases
from keras_transfer.strategies.phase import Depth, Phase
from keras_transfer.training.compatibility import check_penalty
from keras_transfer.training.settings import Settings


def check_arguments(
    model: keras.Model,
    *,
    strategy: str | Sequence[Phase] | None = None,
    depth: Depth = None,
    learning_rate: float | None = None,
    epochs: int | None = None,
    penalty: Any = None,
    **settings: Any,
) -> tuple[Phase, ...]:
    """Raises what `fine_tune` would raise of these arguments alone.

    For what trains several times, one way after the other: what is wrong with
    the last one is said before the first one begins.

    Args:
        model: A model such as will be trained; left as it is.
        strategy: As for `fine_tune`. Defaults to `None`.
        depth: As for `fine_tune`. Defaults to `None`.
        learning_rate: As for `fine_tune`. Defaults to `None`.
        epochs: As for `fine_tune`. Defaults to `None`.
        penalty: As for `fine_tune`. Defaults to `None`.
        **settings: Further arguments, fields of `Settings`.

    Returns:
        The phases of the strategy.

    Raises:
        ValueError: If they do not fit each other, or the model.
        TypeError: If an argument is unknown, or of another type.

    Example:

    >>> model = build_classifier(backbone, num_classes=3)
    >>> check_arguments(model, strategy="linear-probe")[0].depth
    0
    """
    Settings(**settings)
    phases = choose_phases(
        model,
        strategy,
        depth=depth,
        learning_rate=learning_rate,
        epochs=epochs,
    )
    check_penalty(model, penalty, phases)
    TrainableSets(model, phases)
    return phases
