"""`TrialTrainer`: trains the trials of a search."""

from __future__ import annotations

import abc
from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np

from keras_transfer.caching.plan import Plan
from keras_transfer.training.history import ShouldContinue
from keras_transfer.training.settings import Settings
from keras_transfer.tuning.execution.session_model import RunOutcome
from keras_transfer.tuning.objective_choice import TrialMetrics
from keras_transfer.tuning.search_spec import TrialSpec


class TrialTrainer(abc.ABC):
    """Trains the trials of a search, from shared activations.

    Args:
        spec: Settings of each trial.

    Attributes:
        space: Search space; `None` where a function declares it.
        metrics: The columns that trials report.
        plans: Caching plan of each training session.
        build: The function of the user that builds models, or `None`.
    """

    space: Any = None
    build: Callable[[Any], keras.Model] | None = None
    metrics: TrialMetrics

    def __init__(self, spec: TrialSpec) -> None:
        self.plans: list[Plan] = []
        self._spec = spec
        self._settings = spec.settings

    def use(self, monitor: Any) -> None:
        """Sets the column that selects epochs.

        Args:
            monitor: Its name, a pair of it and its direction, or `None`.
        """
        self._settings = self._settings.replace(monitor=monitor)

    @abc.abstractmethod
    def describe(self) -> dict[str, Any]:
        """Returns the manifest that another process needs to resume."""

    @abc.abstractmethod
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
        """

    @abc.abstractmethod
    def load(
        self, hp: Any, weights: Mapping[int, np.ndarray], seed: int
    ) -> keras.Model:
        """Builds the model of a trial with its trained weights.

        Args:
            hp: `keras_tuner.HyperParameters`.
            weights: Arrays by place, from `RunOutcome.weights`.
            seed: Seed of its run.
        """

    @abc.abstractmethod
    def make(self, hp: Any) -> keras.Model:
        """Makes the untrained model of a trial.

        Args:
            hp: `keras_tuner.HyperParameters`.
        """

    @abc.abstractmethod
    def close(self) -> None:
        """Restores all models."""

    def account(self) -> str:
        """Returns the caching plans as tables, or `""`."""
        return ""

    def settings_of(self, **values: Any) -> Settings:
        """Returns the settings of a trial.

        Args:
            **values: Fields that the trial sets.
        """
        return self._settings.replace(**values)
