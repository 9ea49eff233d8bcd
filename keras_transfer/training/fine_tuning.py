"""`fine_tune`: runs the phases of a strategy, and goes on where it stopped."""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras

from keras_transfer.builders.assembly import copy_model
from keras_transfer.data import Augmentation
from keras_transfer.data.adapters.opening import open_data
from keras_transfer.distribute import (
    ProcessGroup,
    check_batch_size,
    choose_devices,
    together,
)
from keras_transfer.strategies.applying import computing_in
from keras_transfer.strategies.choosing import choose_phases
from keras_transfer.strategies.phase import Depth, Phase
from keras_transfer.tasks.task import is_binary, make_objective
from keras_transfer.training.compatibility import (
    check_callbacks,
    check_class_weight,
    check_devices,
    check_penalty,
    check_tensorboard,
)
from keras_transfer.training.fingerprint import describe as describe_run
from keras_transfer.training.loop import Runner
from keras_transfer.training.run import Run
from keras_transfer.training.run_directory import open_directory
from keras_transfer.training.settings import Settings


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
    devices: Any = None,
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
            where the head is pooling and one dense layer without dropout,
            else `"fine-tune"`.
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
            of `directory`. On several devices their `self.model` is the copy
            that trains; several workers all need the same (files they write
            under names of their own), and are told metrics at the end of
            epochs. Defaults to `()`.
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
        devices: `"auto"` for all GPUs of this machine, how many of them
            (of logical CPUs where there is none), a
            `tf.distribute.Strategy`, or what `connect_workers` returned. Each
            batch of `batch_size` is split over them, and the numbers are those
            of one device. Defaults to `None`: the devices that the model was
            made on, most often one.
        ignore: Names of findings of `check` that are meant, such as
            `("pixel-range",)`. Defaults to `()`.
        seed: Integer: order of examples, augmentation and new weights. (A head
            and its dropout draw from Keras' own generator when the model is
            built: call `keras.utils.set_random_seed` before.) Defaults to `0`.
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
    several = choose_devices(devices, model)
    check_batch_size(batch_size, several)
    phases = choose_phases(
        model,
        strategy,
        depth=depth,
        learning_rate=learning_rate,
        epochs=epochs,
    )
    check_penalty(model, penalty, phases)
    check_devices(model, penalty, several, optimizer)
    check_callbacks(callbacks, phases)
    check_class_weight(class_weight, model.output_shape[-1])
    check_tensorboard(tensorboard, directory)
    source = open_data(
        data,
        batch_size=settings.batch_size,
        seed=settings.seed,
        augment=augment,
        cache=cache,
        one_output=is_binary(model),
    )
    objective = make_objective(
        model, source.labels, loss=loss, label_smoothing=label_smoothing
    )
    given, team = model, ProcessGroup(several)
    if source.of_part is not None and several is not None and team.size > 1:
        source = source.of_part(team.part_of(several.num_replicas_in_sync))

    @functools.cache  # It reads all the data.
    def card() -> dict[str, Any]:
        return describe_run(given, source, phases, settings, penalty)

    moves = several is not None and model.distribute_strategy is not several
    with contextlib.ExitStack() as after, contextlib.ExitStack() as stack:
        after.enter_context(together(team))
        if team.size > 1:  # Before anything is made by all.
            kept = settings.store is False or type(settings.store).__name__
            goes_on = directory is not None
            team.check_same(
                {
                    **card(),
                    "store": kept,
                    "ema": ema,
                    "directory": goes_on,
                    "first batches": source.look(),
                    # Saving a model reads metrics, which all have a part in.
                    "callbacks": [type(c).__name__ for c in callbacks],
                }
            )
        if several is not None:
            stack.enter_context(several.scope())
            model = copy_model(given) if moves else given
        training = Runner(
            model, source, phases, settings, objective, strategy=several
        )
        diagnosis = training.diagnose(data, ignore)
        if directory is not None:

            def open_it() -> None:
                training.directory = stack.enter_context(
                    open_directory(directory, card())
                )

            team.share(open_it)
        training.begin(resumes=directory is not None)
        if penalty is not None:
            training.attached = stack.enter_context(penalty.attach(model))
        if moves:
            # Out of the scope, which its own variables do not belong to.
            after.callback(training.give_back, given)
        else:
            stack.callback(training.close)
        stack.enter_context(computing_in(model, settings.policy))
        training.run()
    return Run(
        model=given,
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
        is_chief=team.is_chief,
    )
