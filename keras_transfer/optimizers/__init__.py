"""Learning rates by block, around any Keras optimizer."""

from keras_transfer.optimizers.learning_rate_multiplier import (
    LearningRateMultiplier,
)
from keras_transfer.optimizers.rates_by_block import (
    block_multipliers,
    layer_decay,
)

__all__ = [
    "LearningRateMultiplier",
    "block_multipliers",
    "layer_decay",
]
