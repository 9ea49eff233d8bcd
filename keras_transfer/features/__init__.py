"""Frozen prefixes, computed once: the feature store and what is built on it.

Names are imported when they are first used: `python -m keras_transfer.features`
looks after a store without TensorFlow.
"""

from typing import TYPE_CHECKING

from keras_transfer._lazy import importing as _importing

if TYPE_CHECKING:
    from keras_transfer.features.clustering import Clusters, cluster
    from keras_transfer.features.dataset import (
        Features,
        FeatureSplit,
        Part,
        stack_features,
    )
    from keras_transfer.features.extraction import extract_features
    from keras_transfer.features.fitted import FittedProbe
    from keras_transfer.features.probing import fit_probe
    from keras_transfer.features.store import FeatureStore, default_directory
    from keras_transfer.features.transformer import FeatureExtractor

__all__ = [
    "cluster",
    "Clusters",
    "default_directory",
    "extract_features",
    "FeatureExtractor",
    "Features",
    "FeatureSplit",
    "FeatureStore",
    "fit_probe",
    "FittedProbe",
    "Part",
    "stack_features",
]

_MODULES = {
    "cluster": "clustering",
    "Clusters": "clustering",
    "default_directory": "store",
    "extract_features": "extraction",
    "FeatureExtractor": "transformer",
    "Features": "dataset",
    "FeatureSplit": "dataset",
    "FeatureStore": "store",
    "fit_probe": "probing",
    "FittedProbe": "fitted",
    "Part": "dataset",
    "stack_features": "dataset",
}


__getattr__ = _importing(globals(), _MODULES)
