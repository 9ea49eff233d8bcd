"""What makes a run the run that it is, and what cannot go together."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_transfer._blocks import backbone_of
from keras_transfer.penalties import L2SP, FeatureMap, Penalty
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
    return {
        "model": hashlib.sha256(repr(shapes).encode()).hexdigest(),
        "data": source.digest,
        "phases": [plain(phase) for phase in phases],
        "penalty": plain(penalty),
        **settings.identity(),
    }


def check_penalty(penalty: Any, phases: Sequence[Phase]) -> None:
    """Raises unless `penalty` is one that these phases can train under."""
    if penalty is None:
        return
    if not isinstance(penalty, Penalty):
        raise TypeError(
            "`penalty` must be L1, L2, ElasticNet, L2SP, FeatureMap, BSS or "
            f"None. Received: penalty={penalty!r:.100}"
        )
    scratch = any(phase.reinitialize for phase in phases)
    if scratch and isinstance(penalty, L2SP | FeatureMap):
        raise ValueError(
            "`penalty` must not pull towards pretrained weights that the "
            f"strategy throws away. Received: {type(penalty).__name__} with "
            "a phase that begins from new weights. Use `L2`."
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
    model: keras.Model, start: Sequence[np.ndarray], phases: Sequence[Phase]
) -> None:
    """Raises if the backbone is not the one that a run began with.

    A new head is random, and a backbone whose weights are thrown away may be.

    Args:
        model: The model as it was given now.
        start: Its arrays at the beginning of the run.
        phases: The phases.
    """
    if phases[0].reinitialize:
        return
    backbone = {id(v) for v in backbone_of(model).weights}
    for variable, array in zip(model.variables, start, strict=True):
        if id(variable) in backbone and not np.array_equal(
            np.asarray(variable), array
        ):
            raise ValueError(
                "`directory` must belong to a run of this backbone. Received: "
                f"another one, whose {variable.path!r} differs. Build the "
                "model as at the start of the run (random weights: call "
                "`keras.utils.set_random_seed` before), or choose another "
                "directory."
            )
