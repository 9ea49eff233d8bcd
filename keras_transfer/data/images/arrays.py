"""Records of the images in arrays, `tf.data` and TFDS, as uint8 in memory.

Images take `n * height * width * channels` bytes. With an `image_size`, large
images are resized while they are read.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from keras_transfer.data import tfds
from keras_transfer.data.checks import check_split_names
from keras_transfer.data.datasets import (
    common_classes,
    parts_of_pair,
    read_rows,
)
from keras_transfer.data.images import decoding
from keras_transfer.data.images.array_labels import read_labels
from keras_transfer.data.images.pixels import ArrayPixels, check_pixels
from keras_transfer.data.images.reading import Reading
from keras_transfer.data.splitting import SPLITS


class _Part(NamedTuple):
    """Images and labels of a split.

    Attributes:
        images: uint8 array, list of uint8 arrays, or list of paths.
        labels: Labels of any kind, one for each image.
        class_names: The classes that the source declares, or `None`.
    """

    images: Any
    labels: Any
    class_names: tuple[str, ...] | None = None

    @property
    def are_files(self) -> bool:
        """True if the images are paths."""
        return isinstance(self.images[0], str)


def read_in_memory(source: Any, how: Reading) -> dict[str, Any]:
    """Reads `(images, labels)`, a `tf.data.Dataset`, or a dict of them."""
    source = parts_of_pair(source)
    if not isinstance(source, Mapping):
        parts = {"all": _read_split(source, "source", how)}
    else:
        check_split_names("source", source)
        parts = {
            name: _read_split(source[name], f"source[{name!r}]", how)
            for name in SPLITS
            if name in source
        }
    return _record_fields(parts, how)


def _record_fields(parts: dict[str, _Part], how: Reading) -> dict[str, Any]:
    """Joins images and labels by split into the fields of `ImageRecords`."""
    class_names = common_classes(parts, "source")
    if how.class_names and class_names not in (None, how.class_names):
        raise ValueError(
            "`class_names` must be those of the data set, in the same order. "
            f"Received: class_names={list(how.class_names)[:10]}, a data set "
            f"with class_names {list(class_names or ())[:10]}. Omit it."
        )
    class_names = class_names or how.class_names
    labels = read_labels(
        {name: part.labels for name, part in parts.items()}, class_names, how
    )
    files = {part.are_files for part in parts.values()}
    if len(files) > 1:
        raise ValueError(
            "`source` must hold paths or arrays in every split. Received: both."
        )
    split_of_each = [
        None if name == "all" else name
        for name, part in parts.items()
        for _ in range(len(part.images))
    ]
    fields = {
        "labels": labels.names,
        "splits": split_of_each,
        "class_names": labels.class_names,
        "problems": labels.problems,
    }
    if files.pop():
        paths = [path for part in parts.values() for path in part.images]
        return {**fields, "ids": paths, "pixels": how.files(paths)}
    channels = {part.images[0].shape[-1] for part in parts.values()}
    if len(channels) > 1:
        raise ValueError(
            "`source` must have the same number of channels in every split. "
            f"Received: {sorted(channels)}."
        )
    ids = [
        f"{name}/{i:06d}"
        for name, part in parts.items()
        for i in range(len(part.images))
    ]
    images = _join([part.images for part in parts.values()])
    pixels = ArrayPixels(images, how.resize)
    return {**fields, "ids": ids, "pixels": pixels, "keep_classes": True}


def _join(by_split: list[Any]) -> Any:
    if len(by_split) == 1:
        return by_split[0]
    arrays = all(isinstance(images, np.ndarray) for images in by_split)
    if arrays and len({images.shape[1:] for images in by_split}) == 1:
        return np.concatenate(by_split)
    return [image for images in by_split for image in images]


def _read_split(source: Any, name: str, how: Reading) -> _Part:
    """Returns the images as uint8, and the labels."""
    class_names = None
    if rows := read_rows(
        source, name, "image", _shrink(how.image_size, how.resize)
    ):
        class_names = rows.class_names
        images, labels = (
            _as_images(rows.inputs, name, how.channels),
            rows.labels,
        )
    elif isinstance(source, tuple | list) and len(source) == 2:
        images, labels = _as_images(source[0], name, how.channels), source[1]
    else:
        raise TypeError(
            f"`{name}` must be a folder, a table (.csv, .jsonl, .parquet), a "
            "data frame, a pair (images or paths, labels), a dict of these by "
            'split, a tf.data.Dataset or "tfds:name". '
            f"Received: {name} of type {type(source).__name__}."
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
    if not hasattr(labels, "__len__") or len(images) != len(labels):
        count = len(labels) if hasattr(labels, "__len__") else "no"
        raise ValueError(
            f"`{name}` must have as many labels as images. Received: "
            f"{len(images)} images and {count} labels."
        )
    if not len(images) or 0 in np.shape(images[0]):
        raise ValueError(f"`{name}` must hold images. Received: none.")
    return _Part(images, labels, class_names)


def _shrink(
    size: tuple[int, int] | None, resize: str
) -> Callable[[Any], np.ndarray]:
    """Returns a function that resizes images while they are read."""

    def shrink(image: Any) -> np.ndarray:
        # Floats are not resized here: their range is checked over all images
        # first.
        image = np.asarray(image)
        if size is None or image.dtype != np.uint8:
            return image
        return decoding.resize_array(image, size, resize)

    return shrink


def _as_images(images: Any, name: str, channels: int) -> Any:
    """Returns an array, a list of arrays of several sizes, or of paths."""
    if isinstance(images, np.ndarray) and (
        images.ndim > 1 or images.dtype.kind not in "OUS"
    ):
        return np.asanyarray(images)
    if not hasattr(images, "__len__") or isinstance(images, str | bytes):
        raise TypeError(
            f"`{name}` must hold an array of images, or a list of images or "
            f"paths. Received: {type(images).__name__}."
        )
    images = list(images)
    if images and all(isinstance(x, str | os.PathLike) for x in images):
        return [os.path.expanduser(os.fspath(x)) for x in images]
    arrays = [
        decoding.convert(image, channels)
        if decoding.is_pillow(image)
        else np.asarray(image)
        for image in images
    ]
    odd = [i for i, x in enumerate(arrays) if x.dtype.kind not in "biuf"]
    if odd:
        raise TypeError(
            f"`{name}` must hold an array of images, or a list of images or "
            f"paths. Received: row {odd[0]} of type "
            f"{type(images[odd[0]]).__name__}."
        )
    if len({array.shape for array in arrays}) <= 1:
        return np.asarray(arrays)
    flat = {array.shape[2:] for array in arrays if array.ndim == 3}
    if any(array.ndim != 3 for array in arrays) or len(flat) > 1:
        raise ValueError(
            f"`{name}` must have images of shape (height, width, channels), "
            "with the same channels. Received: shapes "
            f"{sorted({array.shape for array in arrays})[:3]}. Convert them, "
            'for example with PIL\'s image.convert("RGB").'
        )
    return _stack(arrays, name)


def _as_uint8(images: np.ndarray, name: str) -> np.ndarray:
    """Checks the range of pixels, and rounds floats to integers."""
    if images.dtype == np.uint8 or not images.size:
        return images.astype(np.uint8, copy=False)
    if images.dtype.kind not in "iuf":
        raise TypeError(
            f"`{name}` must have images of numbers: pixels in [0, 255]. "
            f"Received: dtype={images.dtype}."
        )
    check_pixels(images, name)
    if images.dtype.kind == "f":
        images = np.rint(images)
    return images.astype(np.uint8)


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


def read_tfds(source: str, how: Reading) -> dict[str, Any]:
    """Reads images of `"tfds:name"`, which is prepared as needed."""
    datasets, names = tfds.open_splits(source, "Image")
    if how.class_names is not None and set(how.class_names) != set(names):
        raise ValueError(
            "`class_names` must hold the classes of the data set. Received: "
            f"class_names={list(how.class_names)}, source={source!r} with "
            f"classes {list(names)[:10]}."
        )
    parts = {
        name: _read_split(dataset, source, how)._replace(class_names=names)
        for name, dataset in datasets.items()
    }
    return _record_fields(parts, dataclasses.replace(how, class_names=None))
