"""Probes on NumPy arrays: problems on frozen features, solved to the end."""

from keras_transfer.probes.choosing import (
    Choice,
    Problem,
    head2toe,
    logistic,
    nearest_mean,
    neighbours,
    ridge,
)
from keras_transfer.probes.group_lasso import group_lasso
from keras_transfer.probes.linear import (
    STRENGTHS,
    Probe,
    fit_binary,
    fit_logistic,
    fit_ridge,
)
from keras_transfer.probes.paths import LAMBDAS
from keras_transfer.probes.ridge import RidgePath, decompose
from keras_transfer.probes.table import PathRow

__all__ = [
    "Choice",
    "LAMBDAS",
    "PathRow",
    "Probe",
    "Problem",
    "RidgePath",
    "STRENGTHS",
    "decompose",
    "fit_binary",
    "fit_logistic",
    "fit_ridge",
    "group_lasso",
    "head2toe",
    "logistic",
    "nearest_mean",
    "neighbours",
    "ridge",
]
