"""Store of trials: their tables, and the weights of their best epochs.

trials/07.json   values, rows of every execution, index of the best, seed
weights/07.npz   arrays that differ from the initial ones, by their place
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np

from keras_transfer._utils.files import atomic_write

Record = dict[str, Any]


class TrialStore:
    """Writes and reads the records of trials.

    Args:
        folder: Folder of the store; created with the first record.
    """

    def __init__(self, folder: Path) -> None:
        self._trials = folder / "trials"
        self._weights = folder / "weights"

    def write(
        self, trial: str, record: Record, weights: Mapping[int, np.ndarray]
    ) -> None:
        """Saves a trial, and replaces an earlier record of it.

        Args:
            trial: Id of the trial.
            record: Plain values.
            weights: Arrays by place, from `RunOutcome.weights`.
        """
        for folder in (self._trials, self._weights):
            folder.mkdir(parents=True, exist_ok=True)
        arrays: dict[str, Any] = {str(k): v for k, v in weights.items()}
        path = self._weights_of(trial)
        with atomic_write(path) as partial, open(partial, "wb") as file:
            np.savez(file, **arrays)
            _to_disk(file)
        path = self._trials / f"{trial}.json"
        with atomic_write(path) as partial, open(partial, "wb") as file:
            file.write(json.dumps(record).encode() + b"\n")
            _to_disk(file)

    def names(self) -> list[str]:
        """Returns the ids of all trials with a record."""
        return sorted(path.stem for path in self._trials.glob("[!.]*.json"))

    def read(self, trial: str) -> Record | None:
        """Returns the record of a trial, or `None`.

        Args:
            trial: Id of the trial.
        """
        path = self._trials / f"{trial}.json"
        if not path.exists():
            return None
        record: Record = json.loads(path.read_text(encoding="utf-8"))
        return record

    def weights(self, trial: str) -> dict[int, np.ndarray] | None:
        """Returns the arrays of a trial, or `None` where they were removed.

        Args:
            trial: Id of the trial.
        """
        path = self._weights_of(trial)
        if not path.exists():
            return None
        with np.load(path, allow_pickle=False) as file:
            return {int(name): file[name] for name in file.files}

    def drop_weights(self, trials: Sequence[str]) -> None:
        """Removes the weights of trials, and leaves their records.

        Args:
            trials: Ids of the trials.
        """
        for trial in trials:
            self._weights_of(trial).unlink(missing_ok=True)

    def _weights_of(self, trial: str) -> Path:
        return self._weights / f"{trial}.npz"


def _to_disk(file: IO[bytes]) -> None:
    # The files must be on disk before the journal records the end of the trial.
    file.flush()
    os.fsync(file.fileno())
