"""The cache of one run: planned at its start, opened phase by phase."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import keras

from keras_transfer._utils.memory import format_bytes
from keras_transfer._utils.progress import Progress
from keras_transfer.caching.eligibility import CachePolicy
from keras_transfer.caching.networks import networks_for
from keras_transfer.caching.phase_data import CachedPhase
from keras_transfer.caching.planning import make_plan
from keras_transfer.caching.prefixes import Prefixes
from keras_transfer.caching.store.store import Choice
from keras_transfer.data.adapters.training_data import TrainingData
from keras_transfer.distribute import ProcessGroup
from keras_transfer.strategies.phase import Phase
from keras_transfer.strategies.trainable_sets import TrainableSets

if TYPE_CHECKING:
    import tensorflow as tf


class RunCache:
    """The activations of one run.

    Args:
        model: The model.
        data: The data.
        phases: The phases.
        sets: Trainable layers of each phase.
        policy: Cache policy of the run.
        progress: Writer of progress lines.
        strategy: Strategy that computes on several devices. Defaults to `None`.
    """

    def __init__(
        self,
        model: keras.Model,
        data: TrainingData,
        phases: Sequence[Phase],
        sets: TrainableSets,
        policy: CachePolicy,
        progress: Progress,
        strategy: tf.distribute.Strategy | None = None,
    ) -> None:
        self._policy = policy
        self._progress = progress
        networks = networks_for(model, phases, strategy)
        self._group = ProcessGroup(strategy)
        self.plan, store = make_plan(
            model,
            data,
            phases,
            sets,
            policy,
            networks,
            group=self._group,
        )
        self._prefixes = None
        if store is not None:
            self._prefixes = Prefixes(
                model,
                data,
                self.plan,
                store,
                policy,
                networks,
                self._group,
            )

    def open(self, place: int, phase: Phase) -> CachedPhase | None:
        """Returns the activations of a phase, computing what is missing.

        Args:
            place: Index of the phase.
            phase: The phase; not used, since the plan is by place.

        Returns:
            `CachedPhase`, or `None` where the whole model is computed in each
            pass.

        Raises:
            ValueError: If the user asks for fixed views and none can be cached.
            OSError: If a store named by the user cannot be written to.
        """
        planned = self.plan.phases[place]
        if self._prefixes is None or planned.cut is None:
            return None
        self._progress.say(
            f"activations {planned.cut.name}: "
            f"{format_bytes(planned.num_bytes)} {self._prefixes.where}"
        )
        try:
            cached = self._prefixes.open(place)
            reason = "variables above the cut are in another order"
        except OSError as err:
            named = not isinstance(self._policy.store, Choice)
            if named or self._policy.views or self._group.size > 1:
                raise
            # Caching was optional here, so fall back to uncached training.
            cached, reason = None, str(err)
        if cached is None and self._policy.views:
            raise ValueError(
                "`views` must be None where no activations can be cached. "
                f"Received: views, but {reason}."
            )
        if cached is None:
            why = f"nothing is cached because {reason}."
            self._progress.say(f"{planned.name}: {why}")
            self.plan.drop(place, why)
        return cached

    def count_seconds(self, place: int, phase: Phase, seconds: float) -> None:
        """Records the duration of a phase.

        Args:
            place: Index of the phase.
            phase: The phase; not used.
            seconds: Its duration.
        """
        self.plan.took[place] = seconds
