"""Trials of a search space: builds and trains the model of each choice."""

from __future__ import annotations

import dataclasses
import functools
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np

from keras_transfer._utils.plain import plain
from keras_transfer._utils.progress import Progress
from keras_transfer._utils.seeding import seeded
from keras_transfer.builders.assembly import copy_model
from keras_transfer.builders.images import build_classifier
from keras_transfer.builders.texts import build_text_classifier
from keras_transfer.data import ImageData, TextData
from keras_transfer.strategies.choosing import default_strategy
from keras_transfer.strategies.phase import Phase
from keras_transfer.strategies.trainable_sets import TrainableSets
from keras_transfer.structure.model_parts import parts_of
from keras_transfer.tasks.choosing import choose_task
from keras_transfer.tasks.task import Task
from keras_transfer.training.compiling import compile_plainly
from keras_transfer.training.history import ShouldContinue
from keras_transfer.training.run_state import assign, copies
from keras_transfer.training.settings import Settings
from keras_transfer.tuning.execution.head_requests import Request
from keras_transfer.tuning.execution.session import TrainingSession
from keras_transfer.tuning.execution.session_model import RunOutcome
from keras_transfer.tuning.objective_choice import TrialMetrics
from keras_transfer.tuning.search_spec import TrialSpec
from keras_transfer.tuning.space import (
    HEAD,
    SETTINGS,
    Choice,
    Range,
    SearchSpace,
)
from keras_transfer.tuning.trial_trainer import TrialTrainer

# Sessions that stay open; each head and optimizer needs its own.
_MAX_SESSIONS = 4


# Linear heads that train as one computation.
_HEADS_PER_COMPUTATION = 64


