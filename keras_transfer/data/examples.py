"""Examples by index, each with a digest of its content."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from keras_transfer._utils.digest import DIGEST_BYTES
from keras_transfer.data import ImageSplit, TextSplit
from keras_transfer.data.images.pixels import digest_image
from keras_transfer.data.texts.texts import digest_text


@dataclasses.dataclass(frozen=True, eq=False)
class Examples:
    """Inputs of a network, each with a digest of its content.

    Args:
        read: Function from an index to one input.
        num_examples: Number of examples.
        shape: Shape of one input.
        dtype: Dtype of the inputs, `"string"` for texts.
        reading: Settings that determine an input together with its content,
            such as the size that images are resized to.
        digest: Function that computes the digests, uint8 `(n, 16)`.
    """

    read: Callable[[int], np.ndarray]
    num_examples: int
    shape: tuple[int, ...]
    dtype: str
    reading: Mapping[str, Any]
    digest: Callable[[], np.ndarray]

    def __len__(self) -> int:
        return self.num_examples

    @property
    def numpy_dtype(self) -> type:
        """The dtype of arrays of examples."""
        return object if self.dtype == "string" else np.dtype(self.dtype).type

    @functools.cached_property
    def digests(self) -> np.ndarray:
        """Digests of the examples, uint8 `(n, 16)`, computed once."""
        return self.digest()


def examples_of(
    data: ImageSplit | TextSplit | np.ndarray,
    image_size: tuple[int, int] | None = None,
) -> Examples:
    """Makes `Examples` of a split or of an array.

    Args:
        data: A split, or an array `(n, ...)` of inputs of a network.
        image_size: Size `(height, width)` that images of a split are resized
            to. Defaults to `None`, the size of the data.

    Returns:
        `Examples`.

    Raises:
        ValueError: If the images have no common size.
    """
    if isinstance(data, ImageSplit):
        size = data.common_size(image_size)
        channels = data.pixels.channels
        return Examples(
            read=dataclasses.replace(data, image_size=size).image,
            num_examples=len(data),
            shape=(*size, channels),
            dtype="uint8",
            reading=_reading_of((*size, channels), "uint8", data.pixels.resize),
            digest=data.digests,
        )
    if isinstance(data, TextSplit):
        data = data.texts
    dtype = "string" if data.dtype == object else data.dtype.name
    return Examples(
        read=data.__getitem__,
        num_examples=len(data),
        shape=data.shape[1:],
        dtype=dtype,
        reading=_reading_of(data.shape[1:], dtype),
        digest=functools.partial(_digest_rows, data),
    )


def _reading_of(
    shape: tuple[int, ...], dtype: str, resize: str = "stretch"
) -> dict[str, Any]:
    """Describes the reading, equally for a split and for an array."""
    reading: dict[str, Any] = {"shape": list(shape), "dtype": dtype}
    if resize != "stretch":
        reading["resize"] = resize
    return reading


def _digest_rows(array: np.ndarray) -> np.ndarray:
    digests = np.empty((len(array), DIGEST_BYTES), np.uint8)
    for index, row in enumerate(array):
        digests[index] = np.frombuffer(
            digest_text(row) if isinstance(row, str) else digest_image(row),
            np.uint8,
        )
    return digests
