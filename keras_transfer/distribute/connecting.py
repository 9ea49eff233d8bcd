"""`connect_workers`: connects the processes of a distributed training."""

from __future__ import annotations

from typing import TYPE_CHECKING

from keras_transfer.distribute.devices import choose_devices
from keras_transfer.distribute.rendezvous import cluster_of_environment, meet

if TYPE_CHECKING:
    import tensorflow as tf


def connect_workers(
    timeout: float = 300.0, *, patience: float = 3600.0
) -> tf.distribute.Strategy | None:
    """Connects this process to the others of a distributed training.

    Call it first in the script, before anything makes a tensor. All processes
    run the same script, each with its own `TF_CONFIG`:

        {"cluster": {"worker": ["host-a:29500", "host-b:29500"]},
         "task": {"type": "worker", "index": 0}}

    Worker 0 is the chief, which writes checkpoints. Without `TF_CONFIG`, or
    with one worker in it, the script runs on this machine's GPUs, or its CPU.

    Args:
        timeout: Seconds to wait for the other workers. Defaults to `300.0`.
        patience: Seconds that a worker then waits for another one that is
            busy, for example with a long exact probe. If a script swallows an
            exception on one worker, the others block until `patience` expires.
            Defaults to `3600.0`.

    Returns:
        A value for `devices` of `fine_tune` and `extract_features`: a
        `tf.distribute.MultiWorkerMirroredStrategy`, or the strategy of
        `"auto"` for a single process.

    Raises:
        ValueError: If `TF_CONFIG` is invalid, or differs between workers.
        TimeoutError: If a worker is missing; the message names it.
        RuntimeError: If TensorFlow is initialised already.
        OSError: If the port of this process is in use.

    Example:

    >>> devices = connect_workers()
    >>> devices is None
    True

    Reference:
        - https://www.tensorflow.org/guide/distributed_training
    """
    for name, value in (("timeout", timeout), ("patience", patience)):
        if not value > 0:
            raise ValueError(
                f"`{name}` must be above 0 seconds. Received: {name}={value!r}"
            )
    cluster = cluster_of_environment()
    if cluster is None or len(cluster.addresses) < 2:
        return choose_devices("auto")
    import tensorflow as tf

    if _is_initialised():
        raise RuntimeError(
            "`connect_workers` must come before anything that makes a tensor, "
            "a dataset or a model, since TensorFlow can join other processes "
            "only when it starts. Received: TensorFlow is initialised. Make it "
            "the first call of the script, after the imports."
        )
    gpus = len(tf.config.list_physical_devices("GPU"))
    meet(cluster, {"TensorFlow": tf.__version__, "GPUs": gpus}, timeout)
    options = tf.distribute.experimental.CommunicationOptions(
        timeout_seconds=patience
    )
    return tf.distribute.MultiWorkerMirroredStrategy(
        communication_options=options
    )


def _is_initialised() -> bool:
    """Returns `True` if TensorFlow has initialised its devices."""
    import tensorflow as tf

    # There is no direct query, but this setting is read-only afterwards.
    threads = tf.config.threading
    count = threads.get_inter_op_parallelism_threads()
    try:
        threads.set_inter_op_parallelism_threads(count + 1)
    except RuntimeError:
        return True
    threads.set_inter_op_parallelism_threads(count)
    return False
