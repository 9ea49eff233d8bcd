"""`TrialTrainer`: trains the trials of a search."""

from __future__ import annotations

import abc
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np

from keras_transfer.caching.plan import Plan
from keras_transfer.training.history import Row
from keras_transfer.training.settings import Settings
from keras_transfer.tuning.execution.session_model import RunOutcome
from keras_transfer.tuning.search_spec import TrialSpec
from keras_transfer.tuning.trial_metrics import TrialMetrics

ShouldContinue = Callable[[Sequence[Row]], bool]


class TrialTrainer(abc.ABC):
    """Trains the trials of a search, from shared activations.

    Args:
        spec: How each trial is trained.

    Attributes:
        space: What varies; `None` where a function says it.
        metrics: The columns that trials report.
        plans: What was cached, a plan for each training session.
        build: The function of the user that builds models, or `None`.
    """

    space: Any = None
    build: Callable[[Any], keras.Model] | None = None
    metrics: TrialMetrics

    def __init__(self, spec: TrialSpec) -> None:
        self.plans: list[Plan] = []
        self._spec = spec
        self._settings = spec.settings

    def use(self, monitor: str | None) -> None:
        """Chooses epochs by a column.

        Args:
            monitor: Its name, or `None`.
        """
        self._settings = self._settings.replace(monitor=monitor)

    @abc.abstractmethod
    def describe(self) -> dict[str, Any]:
        """Returns what another process must ask for to resume the search."""

    @abc.abstractmethod
    def run(
        self,
        hp: Any,
        seed: int,
        epochs: int | None = None,
        should_continue: ShouldContinue | None = None,
    ) -> RunOutcome:
        """Trains what an oracle chose.

        Args:
            hp: `keras_tuner.HyperParameters`.
            seed: Seed of the order and of what is drawn.
            epochs: Passes over the data. Defaults to `None`, those of the
                spec.
            should_continue: Function from the rows so far to whether the run
                continues. Defaults to `None`: to its end.
        """

    @abc.abstractmethod
    def load(
        self, hp: Any, weights: Mapping[int, np.ndarray], seed: int
    ) -> keras.Model:
        """Makes the model of a trial with the weights that it came to.

        Args:
            hp: `keras_tuner.HyperParameters`.
            weights: As `RunOutcome.weights`.
            seed: Seed of its run.
        """

    @abc.abstractmethod
    def make(self, hp: Any) -> keras.Model:
        """Makes the model of a trial as it begins.

        Args:
            hp: `keras_tuner.HyperParameters`.
        """

    @abc.abstractmethod
    def close(self) -> None:
        """Gives all models back as they were."""

    def account(self) -> str:
        """Returns what was computed and what it took, or `""`."""
        return ""

    def settings_of(self, **values: Any) -> Settings:
        """Returns the settings of a trial.

        Args:
            **values: Fields that the trial sets.
        """
        return self._settings.replace(**values)
