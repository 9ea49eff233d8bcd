"""The accuracy of a linear probe, over folds."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from keras_transfer.evaluation.intervals import wilson
from keras_transfer.features.arrays import check_classes, check_features
from keras_transfer.probes import fit_logistic
from keras_transfer.probes.solver import softmax

FOLDS = 5


class ProbeScore(NamedTuple):
    """What a linear head reaches on examples that it did not see.

    Attributes:
        accuracy: The share that is right.
        low: The lower end of its 95 % interval.
        high: The upper end.
    """

    accuracy: float
    low: float
    high: float

    @classmethod
    def of(cls, right: int, count: int) -> ProbeScore:
        """Returns the accuracy of so many right ones.

        Args:
            right: How many are right.
            count: Of how many.
        """
        return cls(right / count, *wilson(right, count, 0.95))

    def __str__(self) -> str:
        return f"{self.accuracy:6.1%} ({self.low:.1%}-{self.high:.1%})"


def probe_score(features: Any, labels: Any, *, seed: int = 0) -> ProbeScore:
    """Returns the cross-validated accuracy of logistic regression.

    Five folds, in which classes have their shares: a path of lambdas is fitted
    to three of them, one is chosen by the fourth, and the fifth is predicted.
    Equal rows stay in one fold. Features are centred and divided by one number.

    Args:
        features: `(n, d)`.
        labels: Class indices `(n,)` or one-hot rows.
        seed: Of the folds. Defaults to `0`.

    Returns:
        A `ProbeScore`, with Wilson's interval.

    Raises:
        ValueError: If shapes do not fit, a number is not finite, there are
            fewer than five examples, or one class only.

    Example:

    >>> labels = np.arange(50) % 2
    >>> features = np.random.default_rng(0).normal(size=(50, 4))
    >>> probe_score(features + 9 * labels[:, None], labels).accuracy
    1.0

    Reference:
        - Kornblith et al., 2019, https://arxiv.org/abs/1805.08974
    """
    features = check_features(features)
    labels = check_classes(labels, len(features))
    likely = held_out_probabilities(features, labels, seed)
    right = int((likely.argmax(axis=1) == labels).sum())
    return ProbeScore.of(right, len(labels))


def held_out_probabilities(
    features: np.ndarray, labels: np.ndarray, seed: int
) -> np.ndarray:
    """Returns what logistic regression says of examples that it did not see.

    Args:
        features: float64 `(n, d)`.
        labels: Class indices `(n,)`, without gaps.
        seed: Of the folds.

    Returns:
        float64 `(n, classes)`; equal odds where a fold has one class alone.

    Raises:
        ValueError: If there are fewer than five examples.

    Example:

    >>> labels = np.arange(10) % 2
    >>> held_out_probabilities(np.eye(2)[labels], labels, 0).shape
    (10, 2)
    """
    if len(features) < FOLDS:
        raise ValueError(
            f"`features` must hold {FOLDS} examples at least. Received: "
            f"{len(features)}."
        )
    features = features - features.mean(axis=0)
    features = features / (np.sqrt(features.var(axis=0).mean()) or 1.0)
    # Copies stay together: one would tell the label of the other.
    _, first, group = np.unique(
        features, axis=0, return_index=True, return_inverse=True
    )
    folds = folds_of(labels, seed)[first[group.reshape(-1)]]
    classes = int(labels.max()) + 1
    likely = np.full((len(labels), classes), 1 / classes)
    for fold in range(FOLDS):
        rest = (fold + 1) % FOLDS
        fit = ~np.isin(folds, (fold, rest))
        if len(np.unique(labels[fit])) < 2:
            continue  # So few examples: nothing is known there.
        probe = fit_logistic(
            features[fit],
            labels[fit],
            classes,
            validation=(features[folds == rest], labels[folds == rest]),
        )
        held_out = folds == fold
        likely[held_out] = softmax(
            features[held_out] @ probe.kernel + probe.bias
        )
    return likely


def folds_of(labels: np.ndarray, seed: int) -> np.ndarray:
    """The fold of each example: class by class, one after the other.

    Args:
        labels: Class indices `(n,)`.
        seed: Of the order.

    Returns:
        int64 `(n,)` in `[0, 5)`.

    Example:

    >>> np.bincount(folds_of(np.arange(20) % 2, 0)).tolist()
    [4, 4, 4, 4, 4]
    """
    order = np.random.default_rng(seed).permutation(len(labels))
    order = order[np.argsort(labels[order], kind="stable")]
    folds = np.empty(len(labels), int)
    folds[order] = np.arange(len(labels)) % FOLDS
    return folds
