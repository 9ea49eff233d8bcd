"""Images on disk, in memory or in TFDS, as indexed data with stable ids."""

from keras_transfer.data.augmentation import Augmentation
from keras_transfer.data.images import ImageData, ImageSplit
from keras_transfer.data.loading import load_images
from keras_transfer.data.report import ImageReport

__all__ = [
    "Augmentation",
    "ImageData",
    "ImageReport",
    "ImageSplit",
    "load_images",
]
