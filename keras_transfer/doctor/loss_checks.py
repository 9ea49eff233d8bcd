"""Checks of the loss against the labels and the output activation."""

from __future__ import annotations

from collections.abc import Iterator

from keras_transfer.doctor.context import Context, InspectedSplit
from keras_transfer.doctor.diagnosis import Finding
from keras_transfer.structure.outputs import BOUNDS, output_activation

# Activations whose outputs are not probabilities.
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
    "sigmoids for several labels. Numbers: scale them to what the output "
    'reaches, or `activation="linear"`.'
)


def label_format(context: Context) -> Iterator[Finding]:
    """Finds labels in another format than the loss expects."""
    for split in context.splits.values():
        wrong = _wrong_format(context, split)
        if wrong:
            yield Finding(
                "label-format",
                "error",
                f"The {split.name} labels are {wrong}.",
                _CURE,
            )
            return  # The other splits most likely have the same mistake.


def _wrong_format(context: Context, split: InspectedSplit) -> str | None:
    """Describes labels that do not fit the loss, or returns `None`."""
    labels, form = split.labels, split.form
    if not labels.size:
        return None
    if labels.dtype.kind not in "biuf":
        return f"of type {labels.dtype}, which is not a number"
    loss, units = context.loss, context.units
    if form == "other" or units is None:
        return None
    softmax = output_activation(context.model) == "softmax"
    if loss is None or "crossentropy" not in loss.name:
        beyond = _beyond_outputs(context, split)
        if beyond:
            return beyond
    if loss is None:
        if softmax and form == "numbers":
            return "numbers instead of classes, and the output is a softmax"
        return None
    rule = f"and {loss.name} "
    wide = labels.ndim == 2 and labels.shape[1] > 1
    column = units > 1 and not wide and form != "open"
    if loss.name.startswith("sparse_categorical"):
        if wide:
            return f"rows of {labels.shape[1]} ({form}), {rule}expects integers"
        if form == "numbers":
            return f"not integers, {rule}truncates them"
    elif loss.name.startswith("categorical"):
        if column:
            return f"one number per example, {rule}expects one-hot rows"
        if form in ("multi-hot", "numbers"):
            return (
                f"rows that do not sum to 1 ({form}), {rule}expects rows that "
                "do"
            )
    elif loss.name.startswith("binary"):
        if column:
            return f"one number per example, {rule}expects {units} of 0 or 1"
        if form != "open" and (labels.min() < 0 or labels.max() > 1):
            received = f"from {labels.min():g} to {labels.max():g}"
            return f"{received}, {rule}expects 0 to 1"
    elif column:
        # Keras silently broadcasts (n, 1) over all outputs.
        return f"one number per example, {rule}compares it with {units} outputs"
    return None


def _beyond_outputs(context: Context, split: InspectedSplit) -> str | None:
    """Describes numbers that the output activation never reaches."""
    activation = output_activation(context.model) or ""
    bounds = BOUNDS.get(activation)
    wide = context.units == 1 or split.labels.shape[1:] == (context.units,)
    if bounds is None or not wide or split.form == "open":
        return None
    low, high = split.labels.min(), split.labels.max()
    if low >= bounds[0] and high <= bounds[1]:
        return None
    return (
        f"from {low:g} to {high:g}, and the output, a {activation}, lies "
        f"between {bounds[0]:g} and {bounds[1]:g}"
    )


def activation_loss(context: Context) -> Iterator[Finding]:
    """Finds an output activation that does not fit the loss."""
    activation = output_activation(context.model)
    if activation is None:
        return
    if context.units == 1 and activation == "softmax":
        yield Finding(
            "activation-loss",
            "error",
            "The output is a softmax of a single unit, which is 1 for every "
            "image.",
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
            f"{name} of a single output is constant, because the probability "
            "of the only class is always 1.",
            '`activation="sigmoid"` with `loss="binary_crossentropy"`.',
        )
    elif activation in _NOT_PROBABILITIES and not from_logits:
        yield Finding(
            "activation-loss",
            "error",
            f"The output is {activation}, and {name} expects probabilities.",
            f'`activation="{right}"`, or a loss with `from_logits=True`.',
        )
    elif activation in ("softmax", "sigmoid") and activation != right:
        # Keras computes the loss from the logits before the activation.
        yield Finding(
            "activation-loss",
            "error",
            f"The output is a {activation}, and {name} trains its logits as "
            f"those of a {right}: the outputs are not the probabilities that "
            "the loss is computed from.",
            f'`activation="{right}"`, or '
            + (
                '`loss="categorical_crossentropy"` for one class per image.'
                if binary
                else '`loss="binary_crossentropy"` for several labels.'
            ),
        )
    elif activation == right and from_logits:
        yield Finding(
            "activation-loss",
            "warning",
            f"The output is a {activation}, and the loss has "
            "`from_logits=True`. Keras on TensorFlow detects that and reads "
            "the logits; other code would apply the activation twice.",
            "Leave out `from_logits=True`.",
        )


CHECKS = (label_format, activation_loss)
