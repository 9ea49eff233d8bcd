"""Training: phases one after the other, resumable; see `fine_tune`."""

from keras_transfer.training.dry_run import plan
from keras_transfer.training.fine_tuning import fine_tune
from keras_transfer.training.learning_rate_sweep import find_learning_rate
from keras_transfer.training.run_result import Run

__all__ = [
    "Run",
    "find_learning_rate",
    "fine_tune",
    "plan",
]
