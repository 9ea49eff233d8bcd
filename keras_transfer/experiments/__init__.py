"""Experiments of several trainings: cross-validation, transfer or not."""

from keras_transfer.experiments.cross_validation import cross_validate
from keras_transfer.experiments.cross_validation_result import CrossValidation
from keras_transfer.experiments.transfer import compare_transfer
from keras_transfer.experiments.transfer_comparison import TransferComparison

__all__ = [
    "CrossValidation",
    "TransferComparison",
    "compare_transfer",
    "cross_validate",
]
