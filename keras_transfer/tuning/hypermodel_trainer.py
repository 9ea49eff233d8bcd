"""Trials of models that a function of the user's builds."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from keras_transfer._utils.seeding import seeded
from keras_transfer.caching.plan import Plan
from keras_transfer.strategies.choosing import choose_phases
from keras_transfer.strategies.phase import Phase
from keras_transfer.training.history import Row
from keras_transfer.training.session import TrainingSession
from keras_transfer.training.session_model import Finished
from keras_transfer.training.settings import Settings
from keras_transfer.tuning.trial_metrics import TrialMetrics

if TYPE_CHECKING:
    import tensorflow as tf


class HypermodelTrainer:
    """Trains what a function `build(hp)` returns, from stored activations.

    A compiled model is trained as it was compiled: what is trainable, its
    optimizer at its rate, its loss. One that is not is trained by the default
    strategy.

    Args:
        build: Function from `keras_tuner.HyperParameters` to a model.
        data: As for `fine_tune`.
        settings: How to train, beside what the model is compiled with.
        first: `keras_tuner.HyperParameters`, to try it with.
        epochs: Passes over the data, or `None` for those of the strategy.
        ignore: Names of findings of `check` that are meant. Defaults to `()`.
        strategy: What trains on several devices. Defaults to `None`.
    """

    space = None

    def __init__(
        self,
        build: Callable[[Any], keras.Model],
        data: Any,
        settings: Settings,
        first: Any,
        *,
        epochs: int | None,
        ignore: Sequence[str] = (),
        strategy: tf.distribute.Strategy | None = None,
    ) -> None:
        self._strategy = strategy
        self._build_model = build
        self._data = data
        self._settings = settings
        self._epochs = epochs
        self._ignore = ignore
        self.plans: list[Plan] = []
        model = self._build(first, settings.seed)
        self.columns = TrialMetrics(model, data, self._settings_of(model))

    def describe(self) -> dict[str, Any]:
        """Returns what another process must ask for to go on."""
        name = getattr(self._build_model, "__qualname__", "")
        return {**self.columns.describe(), "build": name}

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
            seed: Of new weights, the order and what is drawn.
            epochs: Passes over the data. Defaults to `None`, as at
                construction.
            goes_on: Function from the table so far to whether it goes on.
                Defaults to `None`: to its end.

        Returns:
            A `Finished`.
        """
        model = self._build(hp, seed)
        epochs = epochs or self._epochs
        phases = self._phases(model, epochs)
        bench = TrainingSession(
            model,
            self._data,
            [phases],
            self._settings_of(model),
            last_counts=True,
            ignore=self._ignore,
            strategy=self._strategy,
        )
        self.plans.append(bench.plan)
        try:
            return bench.run(phases, seed=seed, goes_on=goes_on)
        finally:
            bench.close()

    def load(
        self, hp: Any, weights: Mapping[int, np.ndarray], seed: int
    ) -> keras.Model:
        """Builds the model of a trial with the weights that it came to.

        Args:
            hp: `keras_tuner.HyperParameters`.
            weights: As `Finished.weights`.
            seed: As of its run.

        Returns:
            The model, compiled as the function does.
        """
        model = self._build(hp, seed)
        for place, array in weights.items():
            model.variables[place].assign(array)
        return model

    def make(self, hp: Any) -> keras.Model:
        """Makes the model of a choice.

        Args:
            hp: `keras_tuner.HyperParameters`.
        """
        return self._build(hp, self._settings.seed)

    def account(self) -> None:
        """Nothing: there is a plan for each trial."""

    def close(self) -> None:
        """Nothing: each model lives for its trial."""

    def _build(self, hp: Any, seed: int) -> keras.Model:
        with seeded(seed):
            model = self._build_model(hp)
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
        rate = keras.ops.convert_to_numpy(model.optimizer.learning_rate)
        phase = Phase(
            "as compiled",
            epochs=10 if epochs is None else epochs,
            learning_rate=float(rate),
            schedule="constant",
        )
        return (phase,)

    def _settings_of(self, model: keras.Model) -> Settings:
        if not model.compiled:
            return self._settings
        return dataclasses.replace(
            self._settings, optimizer=model.optimizer, loss=model.loss
        )
