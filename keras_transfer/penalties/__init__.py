"""Penalties `lambda * R(theta)` on weights and activations."""

from keras_transfer.penalties.activation_penalties import BSS, FeatureMap
from keras_transfer.penalties.attached import AttachedPenalty
from keras_transfer.penalties.penalty import Penalty
from keras_transfer.penalties.weight_penalties import L1, L2, L2SP, ElasticNet

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
