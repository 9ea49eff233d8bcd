"""Metrics of a model's outputs, and checks of outputs and labels.

All metrics are computed in NumPy, in float64. All but R2 are means over
examples.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from keras_transfer._utils.checks import SUM_TOLERANCE, check_class_names

# Keras' `epsilon()`: probabilities are clipped to [epsilon, 1 - epsilon].
_EPSILON = 1e-7


class Confusion(NamedTuple):
    """A pair of classes that were confused.

    Attributes:
        true: Name of the true class.
        predicted: Name of the predicted class.
        count: Number of examples.
    """

    true: str
    predicted: str
    count: int  # type: ignore[assignment]


class Mistake(NamedTuple):
    """An example with its loss.

    Attributes:
        id: Id of the example.
        true: Name of its class; several labels are joined by `;`. In
            regression, the numbers.
        predicted: The prediction of the model, in the same format.
        confidence: Probability in `[0, 1]` of the predicted class; for several
            labels, that of the least certain decision; NaN in regression.
        loss: Loss of the example.
    """

    id: str
    true: Any
    predicted: Any
    confidence: float
    loss: float


class ClassScore(NamedTuple):
    """Scores of one class; fractions are in `[0, 1]`.

    Attributes:
        precision: Fraction of correct predictions of this class; 0 if it is
            never predicted.
        recall: Fraction of its examples that are predicted; 0 if it has none.
        f1: Harmonic mean of precision and recall; 0 if both are 0.
        support: Number of examples of the class.
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
        log_probabilities = log_softmax(outputs)
    else:
        # Keras divides by the sum, too.  [n, num_classes]
        probabilities = outputs / outputs.sum(axis=1, keepdims=True)
        clipped = np.clip(probabilities, _EPSILON, 1 - _EPSILON)
        log_probabilities = np.log(clipped)
    losses = -log_probabilities[np.arange(len(labels)), labels]
    correct = outputs.argmax(axis=1) == labels
    return {"loss": losses.mean(), "accuracy": correct.mean()}, losses


def multi_label(
    outputs: np.ndarray, labels: np.ndarray, from_logits: bool
) -> _Result:
    """Returns metrics by name, and the loss of each example."""
    if from_logits:
        # -log sigmoid(x) = log(1 + exp(-x)), and 1 - sigmoid(x) = sigmoid(-x)
        yes, no = np.logaddexp(0, -outputs), np.logaddexp(0, outputs)
    else:
        clipped = np.clip(outputs, _EPSILON, 1 - _EPSILON)
        yes, no = -np.log(clipped), -np.log(1 - clipped)
    losses = (labels * yes + (1 - labels) * no).mean(axis=1)
    threshold = 0.0 if from_logits else 0.5
    correct = (outputs > threshold) == (labels > 0.5)  # [n, num_classes]
    metrics = {
        "loss": losses.mean(),
        "accuracy": correct.mean(),
        "exact_match": correct.all(axis=1).mean(),
    }
    return metrics, losses


def regression(outputs: np.ndarray, labels: np.ndarray) -> _Result:
    """Returns metrics by name, and the loss of each example."""
    errors = rows(outputs - labels)  # [n, targets]
    losses = (errors**2).mean(axis=1)
    deviations = rows(labels) - rows(labels).mean(axis=0)
    # R2 = 1 - sum of squared errors / sum of squared deviations, by target.
    residual, total = (errors**2).sum(axis=0), (deviations**2).sum(axis=0)
    # A constant target has no variance to explain: 1 if exact, else 0.
    constant = total == 0
    explained = 1 - residual / np.where(constant, 1, total)
    explained = np.where(constant, residual == 0, explained)
    metrics = {
        "loss": losses.mean(),
        "mse": losses.mean(),
        "mae": np.abs(errors).mean(),
        "r2": explained.mean() if len(labels) > 1 else np.nan,
    }
    return metrics, losses


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """Returns the logarithms of the probabilities, row by row."""
    shifted = logits - logits.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))


def ratio(counts: np.ndarray, of: np.ndarray) -> np.ndarray:
    """Returns `counts / of`, and 0 for 0 / 0."""
    return np.where(of > 0, counts / np.maximum(of, 1), 0.0)


