"""`connect_workers`: joins this process to the others of a training."""

from __future__ import annotations

from typing import TYPE_CHECKING

from keras_transfer.distribute.devices import choose_devices
from keras_transfer.distribute.rendezvous import cluster_of_environment, meet

if TYPE_CHECKING:
    import tensorflow as tf


def connect_workers(
    timeout: float = 300.0, *, patience: float = 3600.0
) -> tf.distribute.Strategy | None:
    """Joins this process to the others of a training.

    To be called before anything else makes a tensor: first in the script,
    which all processes run, each with its own `TF_CONFIG`:

        {"cluster": {"worker": ["host-a:29500", "host-b:29500"]},
         "task": {"type": "worker", "index": 0}}

    Worker 0 is the chief, which writes checkpoints. Without `TF_CONFIG`, or
    with one worker in it, the script runs on this machine's GPUs, or its CPU.

    Args:
        timeout: Seconds to wait for the others. Defaults to `300.0`.
        patience: Seconds that one may wait for another afterwards, which is
            there and does something else: an error that was caught, an exact
            probe that takes long. Defaults to `3600.0`.

    Returns:
        What `devices` of `fine_tune` and `extract_features` takes: a
        `tf.distribute.MultiWorkerMirroredStrategy`, or what `"auto"` means.

    Raises:
        ValueError: If `TF_CONFIG` is not as above, or the workers were not
            told the same.
        TimeoutError: If one of them does not come; it names which.
        RuntimeError: If TensorFlow has begun already.
        OSError: If the port of this process is taken.

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

    if _has_begun():
        raise RuntimeError(
            "`connect_workers` must come before anything that makes a tensor, "
            "a dataset or a model: TensorFlow can join other processes only "
            "when it starts. Received: a TensorFlow that has begun. Make it "
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


def _has_begun() -> bool:
    """Whether TensorFlow has settled on its devices."""
    import tensorflow as tf

    # Nobody says so but what can be set only before.
    threads = tf.config.threading
    count = threads.get_inter_op_parallelism_threads()
    try:
        threads.set_inter_op_parallelism_threads(count + 1)
    except RuntimeError:
        return True
    threads.set_inter_op_parallelism_threads(count)
    return False
