"""Scores and rankings of backbones and source data sets, before training."""

from keras_transfer.selection.backbone_ranking import rank_backbones
from keras_transfer.selection.class_separability import h_score, parc
from keras_transfer.selection.domain_distance import (
    NearestClass,
    domain_accuracy,
    nearest_classes,
    reverse_validation,
)
from keras_transfer.selection.logme import logme
from keras_transfer.selection.ranking import RankedBackbone, Ranking
from keras_transfer.selection.source_label_scores import leep, nce, nleep
from keras_transfer.selection.source_ranking import (
    RankedSource,
    SourceRanking,
    rank_sources,
)

__all__ = [
    "NearestClass",
    "RankedBackbone",
    "RankedSource",
    "Ranking",
    "SourceRanking",
    "domain_accuracy",
    "h_score",
    "leep",
    "logme",
    "nce",
    "nearest_classes",
    "nleep",
    "parc",
    "rank_backbones",
    "rank_sources",
    "reverse_validation",
]
