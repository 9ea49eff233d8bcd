"""The `tf.data` pipeline of a split, and the arithmetic of its epochs.

The contents of a batch depend only on the seed, the number of the epoch and the
number of the step, not on a state that an interrupted run would lose:

    indices -> shuffle -> decode, or copy from RAM -> augment

Only indices are shuffled, and pixels are cached before the shuffle and before
augmentation, so that each epoch is augmented differently.
"""

from __future__ import annotations

import functools
import itertools
import threading
import weakref
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from keras_transfer.data.scanning import cpu_count

if TYPE_CHECKING:
    import tensorflow as tf


# Largest number of batches decoded in parallel, since each takes memory.
_PARALLEL_BATCHES = 8


class PixelCache:
    """Cache of decoded images, `n * height * width * channels` bytes of RAM.

    Args:
        read: Function from an index to a uint8 array of `shape`.
        num_images: Number of images.
        shape: Shape `(height, width, channels)` of an image.
    """

    def __init__(
        self,
        read: Callable[[int], np.ndarray],
        num_images: int,
        shape: tuple[int, int, int],
    ) -> None:
        self.shape = shape
        self._read = read
        self._images = np.empty((num_images, *shape), np.uint8)
        self._filled = np.zeros(num_images, bool)

    def __call__(self, index: int) -> np.ndarray:
        """Returns image `index`, decoded on first use."""
        # If two threads decode the same image, they write the same pixels.
        if not self._filled[index]:
            self._images[index] = self._read(index)
            self._filled[index] = True
        return self._images[index]


Epoch = int | Callable[[], int]


# Shards `first` to before `last` of the `count` shards of each batch, which one
# of several processes reads.
Part = tuple[int, int, int]


def part_of(size: int, part: Part) -> tuple[int, int]:
    """Returns the range of a batch that a process reads.

    Args:
        size: Number of examples in the batch.
        part: Tuple of the first shard, the shard after the last, and the number
            of shards.

    Returns:
        Tuple `(start, stop)`. A batch with fewer examples than shards is read
        whole by every process.

    Example:

    >>> part_of(10, (0, 1, 3)), part_of(10, (1, 3, 3)), part_of(2, (0, 1, 3))
    ((0, 3), (3, 10), (0, 2))
    """
    first, last, count = part
    if size < count:
        return 0, size
    return first * size // count, last * size // count


def _weakly_referenced(function: Callable[..., Any]) -> Callable[..., Any]:
    """Wraps a function for `tf.numpy_function` in a weak reference.

    TensorFlow never releases a function passed to `tf.numpy_function`, nor the
    decoded images or the model that it refers to. The `map` of the dataset
    holds the function itself for as long as the dataset lives.
    """
    reference = weakref.ref(function)

    def call(*arguments: Any) -> Any:
        target = reference()
        if target is None:
            raise RuntimeError("The dataset of this iterator was deleted.")
        return target(*arguments)

    return call


def as_written(function: Callable[..., Any]) -> Callable[..., Any]:
    """Excludes a function from conversion by AutoGraph.

    A conversion takes a tenth of a second, and only `if` and `for` over tensors
    need it.
    """
    import tensorflow as tf

    return tf.autograph.experimental.do_not_convert(function)


def epoch_numbers(initial_epoch: Epoch = 0) -> tf.data.Dataset:
    """Makes a dataset of one int64, the number of the epoch.

    The number starts at `initial_epoch` and grows by 1 with each iteration; if
    `initial_epoch` is a function, it is called at the start of each iteration.
    """
    import tensorflow as tf

    lock = threading.Lock()
    next_epoch = (
        initial_epoch
        if callable(initial_epoch)
        else itertools.count(initial_epoch).__next__
    )

    def count(_: Any) -> np.int64:
        with lock:
            return np.int64(next_epoch())

    def number(zero: tf.Tensor) -> tf.Tensor:
        epoch = tf.numpy_function(_weakly_referenced(count), [zero], tf.int64)
        return tf.ensure_shape(epoch, ())

    return tf.data.Dataset.range(1).map(as_written(number))


def epoch_order(
    num_examples: int, shuffle: bool, seed: int
) -> Callable[[int], np.ndarray]:
    """Makes a function from the epoch to the order of the examples."""
    if not shuffle:
        order = np.arange(num_examples)
        return lambda epoch: order

    # Steps of two epochs may be in flight, in several iterators.
    @functools.lru_cache(maxsize=4)
    def permutation(epoch: int) -> np.ndarray:
        generator = np.random.default_rng((seed, epoch))
        return generator.permutation(num_examples)

    return permutation


