"""Trains one model on the same data many times, doing once what can be."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent import futures
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from keras_transfer.builders.assembly import copy_model
from keras_transfer.caching.networks import Networks
from keras_transfer.caching.plan import Plan
from keras_transfer.caching.planning import make_plan
from keras_transfer.caching.policy import needs_whole_model
from keras_transfer.caching.prefixes import Prefixes
from keras_transfer.caching.store import FeatureStore
from keras_transfer.data.adapters.opening import open_data
from keras_transfer.data.adapters.training_data import TrainingData
from keras_transfer.penalties.weights import Penalty
from keras_transfer.strategies.applying import TrainableSets, computing_in
from keras_transfer.strategies.phase import Phase
from keras_transfer.structure import graph
from keras_transfer.tasks.task import is_binary, make_objective
from keras_transfer.training.batched_heads import Request, train, why_not
from keras_transfer.training.history import Row
from keras_transfer.training.loop import Runner
from keras_transfer.training.replica_trainer import ReplicaTrainer
from keras_transfer.training.session_model import Finished, SessionModel
from keras_transfer.training.settings import Settings
from keras_transfer.training.shared_runs import Opening, SharedRuns, opening_of

if TYPE_CHECKING:
    import tensorflow as tf


class TrainingSession:
    """Trains one model on the same data many times.

    Each run starts from the weights that the model came with, and gives the
    numbers of `fine_tune` with the same arguments. Done once are: the
    activations below the blocks that train, the exact probe, and the trace of
    each training step; between runs of one kind weights, moments, rates and
    coefficients are assigned.

    Args:
        model: The model.
        data: As for `fine_tune`.
        runs: The phases of each kind of run that will come, to plan by; rates
            may differ from these, and epochs.
        settings: How to train.
        count: How many runs there will be, about. Defaults to `1`.
        last_counts: Whether the best epoch of a run is one of its last phase,
            and not what a phase before came to. Defaults to `False`, as in
            `fine_tune`.
        ignore: Names of findings of `check` that are meant. Defaults to `()`.
        strategy: What trains a copy of the model on several devices. Defaults
            to `None`: one device.

    Raises:
        ValueError: If they do not fit each other.
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
        self._sources: dict[int, TrainingData] = {}
        self._lanes: dict[Opening, SessionModel | None] = {}
        self._check(runs)
        with self._scope():
            # What trains on several devices is made there.
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
        source = self._open(settings.seed)
        self.objective = make_objective(
            model,
            source.labels,
            loss=settings.loss,
            label_smoothing=settings.label_smoothing,
        )
        openings = {opening_of(phase): phase for run in runs for phase in run}
        phases = tuple(openings.values())
        self.diagnosis = Runner(
            model, source, phases, settings, self.objective
        ).diagnose(self._data, ignore)
        self._shared = SharedRuns(
            model,
            phases,
            TrainableSets(model, phases),
            [np.array(variable) for variable in model.variables],
            Plan(()),
            runs=max(1, count // len(runs)),
            last_counts=last_counts,
            strategy=self._strategy,
        )
        self._lane = SessionModel(model, self._shared)
        with contextlib.ExitStack() as stack:
            stack.callback(self._shared.sets.restore)
            stack.enter_context(computing_in(model, settings.policy))
            self._plan(runs, count)
            self._stack = stack.pop_all()

    @property
    def plan(self) -> Plan:
        """What is computed once for all runs, and what in each pass."""
        return self._shared.plan

    def run(
        self,
        phases: tuple[Phase, ...],
        *,
        penalty: Penalty | None = None,
        seed: int | None = None,
        goes_on: Callable[[Sequence[Row]], bool] | None = None,
    ) -> Finished:
        """Runs phases from the weights that the model came with.

        Args:
            phases: The phases; they open what those of `runs` open.
            penalty: A penalty. Defaults to `None`.
            seed: Of the order and what is drawn. Defaults to `None`, that of
                the settings.
            goes_on: Function from the table so far to whether the run goes on.
                Defaults to `None`: to its end.

        Returns:
            A `Finished`.
        """
        seed = self._settings.seed if seed is None else seed
        with self._scope():
            return self._run(
                self._lane, Request(phases, penalty, seed), goes_on=goes_on
            )

    def run_together(
        self, requests: Sequence[Request]
    ) -> list[Finished] | None:
        """Trains linear heads of several runs as one computation.

        Args:
            requests: Runs that differ in their rates and lambdas alone.

        Returns:
            A `Finished` for each, with the numbers that `run` would give; or
            `None` where they cannot be one computation.
        """
        if self._strategy is not None:
            return None
        started = time.monotonic()
        settings = dataclasses.replace(self._settings, seed=requests[0].seed)
        *before, last = requests[0].phases
        runner = Runner(
            self.model,
            self._open(settings.seed),
            tuple(before) or (last,),
            settings,
            self.objective,
            shared=self._shared,
        )
        try:
            self._shared.sets.apply(last)
            kept = self._shared.open(last)
            if kept is None or why_not(
                requests, settings, self.objective, kept.suffix
            ):
                return None
            if before:  # The exact probe is the same for all.
                runner.run()
                self._shared.sets.apply(last)
            trained = time.monotonic()
            heads = train(
                requests,
                settings,
                self.objective,
                kept,
                runner,
                self._shared.first_that_counts(requests[0].phases),
            )
            self._shared.count_seconds(last, time.monotonic() - trained)
        finally:
            self._shared.sets.restore()
        start = self._shared.start
        probed = {
            place: array
            for place, array in enumerate(runner.best_weights)
            if before and not np.array_equal(array, start[place])
        }
        places = {id(v): i for i, v in enumerate(self.model.variables)}
        seconds = (time.monotonic() - started) / len(requests)
        return [
            Finished(
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
        goes_on: Callable[[Sequence[Row]], bool] | None = None,
    ) -> list[Finished] | None:
        """Runs several requests at once, each in a thread of its own.

        Steps of a small network leave cores idle. Each opening has a copy of
        the model, and all train on the same activations.

        Args:
            requests: Runs, no two of which open the same blocks.
            goes_on: As for `run`. Defaults to `None`.

        Returns:
            A `Finished` for each, with the numbers that `run` would give; or
            `None` where something is computed from the inputs in each pass, or
            the model cannot be copied.
        """
        if self._strategy is not None:
            return None
        lanes = []
        for request in requests:
            lane = self._lane_of(request)
            if lane is None:
                return None
            lanes.append(lane)
        stop = threading.Event()

        def still(rows: Sequence[Row]) -> bool:
            return not stop.is_set() and (goes_on is None or goes_on(rows))

        with futures.ThreadPoolExecutor(len(lanes)) as pool:
            runs = [
                pool.submit(self._run, lane, request, still)
                for lane, request in zip(lanes, requests, strict=True)
            ]
            try:
                futures.wait(runs, return_when=futures.FIRST_EXCEPTION)
            finally:
                stop.set()  # One failed, or somebody pressed Ctrl-C.
        return [run.result() for run in runs]

    def assign(self, weights: Mapping[int, np.ndarray]) -> None:
        """Gives the model the weights that a run came to.

        Args:
            weights: As `Finished.weights`.
        """
        self._lane.assign(weights)

    @property
    def start(self) -> Sequence[np.ndarray]:
        """The weights that each run starts from, by their place."""
        return self._shared.start

    def evaluate(self, weights: Mapping[int, np.ndarray]) -> dict[str, float]:
        """Returns the validation metrics of other weights, without a penalty.

        Args:
            weights: As `Finished.weights`: of blocks that some run trains.
        """
        self.assign(weights)
        try:
            with self._scope():
                model, batches = self._judge
                found = model.evaluate(batches, return_dict=True, verbose=0)
        finally:
            self.assign({})
        return {f"val_{name}": value for name, value in found.items()}

    def close(self) -> None:
        """Leaves the model open and closed as it was, compiled anew."""
        self._lane.close()
        self._lanes.clear()
        self._stack.close()
        self._given.compile(
            self._settings.make_optimizer(1e-3),
            loss=self.objective.loss,
            metrics=self.objective.metrics(),
        )
        self._given.optimizer.build(self._given.trainable_variables)

    @functools.cached_property
    def _judge(self) -> tuple[keras.Model | ReplicaTrainer, Any]:
        """What is above all that no run changes, and its validation batches."""
        self._shared.sets.apply(self._deepest)
        kept = self._shared.open(self._deepest)
        self._shared.sets.restore()
        whole = self._open(self._settings.seed).validation
        if kept is not None and kept.validation is not None:
            model = graph.view(kept.suffix)
            batches = kept.validation.batches(self._settings.batch_size)
        elif whole is not None:
            model, batches = graph.view(self.model), whole()
        else:
            raise ValueError(
                "`data` must have validation examples. Received: none."
            )
        model.compile(
            loss=self.objective.loss, metrics=self.objective.metrics()
        )
        if self._strategy is not None:
            return ReplicaTrainer(
                model, self.objective, self._strategy
            ), batches
        return model, batches

    def _open(self, seed: int) -> TrainingData:
        if seed not in self._sources:
            self._sources[seed] = open_data(
                self._data,
                batch_size=self._settings.batch_size,
                seed=seed,
                augment=self._settings.augment,
                cache=self._settings.cache,
                one_output=is_binary(self.model),
            )
        return self._sources[seed]

    def _run(
        self,
        lane: SessionModel,
        request: Request,
        goes_on: Callable[[Sequence[Row]], bool] | None = None,
    ) -> Finished:
        settings = dataclasses.replace(self._settings, seed=request.seed)
        source = self._open(request.seed)
        return lane.run(request, source, settings, self.objective, goes_on)

    def _lane_of(self, request: Request) -> SessionModel | None:
        """Returns what a request is run on beside others, if it can be."""
        opening = opening_of(request.phases[-1])
        if opening not in self._lanes:
            self._lanes[opening] = self._make_lane()
        lane = self._lanes[opening]
        if lane is None or needs_whole_model(self.model, request.penalty):
            return None
        shared = self._shared
        for phase in request.phases:
            shared.sets.apply(phase)
            kept = shared.open(phase)
            shared.sets.restore()
            if kept is None:
                return None
        return lane

    def _make_lane(self) -> SessionModel | None:
        try:
            model = copy_model(self.model)
        except ValueError:
            return None
        return SessionModel(model, self._shared.twin(model))

    def _check(self, runs: Sequence[tuple[Phase, ...]]) -> None:
        for phases in runs:
            for phase in phases:
                if phase.reinitialize or phase.blocks is not None:
                    raise ValueError(
                        "`strategy` must open the last blocks, from pretrained "
                        f"weights, to be run many times. Received: {phase}"
                    )

    def _plan(
        self,
        runs: Sequence[tuple[Phase, ...]],
        count: int,
    ) -> None:
        """Decides what to keep, as if all runs were phases of one."""
        shared, settings = self._shared, self._settings
        by_opening: dict[Any, Phase] = {}
        for phases in runs:
            for phase in phases:
                opening = opening_of(phase)
                epochs = max(1, phase.epochs * count // len(runs))
                known = by_opening.get(opening)
                if known is not None:
                    epochs += known.epochs
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
            needs_whole_model(self.model, None),
            must_fit=isinstance(settings.store, FeatureStore),
        )
        shared.plan, store = make_plan(
            self.model,
            self._open(settings.seed),
            planned,
            shared.sets,
            policy,
            networks,
        )
        if store is not None:
            shared.prefixes = Prefixes(
                self.model,
                self._open(settings.seed),
                shared.plan,
                store,
                policy,
                networks,
            )
