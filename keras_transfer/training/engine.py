"""`fine_tune`: runs the phases of a strategy, and goes on where it stopped."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from keras_transfer.data import Augmentation
from keras_transfer.doctor import Diagnosis, check
from keras_transfer.features.store import Choice, readable
from keras_transfer.optimizers import LearningRateMultiplier
from keras_transfer.penalties import AttachedPenalty
from keras_transfer.schedules import ScheduledLearningRate
from keras_transfer.strategies import Depth, Phase
from keras_transfer.training import identity
from keras_transfer.training.checkpoint import (
    RunDirectory,
    State,
    open_directory,
)
from keras_transfer.training.objectives import (
    Objective,
    make_objective,
    says_yes_or_no,
)
from keras_transfer.training.optimizing import make_phase_optimizer, scale_loss
from keras_transfer.training.phases import choose_phases
from keras_transfer.training.planning import (
    Networks,
    Options,
    make_plan,
)
from keras_transfer.training.plans import Plan
from keras_transfer.training.prefixes import Kept, Prefixes
from keras_transfer.training.probing import (
    compute_vectors,
    set_exact_probe,
    through_head,
)
from keras_transfer.training.recorder import (
    Progress,
    Recorder,
    Row,
    Table,
)
from keras_transfer.training.run import Run
from keras_transfer.training.settings import Settings
from keras_transfer.training.showing import ShowWhole
from keras_transfer.training.sources import Source, open_source
from keras_transfer.training.trainable import (
    TrainableSets,
    computing_in,
    reinitialize,
)

if TYPE_CHECKING:
    import tensorflow as tf


def fine_tune(
    model: keras.Model,
    data: Any,
    *,
    strategy: str | Sequence[Phase] | None = None,
    depth: Depth = None,
    learning_rate: float | None = None,
    epochs: int | None = None,
    penalty: Any = None,
    directory: str | os.PathLike[str] | None = None,
    batch_size: int = 32,
    optimizer: str | keras.optimizers.Optimizer = "adam",
    loss: str | keras.losses.Loss | Callable[..., Any] | None = None,
    augment: Augmentation | None = None,
    class_weight: Mapping[int, float] | str | None = None,
    label_smoothing: float = 0.0,
    clip_norm: float | None = None,
    accumulation_steps: int | None = None,
    ema: float | None = None,
    patience: int | None = None,
    monitor: str | None = None,
    mixed_precision: bool | str | None = None,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    tensorboard: bool | str | Path = False,
    cache: bool | None = None,
    store: Any = None,
    views: int | None = None,
    ignore: Sequence[str] = (),
    seed: int = 0,
    verbose: int = 1,
) -> Run:
    """Trains a model on new data: `min L(theta) + lambda R(theta)`.

    Runs the phases of a strategy, keeps the weights of the best epoch over
    all of them, and leaves a plain Keras model: compiled, without anything of
    ours in it, and with the layers open and closed as they were. What you froze
    stays frozen throughout. `check` runs first. The validation loss is that of
    the data, without the penalty.

    Args:
        model: A model made by `build_classifier` or `build_regressor`, or any
            functional model; trained in place.
        data: What `load_images` returned; a pair of arrays `(inputs, labels)`,
            inputs as the model takes them (images in `[0, 255]`); a batched
            `tf.data.Dataset` of known length; or a dict of these with keys
            `"train"` and, to choose the best epoch by, `"validation"`.
        strategy: `"fine-tune"`, `"lp-ft"`, `"linear-probe"`,
            `"gradual-unfreezing"`, `"from-scratch"`, or phases: a tuple of
            `Phase`, such as `LPFT(depth=2)`. Defaults to `None`: `"lp-ft"`
            where the head is pooling and one dense layer, else `"fine-tune"`.
        depth: Blocks to train, counted from the output, or `"all"`. Defaults
            to `None`: what you opened with `unfreeze`, else the strategy's own.
        learning_rate: Highest rate. Defaults to `None`, the strategy's own.
        epochs: Passes over the data in the main phase. Defaults to `None`, the
            strategy's own.
        penalty: `L1`, `L2`, `ElasticNet`, `L2SP`, `FeatureMap`, `BSS` or
            `None`. Defaults to `None`.
        directory: Folder that keeps the run: started again after a stop of any
            kind, the same call goes on with the next epoch and ends where it
            would have ended (a `tf.data.Dataset` must give the same epochs
            again for that). Defaults to `None`.
        batch_size: Examples in a step. Defaults to `32`.
        optimizer: A Keras optimizer, whose learning rate is replaced, or its
            name. Defaults to `"adam"`.
        loss: A Keras loss. Defaults to `None`: by output activation and
            labels.
        augment: Changes of the training images, MixUp and CutMix among them.
            Defaults to `None`.
        class_weight: Weight of each class index in the loss, or `"balanced"`.
            Defaults to `None`.
        label_smoothing: Fraction in `[0, 1)` of each label that is spread over
            all classes. Defaults to `0.0`.
        clip_norm: Largest norm of the whole gradient. Defaults to `None`.
        accumulation_steps: Batches whose gradients are averaged into one
            update. Defaults to `None`.
        ema: Momentum in `(0, 1)` of a moving average of the weights, which is
            what is validated and kept. Defaults to `None`.
        patience: Epochs without a new best after which a phase ends. Defaults
            to `None`.
        monitor: Column that says which epoch is best, such as `"val_loss"`.
            Defaults to `None`: the validation accuracy, where equal the loss;
            the last epoch where there are no validation examples.
        mixed_precision: `True`, `"mixed_float16"` or `"mixed_bfloat16"` to
            compute in half precision while training. Defaults to `None`.
        callbacks: Keras callbacks, used in each phase; their state is not part
            of `directory`. Defaults to `()`.
        tensorboard: Folder for TensorBoard, or `True` for one within
            `directory`. Defaults to `False`.
        cache: Whether decoded images stay in memory. Defaults to `None`: up to
            2 GiB.
        store: Where activations below the trained blocks are kept, so that
            they are computed once: `"memory"`, a folder, a `FeatureStore`, or
            `False` to compute them in each pass. Defaults to `None`: wherever
            the plan finds it faster, in memory, or in the user's store where
            they are large.
        views: With `augment`, how many fixed views of each training image take
            the place of new ones in each pass, so that their activations can
            be kept; MixUp then mixes activations. Defaults to `None`: images
            change in each pass, and nothing below the trained blocks is kept.
        ignore: Names of findings of `check` that are meant, such as
            `("pixel-range",)`. Defaults to `()`.
        seed: Integer: order of examples, augmentation and new weights.
            Defaults to `0`.
        verbose: `0` for silence, `1` for a line an epoch, `2` for Keras'
            progress bar as well. Defaults to `1`.

    Returns:
        A `Run`: `history`, `evaluate(data)`, `summary()`, `plot(path)`.

    Raises:
        ValueError: If arguments do not fit each other, the model or the data;
            if `check` finds an error; or if `directory` is another run's.
        TypeError: If an argument is of another type.
        FloatingPointError: If the loss becomes NaN or infinite; the model then
            has the best weights so far, or those that it came with.
        OSError: If `directory`, or a `store` that you named, cannot be written
            to; what it held stays whole.

    Example:

    >>> data = load_images((arrays, labels))
    >>> model = build_classifier("ResNet20", data=data)
    >>> run = fine_tune(model, data, depth=1, epochs=1, verbose=0)
    >>> run.history["depth"]
    [0, 1]
    >>> sorted(run.evaluate(data.test))
    ['accuracy', 'loss']
    """
    settings = Settings(
        batch_size=batch_size,
        optimizer=optimizer,
        loss=loss,
        augment=augment,
        class_weight=class_weight,
        label_smoothing=label_smoothing,
        clip_norm=clip_norm,
        accumulation_steps=accumulation_steps,
        ema=ema,
        patience=patience,
        monitor=monitor,
        mixed_precision=mixed_precision,
        callbacks=callbacks,
        tensorboard=tensorboard,
        cache=cache,
        store=store,
        views=views,
        seed=seed,
        verbose=verbose,
    )
    phases = choose_phases(
        model,
        strategy,
        depth=depth,
        learning_rate=learning_rate,
        epochs=epochs,
    )
    identity.check_penalty(model, penalty, phases)
    identity.check_callbacks(callbacks, phases)
    identity.check_class_weight(class_weight, model.output_shape[-1])
    identity.check_tensorboard(tensorboard, directory)
    source = open_source(
        data,
        batch_size=settings.batch_size,
        seed=settings.seed,
        augment=augment,
        cache=cache,
        one_output=says_yes_or_no(model),
    )
    objective = make_objective(
        model, source.labels, loss=loss, label_smoothing=label_smoothing
    )
    training = _Training(model, source, phases, settings, objective)
    diagnosis = training.diagnose(data, ignore)
    with contextlib.ExitStack() as stack:
        if directory is not None:
            card = identity.describe(model, source, phases, settings, penalty)
            training.directory = stack.enter_context(
                open_directory(directory, card)
            )
        training.begin()
        if penalty is not None:
            training.attached = stack.enter_context(penalty.attach(model))
        stack.callback(training.close)
        stack.enter_context(computing_in(model, settings.policy))
        training.run()
    return Run(
        model=model,
        phases=phases,
        rows=tuple(training.table.rows),
        best=training.table.best or 0,
        trainable=tuple(training.trainable),
        diagnosis=diagnosis,
        plan=training.plan,
        directory=None if directory is None else Path(directory),
        _objective=objective,
        _batch_size=settings.batch_size,
        _data=data,
    )


class _Training:
    """One run while it goes on."""

    def __init__(
        self,
        model: keras.Model,
        source: Source,
        phases: tuple[Phase, ...],
        settings: Settings,
        objective: Objective,
    ) -> None:
        self.directory: RunDirectory | None = None
        self.attached: AttachedPenalty | None = None
        self.trainable: list[tuple[str, ...]] = []
        self.plan = Plan(())
        self._model = model
        self._source = source
        self._phases = phases
        self._settings = settings
        self._objective = objective
        self._sets = TrainableSets(model, phases)
        names = ["loss", *(m.name for m in objective.metrics())]
        if source.validation is not None:
            names += [f"val_{name}" for name in names]
        self.table = Table(settings.monitor, settings.patience, names)
        self._progress = Progress(settings.verbose)
        # Whatever can be refused is refused here, before anything changes.
        self._train = source.train(lambda: self._epoch)
        self._validation = source.validation() if source.validation else None
        self._class_weight = self._weigh_classes()
        self._start = _copies(model.variables)
        self._best = self._start
        self._state: State | None = None
        self._optimizer: LearningRateMultiplier | None = None
        self._kept: Kept | None = None
        self._below: dict[int, np.ndarray] = {}  # by variable, of this phase
        self._phase = 0
        self._epoch = 0

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

    def begin(self) -> None:
        """Takes up the run where its directory says."""
        if self.directory is None:
            return
        start = self.directory.load_start()
        if start is None:
            return
        self._state = state = self.directory.load_state()
        known = [start]
        if state is not None:
            self.table.rows, self.table.best = state.rows, state.best
            if state.best is not None:
                self._best = self.directory.load_best(state.best)
            known += [state.variables, self._best]
            self._progress.say(
                f"Going on after phase {state.phase + 1}, epoch "
                f"{state.rows[-1]['epoch'] if state.rows else 0}."
            )
        identity.check_start(self._model, known, self._phases)
        _assign(self._model.variables, start)
        self._start = start
        if state is None:
            self._best = start

    def close(self) -> None:
        """Leaves a plain model with the best weights so far."""
        _assign(self._model.variables, self._best)
        self._sets.restore()
        self._model.compile(
            self._settings.make_optimizer(self._phases[-1].learning_rate),
            loss=self._objective.loss,
            metrics=self._objective.metrics(),
        )
        # As `fit` would have done: a file with an optimizer that never saw its
        # variables loads with a warning.
        self._model.optimizer.build(self._model.trainable_variables)

    # --- The phases ---

    def run(self) -> None:
        """Runs all phases, or those that are left."""
        prefixes = self._make_plan()
        first = self._state.phase if self._state else 0
        for index, phase in enumerate(self._phases):
            self._phase = index
            self.trainable.append(self._sets.apply(phase))
            if phase.reinitialize:
                reinitialize(self._model, self._settings.seed)
            if index < first:
                continue
            begun = self._state if index == first else None
            if begun is not None and begun.finished:
                self._kept, self._below = None, {}
                self._compile(phase, begun)
                continue
            started = time.monotonic()
            if begun is not None:
                _assign(self._model.variables, begun.variables)
            self._kept = self._open_kept(prefixes, index)
            self._below = self._copies_below()
            if phase.exact_probe and begun is None:
                self._probe(phase)
            seconds = time.monotonic() - started
            trainer = self._compile(phase, begun)
            if phase.exact_probe and begun is None:
                self._record(self._probe_row(trainer, seconds))
            self._fit(trainer, phase)
            self._finish(trainer)
            self.plan.took[index] = time.monotonic() - started

    def _open_kept(self, prefixes: Prefixes | None, place: int) -> Kept | None:
        planned = self.plan.phases[place]
        if prefixes is None or planned.cut is None:
            return None
        self._progress.say(
            f"activations {planned.cut.name}: {readable(planned.num_bytes)} "
            f"{prefixes.where}"
        )
        try:
            kept = prefixes.open(place)
            reason = "variables above the cut come in another order"
        except OSError as err:
            store = self._settings.store
            named = store is not None and not isinstance(store, Choice)
            if named or self._settings.views:
                raise
            # Nobody asked for them: what fails is only speed.
            kept, reason = None, str(err)
        if kept is None:
            why = f"nothing is kept, since {reason}."
            self._progress.say(f"{planned.name}: {why}")
            self.plan.drop(place, why)
        return kept

    def _copies_below(self) -> dict[int, np.ndarray]:
        """What is below the cut, and stays as it is until the phase ends."""
        if self._kept is None:
            return {}
        above = {id(v) for v in self._kept.suffix.variables}
        return {
            id(v): np.array(v)
            for v in self._model.variables
            if id(v) not in above
        }

    def _make_plan(self) -> Prefixes | None:
        settings = self._settings
        penalty = None if self.attached is None else self.attached.penalty
        networks = Networks()
        self.plan, store = make_plan(
            self._model,
            self._source,
            self._phases,
            self._sets,
            Options(
                settings.store,
                settings.views,
                settings.augment is not None,
                settings.batch_size,
                identity.objection_to_parts(self._model, penalty),
            ),
            networks,
        )
        if store is None:
            return None
        return Prefixes(
            self._model, self._source, self.plan, store, settings, networks
        )

    @property
    def _trainer(self) -> keras.Model:
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
            self._model, train, validation, self._objective, self._class_weight
        )

    def _compile(self, phase: Phase, begun: State | None) -> keras.Model:
        """Compiles for a phase, with the optimizer that it begins with."""
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
        self._optimizer = optimizer
        outer = scale_loss(self._model, optimizer)
        trainer = self._trainer
        trainer.compile(
            outer,
            loss=self._objective.loss,
            metrics=self._objective.metrics(),
            auto_scale_loss=False,
        )
        outer.build(trainer.trainable_variables)
        if begun is not None:
            _assign(self._model.variables, begun.variables)
            _assign(outer.variables, begun.optimizer)
        return trainer

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
        trainer.fit(
            self._training_batches(),
            initial_epoch=done,
            epochs=phase.epochs,
            validation_data=self._validation_batches(),
            class_weight=self._class_weight,
            callbacks=self._callbacks(phase, done),
            verbose=1 if self._settings.verbose > 1 else 0,
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
        if phase.schedule != "constant":
            chosen.append(
                ScheduledLearningRate(
                    lambda step: phase.rate(step, steps * phase.epochs),
                    initial_step=done * steps,
                )
            )
        if self._optimizer is not None and self._optimizer.use_ema:
            chosen.append(keras.callbacks.SwapEMAWeights())
        if self._settings.tensorboard:
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
        return not self.table.is_over(self._phase)

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


def _copies(variables: Sequence[keras.Variable]) -> list[np.ndarray]:
    return [np.array(variable) for variable in variables]


def _assign(
    variables: Sequence[keras.Variable], arrays: Sequence[np.ndarray]
) -> None:
    for variable, array in zip(variables, arrays, strict=True):
        variable.assign(array)
