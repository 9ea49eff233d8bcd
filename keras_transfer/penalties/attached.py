"""`AttachedPenalty`: the one penalty in force on a model."""

from __future__ import annotations

import math
import numbers
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import keras

from keras_transfer._utils.checks import did_you_mean
from keras_transfer.optimizers.decoupled_decay import DecoupledDecay
from keras_transfer.penalties.terms import Term

_MARK = "_keras_transfer_penalty"


@dataclass(eq=False, repr=False)
class AttachedPenalty:
    """A penalty in force on a model, returned by `attach`.

    As a context manager it detaches at the end.

    Attributes:
        penalty: The penalty as it was attached.
        model: The user's model.
        trainer: Model to compile and fit: `model` itself for a penalty on
            weights, another model over the same layers for one on activations.
            Training it trains `model`, which is the one to save.
        pulls: Decays that an optimizer applies for a decoupled penalty; see
            `L2`.

    Example:

    >>> model = build_classifier("ResNet20", num_classes=3)
    >>> with L2SP(alpha=0.1, beta=0.01).attach(model) as attached:
    ...     attached.trainer.compile("adam", "categorical_crossentropy")
    ...     attached.set(alpha=0.5)
    """

    penalty: object
    model: keras.Model
    trainer: keras.Model
    pulls: tuple[DecoupledDecay, ...]
    _coefficients: dict[str, keras.Variable]
    _measure: Callable[[Any], float]
    _terms: tuple[Term, ...] = ()
    _attached: bool = True
    _paused: dict[str, float] | None = None

    def wrap(self, fitted: keras.Model, network: keras.Model) -> keras.Model:
        """Returns the model to compile and fit: `trainer`, or `fitted`.

        Args:
            fitted: The network, or another loss's wrapper of it.
            network: The model, or its part above a cut.
        """
        return fitted if self.trainer is self.model else self.trainer

    def set(self, **coefficients: float) -> None:
        """Changes coefficients immediately, without a new `compile`.

        Args:
            **coefficients: New values, by the names of the penalty's fields,
                such as `alpha=0.5`.

        Raises:
            ValueError: If a name is not one of the penalty's coefficients, a
                value is negative or not finite, or the penalty is detached.
        """
        if not self._attached:
            raise ValueError(
                "`set` must come before `detach`. Received: a detached "
                f"{type(self.penalty).__name__}. Attach it again."
            )
        names = list(self._coefficients)
        for name in coefficients:
            if name not in names:
                raise ValueError(
                    "`set` must be given coefficients of "
                    f"{type(self.penalty).__name__}, which are "
                    f"{', '.join(names)}. Received: {name}="
                    f"{coefficients[name]!r}.{did_you_mean(name, names)}"
                )
        values = {n: check_coefficient(n, v) for n, v in coefficients.items()}
        for name, value in values.items():
            self._coefficients[name].assign(value)

    def value(self, images: Any = None) -> float:
        """Returns the current penalty, without regularizers of the user.

        Args:
            images: A batch of inputs of the model, for which penalties on
                activations are computed in inference mode. Penalties on weights
                need none. Defaults to `None`.

        Returns:
            A float: `lambda * R(theta)`. A penalty on weights counts those
            that are trainable now, as Keras does.

        Raises:
            ValueError: If `images` is needed and missing.
        """
        return self._measure(images)

    def pause(self) -> None:
        """Sets the penalty to 0 until `resume`, to measure the data loss."""
        if self._attached and self._paused is None:
            self._paused = {
                name: float(keras.ops.convert_to_numpy(variable))
                for name, variable in self._coefficients.items()
            }
            for variable in self._coefficients.values():
                variable.assign(0.0)

    def resume(self) -> None:
        """Restores the coefficients after `pause`."""
        if self._attached and self._paused is not None:
            for name, value in self._paused.items():
                self._coefficients[name].assign(value)
        self._paused = None

    def detach(self) -> None:
        """Removes the penalty, also from functions that are already compiled.

        The coefficients become 0, and the variables get back the regularizers
        that they had. A second call does nothing.
        """
        if not self._attached:
            return
        self._attached = False
        for variable in self._coefficients.values():
            variable.assign(0.0)
        for term in self._terms:
            if term.variable.regularizer is term:
                term.variable.regularizer = term.own
        for model in (self.model, self.trainer):
            setattr(model, _MARK, None)
        _reset_functions(self.model)

    def reattach(self) -> None:
        """Puts a detached penalty in force again, with coefficients of 0.

        Pretrained weights are pulled to their values at the first `attach`,
        and steps traced since then still read the same coefficients: call
        `set` to assign them.

        Raises:
            ValueError: If the model has another penalty now.
        """
        if self._attached:
            return
        check_free(self.model)
        self._attached = True
        for term in self._terms:
            term.variable.regularizer = term
        for model in (self.model, self.trainer):
            setattr(model, _MARK, self)

    def __enter__(self) -> AttachedPenalty:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.detach()


def check_free(model: keras.Model) -> None:
    """Raises unless the model is a Keras model with no penalty in force."""
    if not isinstance(model, keras.Model):
        raise TypeError(
            f"`model` must be a keras.Model. Received: a {type(model).__name__}"
        )
    other = getattr(model, _MARK, None)
    if other is None:
        terms = [v.regularizer for v in model.weights]
        other = next((t for t in terms if isinstance(t, Term)), None)
    if other is not None:
        raise ValueError(
            "`model` must have no penalty of keras_transfer. Received: model "
            f"{model.name!r}, which has one. First call `detach()` on the "
            "`AttachedPenalty` that `attach` returned."
        )


def mark(attached: AttachedPenalty) -> AttachedPenalty:
    """Marks the models as having a penalty."""
    for model in (attached.model, attached.trainer):
        setattr(model, _MARK, attached)
    _reset_functions(attached.model)
    return attached


def _reset_functions(model: keras.Model) -> None:
    """Drops traced functions, so that `fit` sees the current losses."""
    model.train_function = model.test_function = None


def check_coefficient(name: str, value: Any) -> float:
    """Returns a coefficient as a float; raises unless it is finite and >= 0."""
    is_number = isinstance(value, numbers.Real) and not isinstance(value, bool)
    if not is_number or not math.isfinite(value) or value < 0:
        raise ValueError(
            f"`{name}` must be a finite number, at least 0. Received: "
            f"{name}={value!r:.100}"
        )
    return float(value)
