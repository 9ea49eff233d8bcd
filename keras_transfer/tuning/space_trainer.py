"""The models that choices of a search are trained with."""

from __future__ import annotations

import dataclasses
import functools
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from keras_transfer._utils.plain import plain
from keras_transfer._utils.progress import Progress
from keras_transfer._utils.seeding import seeded
from keras_transfer.builders.assembly import copy_model
from keras_transfer.builders.images import build_classifier
from keras_transfer.builders.texts import build_text_classifier
from keras_transfer.caching.plan import Plan
from keras_transfer.data import ImageData, TextData
from keras_transfer.strategies.applying import TrainableSets
from keras_transfer.strategies.choosing import default_strategy
from keras_transfer.strategies.phase import Phase
from keras_transfer.structure.blocks import backbone_of
from keras_transfer.tasks.task import Objective, make_objective
from keras_transfer.training.batched_heads import Request
from keras_transfer.training.history import Row
from keras_transfer.training.session import TrainingSession
from keras_transfer.training.session_model import Finished
from keras_transfer.training.settings import Settings
from keras_transfer.tuning.space import (
    HEAD,
    SETTINGS,
    Choice,
    Range,
    SearchSpace,
)
from keras_transfer.tuning.trial_metrics import TrialMetrics

if TYPE_CHECKING:
    import tensorflow as tf


# Models that are kept compiled; another head or optimizer is another one.
_MOST = 4


# Linear heads that are trained at once.
_AT_ONCE = 64


