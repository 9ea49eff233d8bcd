"""Arguments that cannot go together."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import keras

from keras_transfer.penalties.attached import check_free
from keras_transfer.penalties.features import BSS, FeatureMap
from keras_transfer.penalties.weights import L2SP, Penalty
from keras_transfer.strategies.phase import Phase
from keras_transfer.structure.training_step import (
    check_own_training,
    has_own_training,
)


def check_penalty(
    model: keras.Model, penalty: Any, phases: Sequence[Phase]
) -> None:
    """Raises unless `model` can train under `penalty` in these phases."""
    if penalty is None:
        return
    if not isinstance(penalty, Penalty):
        raise TypeError(
            "`penalty` must be L1, L2, ElasticNet, L2SP, FeatureMap, BSS or "
            f"None. Received: penalty={penalty!r:.100}"
        )
    if not any(phase.epochs for phase in phases):
        raise ValueError(
            "`penalty` must be None where nothing is trained by steps: the "
            "exact probe chooses its own lambda. Received: penalty="
            f"{penalty!r:.100}"
        )
    if isinstance(penalty, FeatureMap | BSS):
        check_own_training(model)
    scratch = any(phase.reinitialize for phase in phases)
    if scratch and isinstance(penalty, L2SP | FeatureMap):
        raise ValueError(
            "`penalty` must not pull towards pretrained weights that the "
            f"strategy throws away. Received: {type(penalty).__name__} with "
            "a phase that begins from new weights. Use `L2`."
        )


def check_devices(
    model: keras.Model, penalty: Any, strategy: Any, optimizer: Any
) -> None:
    """Raises for what cannot be split over replicas.

    Args:
        model: The model.
        penalty: The penalty.
        strategy: What splits, or `None`.
        optimizer: The optimizer, or its name.

    Raises:
        ValueError: If it cannot.
    """
    if strategy is None:
        return
    check_free(model)  # Its copy would be without.
    if getattr(optimizer, "ema_overwrite_frequency", None):
        raise ValueError(
            "`optimizer` must have no `ema_overwrite_frequency` on several "
            "devices. Received: ema_overwrite_frequency="
            f"{optimizer.ema_overwrite_frequency}. Use `ema`."
        )
    if has_own_training(model):
        raise ValueError(
            "`devices` must be None for a model with a training step of its "
            f"own, which knows of no replicas. Received: a "
            f"{type(model).__name__}."
        )
    if isinstance(penalty, BSS):
        raise ValueError(
            "`devices` must be None for BSS: the singular values of a batch "
            "are not those of its parts. Received: penalty=BSS(...)"
        )


def check_callbacks(
    callbacks: Sequence[keras.callbacks.Callback], phases: Sequence[Phase]
) -> None:
    """Raises where two would set the learning rate."""
    setters = (
        keras.callbacks.LearningRateScheduler,
        keras.callbacks.ReduceLROnPlateau,
    )
    scheduled = [p.name for p in phases if p.schedule != "constant"]
    for callback in callbacks:
        if isinstance(callback, setters) and scheduled:
            raise ValueError(
                "`callbacks` must not set the learning rate in phases that "
                f"have a schedule. Received: a {type(callback).__name__}, and "
                f'phase {scheduled[0]!r}. Use `Phase(schedule="constant")`.'
            )


def check_class_weight(class_weight: Any, num_outputs: int) -> None:
    """Raises for weights of classes that the model does not have."""
    if not isinstance(class_weight, Mapping):
        return
    unknown = [label for label in class_weight if label >= max(2, num_outputs)]
    if unknown:
        raise ValueError(
            f"`class_weight` must have keys below {num_outputs}, the number of "
            f"classes. Received: {unknown}"
        )


def check_tensorboard(
    tensorboard: bool | str | Path, directory: str | os.PathLike[str] | None
) -> None:
    """Raises where there is no folder for TensorBoard."""
    if tensorboard is True and directory is None:
        raise ValueError(
            "`tensorboard` must be a folder where there is no `directory`. "
            "Received: tensorboard=True"
        )
