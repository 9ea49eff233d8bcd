"""Features of a frozen backbone: extraction, probes, clusters."""

from keras_transfer.features.clustering import Clusters, cluster
from keras_transfer.features.extraction import extract_features
from keras_transfer.features.features import (
    Features,
    FeatureSplit,
    Part,
    stack_features,
)
from keras_transfer.features.fitted_probe import FittedProbe
from keras_transfer.features.probe_score import ProbeScore, probe_score
from keras_transfer.features.probing import fit_probe
from keras_transfer.features.transformer import FeatureExtractor

__all__ = [
    "Clusters",
    "FeatureExtractor",
    "FeatureSplit",
    "Features",
    "FittedProbe",
    "Part",
    "ProbeScore",
    "cluster",
    "extract_features",
    "fit_probe",
    "probe_score",
    "stack_features",
]
