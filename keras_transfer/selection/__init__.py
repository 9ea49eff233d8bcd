"""What to transfer: scores of how well features fit a task, before training."""

from keras_transfer.selection.cleaning import (
    ChosenExample,
    Duplicate,
    LabelError,
    find_duplicates,
    find_label_errors,
    find_outliers,
    outlier_scores,
)
from keras_transfer.selection.compared import TransferComparison
from keras_transfer.selection.comparison import compare_transfer
from keras_transfer.selection.domains import (
    NearestClass,
    domain_accuracy,
    nearest_classes,
    reverse_validation,
)
from keras_transfer.selection.evidence import logme
from keras_transfer.selection.labelling import (
    select_representative,
    select_uncertain,
)
from keras_transfer.selection.probe_score import ProbeScore, probe_score
from keras_transfer.selection.ranked import RankedBackbone, Ranking
from keras_transfer.selection.ranking import rank_backbones
from keras_transfer.selection.separation import h_score, parc
from keras_transfer.selection.sheets import plot_examples
from keras_transfer.selection.source_classes import leep, nce, nleep
from keras_transfer.selection.sources import (
    RankedSource,
    SourceRanking,
    rank_sources,
)

__all__ = [
    "ChosenExample",
    "Duplicate",
    "LabelError",
    "NearestClass",
    "ProbeScore",
    "RankedBackbone",
    "RankedSource",
    "Ranking",
    "SourceRanking",
    "TransferComparison",
    "compare_transfer",
    "domain_accuracy",
    "find_duplicates",
    "find_label_errors",
    "find_outliers",
    "h_score",
    "leep",
    "logme",
    "nce",
    "nearest_classes",
    "nleep",
    "outlier_scores",
    "parc",
    "plot_examples",
    "probe_score",
    "rank_backbones",
    "rank_sources",
    "reverse_validation",
    "select_representative",
    "select_uncertain",
]
