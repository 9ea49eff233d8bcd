"""The group lasso, which selects the columns of features that matter."""

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
    """Fits a linear map that uses few columns of the features, by FISTA.

    `min 1/n sum_i loss(x_i W + b, y_i) + alpha * sum_j |W_j|` with the
    Euclidean norm of the row `W_j` of each column `j`, which makes whole rows
    zero. `alpha = ratio * alpha_max`, where `alpha_max` is the smallest alpha
    with the solution `W = 0`. The loss is the cross-entropy of a softmax or,
    with `multi_label`, the sum of the cross-entropies of a sigmoid per output.

    Args:
        features: Array `(n, d)` with columns of comparable scale.
        targets: 0 or 1, `(n, outputs)`; without `multi_label` one-hot.
        multi_label: Whether an example may have several classes. Defaults to
            `False`.
        ratio: Alpha as a fraction of `alpha_max`, in `(0, 1]`; 1 selects no
            column. Defaults to `0.1`.
        max_steps: Maximum number of steps. Defaults to `1000`.
        tolerance: Largest violation of the optimality condition, as a fraction
            of alpha. Defaults to `1e-3`.

    Returns:
        float64 `W`, `(d, outputs)`.

    Example:

    >>> x = np.random.default_rng(0).normal(size=(40, 5))
    >>> w = group_lasso(x, np.eye(2)[(x[:, 3] > 0).astype(int)])
    >>> np.linalg.norm(w, axis=1).argmax()
    np.int64(3)

    Reference:
        - Yuan & Lin, 2006, https://doi.org/10.1111/j.1467-9868.2005.00532.x
        - Beck & Teboulle, 2009, https://doi.org/10.1137/080716542
    """
    count = len(features)
    link = sigmoid if multi_label else softmax
    x = features - features.mean(axis=0, dtype=np.float64)  # [n, d]

    def gradients(
        w: np.ndarray, b: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        # The gradient of a cross-entropy by its scores is link(s) - y.
        errors = (link(x @ w + b) - targets) / count  # [n, outputs]
        return x.T @ errors, errors.sum(axis=0)  # [d, outputs], [outputs]

    # Step size 1 / L. The Hessian of the loss is at most slope * X'X / n, where
    # the slope of the link is at most 1/2 (softmax) or 1/4 (sigmoid). The
    # intercept is the coefficient of a column of ones, which is orthogonal to
    # the centred columns and has the eigenvalue n / n = 1.
    slope = 0.25 if multi_label else 0.5
    step = 1 / (slope * max(_largest_eigenvalue(x) / count, 1.0))
    w = np.zeros((x.shape[1], targets.shape[1]))  # [d, outputs]
    rates = targets.mean(axis=0).clip(1e-6, 1 - 1e-6)  # [outputs]
    b = np.log(rates / (1 - rates)) if multi_label else np.log(rates)
    # W = 0 is optimal if no row of its gradient is longer than alpha.
    alpha = ratio * _row_norms(gradients(w, b)[0]).max()
    # FISTA: t' = (1 + sqrt(1 + 4 t^2)) / 2, and the next point to step from is
    # w_new + (t - 1) / t' * (w_new - w).
    ahead_w, ahead_b, momentum = w, b, 1.0
    for number in range(max_steps):
        gradient_w, gradient_b = gradients(ahead_w, ahead_b)
        new_w = _shrink_rows(ahead_w - step * gradient_w, step * alpha)
        new_b = ahead_b - step * gradient_b
        moved_w, moved_b = new_w - w, new_b - b
        # Restart the momentum once it points uphill (O'Donoghue & Candes).
        if ((ahead_w - new_w) * moved_w).sum() > 0:
            momentum = 1.0
        next_momentum = (1 + np.sqrt(1 + 4 * momentum**2)) / 2
        factor = (momentum - 1) / next_momentum
        ahead_w, ahead_b = new_w + factor * moved_w, new_b + factor * moved_b
        w, b, momentum = new_w, new_b, next_momentum
        if number % 10 == 9:
            gap = _optimality_gap(w, *gradients(w, b), alpha)
            if gap <= tolerance * alpha:
                break
    return w


def _optimality_gap(
    w: np.ndarray, gradient_w: np.ndarray, gradient_b: np.ndarray, alpha: float
) -> float:
    """Returns the largest violation of the optimality condition.

    At the optimum the gradient of the loss is `-alpha W_j / |W_j|` for each row
    `W_j` that is not zero, no longer than alpha for the other rows, and 0 for
    the intercept.
    """
    norms = _row_norms(w)  # [d]
    used = norms > 0
    gap = float(np.abs(gradient_b).max())
    if used.any():
        residual = gradient_w[used] + alpha * w[used] / norms[used, None]
        gap = max(gap, float(_row_norms(residual).max()))
    if not used.all():
        gap = max(gap, float(_row_norms(gradient_w[~used]).max()) - alpha)
    return gap


def _row_norms(w: np.ndarray) -> np.ndarray:
    return np.sqrt((w**2).sum(axis=1))


def _shrink_rows(w: np.ndarray, by: float) -> np.ndarray:
    """Shortens each row by `by`, at most to 0: the proximal operator."""
    norms = _row_norms(w)[:, None]  # [d, 1]
    return w * np.maximum(0, 1 - by / np.maximum(norms, 1e-300))


def _largest_eigenvalue(x: np.ndarray) -> float:
    """Returns the largest eigenvalue of `X'X`, rounded up: power iteration."""
    vector = np.random.default_rng(0).normal(size=(x.shape[1],))
    largest = 0.0
    for _ in range(100):
        vector = x.T @ (x @ vector)
        norm = float(np.linalg.norm(vector))
        if norm == 0:
            break
        vector = vector / norm
        converged, largest = abs(norm - largest) < 1e-4 * norm, norm
        if converged:
            break
    # Power iteration approaches from below, and a step must not be too long.
    return 1.02 * largest
