"""`probe_score`: cross-validated accuracy of a linear probe."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from keras_transfer.evaluation.intervals import wilson
from keras_transfer.features.arrays import check_classes, check_features
from keras_transfer.probes import fit_logistic
from keras_transfer.probes.solver import softmax

FOLDS = 5


class ProbeScore(NamedTuple):
    """Accuracy of a linear head on unseen examples.

    Attributes:
        accuracy: Fraction of correct predictions.
        low: Lower end of the 95 % interval.
        high: Upper end of the 95 % interval.
    """

    accuracy: float
    low: float
    high: float

    @classmethod
    def of(cls, right: int, count: int) -> ProbeScore:
        """Makes the score of a number of correct predictions.

        Args:
            right: Number of correct predictions.
            count: Number of predictions.
        """
        return cls(right / count, *wilson(right, count, 0.95))

    def __str__(self) -> str:
        return f"{self.accuracy:6.1%} ({self.low:.1%}-{self.high:.1%})"


def probe_score(features: Any, labels: Any, *, seed: int = 0) -> ProbeScore:
    """Returns the cross-validated accuracy of logistic regression.

    There are five stratified folds: a path of lambdas is fitted to three of
    them, lambda is chosen on the fourth, and the fifth is predicted. Equal rows
    are in the same fold. Features are centred and divided by a single number.

    Args:
        features: Array `(n, d)`, or a `FeatureSplit`.
        labels: Class indices `(n,)` or one-hot rows.
        seed: Seed of the folds. Defaults to `0`.

    Returns:
        A `ProbeScore`, with Wilson's interval.

    Raises:
        ValueError: If shapes do not match, a number is not finite, there are
            fewer than five examples, or a single class.

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
    probabilities = held_out_probabilities(features, labels, seed)
    right = int((probabilities.argmax(axis=1) == labels).sum())
    return ProbeScore.of(right, len(labels))


def held_out_probabilities(
    features: np.ndarray, labels: np.ndarray, seed: int
) -> np.ndarray:
    """Returns out-of-fold probabilities of logistic regression.

    Args:
        features: float64 `(n, d)`.
        labels: Class indices `(n,)`, without gaps.
        seed: Seed of the folds.

    Returns:
        float64 `(n, classes)`; uniform if the examples to fit have one class.

    Raises:
        ValueError: If there are fewer than five examples.

    Example:

    >>> labels = np.arange(10) % 2
    >>> held_out_probabilities(np.eye(2)[labels], labels, 0).shape
    (10, 2)
    """
    if len(features) < FOLDS:
        raise ValueError(
            f"`features` must hold at least {FOLDS} examples. Received: "
            f"{len(features)}."
        )
    features = features - features.mean(axis=0)
    # One number for all columns, the root of their mean variance.
    features = features / (np.sqrt(features.var(axis=0).mean()) or 1.0)
    # Duplicates share a fold, since one would reveal the label of the other:
    # each example gets the fold of the first row that equals it.
    _, first, group = np.unique(
        features, axis=0, return_index=True, return_inverse=True
    )
    folds = folds_of(labels, seed)[first[group.reshape(-1)]]
    classes = int(labels.max()) + 1
    probabilities = np.full((len(labels), classes), 1 / classes)
    for fold in range(FOLDS):
        validation = (fold + 1) % FOLDS
        fit = ~np.isin(folds, (fold, validation))
        if len(np.unique(labels[fit])) < 2:
            continue  # Nothing can be learned; the probabilities stay uniform.
        chosen_on = folds == validation
        probe = fit_logistic(
            features[fit],
            labels[fit],
            classes,
            validation=(features[chosen_on], labels[chosen_on]),
        )
        held_out = folds == fold
        probabilities[held_out] = softmax(
            features[held_out] @ probe.kernel + probe.bias
        )
    return probabilities


def folds_of(labels: np.ndarray, seed: int) -> np.ndarray:
    """Deals the examples of each class to the folds in turn, in random order.

    Args:
        labels: Class indices `(n,)`.
        seed: Seed of the order.

    Returns:
        int64 `(n,)` in `[0, 5)`.

    Example:

    >>> np.bincount(folds_of(np.arange(20) % 2, 0)).tolist()
    [4, 4, 4, 4, 4]
    """
    order = np.random.default_rng(seed).permutation(len(labels))
    # Sorted by class; the stable sort keeps the random order within a class.
    order = order[np.argsort(labels[order], kind="stable")]
    folds = np.empty(len(labels), int)
    folds[order] = np.arange(len(labels)) % FOLDS
    return folds
