"""Penalties: the `lambda * R(theta)` of `min L + lambda * R(theta)`.

A penalty is a plain value. `penalty.attach(model)` puts it in force, without a
trace in the model's configuration or its saved file:

    attached = L2SP(alpha=0.1).attach(model)
    attached.trainer.compile("adam", "categorical_crossentropy")
    attached.trainer.fit(images, labels)
    attached.detach()
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import keras

from keras_transfer._activations import (
    Trainer,
    feature_map_trainer,
    singular_value_trainer,
)
from keras_transfer._attached import (
    AttachedPenalty,
    check_coefficient,
    check_free,
    mark,
)
from keras_transfer._checks import is_integer
from keras_transfer._pulls import Pull
from keras_transfer._terms import (
    KINDS,
    Form,
    chosen_variables,
    make_terms,
    new_variable,
)


class _WeightPenalty:
    on: tuple[str, ...]
    decoupled: bool = False

    def __post_init__(self) -> None:
        _check_fields(self)

    def attach(self, model: keras.Model) -> AttachedPenalty:
        """Puts the penalty in force on a model.

        Keras then adds it to `model.losses`, and so to the loss of `fit` and
        of `evaluate`, for all variables that are trainable. Frozen ones are
        penalised as soon as they are unfrozen. A regularizer that a variable
        has already stays in force besides. Models over the same layers, such
        as the halves of `split`, are penalised too.

        Args:
            model: A built model, as a rule not yet trained.

        Returns:
            The `AttachedPenalty`.

        Raises:
            ValueError: If `model` has a penalty already, or no variable of
                the kinds in `on`.
            TypeError: If `model` is no Keras model.
        """
        check_free(model)
        chosen = chosen_variables(model, self.on)
        with model.distribute_strategy.scope():
            coefficients = _coefficients(self)
            terms = make_terms(model, chosen, coefficients, self._form)
        pulls: tuple[Pull, ...] = ()
        if self.decoupled:
            pulls = tuple(Pull(t.variable, t.squared, t.start) for t in terms)
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

    def _form(self, pretrained: bool) -> Form:
        raise NotImplementedError


class _ActivationPenalty:
    def __post_init__(self) -> None:
        _check_fields(self)

    def attach(self, model: keras.Model) -> AttachedPenalty:
        """Puts the penalty in force on a model.

        It is part of the loss of `attached.trainer.fit`, not of `evaluate`
        and of validation, nor of a `fit` of `model` itself. Unfreeze first,
        then attach, then compile the trainer. Callbacks that save what they
        fit must save `model` instead, or weights only.

        Args:
            model: A model made by `build_classifier` or `build_regressor`.
                `FeatureMap` takes any functional model with one input and one
                output.

        Returns:
            The `AttachedPenalty`.

        Raises:
            ValueError: If `model` has a penalty already, or does not have
                what is penalised.
            TypeError: If `model` is no Keras model, or has no graph to read.
        """
        check_free(model)
        with model.distribute_strategy.scope():
            coefficients = _coefficients(self)
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

    def _trainer(self, model: keras.Model, strength: keras.Variable) -> Trainer:
        raise NotImplementedError


@dataclass(frozen=True)
class L1(_WeightPenalty):
    """Adds `strength * sum |w|`, which favours weights that are 0.

    Args:
        strength: Coefficient, at least 0.
        on: Which variables: any of `"weights"` (kernels, embeddings and all
            that is neither of the others), `"biases"` and `"normalization"`
            (scale and offset of normalization layers, never their moving
            statistics). Defaults to `("weights",)`.

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

    def _form(self, pretrained: bool) -> Form:
        return Form(absolute="strength")


@dataclass(frozen=True)
class L2(_WeightPenalty):
    """Adds `strength / 2 * sum w^2`, so that the gradient is `strength * w`.

    `keras.regularizers.L2` has no 1/2: its coefficient is half of this one.

    Args:
        strength: Coefficient, at least 0.
        on: As for `L1`. Defaults to `("weights",)`.
        decoupled: Whether the pull acts outside of the gradient, and so of
            Adam's moments, as in AdamW. No loss is added; an optimizer has to
            do `w <- w - learning_rate * strength * w` for each of
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

    def _form(self, pretrained: bool) -> Form:
        return Form(squared="strength")


@dataclass(frozen=True)
class ElasticNet(_WeightPenalty):
    """Adds `l1 * sum |w| + l2 / 2 * sum w^2`.

    Args:
        l1: Coefficient of the absolute values, at least 0.
        l2: Coefficient of the squares, at least 0.
        on: As for `L1`. Defaults to `("weights",)`.

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

    def _form(self, pretrained: bool) -> Form:
        return Form(absolute="l1", squared="l2")


