"""Penalties on weights: L1, L2, ElasticNet, L2-SP."""

from __future__ import annotations

import abc
import math
from dataclasses import dataclass, field
from typing import Any, ClassVar

import keras

from keras_transfer.optimizers.decoupled_decay import DecoupledDecay
from keras_transfer.penalties.attached import (
    AttachedPenalty,
    check_free,
    mark,
)
from keras_transfer.penalties.fields import checked_coefficients
from keras_transfer.penalties.penalty import Penalty
from keras_transfer.penalties.terms import (
    Form,
    chosen_variables,
    make_terms,
)


class WeightPenalty(Penalty):
    """A sum over weights of `a |w| + b / 2 (w - start)^2`."""

    def attach(self, model: keras.Model) -> AttachedPenalty:
        """Puts the penalty in force on a model.

        Keras then adds it to `model.losses`, and so to the loss of `fit` and
        of `evaluate`, for all variables that are trainable. Frozen ones are
        penalised as soon as they are unfrozen. An existing regularizer of a
        variable stays in force. Models over the same layers, such
        as the halves of `split`, are penalised too.

        Args:
            model: A built model, usually not yet trained.

        Returns:
            The `AttachedPenalty`.

        Raises:
            ValueError: If `model` has a penalty already, or no variable of the
                kinds in `on`.
            TypeError: If `model` is not a Keras model.
        """
        check_free(model)
        chosen = chosen_variables(model, self.on)
        with model.distribute_strategy.scope():
            coefficients = checked_coefficients(self)
            terms = make_terms(model, chosen, coefficients, self.form)
        pulls: tuple[DecoupledDecay, ...] = ()
        if self.decoupled:
            pulls = tuple(
                DecoupledDecay(t.variable, t.squared, t.start) for t in terms
            )
        else:
            for term in terms:
                term.variable.regularizer = term

        def measure(_: Any) -> float:
            trained = {id(v) for v in model.trainable_variables}
            return math.fsum(
                float(term.penalty(term.variable))
                for term in terms
                if id(term.variable) in trained
            )

        attached = AttachedPenalty(
            self,
            model,
            model,
            pulls,
            coefficients,
            measure,
            _terms=terms,
        )
        return mark(attached)

    @abc.abstractmethod
    def form(self, pretrained: bool) -> Form:
        """Returns the names of the coefficients; see `Penalty.form`.

        Args:
            pretrained: Whether the coefficients apply to pretrained weights, or
                to new ones.
        """


@dataclass(frozen=True)
class L1(WeightPenalty):
    """Adds `strength * sum |w|`, which favours weights that are 0.

    Args:
        strength: Coefficient, at least 0.
        on: Kinds of variables: any of `"weights"` (kernels, embeddings and
            everything else that is neither of the others), `"biases"` and
            `"normalization"` (scale and offset of normalization layers, never
            their moving statistics). Defaults to `("weights",)`.

    Example:

    >>> model = build_classifier("ResNet20", num_classes=3)
    >>> attached = L1(1e-4).attach(model)
    >>> kernel = model.get_layer("head").get_weights()[0]
    >>> bool(np.isclose(attached.value(), 1e-4 * np.abs(kernel).sum()))
    True

    Reference:
        - Tibshirani, 1996, https://www.jstor.org/stable/2346178
    """

    strength: float
    on: tuple[str, ...] = field(default=("weights",), kw_only=True)

    def form(self, pretrained: bool) -> Form:
        """Returns the names of the coefficients; see `Penalty.form`.

        Args:
            pretrained: Whether the coefficients apply to pretrained weights, or
                to new ones.
        """
        return Form(absolute="strength")


