"""Training data from arrays of numbers or texts."""

from __future__ import annotations

import functools
import hashlib
from typing import TYPE_CHECKING, Any

import numpy as np

from keras_transfer._utils.checks import SUM_TOLERANCE
from keras_transfer.data import (
    Augmentation,
    TextData,
)
from keras_transfer.data.adapters.training_data import Indexed, TrainingData
from keras_transfer.data.datasets import advice_for
from keras_transfer.data.examples import examples_of
from keras_transfer.data.labels import refuse_gaps
from keras_transfer.data.pipeline import Epoch, epoch_order, make_batches
from keras_transfer.data.texts.texts import digest_text, is_texts

if TYPE_CHECKING:
    import tensorflow as tf


_ROWS_PER_DIGEST = 1024


def open_texts(
    data: TextData, batch_size: int, seed: int, augment: Augmentation | None
) -> TrainingData:
    """Makes `TrainingData` from `TextData`."""
    if augment is not None:
        raise ValueError(
            "`augment` must be None for texts: it changes images. Received: "
            f"augment={augment!r}"
        )
    parts: dict[str, Any] = {
        name: split.arrays()
        for name, split in (
            ("train", data.train),
            ("validation", data.validation),
        )
        if len(split) or name == "train"
    }
    return open_arrays(parts, batch_size, seed, None)


def open_arrays(
    parts: dict[str, Any],
    batch_size: int,
    seed: int,
    augment: Augmentation | None,
) -> TrainingData:
    """Makes `TrainingData` from pairs of arrays, by split."""
    arrays = {name: as_arrays(name, part) for name, part in parts.items()}

    def digest() -> str:
        hasher = hashlib.sha256()
        for name, pair in arrays.items():
            for array in pair:
                hasher.update(f"{name} {array.shape} {array.dtype}".encode())
                for start in range(0, len(array), _ROWS_PER_DIGEST):
                    rows = array[start : start + _ROWS_PER_DIGEST]
                    hasher.update(_content(rows))
        return hasher.hexdigest()

    def batches(
        name: str,
        epoch: Epoch = 0,
        shuffle: bool = False,
        augment: Augmentation | None = None,
    ) -> tf.data.Dataset:
        import tensorflow as tf

        x, y = arrays[name]
        dataset = make_batches(
            x.__getitem__,
            y,
            x.shape[1:],
            batch_size=batch_size,
            drop_remainder=False,
            order=epoch_order(len(x), shuffle, seed),
            initial_epoch=epoch,
            dtype=x.dtype.type,
        )
        if augment is not None:
            dataset = augment.apply(dataset, seed, epoch)
        return dataset.prefetch(tf.data.AUTOTUNE)

    x, y = arrays["train"]
    validation = functools.partial(batches, "validation")
    return TrainingData(
        train=lambda epoch: batches("train", epoch, True, augment),
        plain=functools.partial(batches, "train"),
        validation=validation if "validation" in arrays else None,
        steps=-(-len(x) // batch_size),
        label_format=label_format_of(y),
        digest=digest,
        class_weights=lambda: balanced_weights(y),
        indexed={
            name: Indexed(
                examples_of(pair[0]), functools.partial(np.asarray, pair[1])
            )
            for name, pair in arrays.items()
        },
    )


def _content(rows: np.ndarray) -> bytes:
    if rows.dtype == object:  # texts: the bytes of the array are addresses
        return b"".join(digest_text(text) for text in rows)
    return np.ascontiguousarray(rows).tobytes()


def as_arrays(name: str, part: Any) -> tuple[np.ndarray, np.ndarray]:
    """Returns inputs and labels of a split as arrays, checked."""
    if not isinstance(part, tuple | list) or len(part) != 2:
        received = f"{name} of type {type(part).__name__}"
        if isinstance(part, tuple | list):
            received += (
                f" with {len(part)} parts. Weights of examples: a "
                "tf.data.Dataset of (inputs, labels, weights)"
            )
        raise TypeError(
            "`data` must be ImageData or TextData, a pair (inputs, labels) of "
            f"arrays or a batched tf.data.Dataset. Received: {received}."
            f"{advice_for(part)}"
        )
    x, y = (np.asarray(array) for array in part)
    refuse_gaps(f"data[{name!r}]", y, "labels")
    if x.dtype == object:
        refuse_gaps(f"data[{name!r}]", x, "inputs")
    texts = is_texts(x)
    if texts:
        x = x.astype(object)
    if (x.dtype.kind not in "biuf" and not texts) or y.dtype.kind not in "biuf":
        raise TypeError(
            "`data` must hold arrays of numbers, or of texts and numbers. "
            f"Received: {name} of dtypes {x.dtype} and {y.dtype}. With names "
            "of classes: `load_images((images, labels))`, "
            "`load_texts((texts, labels))`."
        )
    if (x.ndim < 2 and not texts) or len(x) != len(y) or not len(x):
        raise ValueError(
            "`data` must hold at least one example, with as many labels as "
            f"inputs, inputs of shape (n, ...). Received: {name} of shapes "
            f"{x.shape} and {y.shape}."
        )
    if x.dtype == np.float64:
        x = x.astype(np.float32)
    if y.dtype.kind in "bf":
        y = y.astype(np.float32)
    return x, y


def label_format_of(labels: np.ndarray) -> str:
    """Returns the format of labels, from their values.

    Args:
        labels: The labels, `(n, ...)`.

    Returns:
        A format, as `TrainingData.label_format`.
    """
    is_column = labels.ndim == 1 or (labels.ndim == 2 and labels.shape[1] == 1)
    if is_column and (labels == np.floor(labels)).all():
        return "indices"
    if labels.ndim > 2 or not ((labels >= 0) & (labels <= 1)).all():
        return "numbers"
    if is_column:
        return "fractions"
    exclusive = np.allclose(labels.sum(axis=1), 1, atol=SUM_TOLERANCE)
    if ((labels == 0) | (labels == 1)).all():
        return "one-hot" if exclusive else "multi-hot"
    return "soft" if exclusive else "fractions"


def balanced_weights(labels: np.ndarray) -> dict[int, float]:
    """Returns balanced weights of classes, as `ImageData.class_weights`."""
    kind = label_format_of(labels)
    if kind not in ("one-hot", "indices"):
        raise ValueError(
            '`class_weight="balanced"` needs one class per example. Received: '
            f"labels that are {kind}."
        )
    indices = labels.argmax(-1) if kind == "one-hot" else labels.reshape(-1)
    present, counts = np.unique(indices, return_counts=True)
    weights = len(indices) / (len(present) * counts)
    return dict(zip(present.tolist(), weights.tolist(), strict=True))
