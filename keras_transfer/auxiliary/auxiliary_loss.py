"""`AuxiliaryLoss`: what is minimised beside the loss of the task."""

from __future__ import annotations

import abc
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Protocol

import keras
import numpy as np

from keras_transfer._utils.plain import plain
from keras_transfer.optimizers.decoupled_decay import DecoupledDecay


class AttachedLoss(Protocol):
    """An auxiliary loss in force on a model; what `attach` returns."""

    @property
    def pulls(self) -> Sequence[DecoupledDecay]:
        """Pulls of a decoupled penalty, which the optimizer carries out."""
        ...

    def wrap(self, fitted: keras.Model, network: keras.Model) -> keras.Model:
        """Returns what to compile and fit, over the layers of `fitted`.

        Args:
            fitted: The network, or another loss's wrapper of it.
            network: The model, or its part above a cut.
        """
        ...

    def pause(self) -> None:
        """Makes the loss 0, so that a validation loss is the task's."""
        ...

    def resume(self) -> None:
        """Gives the loss its weight back."""
        ...

    def detach(self) -> None:
        """Takes the loss out of force."""
        ...


class AuxiliaryLoss(abc.ABC):
    """A loss beside the task's own.

    A subclass says what it reads, from which follow the caching and the
    devices that it allows: nothing else asks for its type.

    Attributes:
        reads: `"weights"`; `"outputs"` of the model, for which the frozen part
            may be cached; or `"activations"` within it, for which it may not.
        pulls_to_start: Whether it draws weights or activations to those at the
            start, which must not be thrown away then.
        is_mean_over_examples: Whether its value for a batch is the mean of
            those of its examples, so that a batch may be split over devices.
    """

    reads: ClassVar[str] = "outputs"
    pulls_to_start: ClassVar[bool] = False
    is_mean_over_examples: ClassVar[bool] = True

    @abc.abstractmethod
    def attach(self, model: keras.Model) -> AttachedLoss:
        """Puts the loss in force on a model.

        Args:
            model: The model, as it will be trained.
        """

    def examples(self) -> Mapping[str, np.ndarray]:
        """Returns further inputs of the model that each batch carries.

        Arrays of as many rows, by name: row k of all of them goes together.
        Each batch carries as many rows as it has labelled examples.
        """
        return {}

    def identity(self) -> Any:
        """Returns what tells it from another one, as plain values."""
        return plain(self)
