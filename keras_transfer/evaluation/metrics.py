"""Metrics of a model's outputs, and checks of what they are computed from.

Everything is NumPy in float64; a metric is a mean over examples where that can
be.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from keras_transfer._utils.checks import check_class_names

# Keras' `epsilon()`: no probability is taken to be nearer to 0 or 1.
_EPSILON = 1e-7


class Confusion(NamedTuple):
    """How often a class was taken for another.

    Attributes:
        true: Name of the class.
        predicted: Name of the class that it was taken for.
        count: Number of examples.
    """

    true: str
    predicted: str
    count: int  # type: ignore[assignment]


class Mistake(NamedTuple):
    """An example with its loss.

    Attributes:
        id: The example's id.
        true: Name of its class; several labels are joined by `;`. In
            regression, the numbers.
        predicted: Likewise, what the model says.
        confidence: Probability in `[0, 1]` of the predicted class; of several
            labels, that of the least certain decision; NaN in regression.
        loss: The loss of this example.
    """

    id: str
    true: Any
    predicted: Any
    confidence: float
    loss: float


class ClassScore(NamedTuple):
    """How well one class is found; fractions are in `[0, 1]`.

    Attributes:
        precision: Of the examples predicted to be it, how many are; 0 where
            none is predicted.
        recall: Of its examples, how many are predicted; 0 where it has none.
        f1: Harmonic mean of the two; 0 where both are.
        support: Number of its examples.
    """

    precision: float
    recall: float
    f1: float
    support: int


_Result = tuple[dict[str, float], np.ndarray]


def classification(
    outputs: np.ndarray, labels: np.ndarray, from_logits: bool
) -> _Result:
    """Returns metrics by name, and the loss of each example."""
    if from_logits:
        logs = log_softmax(outputs)
    else:
        # Keras does not ask for a sum of 1 either, and divides by it.
        shares = outputs / outputs.sum(axis=1, keepdims=True)
        logs = np.log(np.clip(shares, _EPSILON, 1 - _EPSILON))
    losses = -logs[np.arange(len(labels)), labels]
    right = outputs.argmax(axis=1) == labels
    return {"loss": losses.mean(), "accuracy": right.mean()}, losses


def multi_label(
    outputs: np.ndarray, labels: np.ndarray, from_logits: bool
) -> _Result:
    """Returns metrics by name, and the loss of each example."""
    if from_logits:
        # -log sigmoid(x) = log(1 + exp(-x)), and 1 - sigmoid(x) = sigmoid(-x)
        terms = np.logaddexp(0, np.where(labels == 1, -outputs, outputs))
    else:
        clipped = np.clip(outputs, _EPSILON, 1 - _EPSILON)
        terms = -np.log(np.where(labels == 1, clipped, 1 - clipped))
    losses = terms.mean(axis=1)
    threshold = 0.0 if from_logits else 0.5
    right = (outputs > threshold) == labels
    metrics = {
        "loss": losses.mean(),
        "accuracy": right.mean(),
        "exact_match": right.all(axis=1).mean(),
    }
    return metrics, losses


def regression(outputs: np.ndarray, labels: np.ndarray) -> _Result:
    """Returns metrics by name, and the loss of each example."""
    errors = rows(outputs - labels)
    losses = (errors**2).mean(axis=1)
    spread = rows(labels) - rows(labels).mean(axis=0)
    left, total = (errors**2).sum(axis=0), (spread**2).sum(axis=0)
    # A constant target leaves nothing to explain: 1 if met exactly, else 0.
    constant = total == 0
    explained = 1 - left / np.where(constant, 1, total)
    explained = np.where(constant, left == 0, explained)
    metrics = {
        "loss": losses.mean(),
        "mse": losses.mean(),
        "mae": np.abs(errors).mean(),
        "r2": explained.mean() if len(labels) > 1 else np.nan,
    }
    return metrics, losses


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """Returns the logarithms of the probabilities, by row."""
    shifted = logits - logits.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))


def ratio(counts: np.ndarray, of: np.ndarray) -> np.ndarray:
    """Returns `counts / of`, and 0 where that is 0 / 0."""
    return np.where(of > 0, counts / np.maximum(of, 1), 0.0)


def rows(values: np.ndarray) -> np.ndarray:
    """Returns the values as `(n, k)`."""
    return values.reshape(len(values), -1)


# --- checks -------------------------------------------------------------------


def check_lengths(
    outputs: np.ndarray, labels: np.ndarray, ids: Sequence[str] | None
) -> None:
    """Raises ValueError unless all have one length and outputs are finite."""
    if not outputs.ndim or not labels.ndim or not outputs.size:
        raise ValueError(
            "`outputs` and `labels` must hold at least one example, along the "
            f"first axis. Received: shapes {outputs.shape} and {labels.shape}."
        )
    lengths = [len(outputs), len(labels)]
    lengths += [] if ids is None else [len(ids)]
    if len(set(lengths)) > 1:
        raise ValueError(
            "`outputs`, `labels` and `ids` must have equal length. Received: "
            f"{', '.join(map(str, lengths))}."
        )
    bad = ~np.isfinite(rows(outputs)).all(axis=1)
    if bad.any():
        first = int(bad.argmax())
        where = first if ids is None else repr(ids[first])
        raise ValueError(
            "`outputs` must be finite. Received: the model gives NaN or "
            f"infinity for {bad.sum()} of {len(bad)} examples, first for "
            f"{where}. Its training diverged, or its input or weights hold "
            "NaN: lower the learning rate."
        )


def check_classes(
    outputs: np.ndarray,
    class_names: Sequence[str] | None,
    kind: str,
    from_logits: bool,
) -> tuple[str, ...]:
    """Returns the names of the classes, one for each output."""
    if outputs.ndim != 2:
        raise ValueError(
            "`outputs` must have shape (n, num_classes). Received: shape="
            f"{outputs.shape}."
        )
    count = outputs.shape[1]
    if kind == "classification" and count == 1:
        raise ValueError(
            "`outputs` must have at least two columns, one for each class. "
            f"Received: shape={outputs.shape}. For yes or no pass "
            'kind="multi-label"; for numbers, kind="regression".'
        )
    low, high = outputs.min(), outputs.max()
    # 16 bits hold a probability to three digits.
    sums = outputs.sum(axis=1) if kind == "classification" else np.ones(1)
    off = np.abs(sums - 1).max() > 0.02
    if not from_logits and (low < -1e-3 or high > 1.001 or off):
        what = "rows that do not sum to 1, " if off else ""
        raise ValueError(
            f"`outputs` must be probabilities. Received: {what}values from "
            f"{low:.4g} to {high:.4g}. Pass from_logits=True for logits"
            + (', kind="multi-label" for sigmoids.' if off else ".")
        )
    names = check_class_names(class_names)
    if names is not None and len(names) != count:
        raise ValueError(
            f"`class_names` must name each of the {count} outputs. Received: "
            f"{len(names)} names."
        )
    return names or tuple(map(str, range(count)))


def check_labels(labels: np.ndarray, num_classes: int) -> np.ndarray:
    """Returns class indices, int64 `(n,)`."""
    good: Any = labels.dtype.kind in "biuf"
    if good and labels.ndim == 2 and labels.shape[1] == num_classes:
        good = np.isin(labels, (0, 1)).all() and (labels.sum(1) == 1).all()
        whole = labels.argmax(axis=1)
    else:
        whole = labels[:, 0] if labels.shape[1:] == (1,) else labels
        good = good and whole.ndim == 1 and np.array_equal(whole, whole // 1)
    if not good or whole.min() < 0 or whole.max() >= num_classes:
        raise ValueError(
            f"`labels` must be integers in [0, {num_classes}), or one-hot of "
            f"shape (n, {num_classes}), for {num_classes} outputs. Received: "
            f"{_describe(labels)}"
        )
    return whole.astype("int64")


def check_multi_hot(labels: np.ndarray, outputs: np.ndarray) -> np.ndarray:
    """Returns the labels as int64 of 0 and 1, of the shape of the outputs."""
    if labels.ndim == 1 and outputs.shape[1] == 1:
        labels = labels[:, None]
    if labels.shape != outputs.shape or not np.isin(labels, (0, 1)).all():
        raise ValueError(
            f"`labels` must be 0 or 1 and of shape {outputs.shape}, as the "
            f"outputs. Received: {_describe(labels)}"
        )
    return labels.astype("int64")


def check_numbers(labels: np.ndarray, outputs: np.ndarray) -> np.ndarray:
    """Returns the labels as float64 of the shape of the outputs."""
    good = labels.dtype.kind in "biuf" and np.isfinite(labels).all()
    good = good and len(labels) == len(outputs)
    # (n,) and (n, 1) are the same numbers; broadcasting would pair all.
    squeezed = tuple(size for size in labels.shape[1:] if size != 1)
    if not good or squeezed != tuple(s for s in outputs.shape[1:] if s != 1):
        raise ValueError(
            f"`labels` must be finite numbers of shape {outputs.shape}, as the "
            f"outputs. Received: {_describe(labels)}"
        )
    return labels.astype("float64").reshape(outputs.shape)


def _describe(labels: np.ndarray) -> str:
    text = f"{labels.dtype} of shape {labels.shape}"
    if labels.size and labels.dtype.kind in "iuf":
        text += f", from {labels.min():g} to {labels.max():g}"
    return text + "."
