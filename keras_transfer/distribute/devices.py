"""Which devices a computation runs on: a `tf.distribute` strategy."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from keras_transfer._utils.checks import is_integer
from keras_transfer.distribute.rendezvous import cluster_of_environment
from keras_transfer.distribute.team import ProcessGroup

if TYPE_CHECKING:
    import keras
    import tensorflow as tf


def choose_devices(
    devices: Any, model: keras.Model | None = None
) -> tf.distribute.Strategy | None:
    """Returns the strategy for what a user named.

    Args:
        devices: `None` for the strategy in whose scope the model was made, if
            there is one; `"auto"` for all GPUs of this machine, where there are
            several; how many GPUs to use (of logical CPUs where there is no
            GPU); or a `tf.distribute.Strategy`.
        model: The model. Defaults to `None`.

    Returns:
        A strategy, or `None` for one device.

    Raises:
        ValueError: If there are not so many devices, the strategy is not one
            that holds a copy of the model on each device, or the model was made
            on others.
        TypeError: If it is none of these.

    Example:

    >>> choose_devices(1) is None
    True
    """
    import tensorflow as tf

    made_in = None if model is None else model.distribute_strategy
    several = made_in is not None and made_in.num_replicas_in_sync > 1
    if tf.distribute.has_strategy() and model is not None:
        raise ValueError(
            "`devices` must be given instead of an open scope. Received: a "
            f"call within the scope of a {_open_one()}. Leave the scope, and "
            "pass devices=strategy."
        )
    if devices is None:
        return _checked(made_in) if several else None
    if several and devices is not made_in:
        raise ValueError(
            "`devices` must be left out for a model that was made on devices, "
            f"which trains there. Received: devices={devices!r:.100}"
        )
    if isinstance(devices, tf.distribute.Strategy):
        return _checked(devices)
    cluster = cluster_of_environment()
    if cluster is not None and len(cluster.addresses) > 1:
        raise ValueError(
            "`devices` must be what `connect_workers` returned where TF_CONFIG "
            f"names several workers. Received: devices={devices!r:.100}, and "
            f"TF_CONFIG with {len(cluster.addresses)} workers, each of which "
            "would train alone"
        )
    gpus = tf.config.list_logical_devices("GPU")
    there = gpus or tf.config.list_logical_devices("CPU")
    if isinstance(devices, str) and devices == "auto":
        count = len(gpus)
    elif is_integer(devices):
        count = devices
        if not 1 <= count <= len(there):
            raise ValueError(
                f"`devices` must be an integer in [1, {len(there)}]: there are "
                f"{len(there)} {'GPUs' if gpus else 'logical CPUs'}. Received: "
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
    names = [device.name for device in there[:count]]
    # Collectives of two strategies in one process get in each other's way;
    # logical CPUs need none.
    reduce = None if gpus else tf.distribute.ReductionToOneDevice()
    return tf.distribute.MirroredStrategy(names, cross_device_ops=reduce)


def _open_one() -> str:
    import tensorflow as tf

    return type(tf.distribute.get_strategy()).__name__


def _checked(strategy: tf.distribute.Strategy) -> tf.distribute.Strategy:
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
    """Returns the scope that a model for `fit` of Keras is made in.

    Args:
        devices: As for `choose_devices`.

    Raises:
        ValueError: If they are those of several processes.

    Example:

    >>> with scope_of(None):
    ...     model = keras.Sequential([keras.layers.Dense(1)])
    """
    strategy = choose_devices(devices)
    if ProcessGroup(strategy).size > 1:
        raise ValueError(
            "`devices` must be devices of this machine: `fit` of Keras fails "
            "with several workers. Received: a strategy over several. Build "
            "the model without, and give `devices` to `fine_tune`."
        )
    return contextlib.nullcontext() if strategy is None else strategy.scope()


def check_batch_size(
    batch_size: int, strategy: tf.distribute.Strategy | None
) -> None:
    """Raises where a batch has not an example for each replica.

    Args:
        batch_size: Examples in a batch, over all replicas.
        strategy: The strategy, or `None`.

    Raises:
        ValueError: If it has not.

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
        It; `None` for one device. A process of several computes on its first:
        start one for each GPU.
    """
    alone = (
        ProcessGroup(strategy).size == 1 and strategy.num_replicas_in_sync > 1
    )
    return strategy if alone else None


def split_over(
    strategy: tf.distribute.Strategy,
    compute: Callable[[tf.Tensor], list[tf.Tensor]],
    inputs: tf.Tensor,
) -> list[tf.Tensor]:
    """Computes a batch on all replicas, a part on each.

    Args:
        strategy: Over devices of this process.
        compute: Function from inputs `(n, ...)` to tensors `(n, ...)`.
        inputs: The batch.

    Returns:
        The tensors, in the order of the inputs.
    """
    import tensorflow as tf

    count = strategy.num_replicas_in_sync

    def part(batch: tf.Tensor) -> list[tf.Tensor]:
        context = tf.distribute.get_replica_context()
        place, size = context.replica_id_in_sync_group, tf.shape(batch)[0]
        low, high = place * size // count, (place + 1) * size // count
        # Some kernels refuse an empty part: it computes a row, and drops it.
        found = compute(batch[low : tf.maximum(high, low + 1)])
        return [tensor[: high - low] for tensor in found]

    return [
        tf.concat(strategy.experimental_local_results(output), axis=0)
        for output in strategy.run(part, (inputs,))
    ]
