"""Features of frozen backbones: extraction, probes, clusters."""

from keras_transfer.caching.store import FeatureStore
from keras_transfer.features.clustering import Clusters, cluster
from keras_transfer.features.extraction import extract_features
from keras_transfer.features.feature_extractor import FeatureExtractor
from keras_transfer.features.features import (
    BlockColumns,
    Features,
    FeatureSplit,
    stack_features,
)
from keras_transfer.features.fitted_probe import FittedProbe
from keras_transfer.features.probe_fitting import fit_probe
from keras_transfer.features.probe_score import ProbeScore, probe_score

__all__ = [
    "Clusters",
    "FeatureExtractor",
    "FeatureSplit",
    "FeatureStore",
    "Features",
    "FittedProbe",
    "BlockColumns",
    "ProbeScore",
    "cluster",
    "extract_features",
    "fit_probe",
    "probe_score",
    "stack_features",
]
