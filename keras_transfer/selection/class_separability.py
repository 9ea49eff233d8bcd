"""H-score and PARC: separation of the classes in feature space."""

from __future__ import annotations

from typing import Any

import numpy as np

from keras_transfer.features.arrays import check_classes, check_features

# Correlations that differ by less are equal: each is a sum of float64 numbers
# of size 1, whose last digit depends on the order of summation.
_ROUNDING = 1e-12


def h_score(features: Any, labels: Any, *, shrink: bool = True) -> float:
    """Returns the H-score: the share of variance between classes.

        H = tr(cov(f)^-1 cov(E[f | y]))

    With few examples per feature, `cov(f)` is singular, and H is the number of
    classes minus one for any features. The shrunk form uses the covariance of
    Ledoit and Wolf, with shrinkage `s`, and `(1 - s) cov(E[f | y])`.

    Args:
        features: Array `(n, d)`.
        labels: Class indices `(n,)` or one-hot rows.
        shrink: Whether to use the shrunk form. Defaults to `True`.

    Returns:
        The score, from 0 to the number of classes minus one; higher is better.

    Raises:
        ValueError: If shapes do not fit, a number is not finite, or there is
            one class only.

    Example:

    >>> features = np.array([[0.0], [0.1], [1.0], [1.1]])
    >>> round(h_score(features, np.array([0, 0, 1, 1]), shrink=False), 2)
    0.99

    Reference:
        - Bao et al., 2019, https://arxiv.org/abs/2212.10082
        - Ibrahim et al., 2021, https://arxiv.org/abs/2110.06893 (shrunk)
    """
    features = check_features(features)
    labels = check_classes(labels, len(features))
    onehot = np.eye(labels.max() + 1)[labels]
    # E[f | y]: [classes, d]; then each example has the mean of its class.
    means = onehot.T @ features / onehot.sum(axis=0)[:, None]
    between = np.atleast_2d(np.cov(means[labels].T))
    if not shrink:
        inverse = np.linalg.pinv(np.atleast_2d(np.cov(features.T)))
        return float(np.trace(inverse @ between))
    if not np.ptp(features, axis=0).any():
        return 0.0  # The features are the same for all examples.
    from sklearn.covariance import ledoit_wolf

    covariance, shrinkage = ledoit_wolf(features)
    # Pseudo-inverse: one-hot features get no shrinkage, and are redundant.
    ratio = np.linalg.pinv(np.atleast_2d(covariance), hermitian=True) @ between
    return float((1 - shrinkage) * np.trace(ratio))


def parc(features: Any, labels: Any) -> float:
    """Returns PARC: agreement of distances in features and in labels.

    Spearman's correlation, in percent, between `1 - r` of all pairs of examples
    in features and in one-hot labels, with Pearson's `r`.

    Args:
        features: Array `(n, d)`, with `d` at least 2.
        labels: Class indices `(n,)` or one-hot rows.

    Returns:
        The score in `[-100, 100]`; higher is better.

    Raises:
        ValueError: If shapes do not fit, a number is not finite, there are
            fewer than three examples, or one class only.

    Example:

    >>> features = np.array([[0, 1], [0, 2], [1, 0], [3, 0]])
    >>> round(parc(features, np.array([0, 0, 1, 1])))
    100

    Reference:
        - Bolya et al., 2021, https://arxiv.org/abs/2111.06977
    """
    features = check_features(features)
    labels = check_classes(labels, len(features))
    if len(features) < 3 or features.shape[1] < 2:
        raise ValueError(
            "`features` must hold at least three examples of two features. "
            f"Received: shape {features.shape}."
        )
    pairs = np.triu_indices(len(features), 1)
    apart = _ranks(1 - _correlations(features)[pairs])
    others = (labels[pairs[0]] != labels[pairs[1]]).astype(np.float64)
    if not np.ptp(apart) or not np.ptp(others):
        return 0.0  # All pairs are alike in the one or the other.
    return 100 * float(np.corrcoef(apart, others)[0, 1])


def _ranks(values: np.ndarray) -> np.ndarray:
    """Ranks from 1; values that are equal up to rounding have the mean rank."""
    from scipy.stats import rankdata

    order = np.argsort(values)
    # [pairs]: the number of larger steps below each value, in order of size.
    levels = np.cumsum(np.diff(values[order], prepend=-np.inf) > _ROUNDING)
    return rankdata(levels)[np.argsort(order)]


def _correlations(features: np.ndarray) -> np.ndarray:
    """Returns Pearson's correlation of rows; 0 for constant rows."""
    centred = features - features.mean(axis=1, keepdims=True)
    lengths = np.linalg.norm(centred, axis=1, keepdims=True)
    scaled = np.divide(
        centred, lengths, out=np.zeros_like(centred), where=lengths > 0
    )
    return scaled @ scaled.T