class SpaceTrainer:
    """Trains choices, each on a bench for those that share its model.

    Args:
        source: A model, or what a backbone is loaded from.
        data: As for `fine_tune`.
        space: What varies.
        settings: How to train, beside what varies.
        epochs: Passes over the data in the main phase, or `None`.
        trials: How many choices there will be at most.
        executions: How often each of them is run.
        ahead: Whether all of the space will be tried, one choice after the
            other, so that some of it may be computed together.
        parallel: How many choices to train side by side, where it is known
            which come next.
        progress: Where the plan goes before the first trial.
        ignore: Names of findings of `check` that are meant. Defaults to `()`.
        strategy: What trains on several devices. Defaults to `None`.

    Raises:
        ValueError: If the model cannot vary as the space wants it.
        TypeError: If there is nothing to build a model of.
    """

    def __init__(
        self,
        source: Any,
        data: Any,
        space: SearchSpace,
        settings: Settings,
        *,
        epochs: int | None,
        trials: int,
        executions: int,
        ahead: bool,
        parallel: int,
        progress: Progress,
        ignore: Sequence[str] = (),
        strategy: tf.distribute.Strategy | None = None,
    ) -> None:
        self._strategy = strategy
        self._progress = progress
        self._source = source
        self._data = data
        self._settings = settings
        self._epochs = epochs
        self._trials = trials
        self._executions = executions
        self._ignore = ignore
        self._open: OrderedDict[tuple[str, ...], TrainingSession] = (
            OrderedDict()
        )
        self.plans: list[Plan] = []
        self._ahead = ahead
        self._parallel = parallel
        # By the bench as well: two backbones are asked for the same.
        self._ready: dict[tuple[TrainingSession, Request], Finished] = {}
        self._check(space)
        self._depth = space.depth
        if isinstance(source, keras.Model):
            # Each run starts from what the user's model came with.
            self._start = [np.array(variable) for variable in source.variables]
        first = _first(space)
        model = self._build(first)
        self.space = space.for_model(model)
        self.columns = TrialMetrics(model, data, self._settings_of(first))
        self._check_each(first, model)

    def describe(self) -> dict[str, Any]:
        """Returns what another process must ask for to go on."""
        return {**self.columns.describe(), "space": plain(self.space)}

    def use(self, monitor: str | None) -> None:
        """Chooses epochs by a column.

        Args:
            monitor: Its name, or `None`.
        """
        self._settings = dataclasses.replace(self._settings, monitor=monitor)

    def run(
        self,
        hp: Any,
        seed: int,
        epochs: int | None = None,
        goes_on: Callable[[Sequence[Row]], bool] | None = None,
    ) -> Finished:
        """Trains what an oracle chose.

        Args:
            hp: `keras_tuner.HyperParameters`.
            seed: Of the order and what is drawn.
            epochs: Passes over the data. Defaults to `None`, as at
                construction.
            goes_on: Function from the table so far to whether it goes on.
                Defaults to `None`: to its end.

        Returns:
            A `Finished`.
        """
        choice = Choice(self.space.declare(hp))
        bench = self._bench(choice)
        request = self._request(bench, choice, seed, epochs)
        if self._ahead and goes_on is None:
            self._run_ahead(bench, choice, request)
        if (bench, request) in self._ready:
            return self._ready.pop((bench, request))
        return bench.run(
            request.phases,
            penalty=request.penalty,
            seed=request.seed,
            goes_on=goes_on,
        )

    def load(
        self, hp: Any, weights: Mapping[int, np.ndarray], seed: int
    ) -> keras.Model:
        """Makes the model of a trial with the weights that it came to.

        Args:
            hp: `keras_tuner.HyperParameters`.
            weights: As `Finished.weights`.
            seed: As of its run; not used.

        Returns:
            The model, compiled.
        """
        choice = Choice(self.space.declare(hp))
        if isinstance(self._source, keras.Model):
            # Each trial has a model of its own; the user's may have gone on.
            model = copy_model(self._source)
            _assign(model, self._start)
        else:
            model = self._build(choice)
        for place, array in weights.items():
            model.variables[place].assign(array)
        objective = self._objective_of(model, choice)
        rate = float(choice.values["learning_rate"])
        model.compile(
            self._settings_of(choice).make_optimizer(rate),
            loss=objective.loss,
            metrics=objective.metrics(),
        )
        model.optimizer.build(model.trainable_variables)
        return model

    def judge(self, hp: Any) -> TrainingSession:
        """Returns what evaluates other weights of the model of a trial.

        Args:
            hp: `keras_tuner.HyperParameters`.
        """
        return self._bench(Choice(self.space.declare(hp)))

    def make(self, hp: Any) -> keras.Model:
        """Makes the model of a choice, compiled, as its trial begins.

        Args:
            hp: `keras_tuner.HyperParameters`.
        """
        return self.load(hp, {}, self._settings.seed)

    def head(self, hp: Any) -> tuple[Any, ...]:
        """Returns what two trials share whose models have the same weights.

        Args:
            hp: `keras_tuner.HyperParameters`.
        """
        values = self.space.declare(hp)
        return tuple(values[name] for name in HEAD)

    def account(self) -> None:
        """Says what was computed, and what it took."""
        for plan in self.plans:
            self._progress.say(plan.explain())

    def close(self) -> None:
        """Gives all models back as they were."""
        while self._open:
            self._open.popitem()[1].close()
        if isinstance(self._source, keras.Model):
            _assign(self._source, self._start)

    def _check(self, space: SearchSpace) -> None:
        if isinstance(self._source, keras.Model):
            for name in HEAD:
                if getattr(space, name) != getattr(SearchSpace(), name):
                    raise ValueError(
                        f"`{name}` must be left out of `space` for a model, "
                        "which has its own. Received: "
                        f"{name}={getattr(space, name)!r:.100}. Pass a "
                        "backbone, or a function `build(hp)`."
                    )
        elif not isinstance(self._data, ImageData | TextData):
            raise TypeError(
                "`model` must be a model where `data` are not those of "
                "`load_images` or `load_texts`, which say how many classes "
                f"there are. Received: {self._source!r:.100}. Pass "
                "data=load_images(...), or a model."
            )

    def _check_each(self, first: Choice, model: keras.Model) -> None:
        """Tries each value of each field, beside the first of all others."""
        for name in (*HEAD, *SETTINGS, "strategy"):
            for option in self.space.options(name)[1:]:
                if isinstance(option, Range):
                    continue
                choice = Choice({**first.values, name: option})
                made = self._build(choice) if name in HEAD else model
                self._objective_of(made, choice)
                self._settings_of(choice)
                if name != "backbone":
                    continue
                there = self.space.for_model(made).depth
                if self._depth in (None, "all") or there != self.space.depth:
                    raise ValueError(
                        "`depth` must be a list of integers where `backbone` "
                        f"varies. Received: depth={self._depth!r}"
                    )
        for one in self.space.each("depth", "strategy"):
            phases = _phases(
                model, Choice({**first.values, **one}), self._epochs
            )
            TrainableSets(model, phases)

    def _bench(self, choice: Choice) -> TrainingSession:
        key = choice.group
        if key in self._open:
            self._open.move_to_end(key)
            return self._open[key]
        # Two benches of one model cannot both say how it computes.
        half = self._settings.policy and isinstance(self._source, keras.Model)
        while len(self._open) >= (1 if half else _MOST):
            self._open.popitem(last=False)[1].close()
        model = self._build(choice)
        runs = [
            _phases(model, Choice({**choice.values, **one}), self._epochs)
            for one in self.space.each("depth", "strategy")
        ]
        bench = self._open[key] = TrainingSession(
            model,
            self._data,
            runs,
            self._settings_of(choice),
            count=self._trials * self._executions,
            last_counts=True,
            ignore=self._ignore,
            strategy=self._strategy,
        )
        self.plans.append(bench.plan)
        self._progress.say(bench.plan.explain())
        return bench

    def _request(
        self,
        bench: TrainingSession,
        choice: Choice,
        seed: int,
        epochs: int | None,
    ) -> Request:
        phases = _phases(bench.model, choice, epochs or self._epochs)
        return Request(phases, choice.penalty(), seed)

    def _run_ahead(
        self, bench: TrainingSession, choice: Choice, request: Request
    ) -> None:
        """Trains what a grid will come to along with what it asks for."""
        if (bench, request) in self._ready:
            return
        if not choice.values["depth"]:
            some = self._other_heads(bench, choice, request)
            found = bench.run_together(some)
        else:
            some = [request, *self._next_ones(bench, choice, request)]
            found = bench.run_side_by_side(some) if len(some) > 1 else None
        for one, finished in zip(some, found or [], strict=False):
            self._ready[bench, one] = finished

    def _other_heads(
        self, bench: TrainingSession, choice: Choice, request: Request
    ) -> list[Request]:
        """All heads that differ in rate and lambda, up to what is at once."""
        requests = [
            self._request(
                bench, Choice({**choice.values, **one}), request.seed, None
            )
            for one in self.space.each("learning_rate", "lambda_")
        ]
        start = requests.index(request) // _AT_ONCE * _AT_ONCE
        return requests[start : start + _AT_ONCE]

    def _next_ones(
        self, bench: TrainingSession, choice: Choice, request: Request
    ) -> list[Request]:
        """The next ones that open other blocks; few, for they could be lost."""
        found: list[Request] = []
        depths = {choice.values["depth"], 0}
        place = self._grid.index(choice.values)
        for values in self._grid[place + 1 : self._trials]:
            other = Choice(values)
            if len(found) + 1 >= self._parallel:
                break
            if values["depth"] in depths or other.group != choice.group:
                continue
            wanted = self._request(bench, other, request.seed, None)
            if (bench, wanted) not in self._ready:
                found.append(wanted)
                depths.add(values["depth"])
        return found

    @functools.cached_property
    def _grid(self) -> list[Mapping[str, Any]]:
        """All choices, in the order of Keras-Tuner's grid."""
        fields = dataclasses.fields(self.space)
        return list(self.space.each(*(field.name for field in fields)))

    def _settings_of(self, choice: Choice) -> Settings:
        values = choice.values
        return dataclasses.replace(
            self._settings,
            optimizer=values["optimizer"],
            label_smoothing=float(values["label_smoothing"]),
            views=values["views"],
        )

    def _objective_of(self, model: keras.Model, choice: Choice) -> Objective:
        return make_objective(
            model,
            self.columns.labels,
            loss=self._settings.loss,
            label_smoothing=float(choice.values["label_smoothing"]),
        )

    def _build(self, choice: Choice) -> keras.Model:
        """Makes the model of a choice, always with the same weights."""
        if isinstance(self._source, keras.Model):
            _assign(self._source, self._start)
            return self._source
        head: dict[str, Any] = {
            "dropout": float(choice.values["dropout"]),
            "hidden_units": choice.values["hidden_units"],
        }
        if getattr(self._data, "multi_label", False):
            head["activation"] = "sigmoid"
        build: Callable[..., keras.Model] = build_classifier
        if isinstance(self._data, TextData):
            build = build_text_classifier
        with seeded(self._settings.seed):
            backbone = choice.values["backbone"] or self._source
            return build(backbone, data=self._data, **head)


def _phases(
    model: keras.Model, choice: Choice, epochs: int | None
) -> tuple[Phase, ...]:
    return choice.phases(
        default_strategy(model), epochs, backbone_of(model) is not model
    )


def _first(space: SearchSpace) -> Choice:
    firsts = {}
    for field in dataclasses.fields(space):
        first = space.options(field.name)[0]
        firsts[field.name] = first.low if isinstance(first, Range) else first
    return Choice(firsts)


def _assign(model: keras.Model, arrays: Sequence[np.ndarray]) -> None:
    for variable, array in zip(model.variables, arrays, strict=True):
        variable.assign(array)
