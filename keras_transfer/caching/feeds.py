"""Computes activations from inputs, or from other activations."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import keras
import numpy as np

from keras_transfer.caching.compiled import Compute
from keras_transfer.caching.store.entry import Entry
from keras_transfer.caching.views import View
from keras_transfer.data.examples import Examples
from keras_transfer.data.pipeline import epoch_order, make_batches

if TYPE_CHECKING:
    import tensorflow as tf


class Computed(NamedTuple):
    """Outputs computed for some examples.

    Attributes:
        view: Index of the view.
        rows: Indices of the examples.
        outputs: Arrays of the tensors of each target.
    """

    view: int
    rows: np.ndarray
    outputs: list[list[np.ndarray]]


# Function from a mask of missing examples, bool [views, examples], to outputs.
Feed = Callable[[np.ndarray], Iterator[Computed]]


def feed_inputs(
    examples: Examples,
    compute: Compute,
    sizes: Sequence[int],
    views: Sequence[View],
    batch_size: int,
) -> Feed:
    """Makes a feed that reads the inputs and computes a network.

    Each input is read once, whatever the number of views.

    Args:
        examples: The inputs.
        compute: Function from inputs to the tensors of all targets, in order;
            made by `compiled`.
        sizes: Number of tensors of each target.
        views: Views of each input.
        batch_size: Number of inputs in a batch.

    Returns:
        A `Feed`.
    """
    import tensorflow as tf

    transforms = [
        None
        if view.kind == "clean"
        else tf.function(view.make(examples.shape[-1]))
        for view in views
    ]

    def feed(missing: np.ndarray) -> Iterator[Computed]:
        rows = np.flatnonzero(missing.any(axis=0))
        batches = make_batches(
            lambda index: examples.read(int(rows[index])),
            rows,
            examples.shape,
            batch_size=batch_size,
            drop_remainder=False,
            order=epoch_order(len(rows), shuffle=False, seed=0),
            initial_epoch=0,
            dtype=examples.numpy_dtype,
        )
        for images, numbers in batches.prefetch(2):
            batch = np.asarray(numbers)
            for index, view in enumerate(views):
                selected = missing[index, batch]
                if not selected.any():
                    continue
                inputs = images if selected.all() else images[selected]
                chosen = batch[selected]
                transform = transforms[index]
                if transform is not None:
                    seeds = view.seeds(examples.digests[chosen])
                    inputs = transform(inputs, tf.constant(seeds))
                outputs = compute(inputs)
                yield Computed(index, chosen, _grouped(outputs, sizes))

    return feed


def feed_entries(
    stored: Sequence[Entry],
    digests: np.ndarray,
    network: keras.Model,
    sizes: Sequence[int],
    batch_size: int,
) -> Feed:
    """Makes a feed that starts from cached activations of an earlier cut.

    Args:
        stored: Entries with the activations, by view.
        digests: Digests of the examples, uint8 `(n, 16)`.
        network: Model from these to the tensors of all targets, in order.
        sizes: Number of tensors of each target.
        batch_size: Number of examples in a batch.

    Returns:
        A `Feed`.
    """
    import tensorflow as tf

    @tf.function(
        input_signature=[
            [
                tf.TensorSpec((None, *tensor.shape), tensor.dtype)
                for tensor in stored[0].tensors
            ]
        ],
        autograph=False,
    )
    def compute(arrays: list[tf.Tensor]) -> list[tf.Tensor]:
        inputs = arrays[0] if len(arrays) == 1 else arrays
        return keras.tree.flatten(network(inputs, training=False))

    traced = compute.get_concrete_function()

    def feed(missing: np.ndarray) -> Iterator[Computed]:
        for view, entry in enumerate(stored):
            rows = np.flatnonzero(missing[view])
            for start in range(0, len(rows), batch_size):
                batch = rows[start : start + batch_size]
                arrays = entry.gather(entry.find(digests[batch]))
                outputs = traced([tf.constant(a) for a in arrays])
                yield Computed(view, batch, _grouped(outputs, sizes))

    return feed


def _grouped(
    outputs: list[Any], sizes: Sequence[int]
) -> list[list[np.ndarray]]:
    arrays = iter([np.asarray(output) for output in outputs])
    return [[next(arrays) for _ in range(size)] for size in sizes]
