"""`AttachedLosses`: all auxiliary losses in force on a model."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import keras

from keras_transfer.auxiliary.auxiliary_loss import AttachedLoss, AuxiliaryLoss
from keras_transfer.optimizers.decoupled_decay import DecoupledDecay


class AttachedLosses:
    """Auxiliary losses in force on one model.

    Args:
        members: The losses. Defaults to `()`, none.
    """

    def __init__(self, members: Sequence[AttachedLoss] = ()) -> None:
        self.members = tuple(members)

    @property
    def pulls(self) -> tuple[DecoupledDecay, ...]:
        """Decays of decoupled penalties."""
        return tuple(pull for member in self.members for pull in member.pulls)

    def wrap(self, network: keras.Model) -> keras.Model:
        """Returns the model to compile and fit: the network or a wrapper.

        Args:
            network: The model, or its part above a cut.
        """
        fitted = network
        for member in self.members:
            fitted = member.wrap(fitted, network)
        return fitted

    def pause(self) -> None:
        """Sets all losses to 0, so that a validation loss is the task's."""
        for member in self.members:
            member.pause()

    def resume(self) -> None:
        """Restores the weights of the losses."""
        for member in self.members:
            member.resume()


@contextlib.contextmanager
def attached(
    losses: Sequence[AuxiliaryLoss], model: keras.Model
) -> Iterator[AttachedLosses]:
    """Puts losses in force on a model within the context.

    Args:
        losses: The losses.
        model: The model.

    Yields:
        `AttachedLosses`.
    """
    with contextlib.ExitStack() as stack:
        members = []
        for loss in losses:
            member = loss.attach(model)
            stack.callback(member.detach)
            members.append(member)
        yield AttachedLosses(members)