class SpaceTrainer(TrialTrainer):
    """Trains choices of a space, in a session for those that share a model.

    Args:
        spec: Settings of each trial besides the search space.
        space: The search space.
        progress: Writer of progress lines.

    Raises:
        ValueError: If the model does not support the space.
        TypeError: If there are no class names to build a model from.
    """

    space: SearchSpace

    def __init__(
        self, spec: TrialSpec, space: SearchSpace, progress: Progress
    ) -> None:
        super().__init__(spec)
        self._progress = progress
        self._sessions: OrderedDict[tuple[str, ...], TrainingSession]
        self._sessions = OrderedDict()
        # By session as well: requests of two backbones can be equal.
        self._ready: dict[tuple[TrainingSession, Request], RunOutcome] = {}
        _check(spec, space)
        if isinstance(spec.source, keras.Model):
            # Each run starts from the initial weights of the user's model.
            self._start = copies(spec.source.variables)
        first = _first(space)
        model = self._build(first)
        self.space = space.for_model(model)
        self.metrics = TrialMetrics(model, spec.data, self._settings_for(first))
        self._check_each(first, model, space.depth)

    def describe(self) -> dict[str, Any]:
        """Returns the manifest that another process needs to resume."""
        return {**self.metrics.describe(), "space": plain(self.space)}

    def run(
        self,
        hp: Any,
        seed: int,
        epochs: int | None = None,
        should_continue: ShouldContinue | None = None,
    ) -> RunOutcome:
        """Trains the choice of an oracle.

        Args:
            hp: `keras_tuner.HyperParameters`.
            seed: Seed of the order and of random draws.
            epochs: Passes over the data. Defaults to `None`, those of the spec.
            should_continue: Function from the rows so far to whether the run
                continues. Defaults to `None`: to its end.

        Returns:
            A `RunOutcome`.
        """
        choice = Choice(self.space.declare(hp))
        session = self._session(choice)
        request = self._request(session, choice, seed, epochs)
        if self._spec.ahead and should_continue is None:
            self._run_ahead(session, choice, request)
        if (session, request) in self._ready:
            return self._ready.pop((session, request))
        return session.run(
            request.phases,
            penalty=request.penalty,
            seed=request.seed,
            should_continue=should_continue,
        )

    def load(
        self, hp: Any, weights: Mapping[int, np.ndarray], seed: int
    ) -> keras.Model:
        """Builds the model of a trial with its trained weights.

        Args:
            hp: `keras_tuner.HyperParameters`.
            weights: Arrays by place, from `RunOutcome.weights`.
            seed: Seed of its run; not used.

        Returns:
            The model, compiled.
        """
        choice = Choice(self.space.declare(hp))
        if isinstance(self._spec.source, keras.Model):
            # Each trial gets its own copy; the user's model may have changed.
            model = copy_model(self._spec.source)
            assign(model.variables, self._start)
        else:
            model = self._build(choice)
        for place, array in weights.items():
            model.variables[place].assign(array)
        task = self._task_for(model, choice)
        rate = float(choice.values["learning_rate"])
        compile_plainly(model, self._settings_for(choice), task, rate)
        return model

    def judge(self, hp: Any) -> TrainingSession:
        """Returns the session that evaluates other weights of a trial's model.

        Args:
            hp: `keras_tuner.HyperParameters`.
        """
        return self._session(Choice(self.space.declare(hp)))

    def make(self, hp: Any) -> keras.Model:
        """Makes the model of a choice, compiled and untrained.

        Args:
            hp: `keras_tuner.HyperParameters`.
        """
        return self.load(hp, {}, self._settings.data.seed)

    def head(self, hp: Any) -> tuple[Any, ...]:
        """Returns the fields that determine the shapes of a trial's weights.

        Args:
            hp: `keras_tuner.HyperParameters`.
        """
        values = self.space.declare(hp)
        return tuple(values[name] for name in HEAD)

    def account(self) -> str:
        """Returns the caching plans of all sessions, as tables."""
        return "\n".join(plan.explain() for plan in self.plans)

    def close(self) -> None:
        """Restores all models."""
        while self._sessions:
            self._sessions.popitem()[1].close()
        if isinstance(self._spec.source, keras.Model):
            assign(self._spec.source.variables, self._start)

    def _check_each(
        self, first: Choice, model: keras.Model, depth: Any
    ) -> None:
        """Checks each option of each field, with the first of all others."""
        for name in (*HEAD, *SETTINGS, "strategy"):
            for option in self.space.options(name)[1:]:
                if isinstance(option, Range):
                    continue
                choice = Choice({**first.values, name: option})
                made = self._build(choice) if name in HEAD else model
                self._task_for(made, choice)
                self._settings_for(choice)
                if name != "backbone":
                    continue
                depths = self.space.for_model(made).depth
                if depth in (None, "all") or depths != self.space.depth:
                    raise ValueError(
                        "`depth` must be a list of integers where `backbone` "
                        f"varies. Received: depth={depth!r}"
                    )
        for values in self.space.each("depth", "strategy"):
            phases = _phases(
                model, Choice({**first.values, **values}), self._spec.epochs
            )
            TrainableSets(model, phases)

    def _session(self, choice: Choice) -> TrainingSession:
        key = choice.group
        if key in self._sessions:
            self._sessions.move_to_end(key)
            return self._sessions[key]
        # Two sessions of one model cannot both set its dtype policies.
        is_given = isinstance(self._spec.source, keras.Model)
        half = self._settings.optimization.policy and is_given
        while len(self._sessions) >= (1 if half else _MAX_SESSIONS):
            self._sessions.popitem(last=False)[1].close()
        model = self._build(choice)
        runs = [
            _phases(
                model, Choice({**choice.values, **values}), self._spec.epochs
            )
            for values in self.space.each("depth", "strategy")
        ]
        session = self._sessions[key] = TrainingSession(
            model,
            self._spec.data,
            runs,
            self._settings_for(choice),
            count=self._spec.max_trials * self._spec.executions,
            last_counts=True,
            ignore=self._spec.ignore,
            strategy=self._spec.strategy,
        )
        self.plans.append(session.plan)
        self._progress.say(session.plan.explain())
        return session

    def _request(
        self,
        session: TrainingSession,
        choice: Choice,
        seed: int,
        epochs: int | None,
    ) -> Request:
        phases = _phases(session.model, choice, epochs or self._spec.epochs)
        return Request(phases, choice.penalty(), seed)

    def _run_ahead(
        self, session: TrainingSession, choice: Choice, request: Request
    ) -> None:
        """Trains later trials of a grid together with the requested one."""
        if (session, request) in self._ready:
            return
        if not choice.values["depth"]:
            requests = self._other_heads(session, choice, request)
            outcomes = session.run_together(requests)
        else:
            requests = [request, *self._next_requests(session, choice, request)]
            outcomes = (
                session.run_side_by_side(requests)
                if len(requests) > 1
                else None
            )
        for key, outcome in zip(requests, outcomes or [], strict=False):
            self._ready[session, key] = outcome

    def _other_heads(
        self, session: TrainingSession, choice: Choice, request: Request
    ) -> list[Request]:
        """Returns the heads of one computation, over rates and lambdas."""
        requests = [
            self._request(
                session, Choice({**choice.values, **values}), request.seed, None
            )
            for values in self.space.each("learning_rate", "lambda_")
        ]
        size = _HEADS_PER_COMPUTATION
        start = requests.index(request) // size * size
        return requests[start : start + size]

    def _next_requests(
        self, session: TrainingSession, choice: Choice, request: Request
    ) -> list[Request]:
        """Returns the next requests with other blocks, up to `parallel`."""
        requests: list[Request] = []
        depths = {choice.values["depth"], 0}
        place = self._grid.index(choice.values)
        for values in self._grid[place + 1 : self._spec.max_trials]:
            other = Choice(values)
            if len(requests) + 1 >= self._spec.parallel:
                break
            if values["depth"] in depths or other.group != choice.group:
                continue
            candidate = self._request(session, other, request.seed, None)
            if (session, candidate) not in self._ready:
                requests.append(candidate)
                depths.add(values["depth"])
        return requests

    @functools.cached_property
    def _grid(self) -> list[Mapping[str, Any]]:
        """All choices, in the order of Keras-Tuner's grid."""
        fields = dataclasses.fields(self.space)
        return list(self.space.each(*(field.name for field in fields)))

    def _settings_for(self, choice: Choice) -> Settings:
        values = choice.values
        return self.settings_of(
            optimizer=values["optimizer"],
            label_smoothing=float(values["label_smoothing"]),
            views=values["views"],
        )

    def _task_for(self, model: keras.Model, choice: Choice) -> Task:
        task = choose_task(
            model,
            self.metrics.label_format,
            loss=self._settings.losses.loss,
            label_smoothing=float(choice.values["label_smoothing"]),
        )
        return task.with_extra(self._settings.losses.metrics)

    def _build(self, choice: Choice) -> keras.Model:
        """Makes the model of a choice, always with the same weights."""
        if isinstance(self._spec.source, keras.Model):
            assign(self._spec.source.variables, self._start)
            return self._spec.source
        head: dict[str, Any] = {
            "dropout": float(choice.values["dropout"]),
            "hidden_units": choice.values["hidden_units"],
        }
        if getattr(self._spec.data, "multi_label", False):
            head["activation"] = "sigmoid"
        build: Callable[..., keras.Model] = build_classifier
        if isinstance(self._spec.data, TextData):
            build = build_text_classifier
        with seeded(self._settings.data.seed):
            backbone = choice.values["backbone"] or self._spec.source
            return build(backbone, data=self._spec.data, **head)


def _phases(
    model: keras.Model, choice: Choice, epochs: int | None
) -> tuple[Phase, ...]:
    return choice.phases(
        default_strategy(model), epochs, parts_of(model).head is not None
    )


def _check(spec: TrialSpec, space: SearchSpace) -> None:
    if isinstance(spec.source, keras.Model):
        for name in HEAD:
            if getattr(space, name) != getattr(SearchSpace(), name):
                raise ValueError(
                    f"`{name}` must be left out of `space` for a model, "
                    "which has its own. Received: "
                    f"{name}={getattr(space, name)!r:.100}. Pass a "
                    "backbone, or a function `build(hp)`."
                )
    elif not isinstance(spec.data, ImageData | TextData):
        raise TypeError(
            "`model` must be a model where `data` are not an `ImageData` or "
            "`TextData`, which give the number of classes. "
            f"Received: {spec.source!r:.100}. Pass "
            "data=load_images(...), or a model."
        )


def _first(space: SearchSpace) -> Choice:
    firsts = {}
    for field in dataclasses.fields(space):
        first = space.options(field.name)[0]
        firsts[field.name] = first.low if isinstance(first, Range) else first
    return Choice(firsts)
