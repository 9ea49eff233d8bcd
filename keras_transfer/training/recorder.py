"""The callbacks of a run: table, best weights, saved state, progress."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np

from keras_transfer._errors import nearest
from keras_transfer.penalties import AttachedPenalty

# A loss is looked at this often, in steps: reading it waits for the device.
_NAN_INTERVAL = 50

Row = dict[str, Any]


def direction(monitor: str) -> int:
    """Returns 1 where more of a metric is better, -1 where less is."""
    less = ("loss", "mae", "mse", "error")
    return -1 if any(word in monitor for word in less) else 1


class Table:
    """The rows of a run, and which of them is the best.

    Args:
        monitor: Name of a column, or `None`: the validation accuracy, and
            where two are equal the validation loss; the loss alone for
            regression; the latest epoch where nothing is held out.
        patience: Epochs without a new best after which a phase ends, or
            `None`.
        names: The columns that there will be.
        first: The phase from which on rows may be the best. Defaults to `0`.

    Raises:
        ValueError: If there is no such column.
    """

    def __init__(
        self,
        monitor: str | None,
        patience: int | None,
        names: Sequence[str],
        first: int = 0,
    ) -> None:
        if monitor is not None and monitor not in names:
            raise ValueError(
                f"`monitor` must be one of {', '.join(names)}. Received: "
                f"monitor={monitor!r}"
                + (
                    ". There are no validation examples."
                    if monitor.startswith("val_")
                    and not any(name.startswith("val_") for name in names)
                    else f".{nearest(monitor, names)}"
                )
            )
        columns = [monitor] if monitor else ["val_accuracy", "val_loss"]
        self._columns = [name for name in columns if name in names]
        if patience is not None and not self._columns:
            raise ValueError(
                "`patience` must be None where there are no validation "
                f"examples to measure by. Received: patience={patience}. Use "
                '`monitor="loss"`, or hold some out.'
            )
        self._patience = patience
        self._first = first
        self.rows: list[Row] = []
        self.best: int | None = None

    @property
    def measures(self) -> bool:
        """Whether there is a measure; if not, the latest is the best."""
        return bool(self._columns)

    def add(self, row: Row) -> bool:
        """Adds a row; says whether it is the best so far."""
        self.rows.append(row)
        if row["phase"] < self._first:
            return False
        if self.best is None or self._is_better(row, self.rows[self.best]):
            self.best = len(self.rows) - 1
            return True
        return False

    def of_phase(self, phase: int) -> list[Row]:
        """The rows of a phase."""
        return [row for row in self.rows if row["phase"] == phase]

    def is_over(self, phase: int) -> bool:
        """Whether a phase ran out of patience.

        What an earlier phase reached does not cut this one short.
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
        values = [(row.get(name), direction(name)) for name in self._columns]
        return [
            -math.inf if value is None or math.isnan(value) else value * sign
            for value, sign in values
        ]


class Recorder(keras.callbacks.Callback):
    """Writes each epoch down, keeps the best and stops where it must.

    Args:
        describe: Function from the number of an epoch and its logs to a row.
        record: Function from a row to whether training goes on.
        begin_epoch: Called with the number of an epoch in its phase.
        penalty: What is in force while training, and not while validating: a
            penalty on weights grows with the number of those that train, so
            that losses of two phases could not be compared. Defaults to
            `None`.
    """

    def __init__(
        self,
        describe: Callable[[int, Row], Row],
        record: Callable[[Row], bool],
        begin_epoch: Callable[[int], None],
        penalty: AttachedPenalty | None = None,
    ) -> None:
        super().__init__()
        self._penalty = penalty
        self._describe = describe
        self._record = record
        self._begin_epoch = begin_epoch
        self._started = 0.0
        self._epoch = 0

    def on_epoch_begin(self, epoch: int, logs: Row | None = None) -> None:
        """Called by Keras.

        Args:
            epoch: Index of the epoch in its phase.
            logs: Not used. Defaults to `None`.
        """
        self._started = time.monotonic()
        self._epoch = epoch
        self._begin_epoch(epoch)

    def on_train_batch_end(self, batch: int, logs: Row | None = None) -> None:
        """Called by Keras.

        Args:
            batch: Index of the batch in its epoch.
            logs: Running means. Defaults to `None`.

        Raises:
            FloatingPointError: If the loss is no number.
        """
        if batch % _NAN_INTERVAL == 0:
            self._check(batch, logs)

    def on_test_begin(self, logs: Row | None = None) -> None:
        """Called by Keras.

        Args:
            logs: Not used. Defaults to `None`.
        """
        if self._penalty is not None:
            self._penalty.pause()

    def on_test_end(self, logs: Row | None = None) -> None:
        """Called by Keras.

        Args:
            logs: Not used. Defaults to `None`.
        """
        if self._penalty is not None:
            self._penalty.resume()

    def on_epoch_end(self, epoch: int, logs: Row | None = None) -> None:
        """Called by Keras.

        Args:
            epoch: Index of the epoch in its phase.
            logs: Metrics of the epoch. Defaults to `None`.

        Raises:
            FloatingPointError: If the loss is no number.
        """
        self._check(None, logs)
        values = {name: float(value) for name, value in (logs or {}).items()}
        values["seconds"] = round(time.monotonic() - self._started, 3)
        if not self._record(self._describe(epoch + 1, values)):
            self.model.stop_training = True

    def _check(self, batch: int | None, logs: Row | None) -> None:
        found = {
            name: float(value)
            for name, value in (logs or {}).items()
            if name in ("loss", "val_loss")
        }
        broken = [n for n, value in found.items() if not math.isfinite(value)]
        if not broken:
            return
        where = f"epoch {self._epoch + 1}"
        if batch is not None:
            where += f", step {batch + 1}"
        rate = float(
            np.asarray(
                keras.ops.convert_to_numpy(self.model.optimizer.learning_rate)
            )
        )
        raise FloatingPointError(
            f"`{broken[0]}` became {found[broken[0]]} in {where}, at learning "
            f"rate {rate:g}. Lower `learning_rate` (see `find_learning_rate`), "
            "set "
            "`clip_norm=1.0`, or look for extreme values with `check(model, "
            "data)`."
        )


class Progress:
    """Writes lines for people to read on standard output.

    Args:
        verbose: `0` for none.
    """

    def __init__(self, verbose: int) -> None:
        self._verbose = verbose

    def say(self, text: str) -> None:
        """Writes a line."""
        if self._verbose:
            sys.stdout.write(text + "\n")
            sys.stdout.flush()

    def epoch(self, row: Row, total: int, seconds: float, best: bool) -> None:
        """Writes the line of an epoch.

        Args:
            row: The row.
            total: Epochs of the phase.
            seconds: Time that the rest of the run is expected to take.
            best: Whether it is the best so far.
        """
        skipped = ("phase", "name", "epoch", "depth", "learning_rate")
        numbers = "  ".join(
            f"{name} {value:.4f}"
            for name, value in row.items()
            if name not in (*skipped, "seconds") and value is not None
        )
        self.say(
            f"  epoch {row['epoch']}/{total}  {numbers}  "
            f"{row['seconds']:.1f} s, {seconds:.0f} s to go"
            f"{'  (best)' if best else ''}"
        )
