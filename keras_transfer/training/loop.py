"""Runs the phases of a strategy one after the other; see `fine_tune`."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from keras_transfer._utils.progress import Progress
from keras_transfer.caching.plan import Plan
from keras_transfer.caching.policy import needs_whole_model
from keras_transfer.caching.prefixes import CachedPhase
from keras_transfer.caching.run_cache import RunCache
from keras_transfer.data.adapters.training_data import TrainingData
from keras_transfer.distribute import ProcessGroup
from keras_transfer.doctor import Diagnosis, check
from keras_transfer.optimizers.multiplier import LearningRateMultiplier
from keras_transfer.penalties.weights import AttachedPenalty
from keras_transfer.schedules.callback import ScheduledLearningRate
from keras_transfer.strategies.applying import TrainableSets, reinitialize
from keras_transfer.strategies.phase import Phase
from keras_transfer.structure import graph
from keras_transfer.tasks.task import Objective
from keras_transfer.training.callbacks import Recorder, ShowWhole
from keras_transfer.training.compiling import (
    Trainer,
    make_phase_optimizer,
    scale_loss,
)
from keras_transfer.training.exact_probe import (
    compute_vectors,
    set_exact_probe,
    through_head,
)
from keras_transfer.training.fingerprint import check_start
from keras_transfer.training.history import Row, Table
from keras_transfer.training.replica_trainer import ReplicaTrainer
from keras_transfer.training.run_directory import Begun, RunDirectory, State
from keras_transfer.training.settings import Settings
from keras_transfer.training.shared_runs import SharedRuns

if TYPE_CHECKING:
    import tensorflow as tf


# Steps in one call from Python, which takes milliseconds for each, where nobody
# wants to look on; for runs that are long enough to trace a loop.
_AT_ONCE, _LONG = 16, 200


class Runner:
    """One run while it goes on.

    Args:
        model: The model; trained in place.
        source: The data.
        phases: The phases.
        settings: How to train.
        objective: What is minimised.
        shared: What other runs of the same model on the same data left, and
            this one leaves to them. Defaults to `None`: it is the only one.
        goes_on: Function from the table so far to whether the run goes on.
            Defaults to `None`: to its end.
        strategy: What trains on several devices, in whose scope the model was
            made. Defaults to `None`: one device.
    """

    def __init__(
        self,
        model: keras.Model,
        source: TrainingData,
        phases: tuple[Phase, ...],
        settings: Settings,
        objective: Objective,
        *,
        shared: SharedRuns | None = None,
        goes_on: Callable[[Sequence[Row]], bool] | None = None,
        strategy: tf.distribute.Strategy | None = None,
    ) -> None:
        self._strategy = strategy
        self._team = ProcessGroup(strategy)
        self.directory: RunDirectory | None = None
        self.attached: AttachedPenalty | None = None
        self.trainable: list[tuple[str, ...]] = []
        self.plan = Plan(())
        self._model = model
        self._source = source
        self._phases = phases
        self._settings = settings
        self._objective = objective
        self._shared = shared
        self._goes_on = goes_on
        self._stopped = False
        self._sets = TrainableSets(model, phases) if not shared else shared.sets
        names = ["loss", *(m.name for m in objective.metrics())]
        if source.validation is not None:
            names += [f"val_{name}" for name in names]
        self.columns = tuple(names)
        first = 0 if shared is None else shared.first_that_counts(phases)
        self.table = Table(settings.monitor, settings.patience, names, first)
        self._verbose = settings.verbose if self._team.is_chief else 0
        self._progress = Progress(self._verbose)
        # Whatever can be refused is refused here, before anything changes.
        self.class_weight = self._weigh_classes()
        if shared is None:
            _ = self._train, self._validation
            self._start = _copies(model.variables)
        else:
            self._start = shared.start
            _assign(model.variables, self._start)
        self._best = self._start
        self._norms = [] if strategy is None else _batch_norms(model)
        self._state: State | None = None
        self._optimizer: LearningRateMultiplier | None = None
        self._trainer: keras.Model | ReplicaTrainer = model
        self._kept: CachedPhase | None = None
        self._below: dict[int, np.ndarray] = {}  # by variable, of this phase
        self._phase = 0
        self._epoch = 0
        self._at_once = 1

    @functools.cached_property
    def _train(self) -> tf.data.Dataset:
        return self._source.train(lambda: self._epoch)

    @functools.cached_property
    def _validation(self) -> tf.data.Dataset | None:
        validation = self._source.validation
        return None if validation is None else validation()

    @property
    def best_weights(self) -> list[np.ndarray]:
        """Arrays of the model's variables at the best epoch so far."""
        return self._best

    # --- Before and after ---

    def diagnose(self, data: Any, ignore: Sequence[str]) -> Diagnosis:
        """Runs the doctor on the model as the last phase trains it."""
        compiled = self._model.compiled
        try:
            for phase in self._phases:
                self._sets.apply(phase)
            diagnosis = check(self._model, data, loss=self._objective.loss)
        finally:
            self._sets.restore()
            self._model.compiled = compiled
        if self._phases[0].reinitialize:
            diagnosis = diagnosis.without("batch-norm-moves")
        # The model is compiled anew.
        diagnosis = diagnosis.without("stale-compile", *ignore)
        diagnosis.raise_for_errors()
        for finding in diagnosis.warnings:
            self._progress.say(f"{finding.message} {finding.cure}")
        return diagnosis

    def begin(self, resumes: bool) -> None:
        """Takes up the run where its directory says.

        Args:
            resumes: Whether the run has a directory, which the first of
                several processes reads for all.
        """
        begun = self._share_begun() if resumes else None
        if begun is None:
            self._share_start()
            return
        self._state = state = begun.state
        known = [begun.start]
        if state is not None:
            self.table.rows, self.table.best = state.rows, state.best
            self._best = begun.best or self._best
            known += [state.variables, self._best]
            self._progress.say(
                f"Going on after phase {state.phase + 1}, epoch "
                f"{state.rows[-1]['epoch'] if state.rows else 0}."
            )
        check_start(self._model, known, self._phases)
        _assign(self._model.variables, begun.start)
        self._start = begun.start
        if state is None:
            self._best = begun.start

    def _share_begun(self) -> Begun | None:
        def load() -> dict[str, np.ndarray] | None:
            found = None if self.directory is None else self.directory.load()
            return None if found is None else found.pack()

        packed = self._team.share(load)
        return None if packed is None else Begun.unpack(packed)

    def _share_start(self) -> None:
        """Gives all processes the weights of the first: heads are random."""
        if self._team.size > 1:
            start = Begun(self._start, None, None)
            packed = self._team.share(start.pack)
            self._start = Begun.unpack(packed or {}).start
            _assign(self._model.variables, self._start)
            self._best = self._start

    def close(self) -> None:
        """Leaves a plain model with the best weights so far."""
        _assign(self._model.variables, self._best)
        self._sets.restore()
        for layer, synchronized in self._norms:
            layer.synchronized = synchronized
        self._compile_plainly(self._model)

    def give_back(self, model: keras.Model) -> None:
        """Gives a model what its copy on the devices learned.

        Args:
            model: What the model of the run was copied from.
        """
        _assign(model.variables, self._best)
        self._compile_plainly(model)

    def _compile_plainly(self, model: keras.Model) -> None:
        model.compile(
            self._settings.make_optimizer(self._phases[-1].learning_rate),
            loss=self._objective.loss,
            metrics=self._objective.metrics(),
        )
        # As `fit` would have done: a file with an optimizer that never saw its
        # variables loads with a warning.
        model.optimizer.build(model.trainable_variables)

    # --- The phases ---

    def run(self) -> None:
        """Runs all phases, or those that are left."""
        if self._strategy is not None and not self._shared:
            self._progress.say(self._describe_split(self._strategy))
        keeping = None if self._shared else self._plan_keeping()
        first = self._state.phase if self._state else 0
        for index, phase in enumerate(self._phases):
            self._phase = index
            self.trainable.append(self._sets.apply(phase))
            if phase.reinitialize:
                reinitialize(self._model, self._settings.seed)
            if index < first:
                continue
            begun = self._state if index == first else None
            if begun is not None:
                _assign(self._model.variables, begun.variables)
            if begun is not None and begun.finished:
                self._kept, self._below = None, {}
                self._compile(phase, begun)
                continue
            started = time.monotonic()
            self._kept = self._open_kept(keeping, index)
            self._below = self._copies_below()
            if phase.exact_probe and begun is None:
                self._probe(phase)
            seconds = time.monotonic() - started
            trainer = self._compile(phase, begun)
            if phase.exact_probe and begun is None:
                self._record(self._probe_row(trainer, seconds))
            if not self._stopped:
                self._fit(trainer, phase)
            self._finish(trainer)
            self._count_seconds(index, time.monotonic() - started)
            if self._stopped:
                break

    def _describe_split(self, strategy: tf.distribute.Strategy) -> str:
        count, size = strategy.num_replicas_in_sync, self._settings.batch_size
        low, rest = divmod(size, count)
        parts = f"{low}" if not rest else f"{low} or {low + 1}"
        return (
            f"{count} replicas in {self._team.size} processes: each batch of "
            f"{size} is split into {count} of {parts}; learning rates are for "
            "the whole batch, and not scaled"
        )

    def _count_seconds(self, index: int, seconds: float) -> None:
        if self._shared is not None:
            self._shared.count_seconds(self._phases[index], seconds)
        else:
            self.plan.took[index] = seconds

    def _open_kept(
        self, keeping: RunCache | None, place: int
    ) -> CachedPhase | None:
        if self._shared is not None:
            # Of the runs that share, some may need the whole network.
            if needs_whole_model(self._model, self._penalty):
                return None
            return self._shared.open(self._phases[place])
        return None if keeping is None else keeping.open(place)

    def _copies_below(self) -> dict[int, np.ndarray]:
        """What is below the cut, and stays as it is until the phase ends."""
        if self._kept is None:
            return {}
        above = {id(v) for v in self._kept.suffix.variables}
        # What runs share begins at the start of each: nothing has moved there.
        known = None if self._shared is None else self._start
        return {
            id(v): np.array(v) if known is None else known[i]
            for i, v in enumerate(self._model.variables)
            if id(v) not in above
        }

    def _plan_keeping(self) -> RunCache:
        keeping = RunCache(
            self._model,
            self._source,
            self._phases,
            self._sets,
            self._settings.cache_policy(
                needs_whole_model(self._model, self._penalty)
            ),
            self._progress,
            self._strategy,
        )
        self.plan = keeping.plan
        return keeping

    @property
    def _penalty(self) -> object:
        return None if self.attached is None else self.attached.penalty

    def _choose_trainer(self) -> keras.Model:
        """What is fitted: the model, what is above the cut, or what penalises.

        All of them are made of the model's own layers.
        """
        if self._kept is not None:
            return self._kept.suffix
        return self._model if self.attached is None else self.attached.trainer

    def _training_batches(self) -> tf.data.Dataset:
        if self._kept is None:
            return self._train
        settings = self._settings
        return self._kept.train.batches(
            settings.batch_size,
            shuffle=True,
            seed=settings.seed,
            epoch=lambda: self._epoch,
            mixup=settings.augment.mixup if settings.augment else 0.0,
        )

    def _validation_batches(self) -> tf.data.Dataset | None:
        if self._kept is None or self._kept.validation is None:
            return self._validation
        return self._kept.validation.batches(self._settings.batch_size)

    def _probe(self, phase: Phase) -> None:
        if self._shared is not None and self._shared.probed is not None:
            _assign(_head_variables(self._model), self._shared.probed)
            return
        self._progress.say(f"{phase.name}: solving on frozen features")
        train = validation = None
        if self._kept is not None:
            train = self._kept.vectors("train")
            validation = self._kept.vectors("validation")
        if train is None:
            train = compute_vectors(self._model, self._source.plain())
            if self._validation is not None:
                validation = compute_vectors(self._model, self._validation)
        else:
            train = through_head(self._model, train)
            if validation is not None:
                validation = through_head(self._model, validation)
        set_exact_probe(
            self._model, train, validation, self._objective, self.class_weight
        )
        if self._team.size > 1:
            head = _head_variables(self._model)
            # The last bits of a sum are not the same on all machines.
            solved = self._team.share(Begun(_copies(head), None, None).pack)
            _assign(head, Begun.unpack(solved or {}).start)
        if self._shared is not None:
            self._shared.probed = _copies(_head_variables(self._model))

    def _compile(self, phase: Phase, begun: State | None) -> keras.Model:
        """Compiles for a phase, with the optimizer that it begins with."""
        key = None
        if self._shared is not None:
            key = self._shared.key(
                self._phases[: self._phase + 1],
                self._settings,
                self.attached,
                self._count_at_once(),
                self._optimizer,
            )
            known = self._shared.trainers.get(key)
            if known is not None:
                known.begin(phase.learning_rate)
                self._optimizer, self._at_once = known.optimizer, known.at_once
                self._trainer = known.model
                return known.model
        for layer, _ in self._norms:
            layer.synchronized = phase.train_batch_norm != "per-replica"
        optimizer = make_phase_optimizer(
            self._model,
            self._settings,
            phase,
            () if self.attached is None else self.attached.pulls,
        )
        if begun is not None:
            optimizer.expect(begun.steps)
        elif self._optimizer is not None:
            optimizer.continue_from(self._optimizer)
        before = () if self._optimizer is None else self._optimizer.variables
        self._optimizer = optimizer
        outer = scale_loss(self._model, optimizer)
        self._at_once = 1 if outer is not optimizer else self._count_at_once()
        self._trainer = trainer = self._choose_trainer()
        if key is not None:
            # One for each way to compile: the layers are the same.
            self._trainer = trainer = graph.view(trainer)
        trainer.compile(
            outer,
            loss=self._objective.loss,
            metrics=self._objective.metrics(),
            auto_scale_loss=False,
            steps_per_execution=self._at_once,
        )
        outer.build(trainer.trainable_variables)
        if begun is not None:
            _assign(outer.variables, begun.optimizer)
        if self._strategy is not None:
            self._trainer = trainer = ReplicaTrainer(
                trainer, self._objective, self._strategy
            )
        if self._shared is not None and key is not None:
            self._shared.trainers[key] = Trainer(
                trainer, optimizer, self._at_once, before
            )
        return trainer

    def _count_at_once(self) -> int:
        """Steps that run in one call: one where somebody looks at each."""
        import tensorflow as tf

        settings, steps = self._settings, self._source.steps
        total = steps * self._phases[self._phase].epochs
        if self._shared is not None:
            total *= self._shared.runs  # One trace serves them all.
        watched = settings.callbacks or settings.tensorboard
        if self._kept is None or watched or total < _LONG:
            return 1
        return 1 if tf.distribute.has_strategy() else min(_AT_ONCE, steps)

    def _fit(self, trainer: keras.Model, phase: Phase) -> None:
        done = max(
            (row["epoch"] for row in self.table.of_phase(self._phase)),
            default=0,
        )
        if done >= phase.epochs or self.table.is_over(self._phase):
            return
        open_ = sum(int(np.prod(v.shape)) for v in trainer.trainable_variables)
        self._progress.say(
            f"phase {self._phase + 1}/{len(self._phases)}: {phase.name}, "
            f"{open_:,} of {self._model.count_params():,} parameters, "
            f"{phase.epochs} epochs"
        )
        self._begin_epoch(done)
        if self._at_once > 1 and self._optimizer is not None:
            total = self._source.steps * phase.epochs
            rates = [phase.rate(step, total) for step in range(total)]
            self._optimizer.follow(rates, done * self._source.steps)
        if isinstance(trainer, ReplicaTrainer):
            # Of what is read in parts, the lengths of the whole batches.
            trainer.sizes = {} if self._kept else self._source.sizes
        trainer.fit(
            self._training_batches(),
            initial_epoch=done,
            epochs=phase.epochs,
            validation_data=self._validation_batches(),
            class_weight=self.class_weight,
            callbacks=self._callbacks(phase, done),
            verbose=1 if self._verbose > 1 else 0,
            shuffle=False,  # The source shuffles; Keras warns otherwise.
        )

    def _finish(self, trainer: keras.Model) -> None:
        """Ends a phase, in the same state whether it was resumed or not."""
        # Keras does this at the end of `fit`; a run that was killed in between
        # has it still to do.
        if self._optimizer is not None and self._optimizer.averages():
            variables = trainer.trainable_variables
            trainer.optimizer.finalize_variable_values(variables)
        self._save(finished=True)

    def _callbacks(
        self, phase: Phase, done: int
    ) -> list[keras.callbacks.Callback]:
        steps = self._source.steps
        chosen: list[keras.callbacks.Callback] = []
        if self._at_once == 1 and phase.schedule != "constant":
            chosen.append(
                ScheduledLearningRate(
                    lambda step: phase.rate(step, steps * phase.epochs),
                    initial_step=done * steps,
                )
            )
        if self._optimizer is not None and self._optimizer.use_ema:
            chosen.append(keras.callbacks.SwapEMAWeights())
        if self._settings.tensorboard and self._team.is_chief:
            folder = Path(str(self._settings.tensorboard))
            if self._settings.tensorboard is True and self.directory:
                folder = self.directory.path / "tensorboard"
            name = f"{self._phase + 1}-{phase.name.replace(' ', '-')}"
            chosen.append(keras.callbacks.TensorBoard(str(folder / name)))
        recorder = Recorder(
            self._describe, self._record, self._begin_epoch, self.attached
        )
        mine = self._settings.callbacks
        if self._kept is None or not mine:
            return [*chosen, *mine, recorder]
        # They expect the model that they were made for, not what is above the
        # cut; both hold the same variables.
        metrics = self._objective.metrics
        whole = ShowWhole(self._model, metrics, self._kept.train.labels[:1])
        return [*chosen, whole, *(whole.show(c) for c in mine), recorder]

    def _weigh_classes(self) -> dict[int, float] | None:
        weight = self._settings.class_weight
        if weight is None:
            return None
        if isinstance(weight, str):
            weight = self._source.class_weights()
        # Keras fails where a class above those that are named turns up.
        classes = max(2, self._model.output_shape[-1])
        return {c: float(weight.get(c, 1.0)) for c in range(classes)}

    # --- The table ---

    def _begin_epoch(self, epoch: int) -> None:
        before = sum(phase.epochs for phase in self._phases[: self._phase])
        self._epoch = before + epoch

    def _describe(self, epoch: int, logs: Row) -> Row:
        phase = self._phases[self._phase]
        rate = None
        if epoch and self._optimizer is not None:
            rate = float(
                keras.ops.convert_to_numpy(self._optimizer.learning_rate)
            )
        return {
            "phase": self._phase,
            "name": phase.name,
            "epoch": epoch,
            "depth": phase.depth if phase.blocks is None else None,
            "learning_rate": rate,
            **{k: v for k, v in logs.items() if k != "learning_rate"},
        }

    def _probe_row(self, trainer: keras.Model, seconds: float) -> Row:
        logs: Row = {}
        if self._validation is not None:
            if self.attached is not None:
                self.attached.pause()
            if isinstance(trainer, ReplicaTrainer):
                trainer.sizes = {} if self._kept else self._source.sizes
            found = trainer.evaluate(
                self._validation_batches(), return_dict=True, verbose=0
            )
            if self.attached is not None:
                self.attached.resume()
            logs = {f"val_{name}": value for name, value in found.items()}
        return self._describe(0, {**logs, "seconds": round(seconds, 3)})

    def _record(self, row: Row) -> bool:
        """Adds a row, keeps what is best, saves; says whether to go on."""
        weights = self._validated()
        if not all(
            np.isfinite(a).all() for a in weights if a.dtype.kind == "f"
        ):
            raise FloatingPointError(
                f"The weights are not finite after epoch {row['epoch']} of "
                f"phase {row['name']!r}. Lower `learning_rate` (see "
                "`find_learning_rate`), or set `clip_norm=1.0`."
            )
        is_best = self.table.add(row)
        if self.directory is not None:
            self.directory.claim(self._start)
        if is_best:
            self._best = weights
            if self.directory is not None:
                self.directory.save_best(len(self.table.rows) - 1, weights)
        self._save(finished=False)
        phase = self._phases[self._phase]
        left = sum(p.epochs for p in self._phases[self._phase + 1 :])
        left += phase.epochs - row["epoch"]
        self._progress.epoch(
            row,
            phase.epochs,
            left * row["seconds"],
            is_best and self.table.measures,
        )
        if self._goes_on is not None and not self._goes_on(self.table.rows):
            self._stopped = True
        return not self._stopped and not self.table.is_over(self._phase)

    def _validated(self) -> list[np.ndarray]:
        """The weights as they are validated: averaged where asked for."""
        optimizer = self._optimizer
        averages = {} if optimizer is None else optimizer.averages()
        return self._arrays(averages)

    def _arrays(
        self, averages: Mapping[int, keras.Variable] | None = None
    ) -> list[np.ndarray]:
        """Copies the variables, except for those that cannot have changed."""
        known = self._below
        return [
            known[id(v)]
            if id(v) in known
            else np.array((averages or {}).get(id(v), v))
            for v in self._model.variables
        ]

    def _save(self, finished: bool) -> None:
        if self.directory is None or self._optimizer is None:
            return
        self.directory.save_state(
            State(
                phase=self._phase,
                finished=finished,
                rows=self.table.rows,
                best=self.table.best,
                steps=self._optimizer.get_config()["variables"],
                variables=self._arrays(),
                optimizer=_copies(self._trainer.optimizer.variables),
            )
        )


def _head_variables(model: keras.Model) -> list[keras.Variable]:
    return list(model.get_layer("head").variables)


def _batch_norms(
    model: keras.Model,
) -> list[tuple[keras.layers.BatchNormalization, bool]]:
    """Layers whose statistics may be those of all replicas, or of each."""
    return [
        (layer, layer.synchronized)
        for layer in graph.layers_below(model)
        if isinstance(layer, keras.layers.BatchNormalization)
    ]


def _copies(variables: Sequence[keras.Variable]) -> list[np.ndarray]:
    return [np.array(variable) for variable in variables]


def _assign(
    variables: Sequence[keras.Variable], arrays: Sequence[np.ndarray]
) -> None:
    for variable, array in zip(variables, arrays, strict=True):
        variable.assign(array)
