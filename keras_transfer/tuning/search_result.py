"""What a search found."""

from __future__ import annotations

import csv
import dataclasses
import functools
import math
import os
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras

from keras_transfer._utils.files import atomic_write
from keras_transfer.caching.plan import Plan
from keras_transfer.reports.plots import plot_search
from keras_transfer.tuning.soup import Soup
from keras_transfer.tuning.tensorboard import Written, write_trials
from keras_transfer.tuning.trial_store import TrialStore

Row = Mapping[str, Any]


@dataclasses.dataclass(eq=False, repr=False)
class SearchResult:
    """What a search found.

    Attributes:
        rows: A row for each trial, best first: `trial`, `status`, the chosen
            values, the metrics at the best epoch (means over executions),
            `seed`, `epochs`, `seconds`.
        objective: Name of the column that counts.
        tuner: The `keras_tuner.Tuner`: `results_summary()`,
            `get_best_hyperparameters()` and all else that it can.
        plans: For each model that trials shared, what was computed once, and
            what it took.
        soup: The average of the best trials, or `None` where none was asked
            for. Defaults to `None`.

    Example:

    >>> data = load_images((arrays, labels))
    >>> space = {"learning_rate": [1e-3, 1e-2], "lambda_": 0, "depth": 0}
    >>> result = search(
    ...     backbone, data, space=space, oracle="grid", epochs=1, verbose=0
    ... )
    >>> result.best_model.save(folder / "best.keras")
    >>> print(result.table().splitlines()[0])
    trial ...
    """

    rows: tuple[Row, ...]
    objective: str
    tuner: Any
    plans: tuple[Plan, ...]
    _sign: int
    _records: TrialStore
    _load: Callable[[str], keras.Model]
    soup: Soup | None = None

    @functools.cached_property
    def best_model(self) -> keras.Model:
        """The model of the best trial, with the weights of its best epoch."""
        return self._load(self.rows[0]["trial"])

    def model(self, trial: str) -> keras.Model:
        """Returns the model of a trial, with the weights of its best epoch.

        Args:
            trial: Its id, as in the table.

        Raises:
            ValueError: If its weights were not kept; see `keep`.
        """
        self._check(trial)
        return self._load(trial)

    def history(self, trial: str) -> list[Row]:
        """Returns a row for each epoch of a trial, as `Run.rows`.

        Args:
            trial: Its id, as in the table. Of several executions the best.
        """
        self._check(trial)
        record = self._records.read(trial)
        return [] if record is None else list(record["rows"][record["best"]])

    @property
    def probe(self) -> dict[str, float] | None:
        """Validation metrics of the exact probe that the best trial began with.

        `None` where its strategy begins with none.
        """
        for row in self.history(self.rows[0]["trial"]):
            if not row["epoch"]:
                return {k: v for k, v in row.items() if k.startswith("val_")}
        return None

    def compare_with_probe(self) -> str:
        """Says in a sentence how many trials are better than their probe."""
        probe = (self.probe or {}).get(self.objective)
        if probe is None:
            return ""
        scores = [
            row[self.objective]
            for row in self.rows
            if row["status"] == "completed"
        ]
        better = sum(self._sign * (score - probe) > 0 for score in scores)
        said = (
            f"The linear probe alone: {self.objective} {probe:.4f}; {better} "
            f"of {len(scores)} trials are better."
        )
        return said if better else f'{said} Take strategy="linear-probe".'

    def table(self) -> str:
        """Returns the rows as a table for people to read."""
        columns = self._columns()
        cells = [columns] + [
            [_cell(row.get(name)) for name in columns] for row in self.rows
        ]
        widths = [
            max(len(row[i]) for row in cells) for i in range(len(columns))
        ]
        return "\n".join(
            "  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True))
            .rstrip()
            for row in cells
        )  # fmt: skip

    def save_table(self, path: str | Path) -> None:
        """Writes the rows as CSV.

        Args:
            path: File to write.
        """
        columns = self._columns()
        with (
            atomic_write(Path(path)) as partial,
            open(partial, "w", newline="", encoding="utf-8") as file,
        ):
            writer = csv.DictWriter(file, columns)
            writer.writeheader()
            writer.writerows(self.rows)

    def plot(self, path: str | Path) -> None:
        """Draws the objective over learning rate and lambda, by depth.

        Args:
            path: PNG file to write.

        Raises:
            ValueError: If neither of them varied under that name, as where a
                function of yours says what varies.
        """
        if not any(
            "learning_rate" in row or "lambda" in row for row in self.rows
        ):
            raise ValueError(
                "Trials must vary `learning_rate` or `lambda` to be drawn. "
                f"Received: {', '.join(self._columns())}. `save_tensorboard` "
                "shows all others."
            )
        plot_search(self.rows, self.objective, path)

    def save_tensorboard(self, directory: str | os.PathLike[str]) -> None:
        """Writes the trials for TensorBoard: curves, and its HParams tab.

        Args:
            directory: New or empty folder, for `tensorboard --logdir`.

        Raises:
            ValueError: If there is something in the folder.
        """
        finished = []
        for row in self.rows:
            record = self._records.read(row["trial"])
            if record is not None and row["status"] == "completed":
                finished.append(
                    Written(
                        row["trial"],
                        record["values"],
                        row[self.objective],
                        self.history(row["trial"]),
                    )
                )
        write_trials(directory, self.objective, finished)

    def _check(self, trial: str) -> None:
        known = [row["trial"] for row in self.rows]
        if trial not in known:
            raise ValueError(
                f"`trial` must be one of {', '.join(known[:20])}. Received: "
                f"trial={trial!r}"
            )

    def _columns(self) -> list[str]:
        names: dict[str, None] = {}
        for row in self.rows:
            names.update(dict.fromkeys(row))
        return list(names)

    def __repr__(self) -> str:
        return f"<SearchResult of {len(self.rows)} trials>\n{self.table()}"


