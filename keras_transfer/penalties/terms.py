"""Terms of penalties on weights: what one variable adds to the loss."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import keras
from keras import ops

from keras_transfer.structure import graph
from keras_transfer.structure.model_parts import has_children

KINDS = ("weights", "biases", "normalization")


_NORMALIZATIONS = (
    keras.layers.BatchNormalization,
    keras.layers.GroupNormalization,
    keras.layers.LayerNormalization,
    keras.layers.RMSNormalization,
)


class Form(NamedTuple):
    """The coefficients of `sum |w|` and `1/2 sum (w - start)^2`, by name."""

    absolute: str = ""
    squared: str = ""
    from_start: bool = False


@dataclass(frozen=True, eq=False)
class Term:
    """What one variable adds to the loss: ours, and what it had before."""

    variable: keras.Variable
    absolute: keras.Variable | None
    squared: keras.Variable | None
    start: keras.Variable | None
    own: Callable[[Any], Any] | None

    def penalty(self, variable: Any) -> Any:
        """Returns `absolute * sum |w| + squared / 2 * sum (w - start)^2`."""
        w = ops.cast(variable, "float32")
        loss = ops.zeros((), "float32")
        if self.absolute is not None:
            loss += self.absolute * ops.sum(ops.abs(w))
        if self.squared is not None:
            moved = w if self.start is None else w - self.start
            loss += self.squared / 2 * ops.sum(ops.square(moved))
        return loss

    def __call__(self, variable: Any) -> Any:
        loss = self.penalty(variable)
        if self.own is not None:
            loss += ops.cast(self.own(variable), "float32")
        return loss


def chosen_variables(
    model: keras.Model, kinds: Sequence[str]
) -> tuple[keras.Variable, ...]:
    """Returns the variables of some `KINDS`, frozen ones too."""
    found = {}
    for layer in graph.layers_below(model):
        is_norm = isinstance(layer, _NORMALIZATIONS)
        # What the layer itself made to be trained, frozen or not. Moving
        # statistics and other state are elsewhere.
        for variable in layer._trainable_variables:
            kind = "biases" if "bias" in variable.name else "weights"
            kind = "normalization" if is_norm else kind
            if kind in kinds and keras.backend.is_float_dtype(variable.dtype):
                found[id(variable)] = variable
    if not found:
        raise ValueError(
            f"`on` must name variables that model {model.name!r} has. "
            f"Received: on={tuple(kinds)!r}, of which it has none"
            f"{'' if model.weights else ', since it is not built'}."
        )
    return tuple(found.values())


def make_terms(
    model: keras.Model,
    variables: Sequence[keras.Variable],
    coefficients: dict[str, keras.Variable],
    form_of: Callable[[bool], Form],
) -> tuple[Term, ...]:
    """Returns a term for each variable; `form_of` is asked if pretrained."""
    new = _new(model)
    terms = []
    for variable in variables:
        form = form_of(id(variable) not in new)
        start = new_variable(variable, "start") if form.from_start else None
        terms.append(
            Term(
                variable,
                absolute=coefficients.get(form.absolute),
                squared=coefficients.get(form.squared),
                start=start,
                own=variable.regularizer,
            )
        )
    return tuple(terms)


def new_variable(value: Any, name: str) -> keras.Variable:
    """A variable of no model: read when a step runs, and never saved.

    A number in the graph could not be changed, and the values of a network
    would be stored in it.
    """
    return keras.Variable(
        ops.convert_to_numpy(ops.cast(value, "float32")),
        dtype="float32",
        trainable=False,
        autocast=False,
        name=name,
    )


def _new(model: keras.Model) -> set[int]:
    """The identities of the weights that are not pretrained."""
    if not has_children(model):
        return set()
    pretrained = {
        id(weight)
        for name in ("preprocessing", "backbone")
        for weight in model.get_layer(name).weights
    }
    return {id(weight) for weight in model.weights} - pretrained
