"""Paths: what probes of every strength say of held-out examples.

Each path takes the examples to fit, those to predict and the strengths, and
yields the outputs for one strength after the other. What all of them share
(distances, the solution before) is computed once.
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

    As `solve_path`, also with classes without examples, whose scores are far
    below all others, and outputs that are always 0 or always 1.

    Args:
        values: Coordinates `(n, r)`.
        targets: 0 or 1, `(n, outputs)`.
        strengths: The lambdas, largest first.
        multi_label: Whether outputs are independent. Defaults to `False`.
        exact: Whether to solve to the end. Defaults to `False`.

    Yields:
        A `Solution` for each lambda.
    """
    rates = targets.mean(axis=0)
    varied = (rates > 0) & (rates < 1)
    bias = np.where(rates < 1, ABSENT, -ABSENT)
    weights = np.zeros((values.shape[1], targets.shape[1]))
    if not varied.any():
        for _ in strengths:
            yield Solution(weights, bias)
        return
    for found in solve_path(
        values,
        targets[:, varied],
        strengths,
        multi_label=multi_label,
        exact=exact,
    ):
        weights, bias = weights.copy(), bias.copy()
        weights[:, varied], bias[varied] = found
        yield Solution(weights, bias)


def nearest_mean(
    features: np.ndarray,
    labels: np.ndarray,
    num_classes: int,
    strength: float = 1.0,
) -> Probe:
    """Returns the nearest class mean as a linear map.

    `softmax_c(-|x - m_c|^2 / (2 strength))` is linear in `x` within the
    softmax, since `|x|^2` is common to all classes.

    Args:
        features: `(n, d)`.
        labels: Class indices `(n,)`.
        num_classes: Number of classes. One without examples gets a score far
            below the highest.
        strength: The variance; it decides how sure the probabilities are, and
            not which class is nearest. Defaults to `1.0`.

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
    means = means.astype(np.float64)
    bias = -(means**2).sum(axis=1) / 2
    kernel = np.zeros((features.shape[1], num_classes))
    biases = np.full(num_classes, ABSENT)
    # Without what all classes share, the highest score is never below 0.
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
    scores = held_out @ probe.kernel + probe.bias
    absent = np.setdiff1d(np.arange(num_classes), labels)
    for strength in strengths:
        scaled = scores / strength
        scaled[:, absent] = ABSENT
        yield softmax(scaled)


def neighbour_path(
    features: np.ndarray,
    targets: np.ndarray,
    held_out: np.ndarray,
    numbers: Sequence[float],
) -> Iterator[np.ndarray]:
    """Yields the mean of the targets `(m, outputs)` of the k nearest."""
    from sklearn.neighbors import NearestNeighbors

    most = int(max(numbers))
    search = NearestNeighbors(n_neighbors=most).fit(features)
    nearest = search.kneighbors(held_out, return_distance=False)
    for number in numbers:
        yield targets[nearest[:, : int(number)]].mean(axis=1)
