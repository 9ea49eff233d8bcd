"""Checks of arguments that cannot be combined."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import keras

from keras_transfer.auxiliary.auxiliary_loss import AuxiliaryLoss
from keras_transfer.distribute import ProcessGroup
from keras_transfer.penalties.attached import check_free
from keras_transfer.penalties.penalty import Penalty
from keras_transfer.strategies.phase import Phase
from keras_transfer.structure.training_step import (
    check_own_training,
    has_own_training,
)


def check_losses(
    model: keras.Model,
    penalty: Any,
    auxiliary: Any,
    phases: Sequence[Phase],
) -> tuple[AuxiliaryLoss, ...]:
    """Raises unless a model can train under these losses in these phases.

    Args:
        model: The model.
        penalty: A penalty, or `None`.
        auxiliary: Further auxiliary losses.
        phases: The phases.

    Returns:
        The losses of nonzero weight, the penalty first.

    Raises:
        ValueError: If they do not fit the model or the phases.
        TypeError: If one is of another type.
    """
    if not isinstance(penalty, Penalty | None):
        raise TypeError(
            "`penalty` must be L1, L2, ElasticNet, L2SP, FeatureMap, BSS or "
            f"None. Received: penalty={penalty!r:.100}"
        )
    if not isinstance(auxiliary, Sequence) or not all(
        isinstance(loss, AuxiliaryLoss) for loss in auxiliary
    ):
        raise TypeError(
            "`auxiliary` must be a sequence of auxiliary losses. Received: "
            f"auxiliary={auxiliary!r:.100}"
        )
    named = [("penalty", penalty)] if penalty is not None else []
    named += [("auxiliary", loss) for loss in auxiliary]
    for name, loss in named:
        _check_loss(name, loss, model, phases)
    return tuple(
        loss for _, loss in named if getattr(loss, "weight", None) != 0
    )


def _check_loss(
    name: str,
    loss: AuxiliaryLoss,
    model: keras.Model,
    phases: Sequence[Phase],
) -> None:
    if not any(phase.epochs for phase in phases):
        raise ValueError(
            f"`{name}` must be None where no phase has gradient steps: the "
            f"exact probe chooses its own lambda. Received: {name}="
            f"{loss!r:.100}"
        )
    if loss.reads != "weights":
        check_own_training(model)
    if loss.pulls_to_start and any(phase.reinitialize for phase in phases):
        raise ValueError(
            f"`{name}` must not pull towards pretrained weights that the "
            f"strategy discards. Received: {type(loss).__name__} with "
            "a phase that starts from new weights. Use `L2`."
        )


def check_devices(
    model: keras.Model,
    losses: Sequence[AuxiliaryLoss],
    strategy: Any,
    optimizer: Any,
) -> None:
    """Raises for models, losses and optimizers that replicas cannot share.

    Args:
        model: The model.
        losses: The auxiliary losses.
        strategy: The strategy that splits batches, or `None`.
        optimizer: The optimizer, or its name.

    Raises:
        ValueError: If one of them cannot be split over replicas.
    """
    if strategy is None:
        return
    check_free(model)  # A copy of the model would lose the penalty.
    if getattr(optimizer, "ema_overwrite_frequency", None):
        raise ValueError(
            "`optimizer` must have no `ema_overwrite_frequency` on several "
            "devices. Received: ema_overwrite_frequency="
            f"{optimizer.ema_overwrite_frequency}. Use `ema_momentum`."
        )
    if has_own_training(model):
        raise ValueError(
            "`devices` must be None for a model with a training step of its "
            f"own, which does not support replicas. Received: a "
            f"{type(model).__name__}."
        )
    for loss in losses:
        if not loss.is_mean_over_examples:
            raise ValueError(
                f"`devices` must be None for {type(loss).__name__}, which is "
                "not a mean over examples: its value for a batch does not "
                f"follow from those of its shards. Received: "
                f"{type(loss).__name__}(...)"
            )
        if loss.examples() and ProcessGroup(strategy).size > 1:
            raise ValueError(
                "`devices` must be those of one process where an auxiliary "
                "loss has examples of its own. Received: several workers, and "
                f"a {type(loss).__name__}."
            )


def check_callbacks(
    callbacks: Sequence[keras.callbacks.Callback], phases: Sequence[Phase]
) -> None:
    """Raises for callbacks that do what a run does itself.

    Args:
        callbacks: The callbacks.
        phases: The phases.

    Raises:
        ValueError: If a callback and a schedule would both set the rate, or
            a callback resumes training.
    """
    setters = (
        keras.callbacks.LearningRateScheduler,
        keras.callbacks.ReduceLROnPlateau,
    )
    scheduled = [p.name for p in phases if p.schedule != "constant"]
    for callback in callbacks:
        if isinstance(callback, keras.callbacks.BackupAndRestore):
            raise ValueError(
                "`callbacks` must not resume training, of which a run has "
                "several phases. Received: a BackupAndRestore. Use "
                "`directory=...`."
            )
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
    classes = max(2, num_outputs)
    unknown = [label for label in class_weight if not 0 <= label < classes]
    if unknown:
        raise ValueError(
            f"`class_weight` must have keys from 0 to {classes - 1}, the "
            f"indices of the classes. Received: {unknown}"
        )


def check_tensorboard(
    tensorboard: bool | str | Path, directory: str | os.PathLike[str] | None
) -> None:
    """Raises where TensorBoard has no folder to write to."""
    if tensorboard is True and directory is None:
        raise ValueError(
            "`tensorboard` must be a folder where there is no `directory`. "
            "Received: tensorboard=True"
        )
