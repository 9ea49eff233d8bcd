"""Batches that carry further inputs besides the labelled ones."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from keras_transfer.data.adapters.training_data import Indexed, TrainingData
from keras_transfer.data.examples import examples_of
from keras_transfer.data.pipeline import Epoch, gather_batches

if TYPE_CHECKING:
    import tensorflow as tf


def carry(
    data: TrainingData,
    arrays: Mapping[str, np.ndarray],
    *,
    batch_size: int,
    seed: int,
) -> TrainingData:
    """Adds as many rows of other arrays to each training batch.

    Args:
        data: The labelled examples.
        arrays: Inputs of the model by name, with equal numbers of rows: row k
            of all of them belongs together.
        batch_size: Examples in a batch.
        seed: Seed of the order of rows; each comes once before any repeats.

    Returns:
        Training data whose batches are `((inputs, *carried), labels)`.

    Raises:
        ValueError: If arrays differ in their numbers of rows, or the labelled
            examples cannot be read by index.
    """
    if not arrays:
        return data
    if "train" not in data.indexed:
        raise ValueError(
            "`data` must be arrays, an `ImageData` or a `TextData` where an "
            "auxiliary loss has examples of its own. Received: a "
            "tf.data.Dataset."
        )
    sizes = {name: len(array) for name, array in arrays.items()}
    if len(set(sizes.values())) != 1 or not min(sizes.values()):
        raise ValueError(
            "`auxiliary` must have arrays with equal numbers of rows, at least "
            f"one. Received: {sizes}"
        )
    inputs = {name: np.asarray(array) for name, array in arrays.items()}
    count, rows = len(data.indexed["train"].examples), min(sizes.values())
    order = cyclic_order(rows, count, seed)

    def batches(epoch: Epoch) -> tf.data.Dataset:
        return gather_batches(
            lambda indices, _: [array[indices] for array in inputs.values()],
            [(array.shape[1:], array.dtype) for array in inputs.values()],
            num_examples=count,
            batch_size=batch_size,
            order=order,
            initial_epoch=epoch,
        )

    validation = data.validation
    first = [array[:1] for array in inputs.values()]
    return dataclasses.replace(
        data,
        train=lambda epoch: join(data.train(epoch), batches(epoch)),
        validation=None
        if validation is None
        else lambda: with_first(validation(), first),
        indexed={
            **data.indexed,
            **{
                name: Indexed(
                    examples_of(array),
                    functools.partial(np.zeros, (rows, 1), np.float32),
                )
                for name, array in inputs.items()
            },
        },
        carried=tuple(inputs),
    )


def cyclic_order(
    rows: int, count: int, seed: int
) -> Callable[[int], np.ndarray]:
    """Makes the function from an epoch to the rows that it draws.

    Args:
        rows: Number of rows.
        count: Number of rows drawn in an epoch.
        seed: Seed of the permutations.

    Returns:
        Function from the number of an epoch to int64 `(count,)`: permutations
        of all rows, one after the other.
    """
    cycles = -(-count // rows)

    # Batches of two epochs may be prefetched at the same time.
    @functools.lru_cache(maxsize=4)
    def draw(epoch: int) -> np.ndarray:
        parts = [
            np.random.default_rng((seed, epoch, cycle)).permutation(rows)
            for cycle in range(cycles)
        ]
        return np.concatenate(parts)[:count]

    return draw


def join(batches: tf.data.Dataset, carried: tf.data.Dataset) -> tf.data.Dataset:
    """Joins labelled batches with carried ones, batch by batch.

    Args:
        batches: Batches of `(inputs, labels)`.
        carried: Batches of tuples, with the same numbers of rows.

    Returns:
        `tf.data.Dataset` of `((inputs, *carried), labels)`.
    """
    import tensorflow as tf

    zipped = tf.data.Dataset.zip(batches, carried)
    return zipped.map(lambda batch, more: (_flat(batch[0], more), *batch[1:]))


def with_first(
    batches: tf.data.Dataset, first: Sequence[np.ndarray]
) -> tf.data.Dataset:
    """Adds dummy rows to validation batches, for a model with more inputs.

    They cost nothing: the loss is added only in training, and TensorFlow prunes
    the unused branch.

    Args:
        batches: Batches of `(inputs, labels)`.
        first: The first row of each of the carried arrays.

    Returns:
        `tf.data.Dataset` of `((inputs, *first), labels)`, as many rows each.
    """
    import tensorflow as tf

    def add(inputs: Any, labels: tf.Tensor, *weights: tf.Tensor) -> Any:
        count = tf.shape(labels)[0]
        more = tuple(tf.repeat(row, count, axis=0) for row in first)
        return (_flat(inputs, more), labels, *weights)

    return batches.map(add)


def _flat(inputs: Any, more: Sequence[Any]) -> tuple[Any, ...]:
    """Flattens inputs, of which a model above a cut may have several."""
    inputs = inputs if isinstance(inputs, tuple) else (inputs,)
    return (*inputs, *more)
