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


# Activations up to here, in bytes, are copied into tensors.
_SMALL = 512 * 2**20


@dataclasses.dataclass(frozen=True, eq=False)
class Reader:
    """Activations of some examples, with their labels.

    Args:
        entries: One for each view.
        digests: uint8 `(n, 16)`, of the examples, in order.
        labels: `(n, ...)`.
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
        """Makes the batches of an epoch, in the order that pixels come in.

        With several views each example shows another one in each epoch, until
        it showed them all.

        Args:
            batch_size: Examples in a batch.
            shuffle: Whether to shuffle, anew in each epoch. Defaults to
                `False`.
            seed: Of the order, the views and MixUp. Defaults to `0`.
            epoch: Number of the epoch, or a function that gives it. Defaults
                to `0`.
            mixup: Alpha of the Beta distribution that weighs two examples.
                Defaults to `0.0`, none.
            order: Function from the epoch to the indices that are read, in
                place of all of them once. Defaults to `None`.

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
        if not mixup and self._num_bytes <= _SMALL:
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
        """All activations, view after view, and the labels."""
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
        """Gathers by TensorFlow alone: Python has a part once an epoch."""
        import tensorflow as tf

        count, views = len(self), len(self.entries)
        tensors, labels = self._tensors

        def rows_of(number: int) -> np.ndarray:
            indices = order(number)
            looks = (offsets[indices] + number) % views
            return np.stack([indices, looks * count + indices], axis=1)

        def gather(rows: tf.Tensor) -> tuple[Any, tf.Tensor]:
            found = [tf.gather(tensor, rows[:, 1]) for tensor in tensors]
            return _as_pair(*found, tf.gather(labels, rows[:, 0]))

        return slice_batches(
            rows_of, num_drawn, batch_size=batch_size, initial_epoch=epoch
        ).map(as_written(gather), tf.data.AUTOTUNE)

    def _load(self, indices: np.ndarray, looks: np.ndarray) -> list[np.ndarray]:
        if len(self.entries) == 1:
            return self.entries[0].gather(self._places[0][indices])
        views = looks % len(self.entries)
        result: list[Any] = [
            np.empty((len(indices), *t.shape), t.dtype)
            for t in self.entries[0].tensors
        ]
        for view in np.unique(views):
            chosen = views == view
            places = self._places[view][indices[chosen]]
            found = self.entries[view].gather(places)
            for out, array in zip(result, found, strict=True):
                out[chosen] = array
        return result


def _as_pair(*parts: tf.Tensor) -> tuple[Any, tf.Tensor]:
    """Activations, a tuple where there are several tensors, and labels."""
    return (parts[0] if len(parts) == 2 else parts[:-1]), parts[-1]


def _mix(
    arrays: list[np.ndarray], alpha: float, seed: tuple[int, ...]
) -> list[np.ndarray]:
    """Joins each example with another one of its batch, labels and all."""
    generator = np.random.default_rng([int(number) for number in seed])
    count = len(arrays[0])
    other = generator.permutation(count)
    weight = generator.beta(alpha, alpha, count)
    mixed = []
    for array in arrays:
        share = weight.reshape(-1, *[1] * (array.ndim - 1)).astype(np.float32)
        joined = share * array + (1 - share) * array[other]
        mixed.append(joined.astype(array.dtype))
    return mixed
