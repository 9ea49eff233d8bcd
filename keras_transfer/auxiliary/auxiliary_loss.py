"""`AuxiliaryLoss`: a loss that is minimised besides that of the task."""

from __future__ import annotations

import abc
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Protocol

import keras
import numpy as np

from keras_transfer._utils.plain import plain
from keras_transfer.optimizers.decoupled_decay import DecoupledDecay


class AttachedLoss(Protocol):
    """An auxiliary loss in force on a model, returned by `attach`."""

    @property
    def pulls(self) -> Sequence[DecoupledDecay]:
        """Decays of a decoupled penalty, which the optimizer applies."""
        ...

    def wrap(self, fitted: keras.Model, network: keras.Model) -> keras.Model:
        """Returns the model to compile and fit, over the layers of `fitted`.

        Args:
            fitted: The network, or another loss's wrapper of it.
            network: The model, or its part above a cut.
        """
        ...

    def pause(self) -> None:
        """Sets the loss to 0, so that a validation loss is the task's."""
        ...

    def resume(self) -> None:
        """Restores the weight of the loss."""
        ...

    def detach(self) -> None:
        """Removes the loss from the model."""
        ...


class AuxiliaryLoss(abc.ABC):
    """A loss besides the task's own.

    A subclass declares what it reads, which determines the caching and devices
    that it allows; no code checks for its type.

    Attributes:
        reads: `"weights"`; `"outputs"` of the model, for which the frozen part
            may be cached; or `"activations"` within it, for which it may not.
        pulls_to_start: Whether it pulls weights or activations to their initial
            values, which then must not be discarded.
        is_mean_over_examples: Whether its value for a batch is the mean of
            those of its examples, so that a batch may be split over devices.
    """

    reads: ClassVar[str] = "outputs"
    # The argument of `fine_tune` that takes it.
    argument: ClassVar[str] = "auxiliary"
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

        Arrays with the same number of rows, by name: row k of all of them
        belongs together.
        Each batch carries as many rows as it has labelled examples.
        """
        return {}

    def identity(self) -> Any:
        """Returns the fields that identify the loss, as plain values."""
        return plain(self)
