"""Finds, before training, what makes a training fail in silence."""

from keras_transfer.doctor.checking import check
from keras_transfer.doctor.diagnosis import Diagnosis, Finding

__all__ = ["Diagnosis", "Finding", "check"]
