"""Records of the images in arrays, `tf.data` and TFDS, as uint8 in memory.

Images take `n * height * width * channels` bytes. With an `image_size`, large
images are resized while they are read.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from keras_transfer.data import tfds
from keras_transfer.data.checks import check_split_names
from keras_transfer.data.images import decoding
from keras_transfer.data.images.pixels import ArrayPixels
from keras_transfer.data.splitting import SPLITS

_RANGE = "pixels must be in [0, 255]"


def read_in_memory(
    source: Any,
    image_size: tuple[int, int] | None,
    class_names: tuple[str, ...] | None,
    multi_label: bool,
) -> dict[str, Any]:
    """Reads `(images, labels)`, a `tf.data.Dataset`, or a dict of them."""
    if not isinstance(source, Mapping):
        splits = {"all": _read_split(source, "source", image_size)}
    else:
        check_split_names("source", source)
        splits = {
            name: _read_split(source[name], f"source[{name!r}]", image_size)
            for name in SPLITS
            if name in source
        }
    return _record_fields(splits, class_names, multi_label)


def _record_fields(
    splits: dict[str, tuple[Any, np.ndarray]],
    class_names: tuple[str, ...] | None,
    multi_label: bool,
) -> dict[str, Any]:
    """Joins images and labels by split into the fields of `ImageRecords`."""
    channels = {images[0].shape[-1] for images, _ in splits.values()}
    if len(channels) > 1:
        raise ValueError(
            "`source` must have the same number of channels in every split. "
            f"Received: {sorted(channels)}."
        )
    labels, declared = _label_names(splits, class_names, multi_label)
    ids = [
        f"{name}/{i:06d}"
        for name, (images, _) in splits.items()
        for i in range(len(images))
    ]
    split_of_each = [
        None if name == "all" else name
        for name, (images, _) in splits.items()
        for _ in range(len(images))
    ]
    by_split = [images for images, _ in splits.values()]
    all_images = by_split[0]
    if len(by_split) > 1:
        arrays = all(isinstance(images, np.ndarray) for images in by_split)
        if arrays and len({images.shape[1:] for images in by_split}) == 1:
            all_images = np.concatenate(by_split)
        else:
            all_images = [image for images in by_split for image in images]
    return {
        "ids": ids,
        "pixels": ArrayPixels(all_images),
        "labels": labels,
        "splits": split_of_each,
        "class_names": declared,
        "keep_classes": True,
    }


def _read_split(
    source: Any, name: str, image_size: tuple[int, int] | None
) -> tuple[Any, np.ndarray]:
    """Returns the images as uint8 and the labels as an array."""
    if hasattr(source, "element_spec"):
        images, labels = _read_dataset(source, name, image_size)
    elif isinstance(source, tuple | list) and len(source) == 2:
        images, labels = np.asanyarray(source[0]), np.asarray(source[1])
    else:
        raise TypeError(
            f"`{name}` must be a folder, a .csv file, a pair (images, labels) "
            'of arrays, a dict of such pairs, a tf.data.Dataset or "tfds:name".'
            f" Received: {name} of type {type(source).__name__}."
        )
    if isinstance(images, np.ndarray):
        if images.ndim != 4:
            fix = (
                " Add the axis: images[..., None]." if images.ndim == 3 else ""
            )
            raise ValueError(
                f"`{name}` must have images of shape (n, height, width, "
                f"channels). Received: shape={images.shape}.{fix}"
            )
        images = _as_uint8(images, name)
    if len(images) != len(labels):
        raise ValueError(
            f"`{name}` must have as many labels as images. Received: "
            f"{len(images)} images and {len(labels)} labels."
        )
    if not len(images) or 0 in images[0].shape:
        raise ValueError(f"`{name}` must hold images. Received: none.")
    return images, labels


def _as_uint8(images: np.ndarray, name: str) -> np.ndarray:
    """Checks the range of pixels, and rounds floats to integers."""
    if images.dtype == np.uint8 or not images.size:
        return images.astype(np.uint8, copy=False)
    if images.dtype.kind not in "iuf":
        raise TypeError(
            f"`{name}` must have images of numbers: {_RANGE}. Received: "
            f"dtype={images.dtype}."
        )
    low, high = images.min(), images.max()
    if np.isnan(low):
        raise ValueError(f"`{name}`: {_RANGE}. Received: NaN.")
    if low < 0 or high > 255:
        raise ValueError(
            f"`{name}`: {_RANGE}. Received: pixels from {low:g} to {high:g}. "
            "Undo the scaling first; the model preprocesses images itself."
        )
    if images.dtype.kind == "f" and high <= 1:
        raise ValueError(
            f"`{name}`: {_RANGE}. Received: floats from {low:g} to {high:g}, "
            "which look like [0, 1]. Multiply them by 255."
        )
    if images.dtype.kind == "f":
        images = np.rint(images)
    return images.astype(np.uint8)


# --- labels -------------------------------------------------------------------


def _label_names(
    splits: dict[str, tuple[Any, np.ndarray]],
    class_names: tuple[str, ...] | None,
    multi_label: bool,
) -> tuple[list[tuple[str, ...]], tuple[str, ...] | None]:
    """Returns the class names of each example, and the names of all classes."""
    by_split = {
        name: _check_labels(labels, name, multi_label)
        for name, (_, labels) in splits.items()
    }
    kinds = {(x.dtype.kind, x.shape[1:]) for x in by_split.values()}
    if len(kinds) > 1:
        received = [f"{n} {x.dtype} {x.shape}" for n, x in by_split.items()]
        raise ValueError(
            "`source` must have the same kind of labels in every split. "
            f"Received: {', '.join(received)}."
        )
    labels = np.concatenate(list(by_split.values()))
    if labels.dtype.kind == "U":
        return [(str(name),) for name in labels], class_names
    one_per_example = labels.ndim == 1
    count = int(labels.max()) + 1 if one_per_example else labels.shape[1]
    if class_names is None:
        class_names = tuple(str(i) for i in range(count))
    # More names than labels are fine: a class may have no example here.
    if count > len(class_names) or (
        not one_per_example and count != len(class_names)
    ):
        received_ = (
            f"label {count - 1}" if one_per_example else f"{count} columns"
        )
        raise ValueError(
            "`class_names` must name every class of the labels. Received: "
            f"{received_}, outside the {len(class_names)} classes "
            f"{list(class_names)[:10]}."
        )
    if one_per_example:
        return [(class_names[i],) for i in labels], class_names
    names = np.asarray(class_names, dtype=object)
    return [tuple(names[row > 0]) for row in labels], class_names


def _check_labels(
    labels: np.ndarray, name: str, multi_label: bool
) -> np.ndarray:
    """Returns names or integers `(n,)`, or 0/1 `(n, C)` if multi-label."""
    if labels.ndim == 2 and labels.shape[1] == 1 and not multi_label:
        labels = labels[:, 0]
    if labels.dtype.kind in "SO" and labels.ndim == 1:
        labels = np.array(
            [v.decode() if isinstance(v, bytes) else str(v) for v in labels]
        )
    if labels.dtype.kind == "U" and labels.ndim == 1 and not multi_label:
        return labels
    if multi_label:
        if labels.ndim != 2 or not np.isin(labels, (0, 1)).all():
            raise ValueError(
                "`multi_label` needs labels of shape (n, num_classes) that are "
                f"0 or 1. Received: {_describe(labels, name)}."
            )
        return labels.astype(np.int64)
    if labels.ndim == 2 and labels.dtype.kind in "biuf":
        if not np.isin(labels, (0, 1)).all() or (labels.sum(axis=1) != 1).any():
            raise ValueError(
                "Labels with two axes must be one-hot. Received: "
                f"{_describe(labels, name)}, with rows that do not hold "
                "exactly one 1. Pass multi_label=True for several classes per "
                "image."
            )
        width = labels.shape[1]
        labels = labels.argmax(axis=1)
        # As rows of the same width, since the last classes may have no example.
        return np.eye(width, dtype=np.int64)[labels]
    integers = labels.dtype.kind in "biuf"
    integers = integers and (labels == np.floor(labels)).all()
    if labels.ndim != 1 or not integers or (labels < 0).any():
        raise ValueError(
            "Labels must be integers of at least 0 of shape (n,), one-hot of "
            "shape (n, num_classes), or class names. Received: "
            f"{_describe(labels, name)}."
        )
    return labels.astype(np.int64)


def _describe(labels: np.ndarray, name: str) -> str:
    flat = labels.ravel()[:5].tolist()
    return f"{name} labels of shape {labels.shape}, {labels.dtype}: {flat}"


# --- tf.data and TFDS ---------------------------------------------------------


def _read_dataset(
    dataset: Any, name: str, image_size: tuple[int, int] | None
) -> tuple[Any, np.ndarray]:
    """Reads a finite dataset of (image, label), batched or not."""
    spec = dataset.element_spec
    if not isinstance(spec, tuple) or len(spec) != 2:
        raise ValueError(
            f"`{name}` must be a tf.data.Dataset of pairs (image, label). "
            f"Received: element_spec={spec}."
        )
    if int(dataset.cardinality()) == -1:
        raise ValueError(
            f"`{name}` must be a finite tf.data.Dataset. Received: an infinite "
            "one. Drop `.repeat()`."
        )
    rank = spec[0].shape.rank
    batched = rank == 4
    if rank not in (3, 4):
        raise ValueError(
            f"`{name}` must have images of shape (height, width, channels). "
            f"Received: shape={spec[0].shape}."
        )
    images: list[np.ndarray] = []
    labels: list[Any] = []
    for image, label in dataset.as_numpy_iterator():
        for single in image if batched else image[None]:
            # Floats are not resized here: their range is checked over all
            # images first.
            if image_size is not None and single.dtype == np.uint8:
                single = decoding.resize_array(single, image_size)
            images.append(single)
        labels.extend(label if batched else [label])
    return _stack(images, name), np.asarray(labels)


def _stack(images: list[np.ndarray], name: str) -> Any:
    """Stacks images of equal size; otherwise returns a list of uint8 arrays."""
    if len({image.shape for image in images}) == 1:
        return np.stack(images)
    if images and any(image.dtype != np.uint8 for image in images):
        flat = _as_uint8(np.concatenate([i.ravel() for i in images]), name)
        stops = np.cumsum([image.size for image in images])[:-1]
        return [
            pixels.reshape(image.shape)
            for pixels, image in zip(np.split(flat, stops), images, strict=True)
        ]
    return images


def read_tfds(
    source: str,
    image_size: tuple[int, int] | None,
    class_names: tuple[str, ...] | None,
) -> dict[str, Any]:
    """Reads images of `"tfds:name"`, which is prepared as needed."""
    datasets, names = tfds.open_splits(source, "Image")
    if class_names is not None and set(class_names) != set(names):
        raise ValueError(
            "`class_names` must hold the classes of the data set. Received: "
            f"class_names={list(class_names)}, source={source!r} with classes "
            f"{list(names)[:10]}."
        )
    splits = {
        name: _read_split(dataset, source, image_size)
        for name, dataset in datasets.items()
    }
    return _record_fields(splits, names, multi_label=False)
