"""Training data from an `ImageData`."""

from __future__ import annotations

import functools
import hashlib
from typing import Any

import numpy as np

from keras_transfer.data import (
    Augmentation,
    ImageData,
    ImageSplit,
)
from keras_transfer.data.adapters.training_data import Indexed, TrainingData
from keras_transfer.data.examples import examples_of
from keras_transfer.data.pipeline import Part

# Decoded images stay in memory up to this many bytes.
_MAX_CACHED_BYTES = 2 * 2**30


# Images of a split that enter its digest.
_IMAGES_PER_DIGEST = 64


def open_images(
    data: ImageData,
    batch_size: int,
    seed: int,
    augment: Augmentation | None,
    cache: bool | None,
    part: Part | None = None,
) -> TrainingData:
    """Makes `TrainingData` from an `ImageData`."""

    def is_cached(split: Any) -> bool:
        if cache is not None or data.image_size is None:
            return bool(cache)
        height, width = data.image_size
        return len(split) * height * width * data.channels <= _MAX_CACHED_BYTES

    def digest() -> str:
        hasher = hashlib.sha256(
            repr((data.class_names, data.image_size)).encode()
        )
        for split in (data.train, data.validation):
            hasher.update(repr(split.ids).encode("utf-8", "surrogatepass"))
            hasher.update(np.ascontiguousarray(split.labels).tobytes())
            # Ids are file names, so pixels of images from the whole split are
            # added.
            places = np.linspace(
                0, len(split) - 1, min(len(split), _IMAGES_PER_DIGEST)
            )
            for place in places.astype(int):
                hasher.update(split.image(int(place)).tobytes())
        return hasher.hexdigest()

    validation = functools.partial(
        data.validation.batches,
        batch_size,
        cache=is_cached(data.validation),
        part=part,
    )
    return TrainingData(
        train=lambda epoch: data.train.batches(
            batch_size,
            shuffle=True,
            seed=seed,
            augment=augment,
            cache=is_cached(data.train),
            initial_epoch=epoch,
            part=part,
        ),
        plain=functools.partial(data.train.batches, batch_size),
        validation=validation if len(data.validation) else None,
        steps=-(-len(data.train) // batch_size),
        label_format="multi-hot" if data.multi_label else "one-hot",
        digest=digest,
        class_weights=data.class_weights,
        indexed={
            name: Indexed(examples_of(split, data.image_size), split.one_hot)
            for name, split in (
                ("train", data.train),
                ("validation", data.validation),
            )
            if len(split) and _has_size(data, split)
        },
        of_part=lambda part: open_images(
            data, batch_size, seed, augment, cache, part
        ),
        sizes={
            name: _sizes(len(split), batch_size)
            for name, split in (
                ("train", data.train),
                ("validation", data.validation),
            )
            if part is not None
        },
    )


def _sizes(count: int, batch_size: int) -> np.ndarray:
    """Returns the sizes of batches; the last one may be smaller."""
    starts = np.arange(0, count, batch_size)
    return np.minimum(count - starts, batch_size).astype(np.int32)


def _has_size(data: ImageData, split: ImageSplit) -> bool:
    """Returns whether all images have one size; training raises if not."""
    try:
        split.common_size(data.image_size)
    except ValueError:
        return False
    return True
