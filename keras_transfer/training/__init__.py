"""Training: phases one after the other, resumable; see `fine_tune`."""

from keras_transfer.training.cross_validation import cross_validate
from keras_transfer.training.engine import fine_tune
from keras_transfer.training.learning_rate import find_learning_rate
from keras_transfer.training.planning import plan
from keras_transfer.training.plans import Plan
from keras_transfer.training.run import Run

__all__ = [
    "Plan",
    "Run",
    "cross_validate",
    "find_learning_rate",
    "fine_tune",
    "plan",
]
