"""Penalties `lambda * R(theta)` on weights and activations."""

from keras_transfer.penalties.attached import AttachedPenalty
from keras_transfer.penalties.features import BSS, FeatureMap
from keras_transfer.penalties.penalty import Penalty
from keras_transfer.penalties.weights import L1, L2, L2SP, ElasticNet

__all__ = [
    "AttachedPenalty",
    "BSS",
    "ElasticNet",
    "FeatureMap",
    "L1",
    "L2",
    "L2SP",
    "Penalty",
]
