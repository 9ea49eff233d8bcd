"""Builders: preprocessing, backbone and head as one Keras model."""

from keras_transfer.builders.files import load_model
from keras_transfer.builders.images import build_classifier, build_regressor
from keras_transfer.builders.texts import build_text_classifier

__all__ = [
    "build_classifier",
    "build_regressor",
    "build_text_classifier",
    "load_model",
]