@dataclass(frozen=True)
class L2SP(_WeightPenalty):
    """Holds weights near where they started.

    Adds `alpha / 2 * sum (w - w0)^2` over the pretrained weights, where `w0`
    is their value at `attach`, and `beta / 2 * sum w^2` over the new ones.
    Pretrained are the children preprocessing and backbone of a model made by
    `build_classifier` or `build_regressor`, new is its head; of any other
    model all is pretrained.

    Args:
        alpha: Coefficient for the pretrained weights, at least 0. Defaults to
            `0.1`.
        beta: Coefficient for the new weights, at least 0. Defaults to `0.01`.
        on: As for `L1`. Defaults to `("weights",)`.
        decoupled: Whether the pull acts outside of the gradient, as for `L2`:
            toward `w0` with `alpha`, toward 0 with `beta`. Defaults to
            `False`.

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

    alpha: float = 0.1
    beta: float = 0.01
    on: tuple[str, ...] = field(default=("weights",), kw_only=True)
    decoupled: bool = field(default=False, kw_only=True)

    def _form(self, pretrained: bool) -> Form:
        if pretrained:
            return Form(squared="alpha", from_start=True)
        return Form(squared="beta")


@dataclass(frozen=True)
class FeatureMap(_ActivationPenalty):
    """Holds activations near what they were.

    Adds `strength / 2 * mean over examples of sum (f(x) - f0(x))^2`, summed
    over blocks, positions and channels. `f0` are the activations of a copy of
    the network made at `attach`, which costs its memory and a forward pass
    more. This is DELTA without attention. `f` is computed as in training: a
    BatchNormalization that trains makes it differ from `f0` from the start.

    Args:
        strength: Coefficient, at least 0.
        blocks: Names of blocks, or patterns for them such as `"conv4_*"`; see
            `keras_transfer.blocks`. Defaults to `None`, the last block of
            each resolution.

    Example:

    >>> model = build_classifier("ResNet20", num_classes=3)
    >>> _ = unfreeze(model, depth=3)
    >>> attached = FeatureMap(0.01, blocks="stage3_*").attach(model)
    >>> attached.value(images)
    0.0

    Reference:
        - Li et al., 2019, https://arxiv.org/abs/1901.09229
    """

    strength: float
    blocks: tuple[str, ...] | str | None = None

    def _trainer(self, model: keras.Model, strength: keras.Variable) -> Trainer:
        names = self.blocks
        return feature_map_trainer(
            model, [names] if isinstance(names, str) else names, strength
        )


@dataclass(frozen=True)
class BSS(_ActivationPenalty):
    """Batch spectral shrinkage: lets go of features that transfer badly.

    Adds `strength / 2 * sum of the k smallest squared singular values` of the
    matrix of features of a batch, `(examples, features)`: the vector in front
    of the head's first dense layer (before dropout), or the average of the
    backbone's output over positions where there is none. The paper has no
    1/2: its coefficient is half of this one. Not divided by the number of
    examples; over several replicas, each has a matrix of its own.

    Args:
        strength: Coefficient, at least 0.
        k: How many singular values, positive; all of them in a batch with
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

    strength: float
    k: int = 1

    def _trainer(self, model: keras.Model, strength: keras.Variable) -> Trainer:
        return singular_value_trainer(model, self.k, strength)


Penalty = L1 | L2 | ElasticNet | L2SP | FeatureMap | BSS


def _check_fields(penalty: Any) -> None:
    for item in fields(penalty):
        value = _checked(item.name, getattr(penalty, item.name))
        # The class is frozen, for everybody else.
        object.__setattr__(penalty, item.name, value)


def _coefficients(penalty: Any) -> dict[str, keras.Variable]:
    values = {f.name: getattr(penalty, f.name) for f in fields(penalty)}
    return {
        name: new_variable(value, name)
        for name, value in values.items()
        if isinstance(value, float)
    }


def _checked(name: str, value: Any) -> Any:
    """Returns the value of a field as it is kept."""
    if name == "on":
        return _names(name, value, f"a tuple out of {', '.join(KINDS)}", KINDS)
    if name == "blocks":
        rule = "None, or names of blocks or patterns for them"
        one = isinstance(value, str | None)
        return value if one else _names(name, value, rule)
    if name == "decoupled":
        if not isinstance(value, bool):
            raise ValueError(
                "`decoupled` must be True or False. Received: "
                f"decoupled={value!r}"
            )
        return value
    if name == "k":
        if not is_integer(value) or value < 1:
            raise ValueError(
                f"`k` must be a positive integer. Received: k={value!r}"
            )
        return int(value)
    return check_coefficient(name, value)


def _names(
    name: str, value: Any, rule: str, choices: Sequence[str] = ()
) -> tuple[str, ...]:
    names = value if isinstance(value, list | tuple) else ()
    good = all(isinstance(n, str) and n in (choices or (n,)) for n in names)
    if not names or not good or len(set(names)) != len(names):
        raise ValueError(
            f"`{name}` must be {rule}, at least one and each once. Received: "
            f"{name}={value!r:.100}"
        )
    return tuple(names)
