"""Data sets of images and texts, indexed and with stable ids."""

from keras_transfer.data.images.augmentation import Augmentation
from keras_transfer.data.images.images import ImageData, ImageSplit
from keras_transfer.data.images.loading import load_images
from keras_transfer.data.labelled import LabelledData, LabelledSplit
from keras_transfer.data.report import DataReport
from keras_transfer.data.texts.loading import load_texts
from keras_transfer.data.texts.texts import TextData, TextSplit

__all__ = [
    "Augmentation",
    "DataReport",
    "ImageData",
    "ImageSplit",
    "LabelledData",
    "LabelledSplit",
    "TextData",
    "TextSplit",
    "load_images",
    "load_texts",
]
