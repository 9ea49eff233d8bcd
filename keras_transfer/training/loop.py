"""`TrainingLoop`: the phases of a run, one after the other.

The loop knows no stores, folders, searches or workers; its collaborators do.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, Protocol

import keras

from keras_transfer._utils.progress import Progress
from keras_transfer.auxiliary.attached_losses import AttachedLosses
from keras_transfer.caching.phase_data import (
    CachedPhase,
    PhaseData,
    UncachedPhase,
)
from keras_transfer.schedules.callback import ScheduledLearningRate
from keras_transfer.strategies.phase import Phase
from keras_transfer.strategies.trainable_sets import TrainableSets, reinitialize
from keras_transfer.tasks.multi_label import put_in_force
from keras_transfer.training.callbacks import Recorder
from keras_transfer.training.compiling import CompiledPhase, Compiler
from keras_transfer.training.history import Row, ShouldContinue
from keras_transfer.training.replica_trainer import ReplicaTrainer
from keras_transfer.training.run_directory import State
from keras_transfer.training.run_state import RunState, assign
from keras_transfer.training.spec import RunSpec
from keras_transfer.training.user_callbacks import ShowWhole, UserCallbacks


class PhaseCache(Protocol):
    """Source of the cached activations of phases."""

    def open(self, place: int, phase: Phase) -> CachedPhase | None:
        """Returns the activations of a phase, or `None` if not cached.

        Args:
            place: Index of the phase.
            phase: The phase; its blocks are trainable.
        """
        ...

    def count_seconds(self, place: int, phase: Phase, seconds: float) -> None:
        """Records the duration of a phase.

        Args:
            place: Index of the phase.
            phase: The phase.
            seconds: Its duration.
        """
        ...


# Function that solves for the head of the model, from the data of the phase or
# of the whole model.
Solver = Callable[[RunSpec, PhaseData, Callable[[], PhaseData]], None]


class PhaseRun(NamedTuple):
    """A phase while it runs.

    Attributes:
        place: Its index.
        phase: The phase.
        data: Its data.
        compiled: The phase, ready to fit.
    """

    place: int
    phase: Phase
    data: PhaseData
    compiled: CompiledPhase


class TrainingLoop:
    """Runs the phases of a run.

    Args:
        spec: The run.
        state: Its weights, its history, and where it resumes.
        sets: The layers that train in each phase.
        cache: Source of cached activations.
        compiler: Compiler of the phases.
        losses: The attached auxiliary losses.
        solve: Function that solves for the head, where a phase starts with the
            exact probe.
        progress: Writer of progress lines.
        should_continue: Function from the rows so far to whether the run
            continues. Defaults to `None`: to its end.
        uncached: The data of the whole model. Defaults to `None`: made when
            needed.
    """

    def __init__(
        self,
        spec: RunSpec,
        state: RunState,
        sets: TrainableSets,
        cache: PhaseCache,
        compiler: Compiler,
        losses: AttachedLosses,
        solve: Solver,
        progress: Progress,
        should_continue: ShouldContinue | None = None,
        uncached: PhaseData | None = None,
    ) -> None:
        self.trainable: list[tuple[str, ...]] = []
        self._spec = spec
        self._state = state
        self._sets = sets
        self._cache = cache
        self._compiler = compiler
        self._losses = losses
        self._solve = solve
        self._progress = progress
        self._should_continue = should_continue or (lambda rows: True)
        self._uncached = uncached
        self._users = UserCallbacks(self._make_user_callbacks())
        self._epoch = 0
        self._continues = True

    def run(self) -> None:
        """Runs all phases, or the remaining ones of a resumed run."""
        with self._spec.data.reading():
            self._run()

    def _run(self) -> None:
        resumed = self._state.resumed
        first = resumed.phase if resumed is not None else 0
        for place, phase in enumerate(self._spec.phases):
            self.trainable.append(self._sets.apply(phase))
            if phase.reinitialize:
                reinitialize(self._spec.model, self._spec.settings.data.seed)
            if place >= first:
                state = resumed if place == first else None
                self._run_phase(place, phase, state)
            if not self._continues:
                break
        self._users.finish()

    def _whole(self) -> PhaseData:
        """Returns the data of the whole model, made when first needed."""
        if self._uncached is None:
            self._uncached = UncachedPhase(self._spec.model, self._spec.data)
        return self._uncached

    def _run_phase(
        self, place: int, phase: Phase, resumed: State | None
    ) -> None:
        if resumed is not None:
            assign(self._spec.model.variables, resumed.variables)
        if resumed is not None and resumed.finished:
            # The next phase continues with the moments of its optimizer.
            self._state.freeze(self._spec.model.variables)
            self._compiler.compile(place, self._whole(), resumed)
            return
        started = time.monotonic()
        data: PhaseData = self._cache.open(place, phase) or self._whole()
        self._state.freeze(data.network.variables)
        uses_probe = phase.exact_probe and resumed is None
        if uses_probe:
            self._progress.say(f"{phase.name}: solving on frozen features")
            self._solve(self._spec, data, self._whole)
            self._state.share(self._spec.model.get_layer("head").variables)
        seconds = time.monotonic() - started
        compiled = self._compiler.compile(place, data, resumed)
        if isinstance(compiled.trainer, ReplicaTrainer):
            compiled.trainer.sizes = data.sizes
        run = PhaseRun(place, phase, data, compiled)
        if uses_probe:
            self._record(run, self._measure_probe(run, seconds))
        if self._continues:
            self._fit(run)
        compiled.finish()
        self._save(run, finished=True)
        self._cache.count_seconds(place, phase, time.monotonic() - started)

    def _fit(self, run: PhaseRun) -> None:
        place, phase, data, compiled = run
        spec, history = self._spec, self._state.history
        done = max((row["epoch"] for row in history.of_phase(place)), default=0)
        if done >= phase.epochs or history.is_over(place):
            return
        self._progress.say(
            f"phase {place + 1}/{len(spec.phases)}: {phase.name}, "
            f"{compiled.count_open():,} of {spec.model.count_params():,} "
            f"parameters, {phase.epochs} epochs"
        )
        self._begin_epoch(place, done)
        if compiled.steps_per_execution > 1:
            # Callbacks do not see single steps, so the optimizer follows a
            # table of rates.
            total = spec.data.steps * phase.epochs
            rates = [phase.rate(step, total) for step in range(total)]
            compiled.optimizer.follow(rates, done * spec.data.steps)
        first = self._count_epochs_before(place)
        compiled.trainer.fit(
            spec.weigh(data.train(lambda: self._epoch)),
            initial_epoch=first + done,
            epochs=first + phase.epochs,
            validation_data=data.validation(),
            callbacks=self._callbacks(run, done),
            verbose=1 if self._progress.verbose > 1 else 0,
            shuffle=False,  # The data shuffle; Keras warns otherwise.
        )

    def _callbacks(
        self, run: PhaseRun, done: int
    ) -> list[keras.callbacks.Callback]:
        place, phase, data, compiled = run
        spec, steps = self._spec, self._spec.data.steps
        first = self._count_epochs_before(place)
        callbacks: list[keras.callbacks.Callback] = []
        if compiled.steps_per_execution == 1 and phase.schedule != "constant":
            callbacks.append(
                ScheduledLearningRate(
                    lambda step: phase.rate(step, steps * phase.epochs),
                    initial_step=done * steps,
                    yields=bool(self._users),
                )
            )
        if compiled.optimizer.use_ema:
            callbacks.append(keras.callbacks.SwapEMAWeights())
        recorder = Recorder(
            lambda epoch, logs: self._describe(run, epoch, logs),
            lambda row: self._record(run, row),
            lambda epoch: self._begin_epoch(place, epoch),
            self._losses,
            first,
        )
        if not isinstance(data, CachedPhase) or not self._users:
            users = self._users.for_phase(None, first)
            return [*callbacks, *users, recorder]
        # User callbacks expect the whole model, not the part above the cut;
        # both hold the same variables.
        whole = ShowWhole(spec.model, spec.task.all_metrics, data.labels[:1])
        users = self._users.for_phase(spec.model, first)
        return [*callbacks, whole, *users, recorder]

    def _make_user_callbacks(self) -> list[keras.callbacks.Callback]:
        """Returns the callbacks that see all phases as one training."""
        spec = self._spec
        reporting = spec.settings.reporting
        callbacks = list(reporting.callbacks)
        if reporting.tensorboard and spec.group.is_chief:
            folder = Path(str(reporting.tensorboard))
            if reporting.tensorboard is True and self._state.directory.path:
                folder = self._state.directory.path / "tensorboard"
            callbacks.append(keras.callbacks.TensorBoard(str(folder)))
        return callbacks

    # --- Epochs ---

    def _count_epochs_before(self, place: int) -> int:
        """Returns the number of epochs that earlier phases trained."""
        rows = self._state.history.rows
        return sum(row["phase"] < place and row["epoch"] > 0 for row in rows)

    def _begin_epoch(self, place: int, epoch: int) -> None:
        before = sum(phase.epochs for phase in self._spec.phases[:place])
        self._epoch = before + epoch

    def _describe(self, run: PhaseRun, epoch: int, logs: Row) -> Row:
        phase = run.phase
        rate = None
        if epoch:
            rate = float(
                keras.ops.convert_to_numpy(run.compiled.optimizer.learning_rate)
            )
        return {
            "phase": run.place,
            "name": phase.name,
            "epoch": epoch,
            "depth": phase.depth if phase.blocks is None else None,
            "learning_rate": rate,
            **{k: v for k, v in logs.items() if k != "learning_rate"},
        }

    def _measure_probe(self, run: PhaseRun, seconds: float) -> Row:
        logs: Row = {}
        batches = run.data.validation()
        if batches is not None:
            self._losses.pause()
            trainer = run.compiled.trainer
            put_in_force(trainer.loss, False)
            metrics = trainer.evaluate(batches, return_dict=True, verbose=0)
            put_in_force(trainer.loss, True)
            self._losses.resume()
            logs = {f"val_{name}": value for name, value in metrics.items()}
        return self._describe(run, 0, {**logs, "seconds": round(seconds, 3)})

    def _record(self, run: PhaseRun, row: Row) -> bool:
        """Records an epoch; returns whether the phase continues."""
        state, phase = self._state, run.phase
        averages = run.compiled.optimizer.averages()
        is_best = state.record(row, state.arrays(averages))
        self._save(run, finished=False)
        remaining = sum(p.epochs for p in self._spec.phases[run.place + 1 :])
        remaining += phase.epochs - row["epoch"]
        self._progress.epoch(
            row,
            phase.epochs,
            remaining * row["seconds"],
            is_best and state.history.measures,
        )
        self._continues = self._should_continue(state.history.rows)
        return self._continues and not state.history.is_over(run.place)

    def _save(self, run: PhaseRun, finished: bool) -> None:
        optimizer = run.compiled.optimizer
        self._state.save(
            run.place,
            finished,
            optimizer.get_config()["variables"],
            run.compiled.trainer.optimizer.variables,
        )
