"""The training images of an argument."""

from __future__ import annotations

import dataclasses
from typing import Any

from keras_transfer.data import ImageData, ImageSplit


def training_images(name: str, data: Any) -> ImageSplit:
    """Returns the training images of data, or a split as it is.

    Args:
        name: Name of the argument, for messages.
        data: An `ImageData`, or one of its splits.

    Returns:
        The split, with the image size of the data.

    Raises:
        TypeError: If it is something else.
        ValueError: If an image has several classes.
    """
    split = data.train if isinstance(data, ImageData) else data
    if not isinstance(split, ImageSplit):
        raise TypeError(
            f"`{name}` must be an `ImageData`, from `load_images`, or one of "
            f"its splits. Received: {type(data).__name__}"
        )
    if isinstance(data, ImageData) and data.image_size is not None:
        split = dataclasses.replace(split, image_size=data.image_size)
    if split.multi_label:
        raise ValueError(
            f"`{name}` must have one class for each image. Received: several."
        )
    return split
