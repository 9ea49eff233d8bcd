"""`TrainingData`: what a training reads examples from."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from keras_transfer.data.examples import Examples
from keras_transfer.data.pipeline import Epoch, Part

if TYPE_CHECKING:
    import tensorflow as tf


@dataclasses.dataclass(frozen=True)
class TrainingData:
    """Examples to train on and to choose by.

    Attributes:
        train: Function from the number of an epoch (or a function that gives
            it) to the batches of that epoch, shuffled and augmented.
        plain: Makes the same batches in order and not augmented.
        validation: Makes the validation batches; `None` where there are none.
        steps: Batches in an epoch.
        label_format: Format of the labels: `"one-hot"` or `"multi-hot"` rows,
            class `"indices"`, or `"numbers"`.
        digest: Computes a hexadecimal digest of what was given.
        class_weights: Makes the weights that balance the classes.
        indexed: The same examples by index, `"train"` and, where there are
            any, `"validation"`; empty for a `tf.data.Dataset`.
        look: Computes a digest of the first batches, where `digest` does not
            look at what is in them. Defaults to `str`: there is no need.
        of_part: Makes the same source of which `train` and `validation` read a
            part of each batch, for one of several processes. Defaults to
            `None`: all is read either way.
        sizes: Of a part: examples in each whole batch, by split. Defaults to
            `{}`.
        carried: Names in `indexed` of what each batch carries beside the
            labelled inputs. Defaults to `()`.
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
    carried: tuple[str, ...] = ()


class Indexed(NamedTuple):
    """Examples that can be read in any order.

    Attributes:
        examples: The inputs.
        make_labels: Makes the labels `(n, ...)` that the model is trained on.
    """

    examples: Examples
    make_labels: Callable[[], np.ndarray]
