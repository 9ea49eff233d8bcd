"""LogME: the evidence of a linear model on features."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from scipy.optimize import minimize_scalar

from keras_transfer.features.arrays import check_classes, check_features
from keras_transfer.features.class_columns import flat_classes

# Grid for the logarithm of alpha / beta, in units of the mean squared singular
# value. It is bounded, since the evidence is not where features determine a
# target exactly: with duplicates among fewer images than features, for example.
_GRID = np.linspace(-25.0, 25.0, 101)


class Evidence(NamedTuple):
    """The highest evidence of a target.

    Attributes:
        value: Natural logarithm of the evidence, summed over examples.
        alpha: Precision of the weights.
        beta: Precision of the noise.
    """

    value: float
    alpha: float
    beta: float


def logme(features: Any, labels: Any) -> float:
    """Returns the mean logarithm of the evidence of features for labels.

    For each target `y` (each class against the others, each label, each
    number) the marginal likelihood of a linear model with Gaussian weights and
    noise,

        ln N(y; 0, I / beta + F F' / alpha) / n

    at the `alpha` and `beta` that maximise it, averaged over targets. Unlike
    the published code, it is also exact for fewer examples than features.

    Args:
        features: Array `(n, d)`.
        labels: Class indices, integers `(n,)` or `(n, 1)`; one-hot or multi-hot
            rows `(n, k)`; or numbers, floats `(n,)` or `(n, k)`.

    Returns:
        The score in nats per example and target; higher is better.

    Raises:
        ValueError: If shapes do not fit, a number is not finite, or there is
            one class only.

    Example:

    >>> generator = np.random.default_rng(0)
    >>> labels = np.arange(60) % 3
    >>> noise = generator.normal(size=(60, 8))
    >>> good = noise + 3 * generator.normal(size=(3, 8))[labels]
    >>> logme(good, labels) > logme(noise, labels)
    True

    Reference:
        - You et al., 2021, https://arxiv.org/abs/2102.11005
    """
    features = check_features(features)
    targets = _targets(labels, len(features))
    vectors, values, _ = np.linalg.svd(features, full_matrices=False)
    squares = values**2
    evidences = [maximise(vectors, squares, target) for target in targets.T]
    mean = float(np.mean([evidence.value for evidence in evidences]))
    return mean / len(features)


def maximise(
    vectors: np.ndarray, squares: np.ndarray, target: np.ndarray
) -> Evidence:
    """Returns the highest evidence of one target.

    With `t = alpha / beta` the covariance is `(I + F F' / t) / beta`. The best
    `beta` for a given `t` has a closed form, which leaves a search over `t`.

    Args:
        vectors: Left singular vectors of the features, `(n, r)`.
        squares: Squared singular values `(r,)`.
        target: Array `(n,)`, not all 0.

    Returns:
        The maximum, an `Evidence`.

    Example:

    >>> vectors, values, _ = np.linalg.svd(np.ones([4, 1]), full_matrices=False)
    >>> evidence = maximise(vectors, values**2, np.array([1.0, 0.9, 1.1, 1.0]))
    >>> evidence.beta > evidence.alpha
    True
    """
    count = len(target)
    # Squared projections on the singular vectors, [r], and the squared norm of
    # the part of the target outside their span.
    within = (vectors.T @ target) ** 2
    total = float(target @ target)
    beyond = max(total - float(within.sum()), 0.0)
    scale = float(squares.mean()) or 1.0

    def negative(logarithm: float) -> float:
        # Eigenvalues of I + F F' / t.
        growth = 1 + squares / (scale * np.exp(logarithm))
        rest = float((within / growth).sum()) + beyond
        half = 0.5 * float(np.log(growth).sum())
        return 0.5 * count * (np.log(2 * np.pi * rest / count) + 1) + half

    coarse = [negative(point) for point in _GRID]
    best = int(np.argmin(coarse))
    low, high = _GRID[max(best - 1, 0)], _GRID[min(best + 1, len(_GRID) - 1)]
    fine = minimize_scalar(
        negative, bounds=(low, high), method="bounded", options={"xatol": 1e-9}
    )
    point = float(fine.x) if fine.fun < coarse[best] else float(_GRID[best])
    ratio = scale * np.exp(point)
    rest = float((within / (1 + squares / ratio)).sum()) + beyond
    beta = count / rest
    return Evidence(-float(negative(point)), float(ratio * beta), float(beta))


def _targets(labels: Any, count: int) -> np.ndarray:
    """Returns float64 columns: one-hot, multi-hot or numbers."""
    array = flat_classes(np.asarray(labels))
    if array.ndim == 1 and array.dtype.kind in "biu":
        classes = check_classes(array, count)
        return np.eye(classes.max() + 1)[classes]
    if array.ndim not in (1, 2) or len(array) != count or not array.size:
        raise ValueError(
            f"`labels` must have {count} rows, one for each example. Received: "
            f"shape {array.shape}."
        )
    if array.dtype.kind not in "biuf":
        raise ValueError(
            "`labels` must be integers, or numbers. Received: "
            f"{array.dtype}. `np.unique(labels, return_inverse=True)[1]` "
            "turns names into integers."
        )
    numbers = array.reshape(count, -1).astype(np.float64)
    if not np.isfinite(numbers).all():
        raise ValueError(
            "`labels` must be finite. Received: NaN or infinite numbers."
        )
    # A constant column carries no information about the features.
    used = np.ptp(numbers, axis=0) > 0
    if not used.any():
        raise ValueError(
            "`labels` must not be the same for all examples. Received: a "
            "single value."
        )
    return numbers[:, used]
