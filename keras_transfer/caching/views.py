"""Fixed views of an image: augmentation that can be computed once."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from keras_transfer._utils.checks import is_integer
from keras_transfer.data import Augmentation

if TYPE_CHECKING:
    import tensorflow as tf


# `change_each` uses one state per draw; no image draws this often.
_SPACING = 256


@dataclasses.dataclass(frozen=True)
class View:
    """A fixed transformation of each image.

    Attributes:
        index: `0` is the image as it is, `1` the mirrored one where `augment`
            mirrors left to right; each other draws its own change. Defaults to
            `0`.
        augment: Augmentation to draw from, or `None` for view 0. Defaults to
            `None`.
        seed: Seed of the drawn changes. Defaults to `0`.

    Example:

    >>> View(2, Augmentation(crop=0.1)).kind
    'drawn'
    """

    index: int = 0
    augment: Augmentation | None = None
    seed: int = 0

    @property
    def kind(self) -> str:
        """`"clean"`, `"mirrored"` or `"drawn"`."""
        if self.index == 0 or self.augment is None:
            return "clean"
        mirrored = self.index == 1 and self.augment.horizontal_flip
        return "mirrored" if mirrored else "drawn"

    def describe(self) -> dict[str, Any]:
        """Returns everything that determines the pixels, as plain values."""
        if self.kind != "drawn" or self.augment is None:
            return {"kind": self.kind}
        fields = dataclasses.asdict(self.augment)
        for name in (
            "mixup",
            "cutmix",
        ):  # They mix examples and are not part of a view.
            fields.pop(name)
        return {
            "kind": self.kind,
            "index": self.index,
            "seed": self.seed,
            "augment": fields,
        }

    def seeds(self, digests: np.ndarray) -> np.ndarray:
        """Returns a seed for each image, by its content.

        Args:
            digests: Digests of the images, uint8 `(n, 16)`.

        Returns:
            int64 `(n, 2)`.
        """
        seeds = np.zeros((len(digests), 2), np.int64)
        if self.kind != "drawn":
            return seeds
        salt = f"{self.index} {self.seed}".encode()
        for row, digest in enumerate(digests):
            mixed = hashlib.blake2b(digest.tobytes() + salt, digest_size=14)
            number = int.from_bytes(mixed.digest(), "little")
            seeds[row] = number % 2**62, (number >> 62) % 2**40 * _SPACING
        return seeds

    def make(
        self, channels: int
    ) -> Callable[[tf.Tensor, tf.Tensor], tf.Tensor]:
        """Makes the function from images and their seeds to this view.

        Args:
            channels: Number of channels of the images.

        Returns:
            Function of images `(batch, height, width, channels)` and int64
            seeds `(batch, 2)` to images.
        """
        if self.kind == "drawn" and self.augment is not None:
            return self.augment.change_each(channels)
        if self.kind == "mirrored":
            return lambda images, seeds: images[:, :, ::-1]
        return lambda images, seeds: images


def make_views(
    count: int, augment: Augmentation | None = None, seed: int = 0
) -> tuple[View, ...]:
    """Makes the first views: clean, mirrored, and drawn ones.

    Args:
        count: Number of views.
        augment: Augmentation to draw from. Defaults to `None`: mirroring and
            crops of three quarters of the side or more.
        seed: Integer. Defaults to `0`.

    Returns:
        Tuple of `View`.

    Raises:
        ValueError: If `count` is not an integer above 0.

    Example:

    >>> [view.kind for view in make_views(3)]
    ['clean', 'mirrored', 'drawn']
    """
    if not is_integer(count) or count < 1:
        raise ValueError(
            "`views` must be an integer above 0. Received: views="
            f"{count!r:.100}"
        )
    if augment is None:
        augment = Augmentation(crop=0.25)
    return tuple(View(index, augment, seed) for index in range(count))
