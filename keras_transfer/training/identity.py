"""What makes a run the run that it is, and what cannot go together."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_transfer._attached import check_free
from keras_transfer._blocks import backbone_of
from keras_transfer.penalties import BSS, L2SP, FeatureMap, Penalty
from keras_transfer.strategies import Phase
from keras_transfer.training.settings import Settings, plain
from keras_transfer.training.sources import Source


def describe(
    model: keras.Model,
    source: Source,
    phases: Sequence[Phase],
    settings: Settings,
    penalty: Penalty | None,
) -> dict[str, Any]:
    """Returns what another process must ask for to go on with a run.

    Args:
        model: The model; its structure counts, not the names in it.
        source: The data.
        phases: The phases.
        settings: Everything else.
        penalty: The penalty.

    Returns:
        Plain values by name.
    """
    shapes = [[list(v.shape), str(v.dtype)] for v in model.variables]
    structure = json.dumps([shapes, _nameless(model.get_config())], default=str)
    return {
        "model": hashlib.sha256(structure.encode()).hexdigest(),
        "data": source.digest(),
        "phases": [plain(phase) for phase in phases],
        "penalty": plain(penalty),
        **settings.identity(),
    }


# Differ from process to process, though the model is the same.
_NAMES = frozenset(
    ("name", "inbound_nodes", "input_layers", "output_layers", "trainable")
)


def _nameless(config: Any) -> Any:
    if isinstance(config, dict):
        kept = {k: v for k, v in config.items() if k not in _NAMES}
        return {key: _nameless(value) for key, value in kept.items()}
    if isinstance(config, list | tuple):
        return [_nameless(value) for value in config]
    return config


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


_TRAINING = ("train_step", "compute_loss")
_MEASURING = ("test_step", "compute_metrics")


def has_own_training(model: keras.Model) -> bool:
    """Whether the model has a training step that another would not take."""
    return any(
        getattr(type(model), name) is not getattr(keras.Model, name)
        for name in (*_TRAINING, *_MEASURING)
    )


def objection_to_parts(model: keras.Model, penalty: object) -> str:
    """Says why the model must be computed whole, or `""`."""
    if isinstance(penalty, FeatureMap | BSS):
        return "the penalty looks at activations of the whole network"
    if has_own_training(model):
        return "the model has a training step of its own"
    return ""


def check_own_training(model: keras.Model) -> None:
    """Raises if the model has a training step that another would not take."""
    for name in _TRAINING:
        if getattr(type(model), name) is not getattr(keras.Model, name):
            raise ValueError(
                f"`model` must train by the `{name}` of Keras, since another "
                "model over the same layers is what trains here. Received: a "
                f"{type(model).__name__}, with its own."
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


def check_start(
    model: keras.Model,
    known: Sequence[Sequence[np.ndarray]],
    phases: Sequence[Phase],
) -> None:
    """Raises if the backbone is none that the run had.

    A new head is random, and a backbone whose weights are thrown away may be.

    Args:
        model: The model as it was given now.
        known: Its arrays at the beginning of the run, in its last state and in
            its best: a run that is interrupted leaves the model with these.
        phases: The phases.
    """
    if phases[0].reinitialize:
        return
    backbone = {id(v) for v in backbone_of(model).weights}
    places = [i for i, v in enumerate(model.variables) if id(v) in backbone]
    now = {i: np.asarray(model.variables[i]) for i in places}
    different = []
    for arrays in known:
        different = [i for i in places if not np.array_equal(now[i], arrays[i])]
        if not different:
            return
    path = model.variables[different[0]].path if different else ""
    raise ValueError(
        "`directory` must belong to a run of this backbone. Received: another "
        f"one, whose {path!r} differs. Build the model as at the start of the "
        "run (random weights: call `keras.utils.set_random_seed` before), or "
        "choose another directory."
    )
