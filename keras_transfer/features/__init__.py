"""Frozen prefixes, computed once: the feature store and what is built on it."""

from keras_transfer.features.dataset import Features, FeatureSplit, Part
from keras_transfer.features.extraction import extract_features
from keras_transfer.features.store import FeatureStore, default_directory

__all__ = [
    "default_directory",
    "extract_features",
    "Features",
    "FeatureSplit",
    "FeatureStore",
    "Part",
]
