"""What one run keeps: planned at its start, opened phase by phase."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import keras

from keras_transfer.distribute import Team
from keras_transfer.features.store import Choice, readable
from keras_transfer.strategies import Phase
from keras_transfer.training.networks import networks_for
from keras_transfer.training.planning import Options, make_plan
from keras_transfer.training.prefixes import Kept, Prefixes
from keras_transfer.training.recorder import Progress
from keras_transfer.training.settings import Settings
from keras_transfer.training.sources import Source
from keras_transfer.training.trainable import TrainableSets

if TYPE_CHECKING:
    import tensorflow as tf


class Keeping:
    """The activations of one run.

    Args:
        model: The model.
        source: The data.
        phases: The phases.
        sets: What trains in which phase.
        settings: How the run trains.
        objection: Why nothing may be kept, or `""`.
        progress: Where lines go.
        strategy: What computes on several devices. Defaults to `None`.
    """

    def __init__(
        self,
        model: keras.Model,
        source: Source,
        phases: Sequence[Phase],
        sets: TrainableSets,
        settings: Settings,
        objection: str,
        progress: Progress,
        strategy: tf.distribute.Strategy | None = None,
    ) -> None:
        self._settings = settings
        self._progress = progress
        networks = networks_for(model, phases, strategy)
        self._team = Team(strategy)
        self.plan, store = make_plan(
            model,
            source,
            phases,
            sets,
            Options(
                settings.store,
                settings.views,
                settings.augment is not None,
                settings.batch_size,
                objection,
            ),
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
                settings,
                networks,
                self._team,
            )

    def open(self, place: int) -> Kept | None:
        """Returns the activations of a phase, computing what is missing.

        Args:
            place: Of the phase.

        Returns:
            `Kept`, or `None` where all is computed in each pass.

        Raises:
            ValueError: If the user wants fixed views and none can be kept.
            OSError: If a store that the user named cannot be written to.
        """
        planned = self.plan.phases[place]
        if self._prefixes is None or planned.cut is None:
            return None
        self._progress.say(
            f"activations {planned.cut.name}: {readable(planned.num_bytes)} "
            f"{self._prefixes.where}"
        )
        try:
            kept = self._prefixes.open(place)
            reason = "variables above the cut come in another order"
        except OSError as err:
            named = not isinstance(self._settings.store, Choice)
            if named or self._settings.views or self._team.size > 1:
                raise
            # Nobody asked for them: what fails is only speed.
            kept, reason = None, str(err)
        if kept is None and self._settings.views:
            raise ValueError(
                "`views` must be None where no activations can be kept. "
                f"Received: views, but {reason}."
            )
        if kept is None:
            why = f"nothing is kept, since {reason}."
            self._progress.say(f"{planned.name}: {why}")
            self.plan.drop(place, why)
        return kept
