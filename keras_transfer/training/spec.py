"""`RunSpec`: all inputs of one run, read and checked once."""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from keras_transfer.auxiliary.auxiliary_loss import AuxiliaryLoss
from keras_transfer.data import LabelledData
from keras_transfer.data.adapters.extra_inputs import carry
from keras_transfer.data.adapters.opening import open_data
from keras_transfer.data.adapters.training_data import TrainingData
from keras_transfer.distribute import (
    ProcessGroup,
    check_batch_size,
    choose_devices,
)
from keras_transfer.strategies.choosing import choose_phases
from keras_transfer.strategies.phase import Depth, Phase
from keras_transfer.strategies.trainable_sets import TrainableSets
from keras_transfer.tasks.choosing import (
    check_predicts_classes,
    choose_task,
    is_binary,
)
from keras_transfer.tasks.extra_metrics import check_metrics
from keras_transfer.tasks.task import Task, Weighing
from keras_transfer.training.compatibility import (
    check_callbacks,
    check_class_weight,
    check_devices,
    check_losses,
    check_tensorboard,
)
from keras_transfer.training.label_checks import with_checked_labels
from keras_transfer.training.run_identity import describe
from keras_transfer.training.settings import Settings, make_settings

if TYPE_CHECKING:
    import tensorflow as tf


@dataclasses.dataclass(frozen=True, eq=False)
class RunSpec:
    """All inputs of one run.

    Attributes:
        model: The model that trains.
        given: The data as the user passed them.
        data: The same, as batches.
        phases: The phases.
        task: Task of the model.
        settings: Settings of the run.
        losses: Auxiliary losses, penalties among them. Defaults to `()`.
        strategy: The strategy that trains on several devices, in whose scope
            the model was made. Defaults to `None`, one device.
    """

    model: keras.Model
    given: Any
    data: TrainingData
    phases: tuple[Phase, ...]
    task: Task
    settings: Settings
    losses: tuple[AuxiliaryLoss, ...] = ()
    strategy: tf.distribute.Strategy | None = None

    @functools.cached_property
    def group(self) -> ProcessGroup:
        """The processes that train together."""
        return ProcessGroup(self.strategy)

    @functools.cached_property
    def columns(self) -> tuple[str, ...]:
        """The measured columns of the table: losses and metrics."""
        names = ["loss", *(metric.name for metric in self.task.all_metrics())]
        if self.data.validation is not None:
            names += [f"val_{name}" for name in names]
        return tuple(names)

    @functools.cached_property
    def weighing(self) -> Weighing:
        """The loss that is minimised, and the weights of examples by class."""
        weight = self.settings.losses.class_weight
        if weight is None:
            return Weighing(self.task.loss, None)
        units = self.model.output_shape[-1]
        if isinstance(weight, str):
            self.task.weigh_classes((1.0,) * max(2, units), units)
            weight = self.data.class_weights()
        weights = [float(weight.get(c, 1.0)) for c in range(max(2, units))]
        return self.task.weigh_classes(weights, units)

    def weigh(self, batches: tf.data.Dataset) -> tf.data.Dataset:
        """Multiplies the weights of examples by those of their classes.

        Args:
            batches: Training batches of (inputs, labels) or (inputs, labels,
                weights).
        """
        of_examples = self.weighing.of_examples
        if of_examples is None:
            return batches

        def weighed(x: Any, y: Any, *own: Any) -> tuple[Any, ...]:
            import tensorflow as tf

            weights = of_examples(y)
            for factors in own:
                weights *= tf.cast(tf.reshape(factors, [-1]), weights.dtype)
            return x, y, weights

        return batches.map(weighed)

    @functools.cached_property
    def identity(self) -> dict[str, Any]:
        """The identity that another process needs to resume the run."""
        return describe(
            self.model, self.data, self.phases, self.settings, self.losses
        )

    def on(self, model: keras.Model) -> RunSpec:
        """Returns the spec for a copy of the model, and its shard of the data.

        Args:
            model: The copy, made in the scope of the strategy.
        """
        data = self.data
        if data.of_part is not None and self.group.size > 1:
            replicas = self.strategy.num_replicas_in_sync  # type: ignore[union-attr]
            data = data.of_part(self.group.part_of(replicas))
        return dataclasses.replace(self, model=model, data=data)


