"""What to transfer: scores of how well features fit a task, before training."""

from keras_transfer.selection.cleaning import (
    Duplicate,
    LabelError,
    find_duplicates,
    find_label_errors,
    outlier_scores,
)
from keras_transfer.selection.evidence import logme
from keras_transfer.selection.labelling import (
    select_representative,
    select_uncertain,
)
from keras_transfer.selection.probe_score import ProbeScore, probe_score
from keras_transfer.selection.ranking import (
    RankedBackbone,
    Ranking,
    rank_backbones,
)
from keras_transfer.selection.separation import h_score, parc
from keras_transfer.selection.source_classes import leep, nce, nleep

__all__ = [
    "Duplicate",
    "LabelError",
    "ProbeScore",
    "RankedBackbone",
    "Ranking",
    "find_duplicates",
    "find_label_errors",
    "h_score",
    "leep",
    "logme",
    "nce",
    "nleep",
    "outlier_scores",
    "parc",
    "probe_score",
    "rank_backbones",
    "select_representative",
    "select_uncertain",
]
