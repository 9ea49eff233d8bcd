"""Trains on several devices, with the results of one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from keras_transfer.data.pipeline import Part, as_written
from keras_transfer.distribute import ProcessGroup
from keras_transfer.optimizers.learning_rate_multiplier import (
    LearningRateMultiplier,
)

if TYPE_CHECKING:
    import tensorflow as tf


class ReplicaTrainer:
    """Fits a compiled model under a `tf.distribute` strategy.

    Each batch is split over the replicas, and the loss is the mean over the
    whole batch, however it was split. Keras averages the means of the shards
    instead, which is a different value where the last batch does not divide.
    Gradients are summed before any other step, such as clipping. Keras' own
    `fit` also fails where a strategy has several workers.

    Args:
        model: The model, made in the scope of the strategy and compiled.
        loss: The loss that is minimised.
        make_metrics: Function that makes the metrics.
        strategy: The strategy.
    """

    def __init__(
        self,
        model: keras.Model,
        loss: keras.losses.Loss | Callable[..., Any],
        make_metrics: Callable[[], Sequence[keras.metrics.Metric]],
        strategy: tf.distribute.Strategy,
    ) -> None:
        self.model = model
        self._strategy = strategy
        self._loss = loss
        optimizer = model.optimizer
        if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
            optimizer = optimizer.inner_optimizer
        if isinstance(optimizer, LearningRateMultiplier):
            optimizer.takes_sums = True
        self._group = ProcessGroup(strategy)
        with strategy.scope():
            self._mean = _BatchMean(name="loss")
            self._metrics = make_metrics()
        self._traced: dict[Any, Any] = {}
        # Examples in whole batches, where this process reads a shard of each.
        self.sizes: Mapping[str, np.ndarray] = {}

    @property
    def optimizer(self) -> keras.optimizers.Optimizer:
        """The optimizer that the model was compiled with."""
        return self.model.optimizer

    @property
    def loss(self) -> keras.losses.Loss | Callable[..., Any]:
        """The loss that is minimised."""
        return self._loss

    @property
    def trainable_variables(self) -> list[keras.Variable]:
        """The trainable variables of the model."""
        variables: list[keras.Variable] = self.model.trainable_variables
        return variables

    def fit(
        self,
        batches: tf.data.Dataset,
        *,
        epochs: int,
        initial_epoch: int = 0,
        validation_data: tf.data.Dataset | None = None,
        callbacks: Sequence[keras.callbacks.Callback] = (),
        verbose: int = 0,
        shuffle: bool = False,
    ) -> None:
        """Trains, as `keras.Model.fit`.

        Args:
            batches: Whole batches of (inputs, labels) or (inputs, labels,
                weights).
            epochs: Number of the last epoch.
            initial_epoch: Number of completed epochs. Defaults to `0`.
            validation_data: Validation batches. Defaults to `None`.
            callbacks: Keras callbacks. With several workers they receive
                metrics at the end of each epoch, not of each batch. Defaults to
                `()`.
            verbose: `1` for a progress bar. Defaults to `0`.
            shuffle: Not used: the order is that of the batches. Defaults to
                `False`.
        """
        model = self.model
        shards = self._split(_weighted(batches), "train")
        validation_shards = None
        if validation_data is not None:
            validation_shards = self._split(
                _weighted(validation_data), "validation"
            )
        steps = int(batches.cardinality())
        callback_list = keras.callbacks.CallbackList(
            list(callbacks),
            add_progbar=verbose > 0,
            model=model,
            verbose=verbose,
            epochs=epochs,
            steps=steps if steps > 0 else None,
        )
        model.stop_training = False
        callback_list.on_train_begin()
        logs: dict[str, float] = {}
        for epoch in range(initial_epoch, epochs):
            logs = self._run_epoch(
                epoch, shards, validation_shards, callback_list
            )
            if b"1" in self._group.gather(b"%d" % model.stop_training):
                model.stop_training = True
                break
        callback_list.on_train_end(logs)

    def _run_epoch(
        self,
        epoch: int,
        shards: Any,
        validation_shards: Any,
        callback_list: keras.callbacks.CallbackList,
    ) -> dict[str, float]:
        self._reset()
        callback_list.on_epoch_begin(epoch)
        learn = self._compiled(self._learn, shards)
        for step, shard in enumerate(shards):
            callback_list.on_train_batch_begin(step)
            callback_list.on_train_batch_end(step, learn(*shard))
            # Several workers stop together, at the end of an epoch.
            if self.model.stop_training and self._group.size == 1:
                break
        logs = self._results()
        if validation_shards is not None:
            callback_list.on_test_begin()
            validation_logs = self._evaluate(validation_shards, callback_list)
            callback_list.on_test_end(validation_logs)
            logs |= {
                f"val_{name}": value for name, value in validation_logs.items()
            }
        callback_list.on_epoch_end(epoch, logs)
        return logs

    def evaluate(
        self,
        batches: tf.data.Dataset,
        *,
        return_dict: bool = True,
        verbose: int = 0,
    ) -> dict[str, float]:
        """Returns the metrics of batches, each example counted once.

        Args:
            batches: Batches of (inputs, labels) or (inputs, labels, weights).
            return_dict: Not used: metrics are by name. Defaults to `True`.
            verbose: Not used. Defaults to `0`.
        """
        return self._evaluate(self._split(_weighted(batches), "validation"))

    def _evaluate(
        self,
        shards: Any,
        callback_list: keras.callbacks.CallbackList | None = None,
    ) -> dict[str, float]:
        self._reset()
        measure = self._compiled(self._measure, shards)
        for step, shard in enumerate(shards):
            if callback_list is not None:
                callback_list.on_test_batch_begin(step)
            measure(*shard)
            if callback_list is not None:
                callback_list.on_test_batch_end(step)
        return self._results()

    def _compiled(self, step: Any, shards: Any) -> Any:
        """Compiles a step once for batches of any length."""
        import tensorflow as tf

        key = step.__name__, str(shards.element_spec)
        if key not in self._traced:
            # A concrete function: calling the tf.function of many models would
            # warn about retracing.
            self._traced[key] = tf.function(
                step, input_signature=shards.element_spec, autograph=False
            ).get_concrete_function()
        return self._traced[key]

    def _learn(self, *shard: Any) -> dict[str, tf.Tensor]:
        """One step on all replicas; returns the metrics so far."""
        self._strategy.run(self._learn_shard, shard)
        # Reading metrics would communicate between machines in each step.
        if self._group.size > 1:
            return {}
        metrics = [self._mean, *self._metrics]
        return {metric.name: metric.result() for metric in metrics}

    def _learn_shard(
        self, x: Any, y: Any, weights: Any, real: Any, size: Any
    ) -> None:
        """One step on one replica, on its shard of the batch."""
        import tensorflow as tf

        model, optimizer = self.model, self.model.optimizer
        with tf.GradientTape() as tape:
            outputs = model(x, training=True)
            loss = self._loss_of(y, outputs, weights, real, size)
            scaled = optimizer.scale_loss(loss)
        variables = model.trainable_variables
        gradients = tape.gradient(scaled, [v.value for v in variables])
        gradients = _summed(gradients)
        optimizer.apply_gradients(zip(gradients, variables, strict=True))
        self._update(loss, y, outputs, real, size)

    def _measure(self, *shard: Any) -> None:
        self._strategy.run(self._measure_shard, shard)

    def _measure_shard(
        self, x: Any, y: Any, weights: Any, real: Any, size: Any
    ) -> None:
        outputs = self.model(x, training=False)
        loss = self._loss_of(y, outputs, weights, real, size)
        self._update(loss, y, outputs, real, size)

    def _loss_of(
        self, y: Any, outputs: Any, weights: Any, real: Any, size: Any
    ) -> tf.Tensor:
        """Returns the contribution of a shard to the loss of the batch."""
        import tensorflow as tf

        loss, reduction = self._loss, "sum_over_batch_size"
        # Casts and expands labels as Keras does for losses and for functions.
        y, outputs = tf.cast(y, tf.float32), tf.cast(outputs, tf.float32)
        if isinstance(loss, keras.losses.Loss):
            loss, reduction = loss.call, loss.reduction
        elif (y.shape.rank, outputs.shape.rank) == (1, 2):
            y = y[:, None] if outputs.shape[1] == 1 else y
        values = tf.cast(loss(y, outputs), tf.float32)
        if values.shape.rank == 0:
            # A scalar is the mean over the shard: weigh it by the share of the
            # shard in the batch.
            data = values * tf.reduce_sum(weights * real) / size
        else:
            # Weights [n, 1, ...] times losses of the shard [n, ...].
            per_example = [-1, *[1] * (values.shape.rank - 1)]
            data = tf.reduce_sum(
                values * tf.reshape(weights * real, per_example)
            )
            if reduction == "mean_with_sample_weight":
                # The weights of all shards: sum w_i l_i / sum w_i.
                (weight,) = _summed([tf.reduce_sum(weights * real)])
                data = tf.math.divide_no_nan(data, weight)
            elif reduction not in ("sum", "none", None):
                # Losses per example, such as one per pixel: the mean runs over
                # examples of the batch and these.
                inner = tf.size(values[:1], tf.int32)
                data = data / (size * tf.cast(inner, tf.float32))
        return data + self._penalties(tf.reduce_sum(real) / size)

    def _penalties(self, share: tf.Tensor) -> tf.Tensor:
        """Returns the contribution of a shard to the penalties of the batch."""
        import tensorflow as tf

        model = self.model
        losses = [tf.cast(loss, tf.float32) for loss in model.losses]
        # Keras appends penalties on weights last. They are equal on each
        # replica, which adds 1 / replicas of them. Those before are means over
        # the shard of the replica, weighed by its share of the batch.
        count = sum(v.regularizer is not None for v in model.trainable_weights)
        first = len(losses) - count
        total = tf.zeros(())
        if losses[:first]:
            total += tf.add_n(losses[:first]) * share
        if losses[first:]:
            replicas = self._strategy.num_replicas_in_sync
            total += tf.add_n(losses[first:]) / replicas
        return total

    def _update(
        self, loss: tf.Tensor, y: Any, outputs: Any, real: Any, size: Any
    ) -> None:
        import tensorflow as tf

        # `loss` is a share of the mean over the batch of `size` examples: times
        # `size` it is a sum over examples.
        self._mean.add(loss * size, tf.reduce_sum(real))
        for metric in self._metrics:
            metric.update_state(y, outputs, sample_weight=real)

    def _reset(self) -> None:
        for metric in (self._mean, *self._metrics):
            metric.reset_state()

    def _results(self) -> dict[str, float]:
        return {
            metric.name: float(np.asarray(metric.result()))
            for metric in (self._mean, *self._metrics)
        }

    def _split(self, batches: tf.data.Dataset, name: str) -> Any:
        """Returns the shards of this process, one for each of its replicas."""
        part = self._group.part_of(self._strategy.num_replicas_in_sync)
        shards = split(batches, part, self.sizes.get(name))
        return self._strategy.distribute_datasets_from_function(
            lambda _: shards
        )


@keras.saving.register_keras_serializable("keras_transfer")
class _BatchMean(keras.metrics.Mean):
    """The mean over examples, from the sums of replicas."""

    def add(self, total: Any, count: Any) -> None:
        """Adds a sum over examples, and their number."""
        self.total.assign_add(total)
        self.count.assign_add(count)


def _summed(gradients: Sequence[Any]) -> list[Any]:
    """Sums the gradients of the shards of a batch over all replicas."""
    import tensorflow as tf

    context = tf.distribute.get_replica_context()
    tensors = [tf.convert_to_tensor(g) for g in gradients if g is not None]
    sums = iter(context.all_reduce(tf.distribute.ReduceOp.SUM, tensors))
    return [None if g is None else next(sums) for g in gradients]


def split(
    batches: tf.data.Dataset,
    part: Part,
    sizes: np.ndarray | None = None,
) -> tf.data.Dataset:
    """Splits each batch into shards, and yields some of them.

    Sizes differ by at most one. No shard is empty, on which some networks fail
    and means are undefined: a batch with fewer examples than shards goes to
    every replica as a whole, each example weighing `1 / count`. So batch
    statistics are right as well.

    Args:
        batches: Batches of (inputs, labels, weights), as `_weighted` makes.
        part: Index of the first shard, index after the last, and number of
            shards.
        sizes: Number of examples in each whole batch, where `batches` hold only
            the shard of this process. Defaults to `None`: whole batches.

    Returns:
        `tf.data.Dataset` of (inputs, labels, weights, real, size), one per
        shard: `real` is the weight that an example counts with, `size` the
        number of examples of the whole batch.

    Example:

    >>> ones = np.ones([5, 1], np.float32)
    >>> batches = tf.data.Dataset.from_tensors((ones, ones, ones[:, 0]))
    >>> [len(x) for x, *_ in split(batches, (0, 2, 2))]
    [2, 3]
    """
    import tensorflow as tf

    first, last, count = part

    def shards_of(
        example: tuple[Any, Any, tf.Tensor], whole: tf.Tensor
    ) -> tf.data.Dataset:
        present = tf.shape(example[2])[0]
        size = tf.where(whole < 0, present, whole)
        few = size < count
        # Offset of the examples at hand in the whole batch.
        begin = tf.where((whole < 0) | few, 0, first * size // count)
        share = tf.where(few, 1 / count, 1.0)
        dataset = None
        for place in range(first, last):
            # Shard k of n holds the rows [k * size // n, (k + 1) * size // n).
            low = tf.where(few, 0, place * size // count - begin)
            high = tf.where(few, present, (place + 1) * size // count - begin)
            real = tf.fill([high - low], share)
            rows = tf.nest.map_structure(
                lambda t, low=low, high=high: t[low:high], example
            )
            shard = tf.data.Dataset.from_tensors(
                (*rows, real, tf.cast(size, tf.float32))
            )
            dataset = shard if dataset is None else dataset.concatenate(shard)
        return dataset

    wholes = tf.data.Dataset.from_tensors(np.int32(-1)).repeat()
    if sizes is not None:
        wholes = tf.data.Dataset.from_tensor_slices(sizes.astype(np.int32))
    pairs = tf.data.Dataset.zip(batches, wholes)
    return pairs.flat_map(as_written(shards_of)).prefetch(tf.data.AUTOTUNE)


def _weighted(batches: tf.data.Dataset) -> tf.data.Dataset:
    """Adds a weight of 1 for each example, unless examples have weights."""
    import tensorflow as tf

    def weigh(x: Any, y: tf.Tensor, own: Any = None) -> tuple[Any, ...]:
        if own is not None:
            return x, y, tf.reshape(tf.cast(own, tf.float32), [-1])
        return x, y, tf.ones([tf.shape(y)[0]])

    return batches.map(weigh)
