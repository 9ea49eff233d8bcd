"""Confidence intervals, computed by SciPy."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def check_confidence(confidence: float) -> None:
    """Raises ValueError unless `confidence` is a probability in (0, 1)."""
    if not 0 < confidence < 1:
        raise ValueError(
            "`confidence` must be a probability in (0, 1). Received: "
            f"confidence={confidence!r}."
        )


def student(
    values: Sequence[float] | np.ndarray, confidence: float
) -> tuple[float, float]:
    """Returns mean and half-width `t(n - 1) * s / sqrt(n)`; needs `n >= 2`."""
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
