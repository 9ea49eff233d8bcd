"""Builders of models: preprocessing, backbone and head in one `keras.Model`."""

from keras_transfer.builders.files import load_model
from keras_transfer.builders.images import build_classifier, build_regressor
from keras_transfer.builders.texts import build_text_classifier

__all__ = [
    "build_classifier",
    "build_regressor",
    "build_text_classifier",
    "load_model",
]