def read_spec(
    model: keras.Model,
    data: Any,
    settings: Settings,
    *,
    strategy: str | Sequence[Phase] | None = None,
    depth: Depth = None,
    learning_rate: float | None = None,
    epochs: int | None = None,
    penalty: Any = None,
    auxiliary: Sequence[AuxiliaryLoss] = (),
    task: Task | None = None,
    devices: Any = None,
    directory: str | os.PathLike[str] | None = None,
) -> RunSpec:
    """Reads and checks the inputs of one run.

    Args:
        model: The model as the user left it.
        data: The data.
        settings: Settings of the run.
        strategy: A name, phases, or `None`. Defaults to `None`.
        depth: Blocks to train. Defaults to `None`.
        learning_rate: Highest rate. Defaults to `None`.
        epochs: Epochs of the main phase. Defaults to `None`.
        penalty: A penalty or `None`. Defaults to `None`.
        auxiliary: Further auxiliary losses. Defaults to `()`.
        task: The task, or `None` to choose it. Defaults to `None`.
        devices: Devices to train on. Defaults to `None`.
        directory: The folder of the run. Defaults to `None`.

    Returns:
        A `RunSpec`.

    Raises:
        ValueError: If arguments do not fit each other, the model or the data.
        TypeError: If an argument is of another type.
    """
    replicas = choose_devices(devices, model)
    check_batch_size(settings.data.batch_size, replicas)
    phases = choose_phases(
        model,
        strategy,
        depth=depth,
        learning_rate=learning_rate,
        epochs=epochs,
        optimizer_rate=settings.optimization.rate,
    )
    losses = check_losses(model, penalty, auxiliary, phases)
    optimizer = settings.optimization.optimizer
    check_devices(model, losses, replicas, optimizer)
    check_callbacks(settings.reporting.callbacks, phases)
    check_class_weight(settings.losses.class_weight, model.output_shape[-1])
    check_tensorboard(settings.reporting.tensorboard, directory)
    training_data, task = read_data(model, data, settings, losses, task)
    return RunSpec(
        model, data, training_data, phases, task, settings, losses, replicas
    )


def read_data(
    model: keras.Model,
    data: Any,
    settings: Settings,
    losses: Sequence[AuxiliaryLoss] = (),
    task: Task | None = None,
) -> tuple[TrainingData, Task]:
    """Opens the data, and chooses the task by them.

    Args:
        model: The model.
        data: The data.
        settings: Settings of the run.
        losses: Auxiliary losses, whose examples the batches carry. Defaults to
            `()`.
        task: The task, or `None` to choose it. Defaults to `None`.

    Returns:
        `TrainingData` and `Task`.

    Raises:
        ValueError: If the data cannot be used, or do not fit the model.
        TypeError: If they are of another type.
    """
    options = settings.data
    if task is None and isinstance(data, LabelledData):
        check_predicts_classes(model)
    training_data = open_data(
        data,
        batch_size=options.batch_size,
        seed=options.seed,
        augment=options.augment,
        cache=options.cache,
        one_output=is_binary(model),
    )
    if task is None:
        task = choose_task(
            model,
            training_data.label_format,
            loss=settings.losses.loss,
            label_smoothing=settings.losses.label_smoothing,
        )
    units = model.output_shape[-1]
    training_data = with_checked_labels(training_data, task, units)
    extra = settings.losses.metrics
    if extra:
        labels = _few_labels(data, training_data, units)
        own = [metric.name for metric in task.metrics()]
        task = task.with_extra(extra)
        check_metrics(
            task.extra,
            labels,
            units,
            own,
            label_format=task.label_format,
            from_logits=task.from_logits,
        )
    arrays = {
        f"{name} of {type(loss).__name__} {place}": array
        for place, loss in enumerate(losses)
        for name, array in loss.examples().items()
    }
    training_data = carry(
        training_data, arrays, batch_size=options.batch_size, seed=options.seed
    )
    return training_data, task


def _few_labels(
    data: Any, training_data: TrainingData, units: int
) -> np.ndarray:
    """Returns labels of two examples, as batches have them."""
    if isinstance(data, LabelledData):  # They make rows of all their examples.
        return np.eye(2, units, dtype=np.float32)
    if "train" in training_data.indexed:
        return training_data.indexed["train"].make_labels()[:2]
    with training_data.reading():
        batch = next(iter(training_data.plain()))
    labels: np.ndarray = batch[1].numpy()[:2]
    return labels


def check_arguments(
    model: keras.Model,
    *,
    strategy: str | Sequence[Phase] | None = None,
    depth: Depth = None,
    learning_rate: float | None = None,
    epochs: int | None = None,
    penalty: Any = None,
    auxiliary: Sequence[AuxiliaryLoss] = (),
    **settings: Any,
) -> tuple[Phase, ...]:
    """Raises the errors that `fine_tune` would raise for these arguments.

    For functions that train several times: errors in the arguments of the last
    run are raised before the first one starts.

    Args:
        model: A model like those that will be trained; not changed.
        strategy: Same as in `fine_tune`. Defaults to `None`.
        depth: Same as in `fine_tune`. Defaults to `None`.
        learning_rate: Same as in `fine_tune`. Defaults to `None`.
        epochs: Same as in `fine_tune`. Defaults to `None`.
        penalty: Same as in `fine_tune`. Defaults to `None`.
        auxiliary: Same as in `fine_tune`. Defaults to `()`.
        **settings: Further arguments, fields of the settings.

    Returns:
        The phases of the strategy.

    Raises:
        ValueError: If they do not fit each other, or the model.
        TypeError: If an argument is unknown, or of another type.

    Example:

    >>> model = build_classifier(backbone, num_classes=3)
    >>> check_arguments(model, strategy="linear-probe")[0].depth
    0
    """
    made = make_settings(**settings)
    phases = choose_phases(
        model,
        strategy,
        depth=depth,
        learning_rate=learning_rate,
        epochs=epochs,
        optimizer_rate=made.optimization.rate,
    )
    check_losses(model, penalty, auxiliary, phases)
    TrainableSets(model, phases)
    return phases
