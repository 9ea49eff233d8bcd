"""Tables of the held-out loss of each strength along a path."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from keras_transfer.probes.linear import ABSENT

# A path ends after this many rows of rising loss.
_PATIENCE_ROWS = 4


class PathRow(NamedTuple):
    """Loss and accuracy of one strength on the held-out examples.

    Attributes:
        strength: Lambda, the number of neighbours, or the variance.
        loss: Mean loss over the examples.
        accuracy: Share of correct decisions; `None` in regression. Defaults to
            `None`.
        kept: Number of columns that are used, `None` for all. Defaults to
            `None`.

    Example:

    >>> PathRow(strength=0.1, loss=0.5, accuracy=0.9).kept
    """

    strength: float
    loss: float
    accuracy: float | None = None
    kept: int | None = None


# Function from outputs and targets to the loss and the hit of each example.
Measure = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]


def measure_paths(
    paths: Sequence[Iterator[np.ndarray]],
    targets: Sequence[np.ndarray],
    strengths: Sequence[float],
    measure: Measure,
    kept: int | None = None,
) -> tuple[PathRow, ...]:
    """Measures the paths of all folds together, a row per strength.

    Stops early once the loss has risen four times in a row and is 1 % above
    the best: weaker lambdas overfit more and take the longest to solve.

    Args:
        paths: An iterator per fold over held-out outputs, one per strength.
        targets: The held-out targets of each fold.
        strengths: The strengths, strongest first.
        measure: Function from outputs and targets to losses and hits.
        kept: Number of columns, noted in the rows. Defaults to `None`.

    Returns:
        Tuple of `PathRow`, in the order of the strengths.
    """
    rows: list[PathRow] = []
    # The iterators solve their problems lazily: stopping saves the rest.
    for strength, outputs in zip(
        strengths, zip(*paths, strict=True), strict=False
    ):
        folds = [measure(*pair) for pair in zip(outputs, targets, strict=True)]
        # Examples of all folds count equally, whatever the size of a fold.
        losses, hits = (
            np.concatenate(arrays) for arrays in zip(*folds, strict=True)
        )
        accuracy = float(hits.mean()) if hits.size else None
        rows.append(PathRow(strength, float(losses.mean()), accuracy, kept))
        last = [row.loss for row in rows[-_PATIENCE_ROWS - 1 :]]
        rising = len(last) > _PATIENCE_ROWS and last == sorted(last)
        if rising and last[-1] > 1.01 * min(row.loss for row in rows):
            break
    return tuple(rows)


def log_losses(
    outputs: np.ndarray, labels: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the cross-entropy of probabilities, and the hits."""
    likelihoods = outputs[np.arange(len(labels)), labels]
    losses = -np.log(likelihoods.clip(min=np.exp(ABSENT)))
    return losses, outputs.argmax(axis=1) == labels


def binary_log_losses(
    outputs: np.ndarray, labels: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the binary cross-entropy and the hits, means over the outputs."""
    likelihoods = np.where(labels > 0, outputs, 1 - outputs)
    losses = -np.log(likelihoods.clip(min=np.exp(ABSENT))).mean(axis=1)
    return losses, ((outputs > 0.5) == (labels > 0)).mean(axis=1)


def squared_losses(
    outputs: np.ndarray, targets: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Returns squared errors, means over the outputs, and no hits."""
    return ((outputs - targets) ** 2).mean(axis=1), np.empty(0)


def signed_losses(
    outputs: np.ndarray, targets: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Returns squared errors to -1 and 1; the sign of an output decides."""
    hits = (outputs > 0) == (targets > 0)
    return ((outputs - targets) ** 2).mean(axis=1), hits.mean(axis=1)


def coded_losses(
    outputs: np.ndarray, targets: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Returns squared errors to -1 and 1; the largest output decides."""
    hits = outputs.argmax(axis=1) == targets.argmax(axis=1)
    return ((outputs - targets) ** 2).mean(axis=1), hits
