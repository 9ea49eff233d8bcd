"""`TrainingData`: batches and examples of a run."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from keras_transfer.data.examples import Examples
from keras_transfer.data.pipeline import Epoch, Part

if TYPE_CHECKING:
    import tensorflow as tf


@dataclasses.dataclass(frozen=True)
class TrainingData:
    """Examples for training and validation.

    Attributes:
        train: Function from the index of an epoch (or a function that returns
            it) to the batches of that epoch, shuffled and augmented.
        plain: Function that makes the same batches in order, not augmented.
        validation: Function that makes the validation batches, or `None`.
        steps: Number of batches in an epoch.
        label_format: Format of the labels: `"one-hot"` or `"multi-hot"` rows,
            class `"indices"` (whole numbers), `"soft"` rows (shares of the
            classes that sum to 1), other `"fractions"` in [0, 1], or
            `"numbers"`.
        digest: Function that computes a hexadecimal digest of the data.
        class_weights: Function that makes the weights that balance classes.
        indexed: The same examples by index, `"train"` and, where there are any,
            `"validation"`; empty for a `tf.data.Dataset`.
        look: Function that computes a digest of the first batches, where
            `digest` does not cover their content. Defaults to `str`: not
            needed.
        of_part: Function that makes the same data with `train` and `validation`
            reading a shard of each batch, for one of several processes.
            Defaults to `None`: each process reads whole batches.
        sizes: Numbers of examples in whole batches by split, where shards are
            read. Defaults to `{}`.
        reading: Function that makes a context in which errors of the batches
            are raised as they were found. Defaults to
            `contextlib.nullcontext`.
        carried: Names in `indexed` of the inputs that each batch carries
            besides the labelled ones. Defaults to `()`.
    """

    train: Callable[[Epoch], tf.data.Dataset]
    plain: Callable[[], tf.data.Dataset]
    validation: Callable[[], tf.data.Dataset] | None
    steps: int
    label_format: str
    digest: Callable[[], str]
    class_weights: Callable[[], dict[int, float]]
    indexed: Mapping[str, Indexed]
    look: Callable[[], str] = str
    of_part: Callable[[Part], TrainingData] | None = None
    sizes: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
    reading: Callable[[], AbstractContextManager[Any]] = contextlib.nullcontext
    carried: tuple[str, ...] = ()


class Indexed(NamedTuple):
    """Examples that can be read in any order.

    Attributes:
        examples: The inputs.
        make_labels: Function that makes the labels `(n, ...)` for training.
    """

    examples: Examples
    make_labels: Callable[[], np.ndarray]
