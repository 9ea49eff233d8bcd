"""`OutputLoss`: an auxiliary loss of the outputs for a batch."""

from __future__ import annotations

import abc
from collections.abc import Mapping, Sequence
from typing import Any

import keras
from keras import ops

from keras_transfer.auxiliary.auxiliary_loss import AuxiliaryLoss
from keras_transfer.auxiliary.loss_adder import LossAdder
from keras_transfer.optimizers.decoupled_decay import DecoupledDecay
from keras_transfer.structure import graph


class OutputLoss(AuxiliaryLoss):
    """Adds `weight * compute(outputs, carried)` to the loss of each batch.

    Subclasses define `weight`, `compute` and, where batches carry further
    inputs, `examples`. The frozen part is cached for these as for the labelled
    inputs.

    Attributes:
        weight: Coefficient, at least 0; 0 changes nothing.
    """

    weight: float = 1.0

    @abc.abstractmethod
    def compute(self, outputs: Any, carried: Mapping[str, Any]) -> Any:
        """Returns the loss of a batch, a mean over its rows.

        Args:
            outputs: The outputs for the labelled examples, `(batch, ...)`.
            carried: The outputs for the inputs from `examples`, by name, each
                `(batch, ...)`.
        """

    def attach(self, model: keras.Model) -> AttachedOutputLoss:
        """Puts the loss in force; see `AuxiliaryLoss.attach`.

        Args:
            model: The model, as it will be trained.

        Returns:
            An `AttachedOutputLoss`.
        """
        with model.distribute_strategy.scope():
            return AttachedOutputLoss(self)


class AttachedOutputLoss:
    """An `OutputLoss` in force.

    Args:
        loss: The loss.
    """

    pulls: Sequence[DecoupledDecay] = ()

    def __init__(self, loss: OutputLoss) -> None:
        self._loss = loss
        # A variable, since traced steps read it: a number would be fixed there.
        self._weight = keras.Variable(
            float(loss.weight), trainable=False, autocast=False, name="weight"
        )

    def wrap(self, fitted: keras.Model, network: keras.Model) -> keras.Model:
        """Returns a model that adds the loss; see `AttachedLoss.wrap`.

        Args:
            fitted: The network, or another loss's wrapper of it.
            network: The model, or its part above a cut.
        """
        names = list(self._loss.examples())
        inputs = [graph.input_like(t, t.name) for t in fitted.inputs]
        carried = [
            [
                graph.input_like(tensor, f"{name}_{number}")
                for number, tensor in enumerate(network.inputs)
            ]
            for name in names
        ]
        outputs = fitted(_one_or_all(inputs))
        if network is not fitted:  # The two may have the same name.
            network = keras.Model(
                network.inputs, network.outputs, name="network_of_carried"
            )
        others = [network(_one_or_all(tensors)) for tensors in carried]

        def loss(x: Any, *more: Any) -> Any:
            named = dict(zip(names, more, strict=True))
            value = ops.cast(self._loss.compute(x, named), "float32")
            return self._weight * value

        result = LossAdder(loss, _last_name(fitted))(
            [outputs, outputs, *others]
        )
        flat = [*inputs, *(tensor for group in carried for tensor in group)]
        return keras.Model(_one_or_all(flat), result, name=fitted.name)

    def pause(self) -> None:
        """Does nothing: the loss is added only in training."""

    def resume(self) -> None:
        """Does nothing: the loss is added only in training."""

    def detach(self) -> None:
        """Removes the loss, also from functions that are already compiled."""
        self._weight.assign(0.0)


def _one_or_all(tensors: Sequence[Any]) -> Any:
    return tensors[0] if len(tensors) == 1 else list(tensors)


def _last_name(model: keras.Model) -> str:
    """Returns the name of the output layer, by which losses may be keyed."""
    (tensor,) = model.outputs
    return next(
        step.operation.name
        for step in graph.steps(model)
        if any(output is tensor for output in step.outputs)
    )
