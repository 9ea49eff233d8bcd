"""L-BFGS for logistic regression, in coordinates in which it is fast."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from threadpoolctl import ThreadpoolController


# L-BFGS stops at a gradient whose largest entry, divided by the square root of
# its curvature, is this fraction of the square root of the loss.
_ROUGH_TOLERANCE, _EXACT_TOLERANCE = 1e-2, 1e-7

_STEPS_PER_ROUND, _MOST_ROUNDS = 200, 50

# Smaller matrices are multiplied faster by one thread.
_ENTRIES_FOR_THREADS = 20_000_000

# Rows that are squared together, so that they fit the processor's cache.
_ROWS_PER_CHUNK = 4096


class Coordinates(NamedTuple):
    """Centred features along their principal axes.

    The solution lies in the span of the examples, so there are at most as many
    axes as examples; a rotation changes neither penalty nor optimum. Along the
    axes the Hessian of the loss is nearly diagonal. Scaled by its square root,
    L-BFGS needs a third of the steps on real features, and also converges for
    small lambda.

    Attributes:
        mean: Mean of the features, `(d,)`.
        axes: Orthonormal columns, `(d, r)`.
        values: Coordinates of the examples, `(n, r)`.
    """

    mean: np.ndarray
    axes: np.ndarray
    values: np.ndarray

    def of(self, features: np.ndarray) -> np.ndarray:
        """Returns the coordinates `(m, r)` of other features `(m, d)`."""
        return (features - self.mean) @ self.axes


def rotate(features: np.ndarray) -> Coordinates:
    """Returns the coordinates of features `(n, d)`, in float64."""
    features = features.astype(np.float64)
    mean = features.mean(axis=0)
    x = features - mean  # [n, d]
    axes = None
    with one_thread(x.size):
        if len(x) < x.shape[1]:
            # With fewer examples than columns, an orthonormal basis of the
            # examples comes first: X' = Q R, and X Q is only [n, n].
            axes = np.linalg.qr(x.T)[0]  # [d, n]
            x = x @ axes
        _, rotation = np.linalg.eigh(x.T @ x)  # [r, r]
        axes = rotation if axes is None else axes @ rotation  # [d, r]
        return Coordinates(mean, axes, x @ rotation)


class Solution(NamedTuple):
    """Coefficients `(r, outputs)` and intercepts `(outputs,)`."""

    weights: np.ndarray
    bias: np.ndarray

    def scores(self, values: np.ndarray) -> np.ndarray:
        """Returns the scores `(m, outputs)` of coordinates `(m, r)`."""
        return values @ self.weights + self.bias


def solve_path(
    values: np.ndarray,
    targets: np.ndarray,
    strengths: Sequence[float],
    *,
    weights: np.ndarray | None = None,
    multi_label: bool = False,
    exact: bool = False,
) -> Iterator[Solution]:
    """Yields the solution for each strength, starting from the previous one.

    `min sum_i loss(z_i W + b, y_i) + lambda / 2 * sum W^2` with the
    cross-entropy of a softmax or, with `multi_label`, the sum of the
    cross-entropies of a sigmoid per output.

    Args:
        values: Coordinates `(n, r)`.
        targets: Shares in `[0, 1]`, mostly 0 or 1, `(n, outputs)`; no column
            is all 0 or, with `multi_label`, all 1. Without it rows sum to 1.
        strengths: The lambdas, largest first.
        weights: Weights of the examples in the loss, `(n,)`. Defaults to
            `None`, 1 for all.
        multi_label: Whether outputs are independent. Defaults to `False`.
        exact: Whether to iterate until convergence. Defaults to `False`.

    Yields:
        A `Solution` for each lambda.
    """
    factors = np.ones(len(values)) if weights is None else weights
    # With W = 0 the optimal intercepts are the log-odds (sigmoid) or the
    # log-frequencies (softmax) of the outputs.  [outputs]
    rates = np.average(targets, axis=0, weights=factors).clip(1e-6, 1 - 1e-6)
    bias = np.log(rates / (1 - rates)) if multi_label else np.log(rates)
    solution = Solution(np.zeros((values.shape[1], targets.shape[1])), bias)
    for strength in strengths:
        with one_thread(values.size):
            solution = _solve(
                values,
                targets,
                factors[:, None],
                strength,
                solution,
                multi_label,
                exact,
            )
        yield solution


@contextlib.contextmanager
def one_thread(size: int) -> Iterator[None]:
    """Limits products of small matrices to one thread.

    NumPy and SciPy have a thread pool each, and these compete in short
    products: ten times slower on two busy cores.

    Args:
        size: Number of entries of the matrix.

    Yields:
        Nothing.
    """
    if size > _ENTRIES_FOR_THREADS:
        yield
        return
    with _thread_pools().limit(limits=1):
        yield


@functools.cache
def _thread_pools() -> ThreadpoolController:
    """Finds the pools of this process, which takes longer than a step."""
    import scipy.linalg  # noqa: F401, which starts its pool
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()


def _solve(
    values: np.ndarray,
    targets: np.ndarray,
    factors: np.ndarray,
    strength: float,
    start: Solution,
    multi_label: bool,
    exact: bool,
) -> Solution:
    """Solves one lambda in rounds, each scaled by its initial curvature."""
    from scipy.optimize import minimize

    outputs = targets.shape[1]
    activate = _sigmoid_loss if multi_label else _softmax_loss
    w, b = start

    # Rows of W and, as the last row, b.  [r + 1, outputs]
    def loss(flat: np.ndarray, scale: np.ndarray) -> tuple[float, np.ndarray]:
        parameters = flat.reshape(-1, outputs) / scale
        w, b = parameters[:-1], parameters[-1]
        losses, probabilities = activate(values @ w + b, targets)
        errors = factors * (probabilities - targets)  # [n, outputs]
        gradients = np.vstack(
            [values.T @ errors + strength * w, errors.sum(axis=0)]
        )
        # d loss / d (scale * p) = (d loss / d p) / scale.
        return (
            float((factors * losses).sum())
            + strength / 2 * float((w**2).sum()),
            (gradients / scale).ravel(),
        )

    for _ in range(_MOST_ROUNDS if exact else 1):
        losses, probabilities = activate(values @ w + b, targets)
        # Diagonal of the Hessian: sum_i p_i (1 - p_i) z_i^2 + lambda.
        slope = factors * probabilities * (1 - probabilities)  # [n, outputs]
        curvature = np.vstack([_weighted_squares(values, slope), slope.sum(0)])
        # Confident probabilities have almost no curvature, and without a lower
        # bound the first step would be far too long.
        curvature[-1] = curvature[-1].clip(min=1e-3)
        curvature[:-1] += strength
        scale = np.sqrt(curvature)
        initial = float((factors * losses).sum())
        initial += strength / 2 * float((w**2).sum())
        tolerance = _EXACT_TOLERANCE if exact else _ROUGH_TOLERANCE
        step = minimize(
            loss,
            (np.vstack([w, b]) * scale).ravel(),
            args=(scale,),
            jac=True,
            method="L-BFGS-B",
            options={
                "gtol": tolerance * np.sqrt(initial),
                "ftol": 0.0,
                "maxcor": 20,
                "maxiter": _STEPS_PER_ROUND,
            },
        )
        parameters = step.x.reshape(-1, outputs) / scale
        w, b = parameters[:-1], parameters[-1]
        if step.nit < _STEPS_PER_ROUND:
            break
    return Solution(w, b)


def _weighted_squares(values: np.ndarray, slope: np.ndarray) -> np.ndarray:
    """Returns `(values^2)' slope`, `(r, outputs)`, chunk by chunk."""
    sums = [
        (values[i : i + _ROWS_PER_CHUNK] ** 2).T
        @ slope[i : i + _ROWS_PER_CHUNK]
        for i in range(0, len(values), _ROWS_PER_CHUNK)
    ]
    return np.sum(sums, axis=0)


def softmax(scores: np.ndarray) -> np.ndarray:
    """Returns the probabilities of rows of scores `(n, classes)`."""
    exponentials = np.exp(scores - scores.max(axis=1, keepdims=True))
    return exponentials / exponentials.sum(axis=1, keepdims=True)


def sigmoid(scores: np.ndarray) -> np.ndarray:
    """Returns the probabilities of independent scores."""
    # 1 / (1 + exp(-s)) = exp(-ln(1 + exp(-s))), which does not overflow.
    return np.exp(-np.logaddexp(0, -scores))


def _softmax_loss(
    scores: np.ndarray, targets: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the cross-entropy `(n, 1)` and the probabilities."""
    # -ln softmax(s)[y] = ln sum_c exp(s_c - max) + max - s_y.
    highest = scores.max(axis=1, keepdims=True)
    probabilities = np.exp(scores - highest)
    total = probabilities.sum(axis=1, keepdims=True)
    probabilities /= total
    target_scores = (scores * targets).sum(axis=1, keepdims=True)
    return np.log(total) + highest - target_scores, probabilities


def _sigmoid_loss(
    scores: np.ndarray, targets: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the cross-entropy `(n, outputs)` and the probabilities."""
    # -y ln p - (1 - y) ln(1 - p) = ln(1 + exp(s)) - s y.
    return np.logaddexp(0, scores) - scores * targets, sigmoid(scores)
