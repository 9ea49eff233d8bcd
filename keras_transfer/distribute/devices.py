"""Choice of devices, as a `tf.distribute` strategy."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from keras_transfer._utils.checks import is_integer
from keras_transfer.distribute.process_group import ProcessGroup
from keras_transfer.distribute.rendezvous import cluster_of_environment

if TYPE_CHECKING:
    import keras
    import tensorflow as tf


def choose_devices(
    devices: Any, model: keras.Model | None = None
) -> tf.distribute.Strategy | None:
    """Returns the strategy for a `devices` argument.

    Args:
        devices: `None` for the strategy in whose scope the model was made, if
            any; `"auto"` for all GPUs of this machine, if there are several;
            the number of GPUs to use (or of logical CPUs, without a GPU); or a
            `tf.distribute.Strategy`.
        model: The model. Defaults to `None`.

    Returns:
        A strategy, or `None` for one device.

    Raises:
        ValueError: If there are fewer devices, the strategy does not mirror
            the model on all devices, or the model was made on other ones.
        TypeError: If `devices` is of another type.

    Example:

    >>> choose_devices(1) is None
    True
    """
    import tensorflow as tf

    made_in = None if model is None else model.distribute_strategy
    # Variables of a strategy stay with it, even where it has one device.
    is_bound = made_in is not None and (
        made_in.num_replicas_in_sync > 1
        or isinstance(made_in, tf.distribute.MirroredStrategy)
    )
    if model is not None:
        refuse_open_scope()
    if devices is None:
        return _check_mirrored(made_in) if is_bound else None
    if is_bound and devices is not made_in:
        raise ValueError(
            "`devices` must be omitted for a model that was made in the scope "
            f"of a strategy. Received: devices={devices!r:.100}"
        )
    if isinstance(devices, tf.distribute.Strategy):
        return _check_mirrored(devices)
    cluster = cluster_of_environment()
    if cluster is not None and len(cluster.addresses) > 1:
        raise ValueError(
            "`devices` must be the result of `connect_workers` if TF_CONFIG "
            f"names several workers. Received: devices={devices!r:.100}, and "
            f"TF_CONFIG with {len(cluster.addresses)} workers, each of which "
            "would train alone"
        )
    gpus = tf.config.list_logical_devices("GPU")
    available = gpus or tf.config.list_logical_devices("CPU")
    if isinstance(devices, str) and devices == "auto":
        count = len(gpus)
    elif is_integer(devices):
        count = devices
        if not 1 <= count <= len(available):
            raise ValueError(
                f"`devices` must be an integer in [1, {len(available)}]: there "
                f"are {len(available)} "
                f"{'GPUs' if gpus else 'logical CPUs'}. Received: "
                f"devices={devices}. To try it without GPUs, make logical CPUs "
                "first of all: `tf.config.set_logical_device_configuration("
                'tf.config.list_physical_devices("CPU")[0], '
                "[tf.config.LogicalDeviceConfiguration()] * 2)`."
            )
    else:
        raise TypeError(
            '`devices` must be "auto", an integer, a `tf.distribute.Strategy` '
            f"or None. Received: devices={devices!r:.100}"
        )
    if count <= 1:
        return None
    names = [device.name for device in available[:count]]
    # Collectives of two strategies in one process interfere. Logical CPUs do
    # not need any.
    reduce = None if gpus else tf.distribute.ReductionToOneDevice()
    return tf.distribute.MirroredStrategy(names, cross_device_ops=reduce)


def refuse_open_scope() -> None:
    """Raises within the scope of a strategy, for functions that train.

    Raises:
        ValueError: If a scope is open.
    """
    import tensorflow as tf

    if tf.distribute.has_strategy():
        strategy = type(tf.distribute.get_strategy()).__name__
        raise ValueError(
            "`devices` must be given instead of an open scope. Received: a "
            f"call within the scope of a {strategy}. Leave the scope, and "
            "pass devices=strategy."
        )


def _check_mirrored(strategy: tf.distribute.Strategy) -> tf.distribute.Strategy:
    """Returns a strategy; raises unless all devices have the same weights."""
    import tensorflow as tf

    kinds = (
        tf.distribute.MirroredStrategy,
        tf.distribute.MultiWorkerMirroredStrategy,
        tf.distribute.OneDeviceStrategy,
        tf.distribute.TPUStrategy,
    )
    if not isinstance(strategy, kinds):
        raise ValueError(
            "`devices` must be a strategy that keeps the same weights on all "
            "devices: "
            + ", ".join(kind.__name__ for kind in kinds)
            + f". Received: a {type(strategy).__name__}."
        )
    return strategy


def scope_of(devices: Any) -> contextlib.AbstractContextManager[Any]:
    """Returns the scope in which to make a model for `keras.Model.fit`.

    Args:
        devices: Devices, as for `choose_devices`.

    Raises:
        ValueError: If they belong to several processes.

    Example:

    >>> with scope_of(None):
    ...     model = keras.Sequential([keras.layers.Dense(1)])
    """
    strategy = choose_devices(devices)
    if ProcessGroup(strategy).size > 1:
        raise ValueError(
            "`devices` must be devices of this machine: `keras.Model.fit` "
            "fails with several workers. Received: a strategy over several. "
            "Build the model without it, and pass `devices` to `fine_tune`."
        )
    return contextlib.nullcontext() if strategy is None else strategy.scope()


def check_batch_size(
    batch_size: int, strategy: tf.distribute.Strategy | None
) -> None:
    """Raises if a batch has fewer examples than there are replicas.

    Args:
        batch_size: Number of examples in a batch, over all replicas.
        strategy: The strategy, or `None`.

    Raises:
        ValueError: If `batch_size` is too small.

    Example:

    >>> check_batch_size(32, None)
    """
    count = 1 if strategy is None else strategy.num_replicas_in_sync
    if batch_size < count:
        raise ValueError(
            "`batch_size` must be at least the number of replicas, since a "
            f"batch is split over them. Received: batch_size={batch_size}, "
            f"{count} replicas"
        )


def local_devices(
    strategy: tf.distribute.Strategy,
) -> tf.distribute.Strategy | None:
    """Returns the strategy over the devices of this process.

    Args:
        strategy: The strategy, over this process or several.

    Returns:
        The strategy if it spans several devices of this process alone, else
        `None`. With several processes each computes on its first device, so
        start one per GPU.
    """
    local = (
        ProcessGroup(strategy).size == 1 and strategy.num_replicas_in_sync > 1
    )
    return strategy if local else None


def split_over(
    strategy: tf.distribute.Strategy,
    compute: Callable[[tf.Tensor], list[tf.Tensor]],
    inputs: tf.Tensor,
) -> list[tf.Tensor]:
    """Computes a batch on all replicas, a shard on each.

    Args:
        strategy: Strategy over devices of this process.
        compute: Function from inputs `(n, ...)` to tensors `(n, ...)`.
        inputs: The batch.

    Returns:
        The tensors, in the order of the inputs.
    """
    import tensorflow as tf

    count = strategy.num_replicas_in_sync

    def compute_shard(batch: tf.Tensor) -> list[tf.Tensor]:
        context = tf.distribute.get_replica_context()
        index, size = context.replica_id_in_sync_group, tf.shape(batch)[0]
        low, high = index * size // count, (index + 1) * size // count
        # Some kernels reject empty inputs. Instead of an empty shard compute a
        # row, and drop its result.
        outputs = compute(batch[low : tf.maximum(high, low + 1)])
        return [tensor[: high - low] for tensor in outputs]

    return [
        tf.concat(strategy.experimental_local_results(output), axis=0)
        for output in strategy.run(compute_shard, (inputs,))
    ]
