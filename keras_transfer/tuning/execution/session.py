"""`TrainingSession`: trains one model many times, and shares the work."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent import futures
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from keras_transfer.auxiliary.attached_losses import AttachedLosses
from keras_transfer.builders.assembly import copy_model
from keras_transfer.caching.eligibility import needs_whole_model
from keras_transfer.caching.networks import Networks
from keras_transfer.caching.plan import Plan
from keras_transfer.caching.planning import make_plan
from keras_transfer.caching.prefixes import Prefixes
from keras_transfer.caching.store import FeatureStore
from keras_transfer.penalties.penalty import Penalty
from keras_transfer.strategies.phase import Phase
from keras_transfer.strategies.trainable_sets import TrainableSets, computing_in
from keras_transfer.structure import graph
from keras_transfer.training.compiling import compile_plainly
from keras_transfer.training.history import Row, ShouldContinue
from keras_transfer.training.preflight import diagnose
from keras_transfer.training.replica_trainer import ReplicaTrainer
from keras_transfer.training.run_state import copies
from keras_transfer.training.settings import Settings
from keras_transfer.training.spec import RunSpec, read_data
from keras_transfer.tuning.execution.batched_heads import train
from keras_transfer.tuning.execution.head_requests import Request, why_not
from keras_transfer.tuning.execution.session_model import (
    RunOutcome,
    SessionModel,
    changed,
)
from keras_transfer.tuning.execution.shared_runs import (
    Opening,
    SharedRuns,
    opening_of,
)

if TYPE_CHECKING:
    import tensorflow as tf


class TrainingSession:
    """Trains one model on the same data many times.

    Each run starts from the initial weights of the model, and gives the results
    of `fine_tune` with the same arguments. Activations below the trained
    blocks, the exact probe and the trace of each training step are computed
    once. Between runs of one kind weights, moments, rates and coefficients are
    assigned.

    Args:
        model: The model.
        data: Same as in `fine_tune`.
        runs: Phases of each kind of run, for the plan; actual rates and epochs
            may differ from these.
        settings: Settings of training.
        count: Approximate number of runs. Defaults to `1`.
        last_counts: Whether the best epoch of a run is one of its last phase,
            and not of an earlier phase. Defaults to `False`, as in `fine_tune`.
        ignore: Names of findings of `check` that are intended. Defaults to
            `()`.
        strategy: The strategy that trains a copy of the model on several
            devices. Defaults to `None`: one device.

    Raises:
        ValueError: If arguments do not fit each other.
    """

    def __init__(
        self,
        model: keras.Model,
        data: Any,
        runs: Sequence[tuple[Phase, ...]],
        settings: Settings,
        *,
        count: int = 1,
        last_counts: bool = False,
        ignore: Sequence[str] = (),
        strategy: tf.distribute.Strategy | None = None,
    ) -> None:
        self._strategy = strategy
        self._given = model
        self._data = data
        self._settings = settings
        self._specs: dict[int, RunSpec] = {}
        self._copies: dict[Opening, SessionModel | None] = {}
        _check(runs)
        with self._scope():
            # A model for several devices is made in the scope.
            self.model = model if strategy is None else copy_model(model)
            self._begin(runs, count, last_counts, ignore)

    def _scope(self) -> contextlib.AbstractContextManager[Any]:
        if self._strategy is None:
            return contextlib.nullcontext()
        return self._strategy.scope()

    def _begin(
        self,
        runs: Sequence[tuple[Phase, ...]],
        count: int,
        last_counts: bool,
        ignore: Sequence[str],
    ) -> None:
        model, settings = self.model, self._settings
        openings = {opening_of(phase): phase for run in runs for phase in run}
        phases = tuple(openings.values())
        spec = self._spec(phases, settings.data.seed)
        sets = TrainableSets(model, phases)
        self.diagnosis = diagnose(spec, sets, ignore, lambda text: None)
        self._shared = SharedRuns(
            model,
            phases,
            sets,
            copies(model.variables),
            Plan(()),
            runs=max(1, count // len(runs)),
            last_counts=last_counts,
            strategy=self._strategy,
        )
        self._main = SessionModel(model, self._shared)
        with contextlib.ExitStack() as stack:
            stack.callback(self._shared.sets.restore)
            policy = settings.optimization.policy
            stack.enter_context(computing_in(model, policy))
            self._plan(runs, count)
            self._stack = stack.pop_all()

    @property
    def plan(self) -> Plan:
        """The caching plan for all runs."""
        return self._shared.plan

    @property
    def start(self) -> Sequence[np.ndarray]:
        """The initial weights of each run, by place."""
        return self._shared.start

    def run(
        self,
        phases: tuple[Phase, ...],
        *,
        penalty: Penalty | None = None,
        seed: int | None = None,
        should_continue: ShouldContinue | None = None,
    ) -> RunOutcome:
        """Runs phases from the initial weights of the model.

        Args:
            phases: The phases; they open the same blocks as those of `runs`.
            penalty: A penalty. Defaults to `None`.
            seed: Seed of the order and of random draws. Defaults to `None`,
                that of the settings.
            should_continue: Function from the rows so far to whether the run
                continues. Defaults to `None`: to its end.

        Returns:
            A `RunOutcome`.
        """
        seed = self._settings.data.seed if seed is None else seed
        with self._scope():
            spec = self._spec(phases, seed)
            return self._main.run(spec, penalty, should_continue)

    def run_together(
        self, requests: Sequence[Request]
    ) -> list[RunOutcome] | None:
        """Trains linear heads of several runs as one computation.

        Args:
            requests: Runs that differ in their rates and lambdas alone.

        Returns:
            A `RunOutcome` for each, with the results of `run`; or `None` where
            they cannot be one computation.
        """
        if self._strategy is not None:
            return None
        started = time.monotonic()
        *before, last = requests[0].phases
        spec = self._spec(tuple(before) or (last,), requests[0].seed)
        state, shared = self._main.begin(spec), self._shared
        try:
            shared.sets.apply(last)
            cached = shared.open(last)
            if cached is None or why_not(requests, spec, cached.network):
                return None
            if before:  # The exact probe is the same for all.
                self._main.loop(spec, state, AttachedLosses()).run()
                shared.sets.apply(last)
            trained = time.monotonic()
            heads = train(
                requests,
                spec,
                cached.seeded(spec.settings.data.seed),
                state.history.rows,
                shared.first_that_counts(requests[0].phases),
            )
            shared.count_seconds(last, time.monotonic() - trained)
        finally:
            shared.sets.restore()
        probed = changed(state.best, shared.start) if before else {}
        places = {id(v): i for i, v in enumerate(self.model.variables)}
        seconds = (time.monotonic() - started) / len(requests)
        return [
            RunOutcome(
                head.rows,
                head.best,
                {places[key]: array for key, array in head.weights.items()}
                or probed,
                seconds,
                head.error,
            )
            for head in heads
        ]

    def run_side_by_side(
        self,
        requests: Sequence[Request],
        should_continue: ShouldContinue | None = None,
    ) -> list[RunOutcome] | None:
        """Runs several requests at the same time, each in its own thread.

        Steps of a small network leave cores idle. Each opening has a copy of
        the model, and all train on the same activations.

        Args:
            requests: Runs, no two of which open the same blocks.
            should_continue: Same as in `run`. Defaults to `None`.

        Returns:
            A `RunOutcome` for each, with the results of `run`; or `None` where
            a run is not cached, or the model cannot be copied.
        """
        if self._strategy is not None:
            return None
        models = []
        for request in requests:
            model = self._copy_for(request)
            if model is None:
                return None
            models.append(model)
        stop = threading.Event()

        def continues(rows: Sequence[Row]) -> bool:
            return not stop.is_set() and (
                should_continue is None or should_continue(rows)
            )

        def run(model: SessionModel, request: Request) -> RunOutcome:
            spec = self._spec(request.phases, request.seed)
            spec = dataclasses.replace(spec, model=model.model)
            return model.run(spec, request.penalty, continues)

        with futures.ThreadPoolExecutor(len(models)) as pool:
            runs = [
                pool.submit(run, model, request)
                for model, request in zip(models, requests, strict=True)
            ]
            try:
                futures.wait(runs, return_when=futures.FIRST_EXCEPTION)
            finally:
                stop.set()  # After an error or Ctrl-C.
        return [future.result() for future in runs]

    def assign(self, weights: Mapping[int, np.ndarray]) -> None:
        """Assigns the weights of a run to the model.

        Args:
            weights: Arrays by place, from `RunOutcome.weights`.
        """
        self._main.assign(weights)

    def evaluate(self, weights: Mapping[int, np.ndarray]) -> dict[str, float]:
        """Returns the validation metrics of other weights, without a penalty.

        Args:
            weights: Arrays by place, from `RunOutcome.weights`, of blocks that
                some run trains.
        """
        self.assign(weights)
        try:
            with self._scope():
                model, batches = self._validator
                logs = model.evaluate(batches, return_dict=True, verbose=0)
        finally:
            self.assign({})
        return {f"val_{name}": value for name, value in logs.items()}

    def close(self) -> None:
        """Restores the `trainable` flags of the model, and compiles it."""
        self._main.close()
        self._copies.clear()
        self._stack.close()
        compile_plainly(self._given, self._settings, self._task, 1e-3)

    @functools.cached_property
    def _validator(self) -> tuple[keras.Model | ReplicaTrainer, Any]:
        """The network above the deepest cut, and its validation batches."""
        self._shared.sets.apply(self._deepest)
        cached = self._shared.open(self._deepest)
        self._shared.sets.restore()
        spec = self._spec((self._deepest,), self._settings.data.seed)
        network = self.model
        batches = None if cached is None else cached.validation()
        if cached is not None and batches is not None:
            network = cached.network
        elif spec.data.validation is not None:
            batches = spec.data.validation()
        else:
            raise ValueError(
                "`data` must have validation examples. Received: none."
            )
        model = graph.view(network)
        model.compile(loss=spec.task.loss, metrics=spec.task.all_metrics())
        if self._strategy is not None:
            trainer = ReplicaTrainer(
                model, spec.task.loss, spec.task.all_metrics, self._strategy
            )
            return trainer, batches
        return model, batches

    @property
    def _task(self) -> Any:
        return self._spec((), self._settings.data.seed).task

    def _spec(self, phases: tuple[Phase, ...], seed: int) -> RunSpec:
        """Returns the spec of a run; data are opened once per seed."""
        if seed not in self._specs:
            settings = self._settings.replace(seed=seed)
            data, task = read_data(self.model, self._data, settings)
            self._specs[seed] = RunSpec(
                self.model,
                self._data,
                data,
                phases,
                task,
                settings,
                strategy=self._strategy,
            )
        return dataclasses.replace(self._specs[seed], phases=phases)

    def _copy_for(self, request: Request) -> SessionModel | None:
        """Returns the copy of the model for a request, if it can use one."""
        opening = opening_of(request.phases[-1])
        if opening not in self._copies:
            self._copies[opening] = self._make_copy()
        copy = self._copies[opening]
        if copy is None or self._main.needs_whole(request.penalty):
            return None
        shared = self._shared
        for phase in request.phases:
            shared.sets.apply(phase)
            cached = shared.open(phase)
            shared.sets.restore()
            if cached is None:
                return None
        return copy

    def _make_copy(self) -> SessionModel | None:
        try:
            model = copy_model(self.model)
        except ValueError:
            return None
        return SessionModel(model, self._shared.twin(model))

    def _plan(self, runs: Sequence[tuple[Phase, ...]], count: int) -> None:
        """Plans the cache as if all runs were phases of one run."""
        shared, settings = self._shared, self._settings
        by_opening: dict[Any, Phase] = {}
        for phases in runs:
            for phase in phases:
                opening = opening_of(phase)
                epochs = max(1, phase.epochs * count // len(runs))
                previous = by_opening.get(opening)
                if previous is not None:
                    epochs += previous.epochs
                by_opening[opening] = dataclasses.replace(
                    phase, epochs=epochs, name=f"depth {phase.depth}"
                )
        most = len(self.model.variables)  # More than there are blocks.
        order = sorted(
            by_opening,
            key=lambda o: most if o[0] in (None, "all") else int(o[0]),
        )
        planned = tuple(by_opening[opening] for opening in order)
        self._deepest = planned[-1]
        shared.places = {o: place for place, o in enumerate(order)}
        networks = Networks(strategy=self._strategy)
        policy = settings.cache_policy(
            needs_whole_model(self.model, ()),
            must_fit=isinstance(settings.caching.store, FeatureStore),
        )
        data = self._spec((), settings.data.seed).data
        shared.plan, store = make_plan(
            self.model, data, planned, shared.sets, policy, networks
        )
        if store is not None:
            shared.prefixes = Prefixes(
                self.model, data, shared.plan, store, policy, networks
            )


def _check(runs: Sequence[tuple[Phase, ...]]) -> None:
    for phases in runs:
        for phase in phases:
            if phase.reinitialize or phase.blocks is not None:
                raise ValueError(
                    "`strategy` must open the last blocks, from pretrained "
                    f"weights, for a search. Received: {phase}"
                )
