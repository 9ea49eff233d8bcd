"""`SessionModel`: a model that is trained again and again."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Hashable, Iterator, Mapping, Sequence

import keras
import numpy as np

from keras_transfer._utils.progress import Progress
from keras_transfer.auxiliary.attached_losses import AttachedLosses
from keras_transfer.caching.eligibility import needs_whole_model
from keras_transfer.penalties.attached import AttachedPenalty
from keras_transfer.penalties.penalty import Penalty
from keras_transfer.training.history import History, Row, ShouldContinue
from keras_transfer.training.loop import TrainingLoop
from keras_transfer.training.run_state import RunState
from keras_transfer.training.spec import RunSpec
from keras_transfer.tuning.execution.shared_runs import (
    SharedCache,
    SharedCompiler,
    SharedRuns,
)


@dataclasses.dataclass(frozen=True, eq=False)
class RunOutcome:
    """The result of a run of a training session.

    Attributes:
        rows: The table, as `Run.rows`.
        best: Index of the best row, or `None` where the run failed before its
            first.
        weights: Arrays of the changed variables at the best row, by their place
            in `model.variables`.
        seconds: Duration of the run.
        error: Reason that it ended early. Defaults to `""`.
    """

    rows: tuple[Row, ...]
    best: int | None
    weights: Mapping[int, np.ndarray]
    seconds: float
    error: str = ""


class SessionModel:
    """Trains one model in runs, one after the other.

    Args:
        model: The model.
        shared: The work that the runs share.
    """

    def __init__(self, model: keras.Model, shared: SharedRuns) -> None:
        self.model = model
        self.shared = shared
        self._attached: dict[Hashable, AttachedPenalty] = {}

    def run(
        self,
        spec: RunSpec,
        penalty: Penalty | None = None,
        should_continue: ShouldContinue | None = None,
    ) -> RunOutcome:
        """Runs phases from the initial weights of the model.

        Args:
            spec: The run, of this model.
            penalty: A penalty. Defaults to `None`.
            should_continue: Function from the rows so far to whether the run
                continues. Defaults to `None`: to its end.

        Returns:
            A `RunOutcome`.
        """
        started = time.monotonic()
        state = self.begin(spec)
        error = ""
        with self._penalised(penalty) as losses:
            try:
                self.loop(spec, state, losses, penalty, should_continue).run()
            except FloatingPointError as err:
                error = str(err)
            finally:
                self.shared.sets.restore()
        return RunOutcome(
            tuple(state.history.rows),
            state.history.best,
            changed(state.best, self.shared.start),
            time.monotonic() - started,
            error,
        )

    def begin(self, spec: RunSpec) -> RunState:
        """Assigns the initial weights to the model.

        Args:
            spec: The run.

        Returns:
            A new `RunState`.
        """
        stopping = spec.settings.stopping
        history = History(
            stopping.monitor,
            stopping.patience,
            spec.columns,
            self.shared.first_that_counts(spec.phases),
        )
        return RunState(self.model, history, start=self.shared.start)

    def loop(
        self,
        spec: RunSpec,
        state: RunState,
        losses: AttachedLosses,
        penalty: Penalty | None = None,
        should_continue: ShouldContinue | None = None,
    ) -> TrainingLoop:
        """Makes the loop of a run.

        Args:
            spec: The run.
            state: Its state.
            losses: The attached auxiliary losses.
            penalty: The penalty among them. Defaults to `None`.
            should_continue: Function from the rows so far to whether the run
                continues. Defaults to `None`: to its end.

        Returns:
            A `TrainingLoop`.
        """
        shared = self.shared
        whole = self.needs_whole(penalty)
        cache = SharedCache(shared, spec.settings.data.seed, whole)
        return TrainingLoop(
            spec,
            state,
            shared.sets,
            cache,
            SharedCompiler(spec, losses, shared),
            losses,
            shared.solve,
            Progress(0),
            should_continue,
        )

    def needs_whole(self, penalty: Penalty | None) -> bool:
        """Tells whether a run computes the whole model in each pass.

        Args:
            penalty: The penalty of the run, or `None`.
        """
        penalties = () if penalty is None else (penalty,)
        return needs_whole_model(self.model, penalties) is not None

    def assign(self, weights: Mapping[int, np.ndarray]) -> None:
        """Assigns the weights of a run to the model.

        Args:
            weights: Arrays by place, from `RunOutcome.weights`.
        """
        for place, variable in enumerate(self.model.variables):
            variable.assign(weights.get(place, self.shared.start[place]))

    def close(self) -> None:
        """Detaches all penalties from the model."""
        for attached in self._attached.values():
            attached.detach()

    @contextlib.contextmanager
    def _penalised(self, penalty: Penalty | None) -> Iterator[AttachedLosses]:
        """Puts a penalty in force; each kind of penalty is attached once."""
        if penalty is None:
            yield AttachedLosses()
            return
        coefficients = {}
        fields = []
        for field in dataclasses.fields(penalty):  # type: ignore[arg-type]
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
            yield AttachedLosses((attached,))
        finally:
            attached.detach()


def changed(
    arrays: Sequence[np.ndarray], start: Sequence[np.ndarray]
) -> dict[int, np.ndarray]:
    """Returns the arrays that differ from those of the start, by place.

    Args:
        arrays: Weights of a model.
        start: Its initial weights.
    """
    return {
        place: array
        for place, (array, old) in enumerate(zip(arrays, start, strict=True))
        if array is not old and not np.array_equal(array, old)
    }
