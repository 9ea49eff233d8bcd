"""What computing, keeping and reading cost on this machine."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np

from keras_transfer import _graph

# One training step costs a forward pass and about two more for the gradients.
BACKWARD = 3.0
# What Keras and TensorFlow take for a step beside the mathematics, in seconds.
_STEP = 2.5e-3
_PROBE_BYTES = 32 * 2**20


def count_flops(network: keras.Model, shapes: Sequence[tuple[int, ...]]) -> int:
    """Counts floating-point operations of a forward pass for one example.

    Two for each weight of a kernel at each position that it is applied at, one
    for each number that other layers give; products of activations, as in
    attention, are left out.

    Args:
        network: A functional model.
        shapes: Shapes of its inputs, without the batch.

    Returns:
        An integer.
    """
    inputs = [keras.Input(shape) for shape in shapes]
    # In one graph, so that all shapes are known where `network` leaves them
    # open.
    outputs = _graph.inline(network, inputs[0] if len(inputs) == 1 else inputs)
    flat = keras.Model(inputs, outputs)
    total = 0
    for step in _graph.steps(flat):
        if not step.inputs:
            continue
        shape = step.outputs[0].shape[1:]
        weights = getattr(step.operation, "weights", ())
        kernels = sum(math.prod(w.shape) for w in weights if len(w.shape) > 1)
        if kernels:
            total += 2 * kernels * math.prod(d or 1 for d in shape[:-1])
        else:
            total += math.prod(d or 1 for d in shape)
    return total


def time_of(function: Callable[[], Any], least: float = 0.2) -> float:
    """Returns the seconds of a call, the best of those within a while.

    Args:
        function: What to call; it was called before.
        least: Seconds to go on for. Defaults to `0.2`.

    Returns:
        Seconds.
    """
    best = math.inf
    until = time.perf_counter() + least
    while time.perf_counter() < until:
        started = time.perf_counter()
        function()
        best = min(best, time.perf_counter() - started)
    return best


def measure_memory() -> float:
    """Returns the bytes a second that rows are gathered with from memory."""
    rows = np.zeros((_PROBE_BYTES // 4096, 1024), np.float32)
    rows[:] = 1.0  # so that there are pages behind it
    order = np.random.default_rng(0).permutation(len(rows))[:2048]
    return order.size * 4096 / time_of(lambda: rows[order], least=0.02)


def speed_up_bound(share: float, passes: int) -> float:
    """Returns how much faster training can become at most.

    `[f + 3 (1 - f)] / [f / P + 3 (1 - f)]`.

    Args:
        share: Part of the forward pass that is frozen, in `[0, 1]`.
        passes: Times that the examples are passed, at least 1.

    Returns:
        A factor.

    Example:

    >>> round(speed_up_bound(0.5, 10), 2)
    1.29

    Reference:
        - Nakandala & Kumar, 2022, https://doi.org/10.1145/3514221.3517846
    """
    above = BACKWARD * (1 - share)
    return (share + above) / (share / max(passes, 1) + above)


def step_seconds() -> float:
    """Returns what a step takes beside the mathematics."""
    return _STEP
