"""Identity of a run: everything that distinguishes it from another."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from keras_transfer._utils.plain import plain
from keras_transfer.auxiliary.auxiliary_loss import AuxiliaryLoss
from keras_transfer.data.adapters.training_data import TrainingData
from keras_transfer.strategies.phase import Phase
from keras_transfer.structure.model_parts import parts_of
from keras_transfer.training.settings import Settings


def describe(
    model: keras.Model,
    data: TrainingData,
    phases: Sequence[Phase],
    settings: Settings,
    losses: Sequence[AuxiliaryLoss],
) -> dict[str, Any]:
    """Returns the identity that another process needs to resume a run.

    Args:
        model: The model; its structure counts, not the names in it.
        data: The data.
        phases: The phases.
        settings: Settings of the run.
        losses: The auxiliary losses.

    Returns:
        Plain values by name.
    """
    shapes = [[list(v.shape), str(v.dtype)] for v in model.variables]
    structure = json.dumps([shapes, _nameless(model.get_config())], default=str)
    by_argument: dict[str, list[Any]] = {"penalty": [], "auxiliary": []}
    for loss in losses:
        by_argument[loss.argument].append(loss.identity())
    return {
        "model": hashlib.sha256(structure.encode()).hexdigest(),
        "data": data.digest(),
        "phases": [plain(phase) for phase in phases],
        "penalty": next(iter(by_argument["penalty"]), None),
        "auxiliary": by_argument["auxiliary"],
        **settings.identity(),
    }


# These differ between processes for the same model.
_NAMES = frozenset(
    ("name", "inbound_nodes", "input_layers", "output_layers", "trainable")
)


def _nameless(config: Any) -> Any:
    if isinstance(config, dict):
        rest = {k: v for k, v in config.items() if k not in _NAMES}
        return {key: _nameless(value) for key, value in rest.items()}
    if isinstance(config, list | tuple):
        return [_nameless(value) for value in config]
    return config


def check_start(
    model: keras.Model,
    candidates: Sequence[Sequence[np.ndarray]],
    phases: Sequence[Phase],
) -> None:
    """Raises if the weights of the backbone do not belong to the run.

    A new head is random, and so may be a backbone whose weights are discarded.

    Args:
        model: The model that the user passed now.
        candidates: Its arrays at the start of the run, in its last state and in
            its best: an interrupted run leaves the model with one of these.
        phases: The phases.
    """
    if phases[0].reinitialize:
        return
    backbone = {id(v) for v in parts_of(model).backbone.weights}
    places = [i for i, v in enumerate(model.variables) if id(v) in backbone]
    current = {i: np.asarray(model.variables[i]) for i in places}
    different = []
    for arrays in candidates:
        different = [
            i for i in places if not np.array_equal(current[i], arrays[i])
        ]
        if not different:
            return
    path = model.variables[different[0]].path if different else ""
    raise ValueError(
        "`directory` must belong to a run of this backbone. Received: another "
        f"one, whose {path!r} differs. Build the model as at the start of the "
        "run (random weights: call `keras.utils.set_random_seed` before), or "
        "choose another directory."
    )
