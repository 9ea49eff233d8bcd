"""A model that run after run begins anew on; see `Workbench`."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence

import keras
import numpy as np

from keras_transfer.data.adapters.training_data import TrainingData
from keras_transfer.penalties.weights import AttachedPenalty, Penalty
from keras_transfer.tasks.task import Objective
from keras_transfer.training.batched_heads import Request
from keras_transfer.training.history import Row
from keras_transfer.training.loop import Runner
from keras_transfer.training.settings import Settings
from keras_transfer.training.shared_runs import SharedRuns


@dataclasses.dataclass(frozen=True, eq=False)
class Finished:
    """What a run on a workbench came to.

    Attributes:
        rows: The table, as `Run.rows`.
        best: Index of the best row, or `None` where the run failed before its
            first.
        weights: Arrays of the variables that are not as at the beginning, by
            their place in `model.variables`, at the best row.
        seconds: Time that it took.
        error: Why it ended early. Defaults to `""`.
    """

    rows: tuple[Row, ...]
    best: int | None
    weights: Mapping[int, np.ndarray]
    seconds: float
    error: str = ""


class SessionModel:
    """Runs one after the other on one model.

    Args:
        model: The model.
        shared: What the runs share.
    """

    def __init__(self, model: keras.Model, shared: SharedRuns) -> None:
        self.model = model
        self.shared = shared
        self._attached: dict[Hashable, AttachedPenalty] = {}

    def run(
        self,
        request: Request,
        source: TrainingData,
        settings: Settings,
        objective: Objective,
        goes_on: Callable[[Sequence[Row]], bool] | None = None,
    ) -> Finished:
        """Runs phases from the weights that the model came with.

        Args:
            request: What to run.
            source: The data.
            settings: How to train, with the seed of the request.
            objective: What is minimised.
            goes_on: As for `Runner`. Defaults to `None`.

        Returns:
            A `Finished`.
        """
        started = time.monotonic()
        runner = Runner(
            self.model,
            source,
            request.phases,
            settings,
            objective,
            shared=self.shared,
            goes_on=goes_on,
            strategy=self.shared.strategy,
        )
        error = ""
        with self._penalised(request.penalty) as runner.attached:
            try:
                runner.run()
            except FloatingPointError as err:
                error = str(err)
            finally:
                self.shared.sets.restore()
        weights = {
            place: array
            for place, (array, old) in enumerate(
                zip(runner.best_weights, self.shared.start, strict=True)
            )
            if array is not old and not np.array_equal(array, old)
        }
        return Finished(
            tuple(runner.table.rows),
            runner.table.best,
            weights,
            time.monotonic() - started,
            error,
        )

    def assign(self, weights: Mapping[int, np.ndarray]) -> None:
        """Gives the model the weights that a run came to.

        Args:
            weights: As `Finished.weights`.
        """
        for place, variable in enumerate(self.model.variables):
            variable.assign(weights.get(place, self.shared.start[place]))

    def close(self) -> None:
        """Leaves no penalty on the model."""
        for attached in self._attached.values():
            attached.detach()

    @contextlib.contextmanager
    def _penalised(
        self, penalty: Penalty | None
    ) -> Iterator[AttachedPenalty | None]:
        if penalty is None:
            yield None
            return
        coefficients = {}
        fields = []
        for field in dataclasses.fields(penalty):
            value = getattr(penalty, field.name)
            if isinstance(value, float):
                coefficients[field.name] = value
            else:
                fields.append((field.name, value))
        kind = (type(penalty), *fields)
        attached = self._attached.get(kind)
        if attached is None:
            attached = self._attached[kind] = penalty.attach(self.model)
        attached.reattach()
        attached.set(**coefficients)
        try:
            yield attached
        finally:
            attached.detach()
