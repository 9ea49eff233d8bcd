"""Strategies: tuples of `Phase`, chosen and applied to a model."""

from keras_transfer.strategies.phase import Depth, Phase
from keras_transfer.strategies.strategies import (
    LPFT,
    FineTune,
    FromScratch,
    GradualUnfreezing,
    LinearProbe,
    Surgical,
    resolve,
)

__all__ = [
    "Depth",
    "FineTune",
    "FromScratch",
    "GradualUnfreezing",
    "LPFT",
    "LinearProbe",
    "Phase",
    "Surgical",
    "resolve",
]
