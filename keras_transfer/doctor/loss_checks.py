"""Checks of the loss against labels and output."""

from __future__ import annotations

from collections.abc import Iterator

from keras_transfer.doctor.context import Context, Part
from keras_transfer.doctor.diagnosis import Finding
from keras_transfer.structure.outputs import output_activation

# Activations whose outputs are no probabilities.
_NOT_PROBABILITIES = {
    "elu",
    "gelu",
    "leaky_relu",
    "linear",
    "mish",
    "relu",
    "relu6",
    "selu",
    "silu",
    "softplus",
    "softsign",
    "swish",
    "tanh",
}


_CURE = (
    '`loss="sparse_categorical_crossentropy"` for integers, '
    '"categorical_crossentropy" for one-hot rows, "binary_crossentropy" with '
    "sigmoids for several labels."
)


def label_format(context: Context) -> Iterator[Finding]:
    """The labels are not what the loss reads."""
    for part in context.parts.values():
        wrong = _wrong_format(context, part)
        if wrong:
            yield Finding(
                "label-format",
                "error",
                f"The {part.name} labels are {wrong}.",
                _CURE,
            )
            return  # The other splits are most likely the same.


def _wrong_format(context: Context, part: Part) -> str | None:
    labels, form = part.labels, part.form
    if not labels.size:
        return None
    if labels.dtype.kind not in "biuf":
        return f"of type {labels.dtype}, which is no number"
    loss, units = context.loss, context.units
    if form == "other" or units is None:
        return None
    softmax = output_activation(context.model) == "softmax"
    if loss is None:
        if softmax and form == "numbers":
            return "no classes but other numbers, and the output is a softmax"
        return None
    rule = f"and {loss.name} "
    wide = labels.ndim == 2 and labels.shape[1] > 1
    column = units > 1 and not wide and form != "open"
    if loss.name.startswith("sparse_categorical"):
        if wide:
            return f"rows of {labels.shape[1]} ({form}), {rule}reads integers"
        if form == "numbers":
            return f"no whole numbers, {rule}cuts their fractions off"
    elif loss.name.startswith("categorical"):
        if column:
            return f"one number an example, {rule}reads one-hot rows"
        if form in ("multi-hot", "numbers"):
            return f"rows that do not sum to 1 ({form}), {rule}needs such"
    elif loss.name.startswith("binary"):
        if column:
            return f"one number an example, {rule}reads {units} of 0 or 1"
        if form != "open" and (labels.min() < 0 or labels.max() > 1):
            found = f"from {labels.min():g} to {labels.max():g}"
            return f"{found}, {rule}reads 0 to 1"
    elif column:
        # Keras broadcasts (n, 1) over all outputs, and says nothing.
        return f"one number an example, {rule}compares it with {units} outputs"
    return None


def activation_loss(context: Context) -> Iterator[Finding]:
    """The loss takes the output for something else."""
    activation = output_activation(context.model)
    if activation is None:
        return
    if context.units == 1 and activation == "softmax":
        yield Finding(
            "activation-loss",
            "error",
            "The output is a softmax of a single unit, which is 1 whatever "
            "the image.",
            '`activation="sigmoid"` with `loss="binary_crossentropy"`.',
        )
    elif context.loss is not None and "crossentropy" in context.loss.name:
        yield from _crossentropy(context, activation)


def _crossentropy(context: Context, activation: str) -> Iterator[Finding]:
    name, from_logits = context.loss or ("", False)
    binary = name.startswith("binary")
    right = "sigmoid" if binary else "softmax"
    if context.units == 1 and not binary:
        yield Finding(
            "activation-loss",
            "error",
            f"{name} of a single output is the same whatever it says: the "
            "probabilities of one class are always 1.",
            '`activation="sigmoid"` with `loss="binary_crossentropy"`.',
        )
    elif activation in _NOT_PROBABILITIES and not from_logits:
        yield Finding(
            "activation-loss",
            "error",
            f"The output is {activation}, and {name} takes it for "
            "probabilities.",
            f'`activation="{right}"`, or a loss with `from_logits=True`.',
        )
    elif activation in ("softmax", "sigmoid") and activation != right:
        # Keras computes the loss from the logits below either of them.
        yield Finding(
            "activation-loss",
            "error",
            f"The output is a {activation}, and {name} trains the logits "
            f"below it as those of a {right}: what the model then says are "
            "not the probabilities it was trained for.",
            f'`activation="{right}"`, or '
            + (
                '`loss="categorical_crossentropy"` for one class an image.'
                if binary
                else '`loss="binary_crossentropy"` for several labels.'
            ),
        )
    elif activation == right and from_logits:
        yield Finding(
            "activation-loss",
            "warning",
            f"The output is a {activation}, and the loss has "
            "`from_logits=True`. Keras on TensorFlow notices and takes the "
            "logits below; other code would apply it twice.",
            "Leave out `from_logits=True`.",
        )


CHECKS = (label_format, activation_loss)
