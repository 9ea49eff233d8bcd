"""Costs of computing, caching and reading activations on this machine."""

from __future__ import annotations

import dataclasses
import math
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np

from keras_transfer.caching.cuts import Cut
from keras_transfer.structure import graph

# One training step costs a forward pass and about two more for the gradients.
BACKWARD = 3.0


# Overhead of Keras and TensorFlow in each training step, in seconds.
_SECONDS_PER_STEP = 2.5e-3


_PROBE_BYTES = 32 * 2**20


class Rates(NamedTuple):
    """Throughput of this machine, per second.

    Attributes:
        flops: Operations of a forward pass, as measured for extraction. Where
            that is folded, training from pixels is slower than this says.
        gather: Bytes of cached rows that can be read.
    """

    flops: float
    gather: float


@dataclasses.dataclass(frozen=True)
class Candidate:
    """A phase that could train on cached activations.

    Attributes:
        cut: Cut at which they would be cached.
        epochs: Epochs of the phase.
        passes: Number of passes over the training examples.
        train: Number of training examples.
        held_out: Number of validation examples.
        views: Number of views of each training example.
        row_bytes: Size of one example in bytes.
        frozen_flops: Operations below the cut, for one example.
        flops: Operations of the whole forward pass.
    """

    cut: Cut
    epochs: int
    passes: int
    train: int
    held_out: int
    views: int
    row_bytes: int
    frozen_flops: int
    flops: int

    @property
    def num_bytes(self) -> int:
        """Size of the whole cache in bytes."""
        return self.row_bytes * (self.train * self.views + self.held_out)

    @property
    def worth(self) -> float:
        """Operations saved for each cached byte."""
        # The first pass is computed either way.
        saved = (self.passes - 1) * self.frozen_flops * self.train
        return saved / max(self.num_bytes, 1)

    def seconds(self, rates: Rates, batch_size: int) -> tuple[float, float]:
        """Returns the expected time of the phase, with and without the cache.

        Args:
            rates: Throughput of the machine.
            batch_size: Number of examples in a step.

        Returns:
            Seconds from the cache, extraction included, and seconds without.
        """
        # Seconds for one example to pass below and above the cut, forward.
        below = self.frozen_flops / rates.flops
        above = (self.flops - self.frozen_flops) / rates.flops
        step = _SECONDS_PER_STEP / batch_size
        # One epoch above the cut: forward and backward for training examples,
        # forward alone for validation examples.
        epoch = self.train * (BACKWARD * above + step) + self.held_out * above
        examples = self.train + self.held_out
        # Without a cache every pass computes the frozen part again.
        direct = self.epochs * epoch + self.passes * examples * below
        # With it, each view of an example is extracted once.
        first = self.train * self.views + self.held_out
        # Bytes that are written once and read in each pass.
        num_bytes = (first + self.passes * examples) * self.row_bytes
        cached = self.epochs * epoch + first * below + num_bytes / rates.gather
        return cached, direct


def output_shapes(
    network: keras.Model, shapes: Sequence[tuple[int, ...]]
) -> list[tuple[int, ...]]:
    """Returns the shapes of the outputs for inputs of these shapes.

    Args:
        network: A functional model.
        shapes: Shapes of its inputs, without the batch.

    Returns:
        List of shapes without the batch.
    """
    *_, (_, outputs) = graph.propagate(network, shapes)
    return outputs


def count_flops(network: keras.Model, shapes: Sequence[tuple[int, ...]]) -> int:
    """Counts floating-point operations of a forward pass for one example.

    Counts two per kernel weight and position at which the kernel is applied,
    and one per output element of any other layer. Products of activations, as
    in attention, are left out.

    Args:
        network: A functional model.
        shapes: Shapes of its inputs, without the batch.

    Returns:
        Number of operations.
    """
    total = 0
    for operation, outputs in graph.propagate(network, shapes):
        if operation is None:
            continue
        shape = outputs[0]
        kernels = 0
        if "Embedding" not in type(operation).__name__:  # a look-up
            weights = getattr(operation, "weights", ())
            kernels = sum(math.prod(w.shape) for w in weights if w.ndim > 1)
        if kernels:
            # Multiply and add, for each weight at each position: kernel
            # [h, w, in, out] over an output [rows, columns, out].
            total += 2 * kernels * math.prod(shape[:-1])
        else:
            total += math.prod(shape)
    return total


def time_of(function: Callable[[], Any], min_seconds: float = 0.2) -> float:
    """Times a function and returns the shortest time of a call.

    Args:
        function: Function to time; already called once, so that it is warm.
        min_seconds: Seconds for which calls are repeated. Defaults to `0.2`.

    Returns:
        Seconds.
    """
    best = math.inf
    until = time.perf_counter() + min_seconds
    while time.perf_counter() < until:
        started = time.perf_counter()
        function()
        best = min(best, time.perf_counter() - started)
    return best


def measure_memory() -> float:
    """Measures how many bytes per second are gathered from memory."""
    rows = np.zeros((_PROBE_BYTES // 4096, 1024), np.float32)
    rows[:] = 1.0  # so that the system allocates the pages
    order = np.random.default_rng(0).permutation(len(rows))[:2048]
    return order.size * 4096 / time_of(lambda: rows[order], min_seconds=0.02)


def measure_disk(folder: Path) -> float:
    """Measures how many bytes per second are gathered from a folder.

    Data just written is in the page cache of the system; so are activations
    that are read in each pass, as far as memory allows.

    Args:
        folder: Folder to write in. Its nearest existing parent is used where it
            does not exist yet.

    Returns:
        Bytes per second.

    Raises:
        OSError: If it cannot be written to.
    """
    while not folder.exists():
        folder = folder.parent
    rows = np.ones((_PROBE_BYTES // 4096, 1024), np.float32)
    with tempfile.TemporaryFile(dir=folder) as file:
        rows.tofile(file)
        file.flush()
        mapped = np.memmap(file, np.float32, "r", shape=rows.shape)
        order = np.random.default_rng(0).permutation(len(rows))[:2048]
        seconds = time_of(lambda: mapped[order].sum(), min_seconds=0.02)
    return order.size * 4096 / seconds


def speed_up_bound(share: float, passes: int) -> float:
    """Returns an upper bound on the speed-up by caching.

    `[f + 3 (1 - f)] / [f / P + 3 (1 - f)]`.

    Args:
        share: Frozen fraction of the forward pass, in `[0, 1]`.
        passes: Number of passes over the examples, at least 1.

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
