"""Finds, before training, what makes a training fail in silence."""

from keras_transfer.doctor.checking import check
from keras_transfer.doctor.diagnosis import Diagnosis, Finding
from keras_transfer.structure.outputs import output_activation

__all__ = ["Diagnosis", "Finding", "check", "output_activation"]
