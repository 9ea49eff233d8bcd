"""Tables: what each strength was worth on held-out examples."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from keras_transfer.probes.linear import ABSENT

# Rows that the loss has to rise for before a path ends.
_PATIENCE = 4


class PathRow(NamedTuple):
    """What one strength was worth on the held-out examples.

    Attributes:
        strength: Lambda; the number of neighbours, or the variance.
        loss: Mean over the examples.
        accuracy: Share of right decisions; `None` for numbers. Defaults to
            `None`.
        kept: Number of columns where only some are kept. Defaults to `None`.

    Example:

    >>> PathRow(strength=0.1, loss=0.5, accuracy=0.9).kept
    """

    strength: float
    loss: float
    accuracy: float | None = None
    kept: int | None = None


# From outputs and targets to the loss of each example and its hits.
Measure = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]


def walk(
    paths: Sequence[Iterator[np.ndarray]],
    targets: Sequence[np.ndarray],
    strengths: Sequence[float],
    measure: Measure,
    kept: int | None = None,
) -> tuple[PathRow, ...]:
    """Walks along the paths of all folds at once, a row for each strength.

    Ends early where the loss has risen four times in a row and is 1 % above
    the best: beyond, weaker lambdas overfit more and take the longest.
    """
    rows: list[PathRow] = []
    for strength, outputs in zip(
        strengths, zip(*paths, strict=True), strict=False
    ):
        found = [measure(*pair) for pair in zip(outputs, targets, strict=True)]
        losses, hits = (
            np.concatenate(parts) for parts in zip(*found, strict=True)
        )
        accuracy = float(hits.mean()) if hits.size else None
        rows.append(PathRow(strength, float(losses.mean()), accuracy, kept))
        last = [row.loss for row in rows[-_PATIENCE - 1 :]]
        rising = len(last) > _PATIENCE and last == sorted(last)
        if rising and last[-1] > 1.01 * min(row.loss for row in rows):
            break
    return tuple(rows)


def log_losses(
    outputs: np.ndarray, labels: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Cross-entropy of probabilities and class indices, by example."""
    found = outputs[np.arange(len(labels)), labels]
    losses = -np.log(found.clip(min=np.exp(ABSENT)))
    return losses, outputs.argmax(axis=1) == labels


def binary_log_losses(
    outputs: np.ndarray, labels: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Cross-entropy of probabilities and 0/1, mean over the outputs."""
    found = np.where(labels > 0, outputs, 1 - outputs)
    losses = -np.log(found.clip(min=np.exp(ABSENT))).mean(axis=1)
    return losses, ((outputs > 0.5) == (labels > 0)).mean(axis=1)


def squared_losses(
    outputs: np.ndarray, targets: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Squared errors, mean over the outputs; numbers have no hits."""
    return ((outputs - targets) ** 2).mean(axis=1), np.empty(0)


def signed_losses(
    outputs: np.ndarray, targets: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Squared errors to -1 and 1; a decision is by sign."""
    hits = (outputs > 0) == (targets > 0)
    return ((outputs - targets) ** 2).mean(axis=1), hits.mean(axis=1)


def coded_losses(
    outputs: np.ndarray, targets: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Squared errors to -1 and 1; a decision is by the largest output."""
    hits = outputs.argmax(axis=1) == targets.argmax(axis=1)
    return ((outputs - targets) ** 2).mean(axis=1), hits
