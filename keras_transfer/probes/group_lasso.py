"""The group lasso: which columns of the features matter to any output."""

from __future__ import annotations

import numpy as np

from keras_transfer.probes.solver import sigmoid, softmax


def group_lasso(
    features: np.ndarray,
    targets: np.ndarray,
    *,
    multi_label: bool = False,
    ratio: float = 0.1,
    max_steps: int = 1000,
    tolerance: float = 1e-3,
) -> np.ndarray:
    """Fits a linear map with few columns of the features, by FISTA.

    `min 1/n sum_i loss(x_i W + b, y_i) + alpha * sum_j |W_j|` with the
    Euclidean norm of the row `W_j` of each column `j`, which makes whole rows
    zero. `alpha = ratio * alpha_max`, where `alpha_max` is the smallest one
    with `W = 0`. The loss is the cross-entropy of a softmax or, with
    `multi_label`, the sum of those of a sigmoid for each output.

    Args:
        features: `(n, d)`, of comparable columns.
        targets: 0 or 1, `(n, outputs)`; without `multi_label` one 1 a row.
        multi_label: Whether an example may have several classes. Defaults to
            `False`.
        ratio: In `(0, 1]`; 1 leaves no column. Defaults to `0.1`.
        max_steps: Steps at most. Defaults to `1000`.
        tolerance: How far the optimality condition may be missed, as a share
            of alpha. Defaults to `1e-3`.

    Returns:
        float64 `W`, `(d, outputs)`.

    Example:

    >>> x = np.random.default_rng(0).normal(size=(40, 5))
    >>> found = group_lasso(x, np.eye(2)[(x[:, 3] > 0).astype(int)])
    >>> np.linalg.norm(found, axis=1).argmax()
    np.int64(3)

    Reference:
        - Yuan & Lin, 2006, https://doi.org/10.1111/j.1467-9868.2005.00532.x
        - Beck & Teboulle, 2009, https://doi.org/10.1137/080716542
    """
    count = len(features)
    link = sigmoid if multi_label else softmax
    x = features - features.mean(axis=0, dtype=np.float64)

    def gradients(
        w: np.ndarray, b: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        errors = (link(x @ w + b) - targets) / count
        return x.T @ errors, errors.sum(axis=0)

    # The link's slope is at most 1/2 (softmax) or 1/4; the intercept is the
    # coefficient of a column of ones, at right angles to the centred ones.
    slope = 0.25 if multi_label else 0.5
    step = 1 / (slope * max(_largest_square(x) / count, 1.0))
    w = np.zeros((x.shape[1], targets.shape[1]))
    rates = targets.mean(axis=0).clip(1e-6, 1 - 1e-6)
    b = np.log(rates / (1 - rates)) if multi_label else np.log(rates)
    alpha = ratio * _norms(gradients(w, b)[0]).max()
    ahead_w, ahead_b, momentum = w, b, 1.0
    for number in range(max_steps):
        slope_w, slope_b = gradients(ahead_w, ahead_b)
        new_w = _shrink(ahead_w - step * slope_w, step * alpha)
        new_b = ahead_b - step * slope_b
        moved_w, moved_b = new_w - w, new_b - b
        if ((ahead_w - new_w) * moved_w).sum() > 0:
            momentum = 1.0  # it has passed the minimum: O'Donoghue & Candes
        following = (1 + np.sqrt(1 + 4 * momentum**2)) / 2
        factor = (momentum - 1) / following
        ahead_w, ahead_b = new_w + factor * moved_w, new_b + factor * moved_b
        w, b, momentum = new_w, new_b, following
        if number % 10 == 9:
            missed = _optimality_gap(w, *gradients(w, b), alpha)
            if missed <= tolerance * alpha:
                break
    return w


def _optimality_gap(
    w: np.ndarray, slope_w: np.ndarray, slope_b: np.ndarray, alpha: float
) -> float:
    """By how much a group lasso misses its optimality condition.

    At the optimum the slope of the loss is `-alpha W_j / |W_j|` where `W_j` is
    not zero, no longer than alpha elsewhere, and 0 for the intercept.
    """
    norms = _norms(w)
    used = norms > 0
    missed = float(np.abs(slope_b).max())
    if used.any():
        pull = slope_w[used] + alpha * w[used] / norms[used, None]
        missed = max(missed, float(_norms(pull).max()))
    if not used.all():
        missed = max(missed, float(_norms(slope_w[~used]).max()) - alpha)
    return missed


def _norms(w: np.ndarray) -> np.ndarray:
    return np.sqrt((w**2).sum(axis=1))


def _shrink(w: np.ndarray, by: float) -> np.ndarray:
    norms = _norms(w)[:, None]
    return w * np.maximum(0, 1 - by / np.maximum(norms, 1e-300))


def _largest_square(x: np.ndarray) -> float:
    """The largest eigenvalue of `X'X`, rounded up, by power iteration."""
    vector = np.random.default_rng(0).normal(size=(x.shape[1],))
    largest = 0.0
    for _ in range(100):
        vector = x.T @ (x @ vector)
        norm = float(np.linalg.norm(vector))
        if norm == 0:
            break
        vector = vector / norm
        done, largest = abs(norm - largest) < 1e-4 * norm, norm
        if done:
            break
    return 1.02 * largest