def rows(values: np.ndarray) -> np.ndarray:
    """Reshapes values `(n, ...)` to `(n, k)`."""
    return values.reshape(len(values), -1)


# --- checks -------------------------------------------------------------------


def check_lengths(
    outputs: np.ndarray, labels: np.ndarray, ids: Sequence[str] | None
) -> None:
    """Raises unless all have the same length and the outputs are finite."""
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
        example = first if ids is None else repr(ids[first])
        raise ValueError(
            "`outputs` must be finite. Received: NaN or infinity for "
            f"{bad.sum()} of {len(bad)} examples, the first of which is "
            f"{example}. The training diverged (lower the learning rate), or "
            "inputs or weights hold NaN."
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
            f"Received: shape={outputs.shape}. For a single yes or no pass "
            'kind="multi-label"; for numbers, kind="regression".'
        )
    low, high = outputs.min(), outputs.max()
    # The tolerance allows for 16 bits, which hold three decimal digits.
    sums = outputs.sum(axis=1) if kind == "classification" else np.ones(1)
    wrong_sum = np.abs(sums - 1).max() > 0.02
    if not from_logits and (low < -1e-3 or high > 1.001 or wrong_sum):
        detail = "rows that do not sum to 1, " if wrong_sum else ""
        raise ValueError(
            f"`outputs` must be probabilities. Received: {detail}values from "
            f"{low:.4g} to {high:.4g}. Pass from_logits=True for logits"
            + (', kind="multi-label" for sigmoids.' if wrong_sum else ".")
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
    valid: Any = labels.dtype.kind in "biuf"
    if valid and labels.ndim == 2 and labels.shape[1] == num_classes:
        valid = (labels >= 0).all() and np.allclose(
            labels.sum(1), 1, atol=SUM_TOLERANCE
        )
        indices = labels.argmax(axis=1)
    else:
        indices = labels[:, 0] if labels.shape[1:] == (1,) else labels
        valid = valid and indices.ndim == 1
        valid = valid and np.array_equal(indices, indices // 1)
    if not valid or indices.min() < 0 or indices.max() >= num_classes:
        raise ValueError(
            f"`labels` must be integers in [0, {num_classes}), or one-hot of "
            f"shape (n, {num_classes}), for {num_classes} outputs. Received: "
            f"{_describe(labels)}"
        )
    return indices.astype("int64")


def check_multi_hot(labels: np.ndarray, outputs: np.ndarray) -> np.ndarray:
    """Returns the labels in the shape of the outputs.

    int64 where all are 0 or 1, else float64.
    """
    if labels.ndim == 1 and outputs.shape[1] == 1:
        labels = labels[:, None]
    fits = labels.shape == outputs.shape and labels.dtype.kind in "biuf"
    if not fits or not ((labels >= 0) & (labels <= 1)).all():
        raise ValueError(
            "`labels` must be 0, 1 or fractions between, and of shape "
            f"{outputs.shape}, like the outputs. Received: {_describe(labels)}"
        )
    binary = np.isin(labels, (0, 1)).all()
    return labels.astype("int64" if binary else "float64")


def check_numbers(labels: np.ndarray, outputs: np.ndarray) -> np.ndarray:
    """Returns the labels as float64, in the shape of the outputs."""
    valid = labels.dtype.kind in "biuf" and np.isfinite(labels).all()
    valid = valid and len(labels) == len(outputs)
    # (n,) and (n, 1) hold the same numbers, but broadcast to (n, n).
    squeezed = tuple(size for size in labels.shape[1:] if size != 1)
    if not valid or squeezed != tuple(s for s in outputs.shape[1:] if s != 1):
        raise ValueError(
            f"`labels` must be finite numbers of shape {outputs.shape}, like "
            f"the outputs. Received: {_describe(labels)}"
        )
    return labels.astype("float64").reshape(outputs.shape)


def _describe(labels: np.ndarray) -> str:
    text = f"{labels.dtype} of shape {labels.shape}"
    if labels.size and labels.dtype.kind in "iuf":
        text += f", from {labels.min():g} to {labels.max():g}"
    return text + "."
