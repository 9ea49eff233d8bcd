"""Confidence intervals."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from keras_transfer._utils.checks import refuse


def check_confidence(confidence: float) -> None:
    """Raises ValueError unless `confidence` is a probability in (0, 1)."""
    if not 0 < confidence < 1:
        refuse("confidence", "a probability in (0, 1)", confidence)


def student(
    values: Sequence[float] | np.ndarray, confidence: float
) -> tuple[float, float]:
    """Returns mean and half-width `t(n - 1) * s / sqrt(n)`, for `n >= 2`."""
    from scipy import stats

    check_confidence(confidence)
    array = np.asarray(values, dtype="float64")
    error = array.std(ddof=1) / np.sqrt(len(array))
    quantile = stats.t.ppf((1 + confidence) / 2, len(array) - 1)
    return float(array.mean()), float(quantile * error)


def wilson(
    successes: int, trials: int, confidence: float
) -> tuple[float, float]:
    """Returns Wilson's interval for the proportion `successes / trials`."""
    from scipy import stats

    check_confidence(confidence)
    interval = stats.binomtest(successes, trials).proportion_ci(
        confidence, method="wilson"
    )
    return float(interval.low), float(interval.high)


def paired_interval(
    a: Sequence[float] | np.ndarray,
    b: Sequence[float] | np.ndarray,
    confidence: float = 0.95,
) -> tuple[float, float]:
    """Returns the mean of `a - b` over pairs and its half-width.

    Student's interval of the differences, for two methods that were measured
    in the same repetitions (seeds, folds): effects of a repetition on both
    cancel. If the interval does not contain 0, the methods differ at that
    confidence.

    Args:
        a: A number per repetition, at least two.
        b: A number for each of the same repetitions, in the same order.
        confidence: Probability in `(0, 1)`. Defaults to `0.95`.

    Returns:
        Tuple `(mean difference, half_width)`.

    Raises:
        ValueError: If the lengths differ, there are fewer than two pairs, a
            number is not finite or `confidence` is out of range.

    Example:

    >>> mean, half_width = paired_interval([0.9, 0.7, 0.8], [0.8, 0.6, 0.6])
    >>> round(mean, 4), round(half_width, 4)
    (0.1333, 0.1434)
    """
    left, right = np.asarray(a, "float64"), np.asarray(b, "float64")
    if left.shape != right.shape or left.ndim != 1 or len(left) < 2:
        raise ValueError(
            "`a` and `b` must hold one number for each of the same two or more "
            f"repetitions. Received: shapes {left.shape} and {right.shape}."
        )
    bad = ~(np.isfinite(left) & np.isfinite(right))
    if bad.any():
        raise ValueError(
            f"`a` and `b` must be finite. Received: {bad.sum()} pairs with NaN "
            "or infinity."
        )
    return student(left - right, confidence)


def mean_interval(
    values: Sequence[float], confidence: float = 0.95
) -> tuple[float, float]:
    """Returns the mean of repeated measurements and its half-width.

    `mean -+ t(n - 1) * s / sqrt(n)`, Student's interval for the mean.

    Args:
        values: A number per repetition, at least one.
        confidence: Probability in `(0, 1)`. Defaults to `0.95`.

    Returns:
        Tuple `(mean, half_width)`. The half-width of a single repetition is
        NaN, since it says nothing about the spread.

    Raises:
        ValueError: If there are no values, or `confidence` is out of range.

    Example:

    >>> mean, half_width = mean_interval([0.90, 0.92, 0.94])
    >>> round(mean, 2), round(half_width, 4)
    (0.92, 0.0497)
    """
    if not len(values):
        raise ValueError("`values` must hold a repetition. Received: none.")
    if len(values) == 1:
        return float(values[0]), math.nan
    return student(values, confidence)


def proportion_interval(
    successes: int, trials: int, confidence: float = 0.95
) -> tuple[float, float]:
    """Returns Wilson's interval for a proportion, such as an accuracy.

    Args:
        successes: Number of successes, in `[0, trials]`.
        trials: Number of trials, positive.
        confidence: Probability in `(0, 1)`. Defaults to `0.95`.

    Returns:
        Tuple `(low, high)`, both in `[0, 1]`.

    Raises:
        ValueError: If the counts or `confidence` are out of range.

    Example:

    >>> low, high = proportion_interval(90, 100)
    >>> round(low, 3), round(high, 3)
    (0.826, 0.945)

    Reference:
        - Wilson, 1927, https://doi.org/10.1080/01621459.1927.10502953
    """
    if trials < 1 or not 0 <= successes <= trials:
        raise ValueError(
            "`successes` must be in [0, trials] and `trials` positive. "
            f"Received: successes={successes}, trials={trials}"
        )
    return wilson(successes, trials, confidence)