@dataclass(frozen=True)
class L2(WeightPenalty):
    """Adds `strength / 2 * sum w^2`, so that the gradient is `strength * w`.

    `keras.regularizers.L2` has no 1/2: its coefficient is half of this one.

    Args:
        strength: Coefficient, at least 0.
        on: Kinds of variables, as in `L1`. Defaults to `("weights",)`.
        decoupled: Whether the pull acts outside of the gradient, and so of
            Adam's moments, as in AdamW. No loss is added; the optimizer must
            apply `w <- w - learning_rate * strength * w` for each of
            `attached.pulls`. Defaults to `False`.

    Example:

    >>> model = build_classifier("ResNet20", num_classes=3)
    >>> attached = L2(1e-4).attach(model)
    >>> kernel = model.get_layer("head").get_weights()[0]
    >>> bool(np.isclose(attached.value(), 1e-4 / 2 * (kernel**2).sum()))
    True

    Reference:
        - Krogh & Hertz, 1991, "A Simple Weight Decay Can Improve
          Generalization", NeurIPS
        - Loshchilov & Hutter, 2019, https://arxiv.org/abs/1711.05101
          (decoupled)
    """

    strength: float
    on: tuple[str, ...] = field(default=("weights",), kw_only=True)
    decoupled: bool = field(default=False, kw_only=True)

    def form(self, pretrained: bool) -> Form:
        """Returns the names of the coefficients; see `Penalty.form`.

        Args:
            pretrained: Whether the coefficients apply to pretrained weights, or
                to new ones.
        """
        return Form(squared="strength")


@dataclass(frozen=True)
class ElasticNet(WeightPenalty):
    """Adds `l1 * sum |w| + l2 / 2 * sum w^2`.

    Args:
        l1: Coefficient of the absolute values, at least 0.
        l2: Coefficient of the squares, at least 0.
        on: Kinds of variables, as in `L1`. Defaults to `("weights",)`.

    Example:

    >>> model = build_classifier("ResNet20", num_classes=3)
    >>> attached = ElasticNet(l1=1e-5, l2=1e-4).attach(model)
    >>> kernel = model.get_layer("head").get_weights()[0]
    >>> expected = 1e-5 * np.abs(kernel).sum() + 1e-4 / 2 * (kernel**2).sum()
    >>> bool(np.isclose(attached.value(), expected))
    True

    Reference:
        - Zou & Hastie, 2005, https://doi.org/10.1111/j.1467-9868.2005.00503.x
    """

    l1: float
    l2: float
    on: tuple[str, ...] = field(default=("weights",), kw_only=True)

    def form(self, pretrained: bool) -> Form:
        """Returns the names of the coefficients; see `Penalty.form`.

        Args:
            pretrained: Whether the coefficients apply to pretrained weights, or
                to new ones.
        """
        return Form(absolute="l1", squared="l2")


@dataclass(frozen=True)
class L2SP(WeightPenalty):
    """Holds weights near their starting point.

    Adds `alpha / 2 * sum (w - w0)^2` over the pretrained weights, where `w0`
    is their value at `attach`, and `beta / 2 * sum w^2` over the new ones.
    In a model made by `build_classifier` or `build_regressor`, preprocessing
    and backbone are pretrained and the head is new; in any other model all
    weights count as pretrained.

    Args:
        alpha: Coefficient for the pretrained weights, at least 0. Defaults to
            `0.1`.
        beta: Coefficient for the new weights, at least 0. Defaults to `0.01`.
        on: Kinds of variables, as in `L1`. Defaults to `("weights",)`.
        decoupled: Whether the pull acts outside of the gradient, as in `L2`:
            toward `w0` with `alpha`, toward 0 with `beta`. Defaults to `False`.

    Example:

    >>> model = build_classifier("ResNet20", num_classes=3)
    >>> _ = unfreeze(model, depth=2)
    >>> attached = L2SP(alpha=0.1, beta=0.01).attach(model)
    >>> kernel = model.get_layer("head").get_weights()[0]
    >>> bool(np.isclose(attached.value(), 0.01 / 2 * (kernel**2).sum()))
    True

    Reference:
        - Li et al., 2018, https://arxiv.org/abs/1802.01483
    """

    pulls_to_start: ClassVar[bool] = True

    alpha: float = 0.1
    beta: float = 0.01
    on: tuple[str, ...] = field(default=("weights",), kw_only=True)
    decoupled: bool = field(default=False, kw_only=True)

    def form(self, pretrained: bool) -> Form:
        """Returns the names of the coefficients; see `Penalty.form`.

        Args:
            pretrained: Whether the coefficients apply to pretrained weights, or
                to new ones.
        """
        if pretrained:
            return Form(squared="alpha", from_start=True)
        return Form(squared="beta")
