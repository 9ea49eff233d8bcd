"""Learning-rate schedules."""

from keras_transfer.schedules.bit import (
    BiTHyperRule,
    bit_hyperrule,
    bit_learning_rate,
)
from keras_transfer.schedules.callback import ScheduledLearningRate
from keras_transfer.schedules.schedules import (
    constant,
    one_cycle,
    slanted_triangular,
    step_decay,
    warmup_cosine,
)

__all__ = [
    "BiTHyperRule",
    "ScheduledLearningRate",
    "bit_hyperrule",
    "bit_learning_rate",
    "constant",
    "one_cycle",
    "slanted_triangular",
    "step_decay",
    "warmup_cosine",
]
