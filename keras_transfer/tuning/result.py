"""What a search found."""

from __future__ import annotations

import csv
import dataclasses
import functools
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import keras

from keras_transfer._files import whole_file
from keras_transfer.reports import plot_search
from keras_transfer.training.plans import Plan
from keras_transfer.tuning.records import Records

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
        plan: What was computed once for all trials.

    Example:

    >>> data = load_images((arrays, labels))
    >>> space = {"learning_rate": [1e-3, 1e-2], "lambda_": 0, "depth": [0, 1]}
    >>> result = search(
    ...     "ResNet20", data, space=space, oracle="grid", epochs=1, verbose=0
    ... )
    >>> result.best_model.save(folder / "best.keras")
    >>> print(result.table().splitlines()[0])
    trial ...
    """

    rows: tuple[Row, ...]
    objective: str
    tuner: Any
    plan: Plan
    _load: Callable[[str], keras.Model]

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
        known = [row["trial"] for row in self.rows]
        if trial not in known:
            raise ValueError(
                f"`trial` must be one of {', '.join(known[:20])}. Received: "
                f"trial={trial!r}"
            )
        return self._load(trial)

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
            whole_file(Path(path)) as partial,
            open(partial, "w", newline="", encoding="utf-8") as file,
        ):
            writer = csv.DictWriter(file, columns)
            writer.writeheader()
            writer.writerows(self.rows)

    def plot(self, path: str | Path) -> None:
        """Draws the objective over learning rate and lambda, by depth.

        Args:
            path: PNG file to write.
        """
        plot_search(self.rows, self.objective, path)

    def _columns(self) -> list[str]:
        names: dict[str, None] = {}
        for row in self.rows:
            names.update(dict.fromkeys(row))
        return list(names)

    def __repr__(self) -> str:
        return f"<SearchResult of {len(self.rows)} trials>\n{self.table()}"


def make_rows(oracle: Any, records: Records) -> tuple[Row, ...]:
    """Returns a row for each trial, best first, those that failed last.

    Trials that are equally good are in the order of their loss.

    Args:
        oracle: The oracle, with all that it heard.
        records: What was kept of trials.
    """
    rows = []
    for name, trial in sorted(oracle.trials.items()):
        record = records.read(name) or {}
        row = {
            "trial": name,
            "status": str(trial.status).lower(),
            **trial.hyperparameters.values,
            **{
                metric: trial.metrics.get_best_value(metric)
                for metric in trial.metrics.metrics
            },
            "seed": record.get("seed"),
            "epochs": sum(len(rows) for rows in record.get("rows", ())) or None,
            "seconds": record.get("seconds"),
        }
        error = (trial.message or "").strip()
        if record.get("error"):
            row["error"] = record["error"]
        elif error:
            # The last line of a traceback: the class, and what it says.
            row["error"] = error.splitlines()[-1].partition("Error: ")[2]
        rows.append((trial, row))
    sign = 1 if oracle.objective.direction == "max" else -1

    def rank(pair: tuple[Any, dict[str, Any]]) -> tuple[bool, float, float]:
        trial, row = pair
        score = trial.score
        known = trial.status == "COMPLETED" and score is not None
        loss = row.get("val_loss")
        return (
            not known,
            -sign * score if known else 0.0,
            math.inf if loss is None else loss,
        )

    return tuple(row for _, row in sorted(rows, key=rank))


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.4g}"
    return str(value)
