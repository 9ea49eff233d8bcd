"""Work shared by runs of one model on the same data."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Hashable, Sequence
from typing import TYPE_CHECKING

import keras
import numpy as np

from keras_transfer.auxiliary.attached_losses import AttachedLosses
from keras_transfer.caching.cuts import halves
from keras_transfer.caching.phase_data import CachedPhase, PhaseData
from keras_transfer.caching.plan import Plan
from keras_transfer.caching.prefixes import Prefixes
from keras_transfer.strategies.phase import Depth, Phase
from keras_transfer.strategies.trainable_sets import TrainableSets
from keras_transfer.structure import graph
from keras_transfer.structure.training_step import has_own_training
from keras_transfer.training.compiling import CompiledPhase, PhaseCompiler
from keras_transfer.training.exact_probe import solve_head
from keras_transfer.training.run_directory import State
from keras_transfer.training.run_state import assign, copies
from keras_transfer.training.spec import RunSpec

if TYPE_CHECKING:
    import tensorflow as tf

Opening = tuple[Depth, tuple[str, ...] | None, bool | str]


def opening_of(phase: Phase) -> Opening:
    """Returns the fields of a phase that determine the open blocks."""
    return phase.depth, phase.blocks, phase.train_batch_norm


class ReusablePhase:
    """A compiled phase that can run again from the start.

    Args:
        compiled: The phase, compiled and its optimizer built.
        carried: Optimizer variables of the previous phase, whose moments this
            one continues with. Defaults to `()`.
    """

    def __init__(
        self, compiled: CompiledPhase, carried: Sequence[keras.Variable] = ()
    ) -> None:
        self.compiled = compiled
        carried_ids = {id(variable) for variable in carried}
        self._fresh = [
            (variable, np.array(variable))
            for variable in compiled.trainer.optimizer.variables
            if id(variable) not in carried_ids
        ]

    def begin(self, learning_rate: float) -> CompiledPhase:
        """Returns the phase, reset to its state after compiling.

        Args:
            learning_rate: The initial rate.
        """
        for variable, value in self._fresh:
            variable.assign(value)
        optimizer = self.compiled.optimizer
        optimizer.continue_counts()
        optimizer.learning_rate = learning_rate
        return self.compiled


@dataclasses.dataclass(eq=False)
class SharedRuns:
    """Work of a run that the next ones reuse.

    Attributes:
        model: The model.
        phases: A phase for each opening.
        sets: The layers that train in each phase.
        start: The initial weights of each run.
        plan: The plan, with a phase for each opening.
        runs: Approximate number of runs of each kind. Defaults to `1`.
        last_counts: Whether the best epoch of a run is one of its last phase.
            Defaults to `False`.
        prefixes: Prefixes that compute activations. Defaults to `None`.
        places: The place of each opening in the plan. Defaults to `{}`.
        cached: Activations by opening. Defaults to `{}`.
        compiled: Compiled phases, by their key. Defaults to `{}`.
        probed: Weights of the head with the exact probe. Defaults to `None`.
        first: The original with the activations, where this is a twin. Defaults
            to `None`.
        strategy: The strategy that trains on several devices. Defaults to
            `None`.
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
    cached: dict[Opening, CachedPhase | None] = dataclasses.field(
        default_factory=dict
    )
    compiled: dict[Hashable, ReusablePhase] = dataclasses.field(
        default_factory=dict
    )
    probed: list[np.ndarray] | None = None
    first: SharedRuns | None = None
    strategy: tf.distribute.Strategy | None = None

    def open(self, phase: Phase) -> CachedPhase | None:
        """Returns the activations of a phase, computed at the first call.

        Args:
            phase: The phase, whose blocks are open.

        Returns:
            `CachedPhase`, or `None` where nothing is cached.
        """
        opening = opening_of(phase)
        if opening not in self.cached:
            planned = self.places[opening]
            if self.first is None:
                cached = self._open(planned)
            else:
                cached = self._adopt(self.first.cached[opening], planned)
            self.cached[opening] = cached
        return self.cached[opening]

    def count_seconds(self, phase: Phase, seconds: float) -> None:
        """Adds to the time of the phases of an opening.

        Args:
            phase: A phase of the opening.
            seconds: The time to add.
        """
        planned = self.places[opening_of(phase)]
        self.plan.took[planned] = self.plan.took.get(planned, 0.0) + seconds

    def solve(
        self, spec: RunSpec, data: PhaseData, whole: Callable[[], PhaseData]
    ) -> None:
        """Writes the exact probe into the head, solved at the first call.

        Args:
            spec: The run.
            data: The data of the phase.
            whole: Makes the data of the whole model.
        """
        head = spec.model.get_layer("head").variables
        if self.probed is None:
            solve_head(spec, data, whole)
            self.probed = copies(head)
        else:
            assign(head, self.probed)

    def first_that_counts(self, phases: Sequence[Phase]) -> int:
        """Returns the first phase of a run whose epochs may be the best.

        Args:
            phases: The phases of the run.
        """
        return len(phases) - 1 if self.last_counts else 0

    def twin(self, model: keras.Model) -> SharedRuns:
        """Returns shared runs for a copy of the model.

        Args:
            model: The copy.

        Returns:
            Shared runs with their own trainable variables and compiled steps,
            which train on the same activations once these are computed.
        """
        return dataclasses.replace(
            self,
            model=model,
            sets=TrainableSets(model, self.phases),
            cached={},
            compiled={},
            first=self,
        )

    def _open(self, place: int) -> CachedPhase | None:
        if self.prefixes is None or self.plan.phases[place].cut is None:
            return None
        if not self.cached:
            # All cuts in one pass, whichever comes first.
            planned = [p.cut is not None for p in self.plan.phases]
            self.prefixes.fill(planned.index(True))
        return self.prefixes.open(place)

    def _adopt(
        self, cached: CachedPhase | None, place: int
    ) -> CachedPhase | None:
        cut = self.plan.phases[place].cut
        if cached is None or cut is None:
            return None
        return cached.on(halves(self.model, cut)[1])


