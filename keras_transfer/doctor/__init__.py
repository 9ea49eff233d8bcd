"""Checks, before training, for mistakes that fail silently."""

from keras_transfer.doctor.checkup import check
from keras_transfer.doctor.diagnosis import Diagnosis, Finding
from keras_transfer.structure.outputs import output_activation

__all__ = ["Diagnosis", "Finding", "check", "output_activation"]
