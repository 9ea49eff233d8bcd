"""Data of a phase: cached activations, or the examples themselves.

Both kinds have the same methods, so that the loop need not tell them apart.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, NamedTuple, Protocol

import keras
import numpy as np

from keras_transfer.caching.eligibility import CachePolicy
from keras_transfer.caching.store.reader import Reader
from keras_transfer.data.adapters.extra_inputs import (
    cyclic_order,
    join,
    with_first,
)
from keras_transfer.data.adapters.training_data import TrainingData
from keras_transfer.data.pipeline import Epoch

if TYPE_CHECKING:
    import tensorflow as tf


class Vectors(NamedTuple):
    """Input vectors of the output layer of a head.

    Attributes:
        features: Array `(n, d)`.
        labels: Array `(n, ...)`.
        weights: Weights of the examples, `(n,)`, or `None`. Defaults to `None`.
    """

    features: np.ndarray
    labels: np.ndarray
    weights: np.ndarray | None = None


class PhaseData(Protocol):
    """The batches of a phase, and the network that takes them.

    Attributes:
        network: The model, or its part above a cut.
        sizes: Sizes of whole batches by split, where a process reads a shard of
            each batch.
    """

    @property
    def network(self) -> keras.Model:
        """The model, or its part above a cut."""
        ...

    @property
    def sizes(self) -> Mapping[str, np.ndarray]:
        """Sizes of whole batches, where shards of them are read."""
        ...

    def train(self, epoch: Callable[[], int]) -> tf.data.Dataset:
        """Makes the training batches.

        Args:
            epoch: Function that returns the index of the epoch.
        """
        ...

    def validation(self) -> tf.data.Dataset | None:
        """Makes the validation batches, if there are any."""
        ...

    def vectors(self, name: str) -> Vectors | None:
        """Returns the input vectors of the output layer, where cached.

        Args:
            name: `"train"` or `"validation"`.
        """
        ...


class UncachedPhase:
    """A phase that computes the whole model in each pass.

    Args:
        model: The model.
        data: The data. Its datasets are made once, since they hold decoded
            images.
    """

    def __init__(self, model: keras.Model, data: TrainingData) -> None:
        self.network = model
        self.sizes: Mapping[str, np.ndarray] = data.sizes
        self._data = data
        self._epoch: Callable[[], int] = int
        self._train = data.train(lambda: self._epoch())
        self._validation = (
            None if data.validation is None else data.validation()
        )

    def train(self, epoch: Callable[[], int]) -> tf.data.Dataset:
        """Returns the training batches.

        Args:
            epoch: Function that returns the index of the epoch.
        """
        self._epoch = epoch
        return self._train

    def validation(self) -> tf.data.Dataset | None:
        """Returns the validation batches, if there are any."""
        return self._validation

    def vectors(self, name: str) -> Vectors | None:
        """Returns `None`: nothing is cached.

        Args:
            name: Not used.
        """
        return None


class CachedPhase:
    """A phase that trains on cached activations.

    Args:
        suffix: The model above the cut, over the layers of the whole one.
        readers: Readers of activations: `"train"`, perhaps `"validation"`, and
            the data sets carried along in each batch.
        policy: Batch size, seed and augmentation.
    """

    sizes: Mapping[str, np.ndarray] = {}

    def __init__(
        self,
        suffix: keras.Model,
        readers: Mapping[str, Reader],
        policy: CachePolicy,
    ) -> None:
        self.network = suffix
        self._readers = readers
        self._policy = policy

    def on(self, suffix: keras.Model) -> CachedPhase:
        """Returns the same activations for a copy of the network.

        Args:
            suffix: The copy above the same cut.
        """
        return CachedPhase(suffix, self._readers, self._policy)

    def seeded(self, seed: int) -> CachedPhase:
        """Returns the same activations in the order of another seed.

        Args:
            seed: The seed.
        """
        policy = dataclasses.replace(self._policy, seed=seed)
        return CachedPhase(self.network, self._readers, policy)

    @property
    def num_examples(self) -> int:
        """Number of training examples."""
        return len(self._readers["train"])

    @property
    def labels(self) -> np.ndarray:
        """The labels of the training examples."""
        return self._readers["train"].labels

    def train(self, epoch: Epoch) -> tf.data.Dataset:
        """Makes the training batches.

        Args:
            epoch: Index of the epoch, or a function that returns it.
        """
        policy = self._policy
        batches = self._readers["train"].batches(
            policy.batch_size,
            shuffle=True,
            seed=policy.seed,
            epoch=epoch,
            mixup=policy.augment.mixup if policy.augment else 0.0,
        )
        if self._carried:
            more = (
                reader.batches(
                    policy.batch_size,
                    epoch=epoch,
                    order=cyclic_order(
                        len(reader), self.num_examples, policy.seed
                    ),
                )
                for reader in self._carried
            )
            batches = join(batches, _inputs_of(tuple(more)))
        return batches

    def validation(self) -> tf.data.Dataset | None:
        """Makes the validation batches, if there are any."""
        if "validation" not in self._readers:
            return None
        size = self._policy.batch_size
        batches = self._readers["validation"].batches(size)
        if self._carried:
            first = [
                tensor[:1]
                for reader in self._carried
                for tensor in reader.arrays()
            ]
            batches = with_first(batches, first)
        return batches

    def vectors(self, name: str) -> Vectors | None:
        """Returns the input vectors of the output layer, where cached.

        Args:
            name: `"train"` or `"validation"`.
        """
        reader = self._readers.get(name)
        if reader is None or len(reader.entries[0].tensors) > 1:
            return None
        if len(reader.entries[0].tensors[0].shape) != 1:
            return None
        return Vectors(reader.arrays()[0], reader.labels)

    @functools.cached_property
    def _carried(self) -> list[Reader]:
        splits = ("train", "validation")
        return [r for name, r in self._readers.items() if name not in splits]


def _inputs_of(carried: tuple[tf.data.Dataset, ...]) -> tf.data.Dataset:
    """Zips the inputs of datasets and drops their labels."""
    import tensorflow as tf

    def flatten(*batches: tuple[tf.Tensor, tf.Tensor]) -> tuple[tf.Tensor, ...]:
        return tuple(tf.nest.flatten([inputs for inputs, _ in batches]))

    return tf.data.Dataset.zip(*carried).map(flatten)
