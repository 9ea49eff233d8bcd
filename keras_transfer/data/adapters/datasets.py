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
from keras_transfer.data.datasets import (
    check_batched,
    common_classes,
    count_elements,
    first_batch,
)

if TYPE_CHECKING:
    import tensorflow as tf


def open_datasets(
    parts: dict[str, Any], seed: int, augment: Augmentation | None
) -> TrainingData:
    """Makes `TrainingData` from batched datasets, by split."""
    parts = dict(parts)
    common_classes(parts, "data")
    digest = hashlib.sha256()
    for name, part in parts.items():
        argument = name_of(name)
        count = count_elements(part, argument)
        if count < 0:
            raise ValueError(
                f"`{argument}` must be a dataset of known length because "
                "schedules need it. Received: one whose length is unknown. Use "
                "`dataset.apply(tf.data.experimental.assert_cardinality(n))` "
                "with n = `sum(1 for _ in dataset)`, the number of its batches."
            )
        if not isinstance(part.element_spec, tuple) or len(
            part.element_spec
        ) not in (2, 3):
            raise ValueError(
                "`data` must be datasets of (inputs, labels), with or without "
                f"weights. Received: {name} of {part.element_spec}."
            )
        check_batched(part, argument)
        # Where `assert_cardinality` states the steps of a repeated dataset,
        # reading on would raise.
        parts[name] = part.take(count)
        digest.update(f"{name} {count} {part.element_spec}".encode())
    train = parts["train"]
    weighted = len(train.element_spec) == 3
    if weighted and augment is not None:
        raise ValueError(
            "`augment` must be None for a dataset with weights. Received: "
            "both. Augment in the dataset."
        )
    labels = first_batch(train, name_of("train"))[1].numpy()
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


def name_of(split: str) -> str:
    """Returns the name of a split in errors."""
    return f'data["{split}"]'


def _look(batches: tf.data.Dataset) -> str:
    """Returns a digest of two batches: finds other data or orders."""
    import tensorflow as tf

    hasher = hashlib.sha256()
    for batch in batches.take(2):
        for tensor in tf.nest.flatten(batch):
            hasher.update(_content(np.asarray(tensor)))
    return hasher.hexdigest()
