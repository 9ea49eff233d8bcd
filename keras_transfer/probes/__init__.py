"""Probes on NumPy arrays: convex problems, solved exactly."""

from keras_transfer.probes.chosen_probe import (
    ChosenProbe,
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
from keras_transfer.probes.path_table import PathRow
from keras_transfer.probes.paths import LAMBDAS
from keras_transfer.probes.problem import Problem
from keras_transfer.probes.ridge import RidgePath, decompose

__all__ = [
    "ChosenProbe",
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
