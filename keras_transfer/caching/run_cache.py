"""What one run keeps: planned at its start, opened phase by phase."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import keras

from keras_transfer._utils.memory import format_bytes
from keras_transfer._utils.progress import Progress
from keras_transfer.caching.networks import networks_for
from keras_transfer.caching.phase_data import CachedPhase
from keras_transfer.caching.planning import make_plan
from keras_transfer.caching.policy import CachePolicy
from keras_transfer.caching.prefixes import Prefixes
from keras_transfer.caching.store.store import Choice
from keras_transfer.data.adapters.training_data import TrainingData
from keras_transfer.distribute import ProcessGroup
from keras_transfer.strategies.applying import TrainableSets
from keras_transfer.strategies.phase import Phase

if TYPE_CHECKING:
    import tensorflow as tf


class RunCache:
    """The activations of one run.

    Args:
        model: The model.
        source: The data.
        phases: The phases.
        sets: What trains in which phase.
        policy: What may be cached.
        progress: Where lines go.
        strategy: What computes on several devices. Defaults to `None`.
    """

    def __init__(
        self,
        model: keras.Model,
        source: TrainingData,
        phases: Sequence[Phase],
        sets: TrainableSets,
        policy: CachePolicy,
        progress: Progress,
        strategy: tf.distribute.Strategy | None = None,
    ) -> None:
        self._policy = policy
        self._progress = progress
        networks = networks_for(model, phases, strategy)
        self._team = ProcessGroup(strategy)
        self.plan, store = make_plan(
            model,
            source,
            phases,
            sets,
            policy,
            networks,
            team=self._team,
        )
        self._prefixes = None
        if store is not None:
            self._prefixes = Prefixes(
                model,
                source,
                self.plan,
                store,
                policy,
                networks,
                self._team,
            )

    def open(self, place: int, phase: Phase) -> CachedPhase | None:
        """Returns the activations of a phase, computing what is missing.

        Args:
            place: The place of the phase.
            phase: The phase; not used, since the plan knows it by its place.

        Returns:
            `CachedPhase`, or `None` where all is computed in each pass.

        Raises:
            ValueError: If the user wants fixed views and none can be kept.
            OSError: If a store that the user named cannot be written to.
        """
        planned = self.plan.phases[place]
        if self._prefixes is None or planned.cut is None:
            return None
        self._progress.say(
            f"activations {planned.cut.name}: "
            f"{format_bytes(planned.num_bytes)} {self._prefixes.where}"
        )
        try:
            kept = self._prefixes.open(place)
            reason = "variables above the cut come in another order"
        except OSError as err:
            named = not isinstance(self._policy.store, Choice)
            if named or self._policy.views or self._team.size > 1:
                raise
            # Nobody asked for them: what fails is only speed.
            kept, reason = None, str(err)
        if kept is None and self._policy.views:
            raise ValueError(
                "`views` must be None where no activations can be kept. "
                f"Received: views, but {reason}."
            )
        if kept is None:
            why = f"nothing is kept, since {reason}."
            self._progress.say(f"{planned.name}: {why}")
            self.plan.drop(place, why)
        return kept

    def count_seconds(self, place: int, phase: Phase, seconds: float) -> None:
        """Notes what a phase took.

        Args:
            place: The place of the phase.
            phase: The phase; not used.
            seconds: The time.
        """
        self.plan.took[place] = seconds