class SharedCache:
    """The cache of one of the runs that share their activations.

    Args:
        shared: The shared runs.
        seed: Seed of the order of the run.
        whole: Whether the run computes the whole model.
    """

    def __init__(self, shared: SharedRuns, seed: int, whole: bool) -> None:
        self._shared = shared
        self._seed = seed
        self._whole = whole

    def open(self, place: int, phase: Phase) -> CachedPhase | None:
        """Returns the activations of a phase; see `SharedRuns.open`.

        Args:
            place: Not used: the opening identifies the activations.
            phase: The phase, whose blocks are open.
        """
        cached = None if self._whole else self._shared.open(phase)
        return None if cached is None else cached.seeded(self._seed)

    def count_seconds(self, place: int, phase: Phase, seconds: float) -> None:
        """Adds to the time of the phases of an opening.

        Args:
            place: Not used.
            phase: A phase of the opening.
            seconds: The time to add.
        """
        self._shared.count_seconds(phase, seconds)


class SharedCompiler:
    """Compiles a phase, or reuses one that was compiled before.

    Args:
        spec: The run.
        losses: The attached auxiliary losses.
        shared: The shared runs.
    """

    def __init__(
        self, spec: RunSpec, losses: AttachedLosses, shared: SharedRuns
    ) -> None:
        self._spec = spec
        self._losses = losses
        self._shared = shared
        self._compiler = PhaseCompiler(spec, losses, shared.runs)

    def compile(
        self, place: int, data: PhaseData, resumed: State | None
    ) -> CompiledPhase:
        """Returns a phase ready to fit; see `Compiler`.

        Args:
            place: Index of the phase.
            data: The data of the phase, and the network that takes them.
            resumed: Not used: shared runs are not resumed.
        """
        compiler, before = self._compiler, self._compiler.previous
        network = self._losses.wrap(data.network)
        if network is not data.network or has_own_training(self._spec.model):
            return compiler.compile_network(place, data, None, network)
        key = self._key(place, data)
        reusable = self._shared.compiled.get(key)
        if reusable is not None:
            phase = self._spec.phases[place]
            compiled = reusable.begin(phase.learning_rate)
            compiler.previous = compiled.optimizer
            return compiled
        # A view over the same layers for each compile.
        compiled = compiler.compile_network(
            place, data, None, graph.view(network)
        )
        carried = () if before is None else before.variables
        self._shared.compiled[key] = ReusablePhase(compiled, carried)
        return compiled

    def _key(self, place: int, data: PhaseData) -> Hashable:
        """Returns the key of a compiled phase, with the phases before it."""
        config = self._spec.settings.identity()
        config.pop("seed")
        return (
            tuple(
                (*opening_of(p), p.layer_decay, p.head_multiplier, p.epochs > 0)
                for p in self._spec.phases[: place + 1]
            ),
            json.dumps(config, sort_keys=True, default=str),
            tuple(id(member) for member in self._losses.members),
            self._compiler.count_steps(place, data),
            id(self._compiler.previous),
        )
