"""The table of the epochs of a run."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from keras_transfer._utils.checks import did_you_mean

Row = dict[str, Any]
# Function from the rows so far to whether the run continues.
ShouldContinue = Callable[[Sequence[Row]], bool]


# Parts of names of Keras' losses and metrics of which less is better.
_LESS = (
    "loss",
    "mae",
    "mse",
    "mape",
    "msle",
    "error",
    "crossentropy",
    "divergence",
    "poisson",
    "log_cosh",
    "logcosh",
    "hinge",
    "huber",
    "false_positives",
    "false_negatives",
)


def direction(monitor: str) -> int:
    """Returns 1 where a higher metric is better, -1 where a lower one is."""
    return -1 if any(word in monitor.lower() for word in _LESS) else 1


def _pair(monitor: Sequence[str]) -> tuple[str, str]:
    if len(monitor) != 2 or monitor[1] not in ("min", "max"):
        raise ValueError(
            '`monitor` must be a column, or a pair of it and "min" or "max". '
            f"Received: monitor={monitor!r}"
        )
    return monitor[0], monitor[1]


class History:
    """The rows of a run, and the index of the best one.

    Args:
        monitor: Name of a column, or a pair of it and `"min"` or `"max"`, the
            better values; or `None`: the validation accuracy, with the
            validation loss as a tie-break; the loss alone for regression; the
            latest epoch where nothing is held out.
        patience: Epochs without a new best after which a phase ends, or `None`.
        names: Names of the columns.
        first: Index of the first phase whose rows may be the best. Defaults to
            `0`.

    Raises:
        ValueError: If there is no such column.
    """

    def __init__(
        self,
        monitor: str | tuple[str, str] | None,
        patience: int | None,
        names: Sequence[str],
        first: int = 0,
    ) -> None:
        order: str | None = None
        if isinstance(monitor, tuple | list):
            monitor, order = _pair(monitor)
        if monitor is not None and monitor not in names:
            raise ValueError(
                f"`monitor` must be one of {', '.join(names)}. Received: "
                f"monitor={monitor!r}"
                + (
                    ". There are no validation examples."
                    if monitor.startswith("val_")
                    and not any(name.startswith("val_") for name in names)
                    else f".{did_you_mean(monitor, names)}"
                )
            )
        columns = [monitor] if monitor else ["val_accuracy", "val_loss"]
        self._columns = [name for name in columns if name in names]
        self._signs = {name: direction(name) for name in self._columns}
        if monitor is not None and order is not None:
            self._signs[monitor] = 1 if order == "max" else -1
        if patience is not None and not self._columns:
            raise ValueError(
                "`patience` must be None where there are no validation "
                f"examples. Received: patience={patience}. Use "
                '`monitor="loss"`, or hold some out.'
            )
        self._patience = patience
        self._first = first
        self.rows: list[Row] = []
        self.best: int | None = None

    @property
    def measures(self) -> bool:
        """`True` if a column is compared; otherwise the latest row is best."""
        return bool(self._columns)

    def add(self, row: Row) -> bool:
        """Adds a row; returns whether it is the best so far."""
        self.rows.append(row)
        if row["phase"] < self._first:
            return False
        if self.best is None or self._is_better(row, self.rows[self.best]):
            self.best = len(self.rows) - 1
            return True
        return False

    def of_phase(self, phase: int) -> list[Row]:
        """Returns the rows of a phase."""
        return [row for row in self.rows if row["phase"] == phase]

    def is_over(self, phase: int) -> bool:
        """Returns whether a phase ran out of patience.

        Better rows of an earlier phase do not end this one.
        """
        rows = self.of_phase(phase)
        if self._patience is None or not self._columns or not rows:
            return False
        best = 0
        for index, row in enumerate(rows):
            if self._is_better(row, rows[best]):
                best = index
        return len(rows) - 1 - best >= self._patience

    def _is_better(self, row: Row, best: Row) -> bool:
        return not self._columns or self._key(row) > self._key(best)

    def _key(self, row: Row) -> list[float]:
        values = [(row.get(name), sign) for name, sign in self._signs.items()]
        return [
            -math.inf if value is None or math.isnan(value) else value * sign
            for value, sign in values
        ]
