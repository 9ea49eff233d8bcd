"""Training: phases one after the other, resumable; see `fine_tune`."""

from keras_transfer.training.engine import fine_tune
from keras_transfer.training.run import Run

__all__ = ["Run", "fine_tune"]
