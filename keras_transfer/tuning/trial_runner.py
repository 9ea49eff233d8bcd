"""Runs the trials that an oracle requests, and stores their results."""

from __future__ import annotations

import contextlib
import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras

from keras_transfer._utils.progress import Progress
from keras_transfer.training.history import Row, ShouldContinue, direction
from keras_transfer.tuning.execution.session_model import RunOutcome
from keras_transfer.tuning.search_result import mean_metrics
from keras_transfer.tuning.search_spec import TrialSpec
from keras_transfer.tuning.trial_store import Record, TrialStore
from keras_transfer.tuning.trial_trainer import TrialTrainer

# Columns of a run that are not metrics.
_OTHER = ("phase", "name", "epoch", "depth", "learning_rate", "seconds")


# Key that Hyperband adds to the values of a trial.
_EPOCHS = "tuner/epochs"


class TrialRunner:
    """Runs trials, one after the other.

    Args:
        trainer: Trainer of the trials.
        store: Store of their tables and weights.
        spec: Settings of each trial.
        objective: Name of the column that ranks trials.
        progress: Writer of progress lines.
        fail: Function that makes the error that fails a trial, and not the
            search.
        parameters: Function that makes empty `keras_tuner.HyperParameters`.
    """

    def __init__(
        self,
        trainer: TrialTrainer,
        store: TrialStore,
        spec: TrialSpec,
        *,
        objective: str,
        progress: Progress,
        fail: Callable[[str], Exception],
        parameters: Callable[[], Any],
    ) -> None:
        self.oracle: Any = None
        # Signals to the chief, while a trial runs, that this process is alive.
        self.alive: Callable[[str], Any] = contextlib.nullcontext
        self.objective = objective
        self._trainer = trainer
        self._store = store
        self._spec = spec
        self._progress = progress
        self._fail = fail
        self._parameters = parameters

    def run(self, trial: Any) -> list[dict[str, float]]:
        """Runs a trial.

        Args:
            trial: A `keras_tuner` trial.

        Returns:
            The metrics of each execution, at its best epoch.
        """
        hp = trial.hyperparameters
        epochs = hp.values.get(_EPOCHS)
        others = self._others() if self._spec.stop_hopeless else []
        runs: list[RunOutcome] = []
        for place in range(self._spec.executions):
            with self.alive(trial.trial_id):
                run = self._trainer.run(
                    hp,
                    self._spec.settings.data.seed + place,
                    None if epochs is None else int(epochs),
                    self._median_rule(others) if others else None,
                )
            runs.append(run)
            if run.error or run.best is None:
                raise self._fail(run.error)
        metrics = [_metrics(run) for run in runs]
        best = max(
            range(len(runs)),
            key=lambda i: metrics[i][self.objective] * self.sign,
        )
        record: Record = {
            "values": dict(hp.values),
            "seed": self._spec.settings.data.seed + best,
            "metrics": metrics,
            "rows": [list(run.rows) for run in runs],
            "best": best,
            # Not wall-clock time: some runs are computed together.
            "seconds": round(sum(run.seconds for run in runs), 3),
        }
        self._store.write(trial.trial_id, record, runs[best].weights)
        self._say(trial, metrics, record)
        self._prune()
        return metrics

    def chosen(self, trial: str) -> Any:
        """Returns `keras_tuner.HyperParameters` with the values of a trial.

        Args:
            trial: Its id.
        """
        hp = self._parameters()
        hp.values = (self._store.read(trial) or {}).get("values", {})
        return hp

    def load(self, trial: str) -> keras.Model:
        """Builds the model of a trial, with the weights of its best epoch.

        Args:
            trial: Its id.

        Raises:
            ValueError: If its weights were not saved.
        """
        if self._store.read(trial) is None:
            raise ValueError(
                f"`trial` must have finished. Received: trial={trial!r}, which "
                "failed; its row says why."
            )
        weights = self._store.weights(trial)
        if weights is None:
            raise ValueError(
                f"`keep` must be large enough for trial {trial}. "
                f"Received: keep={self._spec.keep}, which saved only the "
                "weights of better trials."
            )
        record = self._store.read(trial) or {}
        seed = record.get("seed", self._spec.settings.data.seed)
        return self._trainer.load(self.chosen(trial), weights, seed)

    @property
    def sign(self) -> int:
        """1 where a higher objective is better, else -1."""
        objective = getattr(self.oracle, "objective", None)
        order = getattr(objective, "direction", None)
        if order in ("min", "max"):
            return 1 if order == "max" else -1
        return direction(self.objective)

    def _prune(self) -> None:
        """Removes weights of all but the best trials, of all processes."""
        order = sorted(self._store.names(), key=self.rank)
        self._store.drop_weights(order[self._spec.keep :])

    def rank(self, trial: str) -> tuple[float, float]:
        """Returns the sort key of a trial, as in the rows of the result.

        Args:
            trial: Its id.
        """
        record = self._store.read(trial)
        metrics = [] if record is None else record["metrics"]
        if not metrics:
            return math.inf, math.inf
        means = mean_metrics(metrics)
        return (
            -self.sign * means[self.objective],
            means.get("val_loss", math.inf),
        )

    def _finished(self) -> list[str]:
        return [
            trial.trial_id
            for trial in self.oracle.get_best_trials(10**6)
            if trial.status == "COMPLETED"
        ]

    def _others(self) -> list[list[float]]:
        """Returns the best values so far by epoch, of all finished trials."""
        curves = []
        for trial in sorted(self._finished()):
            record = self._store.read(trial)
            for rows in record["rows"] if record else ():
                curves.append(self._best_so_far(rows))
        return [curve for curve in curves if curve]

    def _best_so_far(self, rows: Sequence[Row]) -> list[float]:
        best: list[float] = []
        for row in rows:
            value = row.get(self.objective)
            if value is not None:
                value *= self.sign
                best.append(max(value, best[-1]) if best else value)
        return best

    def _median_rule(self, others: Sequence[Sequence[float]]) -> ShouldContinue:
        def should_continue(rows: Sequence[Row]) -> bool:
            own_values = self._best_so_far(rows)
            if not own_values:
                return True  # The exact probe has no training loss.
            rivals = [
                o[len(own_values) - 1]
                for o in others
                if len(o) >= len(own_values)
            ]
            return not rivals or own_values[-1] >= statistics.median(rivals)

        return should_continue

    def _say(
        self, trial: Any, metrics: Sequence[Mapping[str, float]], record: Record
    ) -> None:
        value = statistics.fmean(one[self.objective] for one in metrics)
        chosen = "  ".join(
            f"{name} {value:.3g}" if isinstance(value, float) else
            f"{name} {value}"
            for name, value in trial.hyperparameters.values.items()
        )  # fmt: skip
        self._progress.say(
            f"trial {trial.trial_id}  {chosen}  {self.objective} {value:.4f}  "
            f"{record['seconds']:.1f} s"
        )


def _metrics(run: RunOutcome) -> dict[str, float]:
    row = run.rows[run.best or 0]
    return {
        name: float(value)
        for name, value in row.items()
        if name not in _OTHER and value is not None
    }
