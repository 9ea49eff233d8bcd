"""Penalties on activations: FeatureMap and BSS."""

from __future__ import annotations

import abc
from dataclasses import dataclass
from typing import Any, ClassVar

import keras

from keras_transfer.penalties.activation_trainers import (
    Trainer,
    feature_map_trainer,
    singular_value_trainer,
)
from keras_transfer.penalties.attached import (
    AttachedPenalty,
    check_free,
    mark,
)
from keras_transfer.penalties.fields import checked_coefficients
from keras_transfer.penalties.penalty import Penalty


class ActivationPenalty(Penalty):
    """A penalty on activations, added by a trainer of its own."""

    reads: ClassVar[str] = "activations"

    def attach(self, model: keras.Model) -> AttachedPenalty:
        """Puts the penalty in force on a model.

        It is part of the loss of `attached.trainer.fit`, not of `evaluate`
        and of validation, nor of a `fit` of `model` itself. Unfreeze first,
        then attach, then compile the trainer. Callbacks that save the
        fitted model must save `model` instead, or weights only.

        Args:
            model: A model made by `build_classifier` or `build_regressor`.
                `FeatureMap` takes any functional model with one input and one
                output.

        Returns:
            The `AttachedPenalty`.

        Raises:
            ValueError: If `model` has a penalty already, or lacks the
                activations that are penalised.
            TypeError: If `model` is not a Keras model, or has no graph to read.
        """
        check_free(model)
        with model.distribute_strategy.scope():
            coefficients = checked_coefficients(self)
            trainer = self._trainer(model, coefficients["strength"])

        def measure(images: Any) -> float:
            if images is None:
                raise ValueError(
                    f"`images` must be given for {type(self).__name__}, a "
                    "penalty on activations. Received: images=None."
                )
            return trainer.value(images)

        attached = AttachedPenalty(
            self, model, trainer.model, (), coefficients, measure
        )
        return mark(attached)

    @abc.abstractmethod
    def _trainer(self, model: keras.Model, strength: keras.Variable) -> Trainer:
        """Makes the trainer."""


@dataclass(frozen=True)
class FeatureMap(ActivationPenalty):
    """Holds activations near their initial values.

    Adds `strength / 2 * mean over examples of sum (f(x) - f0(x))^2`, summed
    over blocks, positions and channels. `f0` are the activations of a copy of
    the network made at `attach`, which costs its memory and one more forward
    pass. This is DELTA without attention. `f` is computed as in training: a
    BatchNormalization that trains makes it differ from `f0` from the start.

    Args:
        strength: Coefficient, at least 0.
        blocks: Names of blocks, or patterns for them such as `"conv4_*"`; see
            `keras_transfer.blocks`. Defaults to `None`, the last block of each
            resolution.

    Example:

    >>> model = build_classifier("ResNet20", num_classes=3)
    >>> _ = unfreeze(model, depth=3)
    >>> attached = FeatureMap(0.01, blocks="stage3_*").attach(model)
    >>> attached.value(images)
    0.0

    Reference:
        - Li et al., 2019, https://arxiv.org/abs/1901.09229
    """

    pulls_to_start: ClassVar[bool] = True

    strength: float
    blocks: tuple[str, ...] | str | None = None

    def _trainer(self, model: keras.Model, strength: keras.Variable) -> Trainer:
        names = self.blocks
        return feature_map_trainer(
            model, [names] if isinstance(names, str) else names, strength
        )


@dataclass(frozen=True)
class BSS(ActivationPenalty):
    """Batch spectral shrinkage: suppresses features that transfer badly.

    Adds `strength / 2 * sum of the k smallest squared singular values` of the
    matrix of features of a batch, `(examples, features)`: the vector in front
    of the head's first dense layer (before dropout), or the average of the
    backbone's output over positions where there is none. The paper has no
    1/2: its coefficient is half of this one. Not divided by the number of
    examples; over several replicas, each has a matrix of its own.

    Args:
        strength: Coefficient, at least 0.
        k: Number of singular values, positive; all of them in a batch with
            fewer. Defaults to `1`.

    Example:

    >>> model = build_classifier("ResNet20", num_classes=3)
    >>> _ = unfreeze(model, depth=3)
    >>> attached = BSS(1e-3).attach(model)
    >>> attached.value(images) > 0
    True

    Reference:
        - Chen et al., 2019, "Catastrophic Forgetting Meets Negative Transfer:
          Batch Spectral Shrinkage for Safe Transfer Learning", NeurIPS
    """

    is_mean_over_examples: ClassVar[bool] = False

    strength: float
    k: int = 1

    def _trainer(self, model: keras.Model, strength: keras.Variable) -> Trainer:
        return singular_value_trainer(model, self.k, strength)
