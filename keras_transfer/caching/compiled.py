"""A network compiled for inference, with constant weights where it may."""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from keras_transfer.distribute import local_devices, split_over

if TYPE_CHECKING:
    import tensorflow as tf


# The engine where numbers need not be those of the model beyond five digits:
# folded networks, and what goes on from them or is too large for it.
FOLDED = "tensorflow, folded"


# Weights up to this many bytes become constants of the graph. It is held a few
# times while it is optimized, and TensorFlow takes none above 2 GiB.
_MAX_CONSTANT_BYTES = 256 * 2**20


# From a batch of inputs to the tensors of a network, in a row.
Compute = Callable[[Any], list[Any]]


def compiled(
    network: keras.Model,
    shape: Sequence[int],
    folded: bool = False,
    strategy: tf.distribute.Strategy | None = None,
) -> Compute:
    """Compiles a network for batches of any size, when it is first called.

    Args:
        network: From inputs to tensors.
        shape: Of one input.
        folded: Whether weights become constants, as they are at the first
            call. TensorFlow folds BatchNormalization into kernels then: 1.4
            times the speed on a CPU, and other numbers from the sixth digit
            on, which training can amplify. Defaults to `False`.
        strategy: What splits a batch over the devices of this process.
            Defaults to `None`: one device.

    Returns:
        Function of inputs `(batch, ...)` of any dtype.
    """
    import tensorflow as tf

    dtype = network.inputs[0].dtype
    here = None if strategy is None else local_devices(strategy)

    def compute_part(inputs: tf.Tensor) -> list[tf.Tensor]:
        with fold_constants(network) if folded else contextlib.nullcontext():
            return keras.tree.flatten(network(inputs, training=False))

    @tf.function(
        input_signature=[tf.TensorSpec((None, *shape), dtype)], autograph=False
    )
    def compute(inputs: tf.Tensor) -> list[tf.Tensor]:
        if here is None:
            return compute_part(inputs)
        return split_over(here, compute_part, inputs)

    # Called by itself it would warn, where many networks are compiled.
    traced = functools.cache(compute.get_concrete_function)
    return lambda inputs: traced()(tf.cast(inputs, dtype))


def fold_constants(network: keras.Model) -> contextlib.AbstractContextManager:
    """Shows the weights of a network to what is traced as constants."""
    import tensorflow as tf

    size = sum(
        math.prod(v.shape) * np.dtype(v.dtype).itemsize for v in network.weights
    )
    if size > _MAX_CONSTANT_BYTES:
        return contextlib.nullcontext()
    with tf.init_scope():  # out of the graph that is being traced
        arrays = [(v, np.array(v)) for v in network.weights]
    return keras.StatelessScope(
        state_mapping=[(v, tf.constant(array)) for v, array in arrays]
    )
