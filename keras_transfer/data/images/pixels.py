"""Sources of the pixels of examples: files, or an array in memory."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence

import numpy as np

from keras_transfer._utils.digest import DIGEST_BYTES
from keras_transfer.data.images import decoding

# Largest float of pixels that look like [0, 1].
_LARGEST_OF_UNIT = 1.5


@dataclasses.dataclass(frozen=True)
class FilePixels:
    """Images in files, decoded when read.

    Args:
        paths: The path of each example, or the bytes of its file.
        channels: Number of channels: 1, 3 or 4.
        max_pixels: Largest number of pixels; larger files raise.
        resize: A name in `decoding.RESIZES`. Defaults to `"stretch"`.
    """

    paths: Sequence[str | bytes]
    channels: int
    max_pixels: int
    resize: str = "stretch"

    def __len__(self) -> int:
        return len(self.paths)

    def read(
        self, index: int, image_size: tuple[int, int] | None = None
    ) -> np.ndarray:
        """Returns image `index` as uint8 `(height, width, channels)`."""
        return decoding.read_image(
            self.paths[index],
            channels=self.channels,
            image_size=image_size,
            resize=self.resize,
            max_pixels=self.max_pixels,
        )

    def size(self, index: int) -> tuple[int, int]:
        """Returns `(height, width)`, read from the header of the file."""
        path = self.paths[index]
        try:
            return decoding.header_size(path, self.max_pixels)
        except Exception as err:
            raise ValueError(
                f"Cannot read the image file {decoding.name_of(path)}: "
                f"{decoding.reason(err)}."
            ) from err

    def inspect(
        self, index: int, verify: bool
    ) -> tuple[bytes, tuple[int, int] | None]:
        """Returns a digest of the content, and the size if decoded."""
        data = decoding.read_bytes(self.paths[index])
        if not verify:
            return _digest(data), None
        image = decoding.decode(
            data, channels=self.channels, max_pixels=self.max_pixels
        )
        return digest_image(image), image.shape[:2]

    def peak(self, index: int) -> int | None:
        """Returns the largest value of a 16-bit image, `None` for others."""
        return decoding.peak_of_16_bits(self.paths[index])


@dataclasses.dataclass(frozen=True)
class ArrayPixels:
    """Images in memory.

    Args:
        images: uint8 array `(n, height, width, channels)`, or a list of uint8
            arrays `(height, width, channels)` that differ in size.
        resize: A name in `decoding.RESIZES`. Defaults to `"stretch"`.
    """

    images: np.ndarray | Sequence[np.ndarray]
    resize: str = "stretch"

    def __len__(self) -> int:
        return len(self.images)

    @property
    def channels(self) -> int:
        """The number of channels."""
        return int(self.images[0].shape[-1])

    def read(
        self, index: int, image_size: tuple[int, int] | None = None
    ) -> np.ndarray:
        """Returns image `index` as uint8 `(height, width, channels)`."""
        image = np.asarray(self.images[index])
        if image_size is None:
            return image
        return decoding.resize_array(image, image_size, self.resize)

    def size(self, index: int) -> tuple[int, int]:
        """Returns `(height, width)`."""
        height, width = self.images[index].shape[:2]
        return height, width

    def inspect(
        self, index: int, verify: bool
    ) -> tuple[bytes, tuple[int, int] | None]:
        """Returns a digest of the pixels, and the size."""
        image = self.read(index)
        return digest_image(image), self.size(index)


def check_pixels(images: np.ndarray, name: str, most: float = 255) -> None:
    """Raises unless an array holds pixels in [0, 255].

    Args:
        images: Images of numbers.
        name: Name of the argument in errors.
        most: Largest pixel, above 255 where cubic interpolation may exceed it.
            Defaults to `255`.

    Raises:
        ValueError: If pixels are outside the range, or floats that look like
            another range.
    """
    if images.dtype == np.uint8 or not images.size:
        return
    low, high = images.min(), images.max()
    rule = f"`{name}`: pixels must be in [0, 255]."
    if np.isnan(low):
        raise ValueError(f"{rule} Received: NaN.")
    if low < 0 or high > most:
        raise ValueError(
            f"{rule} Received: pixels from {low:g} to {high:g}. Undo the "
            "scaling first; the model preprocesses images itself."
        )
    # Resizing overshoots 1 a little; no image in [0, 255] is so dark.
    if images.dtype.kind == "f" and low < high <= _LARGEST_OF_UNIT:
        raise ValueError(
            f"{rule} Received: floats from {low:g} to {high:g}, which look "
            "like [0, 1]. Multiply them by 255."
        )


def digest_image(image: np.ndarray) -> bytes:
    """Returns 16 bytes that identify the pixels and the shape."""
    return _digest(repr(image.shape).encode(), np.ascontiguousarray(image).data)


def _digest(*chunks: bytes | memoryview) -> bytes:
    digest = hashlib.blake2b(digest_size=DIGEST_BYTES)
    for chunk in chunks:
        digest.update(chunk)
    return digest.digest()
