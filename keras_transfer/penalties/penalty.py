"""`Penalty`: `lambda * R(theta)`, on weights or on activations."""

from __future__ import annotations

import abc
from typing import ClassVar

import keras

from keras_transfer.auxiliary.auxiliary_loss import AuxiliaryLoss
from keras_transfer.penalties.attached import AttachedPenalty
from keras_transfer.penalties.fields import check_fields
from keras_transfer.penalties.terms import Form


class Penalty(AuxiliaryLoss):
    """A penalty: a frozen dataclass whose floats are its coefficients.

    Attributes:
        on: Kinds of variables that are penalised; `()` for activations.
        decoupled: Whether the optimizer applies it, outside of the gradient.
    """

    reads: ClassVar[str] = "weights"
    argument: ClassVar[str] = "penalty"
    on: tuple[str, ...] = ()
    decoupled: bool = False

    def __post_init__(self) -> None:
        check_fields(self)

    @abc.abstractmethod
    def attach(self, model: keras.Model) -> AttachedPenalty:
        """Puts the penalty in force on a model.

        Args:
            model: A built model.
        """

    def form(self, pretrained: bool) -> Form | None:
        """Returns the coefficients of `sum |w|` and `1/2 sum (w - start)^2`.

        Args:
            pretrained: Whether the coefficients apply to pretrained weights, or
                to new ones.

        Returns:
            The names of the coefficients; `None` where the penalty is not such
            a sum over weights.
        """
        return None
