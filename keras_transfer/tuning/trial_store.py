"""What is kept of each trial: its table, and the weights of its best epoch.

trials/07.json   values, rows of every execution, which is best, its seed
weights/07.npz   arrays that differ from the beginning, by their place
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
    """Writes and reads what is kept of trials.

    Args:
        folder: Where; made with the first record.
    """

    def __init__(self, folder: Path) -> None:
        self._trials = folder / "trials"
        self._weights = folder / "weights"

    def write(
        self, trial: str, record: Record, weights: Mapping[int, np.ndarray]
    ) -> None:
        """Keeps a trial, in place of what is there of it.

        Args:
            trial: Id of the trial.
            record: Plain values.
            weights: Arrays by place, as of `RunOutcome`.
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
        """Returns the ids of all trials that there are records of."""
        return sorted(path.stem for path in self._trials.glob("[!.]*.json"))

    def read(self, trial: str) -> Record | None:
        """Returns what is kept of a trial, or `None`.

        Args:
            trial: Id of the trial.
        """
        path = self._trials / f"{trial}.json"
        if not path.exists():
            return None
        record: Record = json.loads(path.read_text(encoding="utf-8"))
        return record

    def weights(self, trial: str) -> dict[int, np.ndarray] | None:
        """Returns the arrays of a trial, or `None` where they are gone.

        Args:
            trial: Id of the trial.
        """
        path = self._weights_of(trial)
        if not path.exists():
            return None
        with np.load(path, allow_pickle=False) as file:
            return {int(name): file[name] for name in file.files}

    def drop_weights(self, trials: Sequence[str]) -> None:
        """Removes weights, and leaves what else is kept of a trial.

        Args:
            trials: Ids of the trials.
        """
        for trial in trials:
            self._weights_of(trial).unlink(missing_ok=True)

    def _weights_of(self, trial: str) -> Path:
        return self._weights / f"{trial}.npz"


def _to_disk(file: IO[bytes]) -> None:
    # The journal, which says that the trial ended, may not be there first.
    file.flush()
    os.fsync(file.fileno())
