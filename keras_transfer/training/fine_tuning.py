"""`fine_tune`: runs the phases of a strategy, and resumes stopped runs."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras

from keras_transfer._utils.progress import Progress
from keras_transfer.auxiliary.attached_losses import attached
from keras_transfer.auxiliary.auxiliary_loss import AuxiliaryLoss
from keras_transfer.builders.assembly import copy_model
from keras_transfer.caching.eligibility import needs_whole_model
from keras_transfer.caching.phase_data import UncachedPhase
from keras_transfer.caching.run_cache import RunCache
from keras_transfer.data import Augmentation
from keras_transfer.distribute import together
from keras_transfer.strategies.phase import Depth, Phase
from keras_transfer.strategies.trainable_sets import TrainableSets, computing_in
from keras_transfer.tasks.extra_metrics import MetricLike
from keras_transfer.tasks.task import Task
from keras_transfer.training.compiling import (
    PhaseCompiler,
    compile_plainly,
    restoring_norms,
)
from keras_transfer.training.exact_probe import solve_head
from keras_transfer.training.history import History
from keras_transfer.training.loop import TrainingLoop
from keras_transfer.training.preflight import diagnose
from keras_transfer.training.run_directory import open_directory
from keras_transfer.training.run_result import Run
from keras_transfer.training.run_state import RunState, assign
from keras_transfer.training.settings import make_settings
from keras_transfer.training.spec import RunSpec, read_spec


def fine_tune(
    model: keras.Model,
    data: Any,
    *,
    strategy: str | Sequence[Phase] | None = None,
    depth: Depth = None,
    learning_rate: float | None = None,
    epochs: int | None = None,
    penalty: Any = None,
    auxiliary: Sequence[AuxiliaryLoss] = (),
    task: Task | None = None,
    directory: str | os.PathLike[str] | None = None,
    batch_size: int = 32,
    optimizer: str | keras.optimizers.Optimizer = "adam",
    loss: str | keras.losses.Loss | Callable[..., Any] | None = None,
    metrics: Sequence[MetricLike] = (),
    augment: Augmentation | None = None,
    class_weight: Mapping[int, float] | str | None = None,
    label_smoothing: float = 0.0,
    global_clipnorm: float | None = None,
    gradient_accumulation_steps: int | None = None,
    ema_momentum: float | None = None,
    patience: int | None = None,
    monitor: str | tuple[str, str] | None = None,
    mixed_precision: bool | str | None = None,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    tensorboard: bool | str | Path = False,
    cache: bool | None = None,
    store: Any = None,
    views: int | None = None,
    devices: Any = None,
    ignore: Sequence[str] = (),
    seed: int = 0,
    verbose: int = 1,
) -> Run:
    """Trains a model on new data: `min L(theta) + lambda R(theta)`.

    Runs the phases of a strategy, keeps the weights of the best epoch over
    all of them, and leaves a plain Keras model: compiled with Keras objects
    alone, its `trainable` flags restored. Layers that you froze stay frozen
    throughout. `check` runs first. The validation loss excludes the penalty.

    Args:
        model: A model made by `build_classifier` or `build_regressor`, or any
            functional model; trained in place.
        data: An `ImageData`, from `load_images`; a pair of arrays `(inputs,
            labels)`, inputs as the model takes them (images in `[0, 255]`); a
            batched `tf.data.Dataset` of known length; or a dict of these with
            keys `"train"` and `"validation"`, which selects the best epoch.
        strategy: `"fine-tune"`, `"lp-ft"`, `"linear-probe"`,
            `"gradual-unfreezing"`, `"from-scratch"`, or phases: a tuple of
            `Phase`, such as `LPFT(depth=2)`. Defaults to `None`: `"lp-ft"`
            where the head is pooling and one dense layer without dropout, else
            `"fine-tune"`.
        depth: Blocks to train, counted from the output, or `"all"`. Defaults to
            `None`: the blocks opened with `unfreeze`, else the strategy's own.
        learning_rate: Highest rate. Defaults to `None`: that of `optimizer`
            where you gave it one, else the strategy's own.
        epochs: Passes over the data in the main phase. Defaults to `None`, the
            strategy's own.
        penalty: `L1`, `L2`, `ElasticNet`, `L2SP`, `FeatureMap`, `BSS` or
            `None`. Defaults to `None`.
        auxiliary: Further losses, added to that of the task; see
            `keras_transfer.auxiliary`. Defaults to `()`.
        task: A `Task`, for predictions that the package does not know; see
            `keras_transfer.tasks`. Defaults to `None`: chosen by output
            activation and labels.
        directory: Folder of the run. After an interruption of any kind, the
            same call resumes with the next epoch and gives the results of an
            uninterrupted run (a `tf.data.Dataset` must yield the same epochs
            again for that). Defaults to `None`.
        batch_size: Examples in a step. Defaults to `32`.
        optimizer: A Keras optimizer or its name. A learning rate that is not
            the default of its class counts as `learning_rate`; a Keras schedule
            in it counts the steps of each phase. Defaults to `"adam"`.
        loss: A Keras loss. Defaults to `None`: by output activation and labels.
        metrics: Further metrics, for training and validation: Keras metrics,
            their names or classes, or functions of labels and outputs. Defaults
            to `()`: those of the task.
        augment: Changes of the training images, MixUp and CutMix among them.
            Defaults to `None`.
        class_weight: Weight of each class index in the loss, or `"balanced"`.
            Defaults to `None`.
        label_smoothing: Fraction in `[0, 1)` of each label that is spread over
            all classes. Defaults to `0.0`.
        global_clipnorm: Largest norm of the whole gradient. Defaults to `None`.
        gradient_accumulation_steps: Batches whose gradients are averaged into
            one update. Defaults to `None`.
        ema_momentum: Momentum in `(0, 1)` of a moving average of the weights,
            which is validated and saved. Defaults to `None`.
        patience: Epochs without a new best after which a phase ends. Defaults
            to `None`.
        monitor: Column that selects the best epoch, such as `"val_loss"` or
            that of one of `metrics`, `"val_auc"`; or a pair of it and `"min"`
            or `"max"`, for a metric of your own of which less is better.
            Defaults to `None`: the validation accuracy, with the loss as a
            tie-break; the last epoch where there are no validation examples.
        mixed_precision: `True`, `"mixed_float16"` or `"mixed_bfloat16"` to
            compute in half precision while training. Defaults to `None`.
        callbacks: Keras callbacks, which see all phases as one training, with
            epochs counted over all of them; `stop_training` ends a phase, and
            a learning rate that they set replaces the schedule of the phase.
            Their state is not part of `directory`. On several devices their
            `self.model` is the copy that trains. Several workers all need the
            same callbacks, which must write files under different names, and
            receive metrics at the end of epochs. Defaults to `()`.
        tensorboard: Folder for TensorBoard, or `True` for one within
            `directory`. Defaults to `False`.
        cache: Whether decoded images stay in memory. Defaults to `None`: up to
            2 GiB.
        store: Cache of the activations below the trained blocks, which are then
            computed once: `"memory"`, a folder, a `FeatureStore`, or `False` to
            compute them in each pass. Defaults to `None`: cached where the plan
            finds it faster, in memory, or in the default folder where they are
            large.
        views: Number of fixed views of each training image that replace the
            random changes of `augment`, so that activations can be cached;
            MixUp then mixes activations. Defaults to `None`: images change in
            each pass, and nothing is cached.
        devices: `"auto"` for all GPUs of this machine, a number of GPUs (of
            logical CPUs where there is none), a `tf.distribute.Strategy`, or
            the strategy from `connect_workers`. Each batch of `batch_size` is
            split over them, with the results of one device. Defaults to `None`:
            the devices that the model was made on, usually one.
        ignore: Names of findings of `check` that are intended, such as
            `("pixel-range",)`. Defaults to `()`.
        seed: Integer: order of examples, augmentation and new weights. (A head
            and its dropout draw from Keras' own generator when the model is
            built: call `keras.utils.set_random_seed` before.) Defaults to `0`.
        verbose: `0` for silence, `1` for one line per epoch, `2` for Keras'
            progress bar as well. Defaults to `1`.

    Returns:
        A `Run`: `history`, `evaluate(data)`, `summary()`, `plot(path)`.

    Raises:
        ValueError: If arguments do not fit each other, the model or the data;
            if `check` finds an error; or if `directory` belongs to another run.
        TypeError: If an argument is of another type.
        FloatingPointError: If the loss becomes NaN or infinite; the model then
            has the best weights so far, or its initial ones.
        OSError: If `directory`, or a `store` that you named, cannot be written
            to; its previous content stays valid.
        RuntimeError: If another worker stopped.

    Example:

    >>> data = load_images((arrays, labels))
    >>> model = build_classifier(backbone, data=data)
    >>> run = fine_tune(model, data, depth=1, epochs=1, verbose=0)
    >>> run.history["depth"]
    [0, 1]
    >>> sorted(run.evaluate(data.test))
    ['accuracy', 'loss']
    """
    settings = make_settings(
        batch_size=batch_size,
        optimizer=optimizer,
        loss=loss,
        metrics=metrics,
        augment=augment,
        class_weight=class_weight,
        label_smoothing=label_smoothing,
        global_clipnorm=global_clipnorm,
        gradient_accumulation_steps=gradient_accumulation_steps,
        ema_momentum=ema_momentum,
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
    spec = read_spec(
        model,
        data,
        settings,
        strategy=strategy,
        depth=depth,
        learning_rate=learning_rate,
        epochs=epochs,
        penalty=penalty,
        auxiliary=auxiliary,
        task=task,
        devices=devices,
        directory=directory,
    )
    return train(spec, directory, ignore)


def train(
    spec: RunSpec,
    directory: str | os.PathLike[str] | None = None,
    ignore: Sequence[str] = (),
) -> Run:
    """Trains a run that `read_spec` has checked.

    Args:
        spec: The run.
        directory: Folder of the run. Defaults to `None`.
        ignore: Names of findings of `check` that are intended. Defaults to
            `()`.

    Returns:
        The `Run`.
    """
    given, model, several = spec, spec.model, spec.strategy
    with contextlib.ExitStack() as after, contextlib.ExitStack() as stack:
        after.enter_context(together(spec.group))
        check_same(spec, directory)
        moves = several is not None and model.distribute_strategy is not several
        if several is not None:
            stack.enter_context(several.scope())
            # A model is trained where its variables are: in the scope.
            spec = spec.on(copy_model(model) if moves else model)
        verbose = spec.settings.reporting.verbose
        progress = Progress(verbose if spec.group.is_chief else 0)
        sets = TrainableSets(spec.model, spec.phases)
        stopping = spec.settings.stopping
        history = History(stopping.monitor, stopping.patience, spec.columns)
        # All checks come before the first change.
        uncached, _ = UncachedPhase(spec.model, spec.data), spec.weighing
        state = RunState(spec.model, history, spec.group)
        diagnosis = diagnose(spec, sets, ignore, progress.say)
        if directory is not None:
            spec.group.share(lambda: _open(state, stack, directory, given))
        progress.say(state.begin(spec.phases))
        losses = stack.enter_context(attached(spec.losses, spec.model))
        stack.enter_context(restoring_norms(spec.model))
        if moves:
            # After the scope, to which the variables of `model` do not belong.
            after.callback(_leave, model, spec, state)
        else:
            stack.callback(_leave, model, spec, state)
            stack.callback(sets.restore)
        policy = spec.settings.optimization.policy
        stack.enter_context(computing_in(spec.model, policy))
        progress.say(_describe_split(spec))
        cache = _make_cache(spec, sets, progress)
        compiler = PhaseCompiler(spec, losses)
        loop = TrainingLoop(
            spec,
            state,
            sets,
            cache,
            compiler,
            losses,
            solve_head,
            progress,
            uncached=uncached,
        )
        loop.run()
    return Run(
        model=model,
        phases=spec.phases,
        rows=tuple(history.rows),
        best=history.best or 0,
        trainable=tuple(loop.trainable),
        diagnosis=diagnosis,
        plan=cache.plan,
        directory=None if directory is None else Path(directory),
        _task=spec.task,
        _batch_size=spec.settings.data.batch_size,
        _data=spec.given,
        is_chief=spec.group.is_chief,
    )


def _make_cache(
    spec: RunSpec, sets: TrainableSets, progress: Progress
) -> RunCache:
    ineligible = needs_whole_model(spec.model, spec.losses)
    return RunCache(
        spec.model,
        spec.data,
        spec.phases,
        sets,
        spec.settings.cache_policy(ineligible),
        progress,
        spec.strategy,
    )


def check_same(spec: RunSpec, directory: str | os.PathLike[str] | None) -> None:
    """Raises unless all processes train the same run, before it starts.

    Args:
        spec: The run.
        directory: Folder of the run, or `None`.
    """
    if spec.group.size == 1:
        return
    settings = spec.settings
    callbacks = settings.reporting.callbacks
    store = settings.caching.store
    spec.group.check_same(
        {
            **spec.identity,
            "store": store is False or type(store).__name__,
            "directory": directory is not None,
            "first batches": spec.data.look(),
            # Saving a model reads metrics, which needs all processes.
            "callbacks": [type(callback).__name__ for callback in callbacks],
        }
    )


def _open(
    state: RunState,
    stack: contextlib.ExitStack,
    directory: str | os.PathLike[str],
    spec: RunSpec,
) -> None:
    opened = open_directory(directory, spec.identity)
    state.directory = stack.enter_context(opened)


def _leave(model: keras.Model, spec: RunSpec, state: RunState) -> None:
    """Leaves a plain model with the best weights."""
    assign(model.variables, state.best)
    rate = spec.phases[-1].learning_rate
    compile_plainly(model, spec.settings, spec.task, rate)


def _describe_split(spec: RunSpec) -> str:
    """Describes the split of batches over devices, or returns `""`."""
    if spec.strategy is None:
        return ""
    count = spec.strategy.num_replicas_in_sync
    size = spec.settings.data.batch_size
    low, rest = divmod(size, count)
    parts = f"{low}" if not rest else f"{low} or {low + 1}"
    return (
        f"{count} replicas in {spec.group.size} processes: each batch of "
        f"{size} is split into {count} of {parts}; learning rates are for "
        "the whole batch, and not scaled"
    )
