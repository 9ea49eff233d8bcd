"""What runs of one model on the same data share; see `Workbench`."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING

import keras
import numpy as np

from keras_transfer.caching.cuts import halves
from keras_transfer.caching.plan import Plan
from keras_transfer.caching.prefixes import CachedPhase, Prefixes
from keras_transfer.penalties.weights import AttachedPenalty
from keras_transfer.strategies.applying import TrainableSets
from keras_transfer.strategies.phase import Depth, Phase
from keras_transfer.structure.training_step import has_own_training
from keras_transfer.training.compiling import Trainer
from keras_transfer.training.settings import Settings

if TYPE_CHECKING:
    import tensorflow as tf


Opening = tuple[Depth, tuple[str, ...] | None, bool | str]


def opening_of(phase: Phase) -> Opening:
    """Returns what says which blocks a phase opens."""
    return phase.depth, phase.blocks, phase.train_batch_norm


@dataclasses.dataclass(eq=False)
class SharedRuns:
    """What a run leaves to the next one.

    Attributes:
        model: The model.
        phases: A phase for each opening.
        sets: What trains in which phase.
        start: The weights that each run starts from.
        plan: Where activations are kept, for each opening a phase.
        runs: How many runs there will be of each kind, about. Defaults to `1`.
        last_counts: Whether the best epoch of a run is one of its last phase.
            Defaults to `False`.
        prefixes: What makes activations, or `None`. Defaults to `None`.
        places: The place of each opening in the plan. Defaults to `{}`.
        kept: Activations by opening. Defaults to `{}`.
        trainers: Compiled trainers, by what they were compiled for. Defaults
            to `{}`.
        probed: Weights of the head with the exact probe. Defaults to `None`.
        first: What has the activations, where this is its twin. Defaults to
            `None`.
        strategy: What trains on several devices. Defaults to `None`.
    """

    model: keras.Model
    phases: tuple[Phase, ...]
    sets: TrainableSets
    start: list[np.ndarray]
    plan: Plan
    runs: int = 1
    last_counts: bool = False
    prefixes: Prefixes | None = None
    places: dict[Opening, int] = dataclasses.field(default_factory=dict)
    kept: dict[Opening, CachedPhase | None] = dataclasses.field(
        default_factory=dict
    )
    trainers: dict[Hashable, Trainer] = dataclasses.field(default_factory=dict)
    probed: list[np.ndarray] | None = None
    first: SharedRuns | None = None
    strategy: tf.distribute.Strategy | None = None

    def open(self, phase: Phase) -> CachedPhase | None:
        """Returns the activations of a phase, computed at the first call.

        Args:
            phase: The phase, whose blocks are open.

        Returns:
            `Kept`, or `None` where nothing is kept.
        """
        opening = opening_of(phase)
        if opening not in self.kept:
            place = self.places[opening]
            if self.first is None:
                kept = self._open(place)
            else:
                kept = self._adopt(self.first.kept[opening], place)
            self.kept[opening] = kept
        return self.kept[opening]

    def first_that_counts(self, phases: Sequence[Phase]) -> int:
        """Returns the phase from which on an epoch may be the best of a run.

        Args:
            phases: The phases of the run.
        """
        return len(phases) - 1 if self.last_counts else 0

    def twin(self, model: keras.Model) -> SharedRuns:
        """Returns what runs on a copy of the model share with these.

        Args:
            model: The copy.

        Returns:
            What has trainable variables and compiled steps of its own, and
            trains on the same activations, once they are here.
        """
        return dataclasses.replace(
            self,
            model=model,
            sets=TrainableSets(model, self.phases),
            kept={},
            trainers={},
            first=self,
        )

    def count_seconds(self, phase: Phase, seconds: float) -> None:
        """Adds to what the phases of an opening took.

        Args:
            phase: One of them.
            seconds: What it took.
        """
        place = self.places[opening_of(phase)]
        self.plan.took[place] = self.plan.took.get(place, 0.0) + seconds

    def _open(self, place: int) -> CachedPhase | None:
        if self.prefixes is None or self.plan.phases[place].cut is None:
            return None
        if not self.kept:
            # All cuts in one pass, whichever is asked for first.
            planned = [p.cut is not None for p in self.plan.phases]
            self.prefixes.fill(planned.index(True))
        return self.prefixes.open(place)

    def _adopt(
        self, kept: CachedPhase | None, place: int
    ) -> CachedPhase | None:
        cut = self.plan.phases[place].cut
        if kept is None or cut is None:
            return None
        return kept._replace(suffix=halves(self.model, cut)[1])

    def key(
        self,
        phases: Sequence[Phase],
        settings: Settings,
        attached: AttachedPenalty | None,
        at_once: int,
        before: object = None,
    ) -> Hashable | None:
        """Returns what a trainer is compiled for.

        Args:
            phases: Those of the run up to the one that it trains in: moments
                go over from phase to phase.
            settings: Which optimizer.
            attached: The penalty in force.
            at_once: Steps in one call.
            before: The optimizer of the phase before, whose moments go over.
                Defaults to `None`.

        Returns:
            A key; `None` where every run must compile.
        """
        whole = attached is None or attached.trainer is self.model
        if not whole or has_own_training(self.model):
            return None
        config = settings.identity()
        config.pop("seed")
        return (
            tuple(
                (*opening_of(p), p.layer_decay, p.head_multiplier, p.epochs > 0)
                for p in phases
            ),
            json.dumps(config, sort_keys=True, default=str),
            None if attached is None else id(attached),
            at_once,
            id(before),
        )
