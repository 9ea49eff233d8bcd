"""Training data from a `tf.data.Dataset`."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import numpy as np

from keras_transfer.data import (
    Augmentation,
)
from keras_transfer.data.adapters.arrays import (
    _content,
    balanced_weights,
    label_format_of,
)
from keras_transfer.data.adapters.training_data import TrainingData

if TYPE_CHECKING:
    import tensorflow as tf


def open_datasets(
    parts: dict[str, Any], seed: int, augment: Augmentation | None
) -> TrainingData:
    """Makes `TrainingData` from batched datasets, by split."""
    train = parts["train"]
    digest = hashlib.sha256()
    for name, part in parts.items():
        count = int(part.cardinality())
        if count < 1:
            raise ValueError(
                "`data` must be datasets of known length because schedules "
                f"need it. Received: {name} of cardinality {count}. Use "
                "`dataset.apply(tf.data.experimental.assert_cardinality(n))`."
            )
        if not isinstance(part.element_spec, tuple) or len(
            part.element_spec
        ) not in (2, 3):
            raise ValueError(
                "`data` must be datasets of (inputs, labels), with or without "
                f"weights. Received: {name} of {part.element_spec}."
            )
        digest.update(f"{name} {count} {part.element_spec}".encode())
    weighted = len(train.element_spec) == 3
    if weighted and augment is not None:
        raise ValueError(
            "`augment` must be None for a dataset with weights. Received: "
            "both. Augment in the dataset."
        )
    labels = next(iter(train))[1].numpy()
    return TrainingData(
        train=lambda epoch: (
            augment.apply(train, seed, epoch) if augment else train
        ),
        plain=lambda: train,
        validation=(lambda: parts["validation"])
        if "validation" in parts
        else None,
        steps=int(train.cardinality()),
        label_format=label_format_of(labels),
        digest=digest.hexdigest,
        class_weights=lambda: balanced_weights(
            np.concatenate([np.asarray(batch[1]) for batch in train])
        ),
        indexed={},
        look=lambda: _look(train),
    )


def _look(batches: tf.data.Dataset) -> str:
    """Returns a digest of two batches: finds other data or orders."""
    import tensorflow as tf

    hasher = hashlib.sha256()
    for batch in batches.take(2):
        for tensor in tf.nest.flatten(batch):
            hasher.update(_content(np.asarray(tensor)))
    return hasher.hexdigest()
