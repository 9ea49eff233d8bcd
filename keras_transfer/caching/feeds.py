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
    """What was computed of some examples.

    Attributes:
        view: Index of the view.
        rows: Indices of the examples.
        outputs: For each target the arrays of its tensors.
    """

    view: int
    rows: np.ndarray
    outputs: list[list[np.ndarray]]


# From the missing ones, bool (views, examples), to what was computed of them.
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
        compute: What `compiled` made of the network from inputs to the tensors
            of all targets, in a row.
        sizes: How many tensors each target has.
        views: How to look at the inputs.
        batch_size: Inputs in a batch.

    Returns:
        A `Feed`.
    """
    import tensorflow as tf

    looks = [
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
                wanted = missing[index, batch]
                if not wanted.any():
                    continue
                some = images if wanted.all() else images[wanted]
                chosen = batch[wanted]
                look = looks[index]
                if look is not None:
                    seeds = view.seeds(examples.digests[chosen])
                    some = look(some, tf.constant(seeds))
                outputs = compute(some)
                yield Computed(index, chosen, _grouped(outputs, sizes))

    return feed


def feed_entries(
    stored: Sequence[Entry],
    digests: np.ndarray,
    network: keras.Model,
    sizes: Sequence[int],
    batch_size: int,
) -> Feed:
    """Makes a feed that goes on from activations of an earlier cut.

    Args:
        stored: Entries with the activations, by view.
        digests: uint8 `(n, 16)`, of the examples.
        network: From these to the tensors of all targets, in a row.
        sizes: How many tensors each target has.
        batch_size: Examples in a batch.

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
        one = arrays[0] if len(arrays) == 1 else arrays
        return keras.tree.flatten(network(one, training=False))

    traced = compute.get_concrete_function()

    def feed(missing: np.ndarray) -> Iterator[Computed]:
        for view, entry in enumerate(stored):
            rows = np.flatnonzero(missing[view])
            for start in range(0, len(rows), batch_size):
                some = rows[start : start + batch_size]
                arrays = entry.gather(entry.find(digests[some]))
                outputs = traced([tf.constant(a) for a in arrays])
                yield Computed(view, some, _grouped(outputs, sizes))

    return feed


def _grouped(
    outputs: list[Any], sizes: Sequence[int]
) -> list[list[np.ndarray]]:
    arrays = iter([np.asarray(output) for output in outputs])
    return [[next(arrays) for _ in range(size)] for size in sizes]
