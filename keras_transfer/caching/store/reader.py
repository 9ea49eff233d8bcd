"""Reads stored activations as batches to train on."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from keras_transfer.caching.store.entry import Entry
from keras_transfer.data.pipeline import (
    Epoch,
    as_written,
    epoch_order,
    gather_batches,
    slice_batches,
)

if TYPE_CHECKING:
    import tensorflow as tf


# Activations up to this many bytes are copied into tensors.
_MAX_TENSOR_BYTES = 512 * 2**20


@dataclasses.dataclass(frozen=True, eq=False)
class Reader:
    """Activations of some examples, with their labels.

    Args:
        entries: Entry of each view.
        digests: Digests of the examples in order, uint8 `(n, 16)`.
        labels: Array `(n, ...)`.
    """

    entries: Sequence[Entry]
    digests: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.digests)

    @functools.cached_property
    def _places(self) -> list[np.ndarray]:
        return [entry.find(self.digests) for entry in self.entries]

    def arrays(self) -> list[np.ndarray]:
        """Reads all examples, of the first view.

        Returns:
            An array `(n, ...)` for each tensor.
        """
        return self.entries[0].gather(self._places[0])

    def batches(
        self,
        batch_size: int,
        *,
        shuffle: bool = False,
        seed: int = 0,
        epoch: Epoch = 0,
        mixup: float = 0.0,
        order: Callable[[int], np.ndarray] | None = None,
    ) -> tf.data.Dataset:
        """Makes the batches of an epoch, in the order of uncached training.

        With several views, each example cycles through them, one per epoch.

        Args:
            batch_size: Number of examples in a batch.
            shuffle: Whether to shuffle, differently in each epoch. Defaults to
                `False`.
            seed: Seed of the order, the views and MixUp. Defaults to `0`.
            epoch: Index of the epoch, or a function that returns it. Defaults
                to `0`.
            mixup: Alpha of the Beta distribution that weighs two examples.
                Defaults to `0.0`, none.
            order: Function from the epoch to the indices that are read.
                Defaults to `None`: each example once.

        Returns:
            `tf.data.Dataset` of (activations, labels); activations are a tuple
            where several tensors cross the cut.

        Reference:
            - Verma et al., 2019, https://arxiv.org/abs/1806.05236 (MixUp of
              features)
        """
        import tensorflow as tf

        tensors = self.entries[0].tensors
        offsets = np.random.default_rng(seed).permutation(len(self))
        if order is None:
            order = epoch_order(len(self), shuffle, seed)
        count = len(order(0))
        if not mixup and self._num_bytes <= _MAX_TENSOR_BYTES:
            batches = self._from_tensors(
                batch_size, order, offsets, epoch, count
            )
            return batches.prefetch(tf.data.AUTOTUNE)
        specs = [(tensor.shape, np.dtype(tensor.dtype)) for tensor in tensors]

        def load(indices: np.ndarray, number: int) -> list[np.ndarray]:
            arrays = self._load(indices, offsets[indices] + number)
            arrays.append(self.labels[indices])
            if mixup:
                arrays = _mix(arrays, mixup, (seed, number, *indices[:2]))
            return arrays

        batches = gather_batches(
            load,
            [*specs, (self.labels.shape[1:], self.labels.dtype)],
            num_examples=count,
            batch_size=batch_size,
            order=order,
            initial_epoch=epoch,
        )
        return batches.map(as_written(_as_pair)).prefetch(tf.data.AUTOTUNE)

    @property
    def _num_bytes(self) -> int:
        row = sum(tensor.num_bytes for tensor in self.entries[0].tensors)
        return row * len(self.entries) * len(self)

    @functools.cached_property
    def _tensors(self) -> tuple[list[tf.Tensor], tf.Tensor]:
        """Activations of all views, concatenated, and the labels."""
        import tensorflow as tf

        by_view = [
            entry.gather(places)
            for entry, places in zip(self.entries, self._places, strict=True)
        ]
        with tf.device("CPU"):
            return [
                tf.constant(np.concatenate(arrays))
                for arrays in zip(*by_view, strict=True)
            ], tf.constant(self.labels)

    def _from_tensors(
        self,
        batch_size: int,
        order: Callable[[int], np.ndarray],
        offsets: np.ndarray,
        epoch: Epoch,
        num_drawn: int,
    ) -> tf.data.Dataset:
        """Gathers rows within TensorFlow: Python runs once per epoch."""
        import tensorflow as tf

        count, views = len(self), len(self.entries)
        tensors, labels = self._tensors

        def rows_of(number: int) -> np.ndarray:
            indices = order(number)
            view = (offsets[indices] + number) % views
            # [batch, 2]: row of the label, and row of the activations, which
            # are [views * examples, ...].
            return np.stack([indices, view * count + indices], axis=1)

        def gather(rows: tf.Tensor) -> tuple[Any, tf.Tensor]:
            arrays = [tf.gather(tensor, rows[:, 1]) for tensor in tensors]
            return _as_pair(*arrays, tf.gather(labels, rows[:, 0]))

        return slice_batches(
            rows_of, num_drawn, batch_size=batch_size, initial_epoch=epoch
        ).map(as_written(gather), tf.data.AUTOTUNE)

    def _load(
        self, indices: np.ndarray, offsets: np.ndarray
    ) -> list[np.ndarray]:
        if len(self.entries) == 1:
            return self.entries[0].gather(self._places[0][indices])
        views = offsets % len(self.entries)
        result: list[Any] = [
            np.empty((len(indices), *t.shape), t.dtype)
            for t in self.entries[0].tensors
        ]
        for view in np.unique(views):
            chosen = views == view
            places = self._places[view][indices[chosen]]
            arrays = self.entries[view].gather(places)
            for out, array in zip(result, arrays, strict=True):
                out[chosen] = array
        return result


def _as_pair(*parts: tf.Tensor) -> tuple[Any, tf.Tensor]:
    """Returns activations, a tuple if several tensors, and labels."""
    return (parts[0] if len(parts) == 2 else parts[:-1]), parts[-1]


def _mix(
    arrays: list[np.ndarray], alpha: float, seed: tuple[int, ...]
) -> list[np.ndarray]:
    """Mixes each example and its label with another one of the batch."""
    generator = np.random.default_rng([int(number) for number in seed])
    count = len(arrays[0])
    other = generator.permutation(count)
    weight = generator.beta(alpha, alpha, count)
    mixed = []
    for array in arrays:
        # Weights [batch, 1, ...], in float32 to match the activations.
        share = weight.reshape(-1, *[1] * (array.ndim - 1)).astype(np.float32)
        joined = share * array + (1 - share) * array[other]
        mixed.append(joined.astype(array.dtype))
    return mixed
