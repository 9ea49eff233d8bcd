"""Learning rates by block, around any Keras optimizer."""

from keras_transfer.optimizers.multiplier import LearningRateMultiplier
from keras_transfer.optimizers.multipliers import block_multipliers, layer_decay

__all__ = [
    "LearningRateMultiplier",
    "block_multipliers",
    "layer_decay",
]