def make_batches(
    read: Callable[[int], np.ndarray],
    labels: np.ndarray,
    shape: tuple[int, ...],
    *,
    batch_size: int,
    drop_remainder: bool,
    order: Callable[[int], np.ndarray],
    initial_epoch: Epoch,
    dtype: type = np.uint8,
    part: Part | None = None,
) -> tf.data.Dataset:
    """Makes the dataset of batches of (images, labels).

    Args:
        read: Function from an index to an array of `shape`.
        labels: Labels, one row per example.
        shape: Shape of one array, such as `(height, width, channels)`.
        batch_size: Number of examples per batch.
        drop_remainder: Whether to drop a last batch that is not full.
        order: Function from the epoch to the order of the examples.
        initial_epoch: Number of the first epoch, as in `epoch_numbers`.
        dtype: Dtype of the images. Defaults to `np.uint8`.
        part: The shards of each batch that are read. Defaults to `None`, all.

    Returns:
        `tf.data.Dataset` of known cardinality.
    """

    def load(indices: np.ndarray, epoch: int) -> list[np.ndarray]:
        images: np.ndarray = np.empty((len(indices), *shape), dtype)
        for position, index in enumerate(indices):
            images[position] = read(int(index))
        return [images, labels[indices]]

    return gather_batches(
        load,
        [(shape, np.dtype(dtype)), (labels.shape[1:], labels.dtype)],
        num_examples=len(labels),
        batch_size=batch_size,
        drop_remainder=drop_remainder,
        order=order,
        initial_epoch=initial_epoch,
        part=part,
    )


def gather_batches(
    load: Callable[[np.ndarray, int], list[np.ndarray]],
    specs: Sequence[tuple[tuple[int, ...], np.dtype]],
    *,
    num_examples: int,
    batch_size: int,
    drop_remainder: bool = False,
    order: Callable[[int], np.ndarray],
    initial_epoch: Epoch,
    part: Part | None = None,
) -> tf.data.Dataset:
    """Makes the dataset of batches that a function loads.

    Args:
        load: Function from indices and the number of the epoch to arrays with a
            row per index.
        specs: Shape, without the batch axis, and dtype of each array.
        num_examples: Number of examples.
        batch_size: Number of examples per batch.
        drop_remainder: Whether to drop a last batch that is not full. Defaults
            to `False`.
        order: Function from the epoch to the order of the examples.
        initial_epoch: Number of the first epoch, as in `epoch_numbers`.
        part: The shards of each batch that are read. Defaults to `None`, all.

    Returns:
        `tf.data.Dataset` of tuples, of known cardinality.
    """
    import tensorflow as tf

    num_full, remainder = divmod(num_examples, batch_size)
    partial = bool(remainder) and not drop_remainder
    num_batches = num_full + partial
    length = batch_size if drop_remainder else None

    def load_step(epoch: np.int64, step: np.int64) -> list[np.ndarray]:
        start = int(step) * batch_size
        indices = order(int(epoch))[start : start + batch_size]
        if part is not None:
            indices = indices[slice(*part_of(len(indices), part))]
        return load(indices, int(epoch))

    def to_batch(epoch: tf.Tensor, step: tf.Tensor) -> tuple[tf.Tensor, ...]:
        arrays = tf.numpy_function(
            _weakly_referenced(load_step),
            [epoch, step],
            [tf.as_dtype(dtype) for _, dtype in specs],
        )
        return tuple(
            tf.ensure_shape(array, (length, *shape))
            for array, (shape, _) in zip(arrays, specs, strict=True)
        )

    def steps_of(epoch: tf.Tensor) -> tf.data.Dataset:
        steps = tf.data.Dataset.range(num_batches)
        return steps.map(lambda step: (epoch, step))

    steps = epoch_numbers(initial_epoch).flat_map(as_written(steps_of))
    batches = steps.map(
        as_written(to_batch),
        num_parallel_calls=min(cpu_count(), _PARALLEL_BATCHES),
        deterministic=True,
    )
    return batches.apply(tf.data.experimental.assert_cardinality(num_batches))


def slice_batches(
    rows: Callable[[int], np.ndarray],
    num_examples: int,
    *,
    batch_size: int,
    initial_epoch: Epoch,
) -> tf.data.Dataset:
    """Makes the dataset of the indices that batches are gathered by.

    Args:
        rows: Function from the epoch to an int64 array `(num_examples, k)`.
        num_examples: Number of rows.
        batch_size: Number of rows per batch.
        initial_epoch: Number of the first epoch, as in `epoch_numbers`.

    Returns:
        `tf.data.Dataset` of int64 `(batch, k)`, of known cardinality.
    """
    import tensorflow as tf

    num_batches = -(-num_examples // batch_size)

    def load_epoch(epoch: np.int64) -> np.ndarray:
        return rows(int(epoch))

    def to_rows(epoch: tf.Tensor) -> tf.Tensor:
        array = tf.numpy_function(
            _weakly_referenced(load_epoch), [epoch], tf.int64
        )
        return tf.ensure_shape(array, (num_examples, None))

    batches = epoch_numbers(initial_epoch).map(as_written(to_rows))
    batches = batches.rebatch(batch_size)
    return batches.apply(tf.data.experimental.assert_cardinality(num_batches))
