"""Paths: predictions for held-out examples, one strength after the other.

Each path takes the examples to fit, the examples to predict and the strengths,
and yields the outputs for each strength. Work that the strengths share
(distances, the solution to start from) is done once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from keras_transfer.probes.linear import ABSENT, Probe
from keras_transfer.probes.solver import Solution, softmax, solve_path

# Kornblith et al., 2019: 45 values between 1e-6 and 1e5.
LAMBDAS = tuple(10.0 ** np.linspace(-6, 5, 45))


def logistic_path(
    values: np.ndarray,
    targets: np.ndarray,
    strengths: Sequence[float],
    *,
    multi_label: bool = False,
    exact: bool = False,
) -> Iterator[Solution]:
    """Yields the solution of logistic regression for each lambda.

    Extends `solve_path` to classes without examples, whose scores are far below
    all others, and to outputs that are always 0 or always 1.

    Args:
        values: Coordinates `(n, r)`.
        targets: 0 or 1, `(n, outputs)`.
        strengths: The lambdas, largest first.
        multi_label: Whether outputs are independent. Defaults to `False`.
        exact: Whether to iterate until convergence. Defaults to `False`.

    Yields:
        A `Solution` for each lambda.
    """
    # A constant column has no finite solution: its intercept would go to
    # infinity. It gets a fixed score, and the others are solved.  [outputs]
    rates = targets.mean(axis=0)
    varied = (rates > 0) & (rates < 1)
    bias = np.where(rates < 1, ABSENT, -ABSENT)
    weights = np.zeros((values.shape[1], targets.shape[1]))
    if not varied.any():
        for _ in strengths:
            yield Solution(weights, bias)
        return
    for solution in solve_path(
        values,
        targets[:, varied],
        strengths,
        multi_label=multi_label,
        exact=exact,
    ):
        weights, bias = weights.copy(), bias.copy()
        weights[:, varied], bias[varied] = solution
        yield Solution(weights, bias)


def nearest_mean(
    features: np.ndarray,
    labels: np.ndarray,
    num_classes: int,
    strength: float = 1.0,
) -> Probe:
    """Returns the nearest class mean as a linear map.

    The scores of `softmax_c(-|x - m_c|^2 / (2 strength))` are linear in `x`,
    since the term `|x|^2` is common to all classes and cancels.

    Args:
        features: Array `(n, d)`.
        labels: Class indices `(n,)`.
        num_classes: Number of classes. A class without examples has a score far
            below the highest.
        strength: The variance, which scales the confidence of the probabilities
            and does not change the nearest class. Defaults to `1.0`.

    Returns:
        A `Probe`, in float64; the columns of its kernel sum to 0.

    Example:

    >>> probe = nearest_mean(np.eye(2), np.array([0, 1]), num_classes=2)
    >>> probe.kernel
    array([[ 0.5, -0.5],
           [-0.5,  0.5]])
    """
    present = np.unique(labels)
    means = np.stack([features[labels == c].mean(axis=0) for c in present])
    means = means.astype(np.float64)  # [present classes, d]
    # -|x - m|^2 / 2 = x m - |m|^2 / 2 - |x|^2 / 2, the last term cancels.
    bias = -(means**2).sum(axis=1) / 2  # [present classes]
    kernel = np.zeros((features.shape[1], num_classes))
    biases = np.full(num_classes, ABSENT)
    # Subtracting the mean over classes leaves the softmax unchanged and keeps
    # the highest score at 0 or above, so that `ABSENT` is far below it.
    kernel[:, present] = (means - means.mean(axis=0)).T / strength
    biases[present] = (bias - bias.mean()) / strength
    return Probe(kernel, biases, strength)


def nearest_mean_path(
    features: np.ndarray,
    labels: np.ndarray,
    held_out: np.ndarray,
    strengths: Sequence[float],
    num_classes: int,
) -> Iterator[np.ndarray]:
    """Yields probabilities `(m, num_classes)` for each variance."""
    probe = nearest_mean(features, labels, num_classes)
    scores = held_out @ probe.kernel + probe.bias  # [m, classes]
    absent = np.setdiff1d(np.arange(num_classes), labels)
    for strength in strengths:
        # The variance scales all scores, but not those of absent classes.
        scaled = scores / strength
        scaled[:, absent] = ABSENT
        yield softmax(scaled)


def neighbour_path(
    features: np.ndarray,
    targets: np.ndarray,
    held_out: np.ndarray,
    numbers: Sequence[float],
) -> Iterator[np.ndarray]:
    """Yields the mean targets `(m, outputs)` of the k nearest neighbours."""
    from sklearn.neighbors import NearestNeighbors

    search = NearestNeighbors(n_neighbors=int(max(numbers))).fit(features)
    # Rows of `features`, nearest first.  [m, largest k]
    nearest = search.kneighbors(held_out, return_distance=False)
    for number in numbers:
        # [m, k, outputs] -> [m, outputs]
        yield targets[nearest[:, : int(number)]].mean(axis=1)
