"""Losses besides the task's own; penalties are those that read weights."""

from keras_transfer.auxiliary.attached_losses import AttachedLosses
from keras_transfer.auxiliary.auxiliary_loss import (
    AttachedLoss,
    AuxiliaryLoss,
)
from keras_transfer.auxiliary.output_loss import OutputLoss

__all__ = ["AttachedLoss", "AttachedLosses", "AuxiliaryLoss", "OutputLoss"]
