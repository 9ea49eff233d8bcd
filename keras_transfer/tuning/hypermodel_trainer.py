"""Trials of models that a user's function builds."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np

from keras_transfer._utils.seeding import seeded
from keras_transfer.optimizers.given_rate import rate_of
from keras_transfer.strategies.choosing import choose_phases
from keras_transfer.strategies.phase import Phase, is_keras_schedule
from keras_transfer.structure.compile_state import compiled_metrics
from keras_transfer.tasks.extra_metrics import read_metrics
from keras_transfer.training.history import ShouldContinue
from keras_transfer.training.settings import Settings
from keras_transfer.tuning.execution.session import TrainingSession
from keras_transfer.tuning.execution.session_model import RunOutcome
from keras_transfer.tuning.objective_choice import TrialMetrics
from keras_transfer.tuning.search_spec import TrialSpec
from keras_transfer.tuning.trial_trainer import TrialTrainer


class HypermodelTrainer(TrialTrainer):
    """Trains the models of a function `build(hp)` on cached activations.

    A compiled model keeps its `trainable` flags, optimizer, learning rate and
    loss. A model that is not compiled is trained by the default strategy.

    Args:
        spec: Settings of each trial, besides those that models are compiled
            with.
        build: Function from `keras_tuner.HyperParameters` to a model.
        first: `keras_tuner.HyperParameters` for a first call of `build`.
    """

    build: Callable[[Any], keras.Model]

    def __init__(
        self,
        spec: TrialSpec,
        build: Callable[[Any], keras.Model],
        first: Any,
    ) -> None:
        super().__init__(spec)
        self.build = build
        model = self._build(first, spec.settings.data.seed)
        self.metrics = TrialMetrics(model, spec.data, self._compiled_as(model))

    def describe(self) -> dict[str, Any]:
        """Returns the manifest that another process needs to resume."""
        name = getattr(self.build, "__qualname__", "")
        return {**self.metrics.describe(), "build": name}

    def run(
        self,
        hp: Any,
        seed: int,
        epochs: int | None = None,
        should_continue: ShouldContinue | None = None,
    ) -> RunOutcome:
        """Trains the choice of an oracle; see `TrialTrainer.run`.

        Args:
            hp: `keras_tuner.HyperParameters`.
            seed: Seed of new weights, order and random draws.
            epochs: Passes over the data. Defaults to `None`, those of the spec.
            should_continue: Function from the rows so far to whether the run
                continues. Defaults to `None`: to its end.

        Returns:
            A `RunOutcome`.
        """
        spec = self._spec
        model = self._build(hp, seed)
        phases = self._phases(model, epochs or spec.epochs)
        session = TrainingSession(
            model,
            spec.data,
            [phases],
            self._compiled_as(model),
            last_counts=True,
            ignore=spec.ignore,
            strategy=spec.strategy,
        )
        self.plans.append(session.plan)
        try:
            return session.run(
                phases, seed=seed, should_continue=should_continue
            )
        finally:
            session.close()

    def load(
        self, hp: Any, weights: Mapping[int, np.ndarray], seed: int
    ) -> keras.Model:
        """Builds the model of a trial with its trained weights.

        Args:
            hp: `keras_tuner.HyperParameters`.
            weights: Arrays by place, from `RunOutcome.weights`.
            seed: Seed of its run.

        Returns:
            The model, compiled by the function.
        """
        model = self._build(hp, seed)
        for place, array in weights.items():
            model.variables[place].assign(array)
        return model

    def make(self, hp: Any) -> keras.Model:
        """Makes the untrained model of a trial.

        Args:
            hp: `keras_tuner.HyperParameters`.
        """
        return self._build(hp, self._spec.settings.data.seed)

    def close(self) -> None:
        """Does nothing: each model lives for its trial."""

    def _build(self, hp: Any, seed: int) -> keras.Model:
        with seeded(seed):
            model = self.build(hp)
        if not isinstance(model, keras.Model):
            raise TypeError(
                "`model` must be a function that returns a `keras.Model`. "
                f"Received: one that returned {type(model).__name__}"
            )
        return model

    def _phases(
        self, model: keras.Model, epochs: int | None
    ) -> tuple[Phase, ...]:
        if not model.compiled:
            return choose_phases(model, None, epochs=epochs)
        epochs = 10 if epochs is None else epochs
        given = rate_of(model.optimizer)
        if is_keras_schedule(given):
            return (Phase("as compiled", epochs=epochs, schedule=given),)
        rate = keras.ops.convert_to_numpy(model.optimizer.learning_rate)
        phase = Phase(
            "as compiled",
            epochs=epochs,
            learning_rate=float(rate),
            schedule="constant",
        )
        return (phase,)

    def _compiled_as(self, model: keras.Model) -> Settings:
        """Returns the settings, with those of a compiled model."""
        if not model.compiled:
            return self._settings
        compiled = compiled_metrics(model)
        names = {metric.name for metric in read_metrics(compiled)}
        given = self._settings.losses.metrics
        return self.settings_of(
            optimizer=model.optimizer,
            loss=model.loss,
            metrics=(*compiled, *(m for m in given if m.name not in names)),
        )
