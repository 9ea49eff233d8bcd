"""Terms of penalties on weights: the contribution of one variable."""

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
    """The term of one variable: the penalty, and its own regularizer."""

    variable: keras.Variable
    absolute: keras.Variable | None
    squared: keras.Variable | None
    start: keras.Variable | None
    own: Callable[[Any], Any] | None

    def penalty(self, variable: Any) -> Any:
        """Returns `absolute * sum |w| + squared / 2 * sum (w - start)^2`."""
        # In float32 under mixed precision too: squares of small weights vanish
        # in float16. Sums run over all elements, whatever the shape.
        w = ops.cast(variable, "float32")
        loss = ops.zeros((), "float32")
        if self.absolute is not None:
            loss += self.absolute * ops.sum(ops.abs(w))
        if self.squared is not None:
            # w - w0 for pretrained weights (L2-SP), w for new ones. The 1/2
            # makes the gradient `squared * (w - w0)`.
            distance = w if self.start is None else w - self.start
            loss += self.squared / 2 * ops.sum(ops.square(distance))
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
    variables = {}
    for layer in graph.layers_below(model):
        is_norm = isinstance(layer, _NORMALIZATIONS)
        # Variables that the layer itself created as trainable, frozen or not;
        # moving statistics and other state are not among them.
        for variable in layer._trainable_variables:
            kind = "biases" if "bias" in variable.name else "weights"
            kind = "normalization" if is_norm else kind
            if kind in kinds and keras.backend.is_float_dtype(variable.dtype):
                variables[id(variable)] = variable
    if not variables:
        raise ValueError(
            f"`on` must name variables that model {model.name!r} has. "
            f"Received: on={tuple(kinds)!r}, of which it has none"
            f"{'' if model.weights else ' because it is not built'}."
        )
    return tuple(variables.values())


def make_terms(
    model: keras.Model,
    variables: Sequence[keras.Variable],
    coefficients: dict[str, keras.Variable],
    form_of: Callable[[bool], Form],
) -> tuple[Term, ...]:
    """Returns a term per variable; `form_of` maps pretrained or not."""
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
    """Returns a variable that belongs to no model and is never saved.

    Steps read its current value. A Python number would be fixed in the graph,
    and arrays of a network would be stored in it.
    """
    return keras.Variable(
        ops.convert_to_numpy(ops.cast(value, "float32")),
        dtype="float32",
        trainable=False,
        autocast=False,
        name=name,
    )


def _new(model: keras.Model) -> set[int]:
    """Returns the ids of the weights that are not pretrained."""
    if not has_children(model):
        return set()
    pretrained = {
        id(weight)
        for name in ("preprocessing", "backbone")
        for weight in model.get_layer(name).weights
    }
    return {id(weight) for weight in model.weights} - pretrained
