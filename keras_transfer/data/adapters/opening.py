"""`open_data`: training data from any data that `fine_tune` accepts."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from keras_transfer.data import (
    Augmentation,
    ImageData,
    ImageSplit,
    TextData,
    TextSplit,
)
from keras_transfer.data.adapters.arrays import open_arrays, open_texts
from keras_transfer.data.adapters.datasets import open_datasets
from keras_transfer.data.adapters.images import open_images
from keras_transfer.data.adapters.training_data import TrainingData
from keras_transfer.data.datasets import parts_of_pair

if TYPE_CHECKING:
    import tensorflow as tf


_SPLITS = ("train", "validation", "test")


def open_data(
    data: Any,
    *,
    batch_size: int,
    seed: int,
    augment: Augmentation | None,
    cache: bool | None,
    one_output: bool = False,
) -> TrainingData:
    """Makes `TrainingData` from any data that `fine_tune` accepts.

    Args:
        data: `ImageData`; `TextData`; a pair of arrays; a batched
            `tf.data.Dataset`; or a dict with keys `"train"` and, where there is
            any, `"validation"`, of datasets, or of pairs and splits.
        batch_size: Examples in a batch; ignored for a dataset.
        seed: Seed of the order and the augmentation.
        augment: Changes of the training images, or `None`.
        cache: Whether to keep decoded images in memory; `None` up to 2 GiB.
        one_output: Whether the model has one binary output, the probability of
            the second of two classes. Defaults to `False`.

    Returns:
        `TrainingData`.

    Raises:
        ValueError: If the data cannot be used.
        TypeError: If they are of another type.
    """
    if isinstance(data, ImageData):
        training_data = open_images(data, batch_size, seed, augment, cache)
        is_binary = one_output and not data.multi_label
        return _as_binary(training_data) if is_binary else training_data
    if isinstance(data, TextData):
        training_data = open_texts(data, batch_size, seed, augment)
        return _as_binary(training_data) if one_output else training_data
    data = parts_of_pair(data)
    parts = dict(data) if isinstance(data, Mapping) else {"train": data}
    parts = {name: part for name, part in parts.items() if part is not None}
    unknown = sorted(set(parts) - set(_SPLITS))
    if unknown or "train" not in parts:
        raise ValueError(
            '`data` must have the keys "train" and, where there are any, '
            f'"validation" and "test". Received: keys {sorted(parts)}.'
        )
    parts.pop("test", None)
    parts = {
        name: part.arrays()
        if isinstance(part, ImageSplit | TextSplit)
        else part
        for name, part in parts.items()
    }
    datasets = [hasattr(part, "element_spec") for part in parts.values()]
    if all(datasets):
        return open_datasets(parts, seed, augment)
    if not any(datasets):
        return open_arrays(parts, batch_size, seed, augment)
    raise TypeError(
        "`data` must hold arrays or datasets alone. Received: both."
    )


def _as_binary(training_data: TrainingData) -> TrainingData:
    """Turns one-hot rows of two classes into one column for the second."""

    def second(dataset: tf.data.Dataset) -> tf.data.Dataset:
        return dataset.map(lambda x, y: (x, y[:, 1:]))

    validation, of_part = training_data.validation, training_data.of_part
    return dataclasses.replace(
        training_data,
        train=lambda epoch: second(training_data.train(epoch)),
        plain=lambda: second(training_data.plain()),
        validation=None if validation is None else lambda: second(validation()),
        label_format="multi-hot",
        of_part=None
        if of_part is None
        else lambda part: _as_binary(of_part(part)),
        indexed={
            name: part._replace(
                make_labels=functools.partial(_second, part.make_labels)
            )
            for name, part in training_data.indexed.items()
        },
    )


def _second(make_labels: Callable[[], np.ndarray]) -> np.ndarray:
    return make_labels()[:, 1:]
