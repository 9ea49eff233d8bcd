"""Evaluation of model outputs: metrics, confidence intervals, mistakes."""

from keras_transfer.evaluation.evaluation import (
    KINDS,
    Evaluation,
    evaluate_outputs,
)
from keras_transfer.evaluation.intervals import (
    mean_interval,
    paired_interval,
    proportion_interval,
)

__all__ = [
    "Evaluation",
    "KINDS",
    "evaluate_outputs",
    "mean_interval",
    "paired_interval",
    "proportion_interval",
]