def make_rows(
    records: TrialStore, objective: str, sign: int, trials: Mapping[str, Any]
) -> tuple[Row, ...]:
    """Returns a row for each trial, best first, those that failed last.

    Trials that are equally good are in the order of their loss.

    Args:
        records: What was kept of trials.
        objective: Name of the column that counts.
        sign: 1 where more of it is better, else -1.
        trials: Trials of Keras-Tuner by id, which also knows of those that
            failed; empty where another process has them.
    """
    rows = []
    for name in sorted({*records.names(), *trials}):
        record, trial = records.read(name) or {}, trials.get(name)
        row: dict[str, Any] = {"trial": name, "status": "completed"}
        if trial is not None:
            row["status"] = str(trial.status).lower()
            row |= trial.hyperparameters.values
        row |= record.get("values", {})
        row |= mean_metrics(record.get("metrics", ()))
        row |= {
            "seed": record.get("seed"),
            "epochs": sum(len(rows) for rows in record.get("rows", ())) or None,
            "seconds": record.get("seconds"),
        }
        message = "" if trial is None else (trial.message or "").strip()
        if message:
            row["error"] = message
        rows.append(row)

    def rank(row: Row) -> tuple[bool, float, float]:
        score, loss = row.get(objective), row.get("val_loss")
        if score is None or row["status"] != "completed":
            return True, 0.0, 0.0
        return False, -sign * score, math.inf if loss is None else loss

    return tuple(sorted(rows, key=rank))


def mean_metrics(runs: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Returns the means over the executions of a trial.

    Args:
        runs: The metrics of each; those that not all have are left out (the
            exact probe has no training loss).
    """
    return {
        name: statistics.fmean(run[name] for run in runs)
        for name in (runs[0] if runs else ())
        if all(name in run for run in runs)
    }


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.4g}"
    return str(value)
