"""What `fine_tune` reads examples from, under one interface."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from keras_transfer.data import (
    Augmentation,
    ImageData,
    ImageSplit,
    TextData,
    TextSplit,
)
from keras_transfer.data.pipeline import (
    Epoch,
    Part,
    epoch_order,
    make_batches,
)
from keras_transfer.data.texts import digest_text, is_texts
from keras_transfer.features.examples import Examples, examples_of

if TYPE_CHECKING:
    import tensorflow as tf

# Decoded images are kept in memory up to here, in bytes.
_CACHE_LIMIT = 2 * 2**30
# Images that are looked at to tell one data set from another, and rows that
# are read at once.
_LOOKED_AT = 64
_AT_ONCE = 1024
_SPLITS = ("train", "validation", "test")


@dataclasses.dataclass(frozen=True)
class Source:
    """Examples to train on and to choose by.

    Attributes:
        train: Function from the number of an epoch (or a function that gives
            it) to the batches of that epoch, shuffled and augmented.
        plain: Makes the same batches in order and not augmented.
        validation: Makes the validation batches; `None` where there are none.
        steps: Batches in an epoch.
        labels: `"one-hot"`, `"multi-label"`, `"int"` or `"numbers"`.
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
    """

    train: Callable[[Epoch], tf.data.Dataset]
    plain: Callable[[], tf.data.Dataset]
    validation: Callable[[], tf.data.Dataset] | None
    steps: int
    labels: str
    digest: Callable[[], str]
    class_weights: Callable[[], dict[int, float]]
    indexed: Mapping[str, Indexed]
    look: Callable[[], str] = str
    of_part: Callable[[Part], Source] | None = None
    sizes: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)


class Indexed(NamedTuple):
    """Examples that can be read in any order.

    Attributes:
        examples: The inputs.
        make_labels: Makes the labels `(n, ...)` that the model is trained on.
    """

    examples: Examples
    make_labels: Callable[[], np.ndarray]


def open_source(
    data: Any,
    *,
    batch_size: int,
    seed: int,
    augment: Augmentation | None,
    cache: bool | None,
    one_output: bool = False,
) -> Source:
    """Makes a `Source` of any data that `fine_tune` takes.

    Args:
        data: `ImageData`; `TextData`; a pair of arrays; a batched
            `tf.data.Dataset`; or a dict with keys `"train"` and, where there
            is any, `"validation"`, of datasets, or of pairs and splits.
        batch_size: Examples in a batch; for a dataset it is its own.
        seed: Of the order and the augmentation.
        augment: Changes of the training images, or `None`.
        cache: Whether to keep decoded images in memory; `None` up to 2 GiB.
        one_output: Whether the model says yes or no, so that of two classes
            the second one is "yes". Defaults to `False`.

    Returns:
        A `Source`.

    Raises:
        ValueError: If the data cannot be used.
        TypeError: If they are of another type.
    """
    if isinstance(data, ImageData):
        source = _from_images(data, batch_size, seed, augment, cache)
        yes_or_no = one_output and not data.multi_label
        return _yes_or_no(source) if yes_or_no else source
    if isinstance(data, TextData):
        source = _from_texts(data, batch_size, seed, augment)
        return _yes_or_no(source) if one_output else source
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
        return _from_datasets(parts, seed, augment)
    if not any(datasets):
        return _from_arrays(parts, batch_size, seed, augment)
    raise TypeError(
        "`data` must hold arrays or datasets alone. Received: both."
    )


def _from_images(
    data: ImageData,
    batch_size: int,
    seed: int,
    augment: Augmentation | None,
    cache: bool | None,
    part: Part | None = None,
) -> Source:
    def kept(split: Any) -> bool:
        if cache is not None or data.image_size is None:
            return bool(cache)
        height, width = data.image_size
        return len(split) * height * width * data.channels <= _CACHE_LIMIT

    def digest() -> str:
        found = hashlib.sha256(
            repr((data.class_names, data.image_size)).encode()
        )
        for split in (data.train, data.validation):
            found.update(repr(split.ids).encode("utf-8", "surrogatepass"))
            found.update(np.ascontiguousarray(split.labels).tobytes())
            # Ids are names of files: some of their pixels, all over the split.
            places = np.linspace(0, len(split) - 1, min(len(split), _LOOKED_AT))
            for place in places.astype(int):
                found.update(split.image(int(place)).tobytes())
        return found.hexdigest()

    validation = functools.partial(
        data.validation.batches,
        batch_size,
        cache=kept(data.validation),
        part=part,
    )
    return Source(
        train=lambda epoch: data.train.batches(
            batch_size,
            shuffle=True,
            seed=seed,
            augment=augment,
            cache=kept(data.train),
            initial_epoch=epoch,
            part=part,
        ),
        plain=functools.partial(data.train.batches, batch_size),
        validation=validation if len(data.validation) else None,
        steps=-(-len(data.train) // batch_size),
        labels="multi-label" if data.multi_label else "one-hot",
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
        of_part=lambda part: _from_images(
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
    """Examples in each batch; the last one may be smaller."""
    starts = np.arange(0, count, batch_size)
    return np.minimum(count - starts, batch_size).astype(np.int32)


def _from_texts(
    data: TextData, batch_size: int, seed: int, augment: Augmentation | None
) -> Source:
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
    return _from_arrays(parts, batch_size, seed, None)


def _has_size(data: ImageData, split: ImageSplit) -> bool:
    """Whether all images have one size; whoever trains on them says if not."""
    try:
        split.common_size(data.image_size)
    except ValueError:
        return False
    return True


def _yes_or_no(source: Source) -> Source:
    """Turns one-hot rows of two classes into one column for the second."""

    def second(dataset: tf.data.Dataset) -> tf.data.Dataset:
        return dataset.map(lambda x, y: (x, y[:, 1:]))

    validation, of_part = source.validation, source.of_part
    return dataclasses.replace(
        source,
        train=lambda epoch: second(source.train(epoch)),
        plain=lambda: second(source.plain()),
        validation=None if validation is None else lambda: second(validation()),
        labels="multi-label",
        of_part=None
        if of_part is None
        else lambda part: _yes_or_no(of_part(part)),
        indexed={
            name: part._replace(
                make_labels=functools.partial(_second, part.make_labels)
            )
            for name, part in source.indexed.items()
        },
    )


def _second(make_labels: Callable[[], np.ndarray]) -> np.ndarray:
    return make_labels()[:, 1:]


def _from_arrays(
    parts: dict[str, Any],
    batch_size: int,
    seed: int,
    augment: Augmentation | None,
) -> Source:
    arrays = {name: _as_arrays(name, part) for name, part in parts.items()}

    def digest() -> str:
        found = hashlib.sha256()
        for name, pair in arrays.items():
            for array in pair:
                found.update(f"{name} {array.shape} {array.dtype}".encode())
                for start in range(0, len(array), _AT_ONCE):
                    some = array[start : start + _AT_ONCE]
                    found.update(_content(some))
        return found.hexdigest()

    def batches(
        name: str,
        epoch: Epoch = 0,
        shuffle: bool = False,
        augment: Augmentation | None = None,
    ) -> tf.data.Dataset:
        import tensorflow as tf

        x, y = arrays[name]
        made = make_batches(
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
            made = augment.apply(made, seed, epoch)
        return made.prefetch(tf.data.AUTOTUNE)

    x, y = arrays["train"]
    validation = functools.partial(batches, "validation")
    return Source(
        train=lambda epoch: batches("train", epoch, True, augment),
        plain=functools.partial(batches, "train"),
        validation=validation if "validation" in arrays else None,
        steps=-(-len(x) // batch_size),
        labels=_kind_of(y),
        digest=digest,
        class_weights=lambda: _balance(y),
        indexed={
            name: Indexed(
                examples_of(pair[0]), functools.partial(np.asarray, pair[1])
            )
            for name, pair in arrays.items()
        },
    )


def _content(rows: np.ndarray) -> bytes:
    if rows.dtype == object:  # of texts; its own bytes are addresses
        return b"".join(digest_text(text) for text in rows)
    return np.ascontiguousarray(rows).tobytes()


def _as_arrays(name: str, part: Any) -> tuple[np.ndarray, np.ndarray]:
    if not isinstance(part, tuple | list) or len(part) != 2:
        what = f"{name} of type {type(part).__name__}"
        if isinstance(part, tuple | list):
            what += (
                f" with {len(part)} parts. Weights of examples: a "
                "tf.data.Dataset of (inputs, labels, weights)"
            )
        raise TypeError(
            "`data` must be ImageData or TextData, a pair (inputs, labels) of "
            f"arrays or a batched tf.data.Dataset. Received: {what}."
        )
    x, y = (np.asarray(array) for array in part)
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


def _kind_of(labels: np.ndarray) -> str:
    """Says what labels are by their values."""
    two_dimensional = labels.ndim == 2 and labels.shape[1] > 1
    if two_dimensional and ((labels == 0) | (labels == 1)).all():
        exclusive = (labels.sum(axis=1) == 1).all()
        return "one-hot" if exclusive else "multi-label"
    if labels.dtype.kind in "iu" and (labels.ndim == 1 or labels.shape[1] == 1):
        return "int"
    return "numbers"


def _from_datasets(
    parts: dict[str, Any], seed: int, augment: Augmentation | None
) -> Source:
    train = parts["train"]
    digest = hashlib.sha256()
    for name, part in parts.items():
        count = int(part.cardinality())
        if count < 1:
            raise ValueError(
                "`data` must be datasets of known length, so that schedules "
                f"know their end. Received: {name} of cardinality {count}. Use "
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
    return Source(
        train=lambda epoch: (
            augment.apply(train, seed, epoch) if augment else train
        ),
        plain=lambda: train,
        validation=(lambda: parts["validation"])
        if "validation" in parts
        else None,
        steps=int(train.cardinality()),
        labels=_kind_of(labels),
        digest=digest.hexdigest,
        class_weights=lambda: _balance(
            np.concatenate([np.asarray(batch[1]) for batch in train])
        ),
        indexed={},
        look=lambda: _look(train),
    )


def _look(batches: tf.data.Dataset) -> str:
    """A digest of two batches: other data, or an order without a seed."""
    import tensorflow as tf

    found = hashlib.sha256()
    for batch in batches.take(2):
        for tensor in tf.nest.flatten(batch):
            found.update(_content(np.asarray(tensor)))
    return found.hexdigest()


def _balance(labels: np.ndarray) -> dict[int, float]:
    """Weighs classes as `ImageData.class_weights` does."""
    kind = _kind_of(labels)
    if kind not in ("one-hot", "int"):
        raise ValueError(
            '`class_weight="balanced"` needs one class an example. Received: '
            f"labels that are {kind}."
        )
    indices = labels.argmax(-1) if kind == "one-hot" else labels.reshape(-1)
    present, counts = np.unique(indices, return_counts=True)
    weights = len(indices) / (len(present) * counts)
    return dict(zip(present.tolist(), weights.tolist(), strict=True))
