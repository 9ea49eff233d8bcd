"""What computing, keeping and reading cost on this machine."""

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


# What Keras and TensorFlow take for a step beside the mathematics, in seconds.
_STEP = 2.5e-3


_PROBE_BYTES = 32 * 2**20


class Rates(NamedTuple):
    """What this machine does in a second.

    Attributes:
        flops: Operations of a forward pass, as it is extracted. Where that is
            folded, training from pixels is slower than this says.
        gather: Bytes that are read back.
    """

    flops: float
    gather: float


@dataclasses.dataclass(frozen=True)
class Candidate:
    """A phase that could run from kept activations.

    Attributes:
        cut: Where they would be kept.
        epochs: Epochs of the phase.
        passes: Times that the training examples pass.
        train: Training examples.
        held_out: Validation examples.
        views: Views of each training example.
        row_bytes: Bytes of one example.
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
        """Bytes of all that is kept."""
        return self.row_bytes * (self.train * self.views + self.held_out)

    @property
    def worth(self) -> float:
        """Operations that are saved for each byte."""
        saved = (self.passes - 1) * self.frozen_flops * self.train
        return saved / max(self.num_bytes, 1)

    def seconds(self, rates: Rates, batch_size: int) -> tuple[float, float]:
        """Returns what the phase takes, from what is kept and without.

        Args:
            rates: What the machine does.
            batch_size: Examples in a step.

        Returns:
            Two numbers of seconds.
        """
        below = self.frozen_flops / rates.flops
        above = (self.flops - self.frozen_flops) / rates.flops
        step = _STEP / batch_size
        each = self.train * (BACKWARD * above + step) + self.held_out * above
        examples = self.train + self.held_out
        direct = self.epochs * each + self.passes * examples * below
        first = self.train * self.views + self.held_out
        # Written once, read in each pass.
        moved = (first + self.passes * examples) * self.row_bytes
        kept = self.epochs * each + first * below + moved / rates.gather
        return kept, direct


def output_shapes(
    network: keras.Model, shapes: Sequence[tuple[int, ...]]
) -> list[tuple[int, ...]]:
    """Returns the shapes of the outputs for inputs of these shapes.

    Args:
        network: A functional model.
        shapes: Shapes of its inputs, without the batch.

    Returns:
        Shapes without the batch.
    """
    *_, (_, outputs) = graph.propagate(network, shapes)
    return outputs


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
            total += 2 * kernels * math.prod(shape[:-1])
        else:
            total += math.prod(shape)
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


def measure_disk(folder: Path) -> float:
    """Returns the bytes a second that rows are gathered with from a folder.

    What was just written is in the memory of the system; so is what is read
    in each pass, where there is room.

    Args:
        folder: Where to write; it, or the folder that it will be in.

    Returns:
        Bytes a second.

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
        seconds = time_of(lambda: mapped[order].sum(), least=0.02)
    return order.size * 4096 / seconds


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
