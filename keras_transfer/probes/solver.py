"""L-BFGS for logistic regression, in coordinates that make it quick."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from threadpoolctl import ThreadpoolController


# Where L-BFGS stops: the gradient's largest entry, each divided by the root of
# its curvature, as a share of the root of the loss.
_ROUGH, _EXACT = 1e-2, 1e-7


_STEPS, _ROUNDS = 200, 50


# Numbers in a matrix from which on several threads pay.
_LARGE = 20_000_000


class Coordinates(NamedTuple):
    """Centred features along their principal axes.

    The solution lies in the span of the examples, so that no more axes are
    needed than there are examples; a rotation leaves penalty and optimum as
    they are. Along the axes the curvature of the loss is nearly diagonal. In
    units of its root L-BFGS needs a third of the steps on real features, and
    arrives where lambda is small as well.

    Attributes:
        mean: `(d,)`.
        axes: Orthonormal columns, `(d, r)`.
        values: `(n, r)`.
    """

    mean: np.ndarray
    axes: np.ndarray
    values: np.ndarray

    def of(self, features: np.ndarray) -> np.ndarray:
        """Returns the coordinates of other features."""
        return (features - self.mean) @ self.axes


def rotate(features: np.ndarray) -> Coordinates:
    """Returns the coordinates of features `(n, d)`, in float64."""
    features = features.astype(np.float64)
    mean = features.mean(axis=0)
    x = features - mean
    axes = None
    with one_thread(x.size):
        if len(x) < x.shape[1]:
            axes = np.linalg.qr(x.T)[0]
            x = x @ axes
        _, turn = np.linalg.eigh(x.T @ x)
        axes = turn if axes is None else axes @ turn
        return Coordinates(mean, axes, x @ turn)


class Solution(NamedTuple):
    """Coefficients `(r, outputs)` and intercepts `(outputs,)`."""

    weights: np.ndarray
    bias: np.ndarray

    def scores(self, values: np.ndarray) -> np.ndarray:
        """Returns the scores of coordinates `(m, r)`."""
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
    """Yields the solution for each strength, each from the one before.

    `min sum_i loss(z_i W + b, y_i) + lambda / 2 * sum W^2` with the
    cross-entropy of a softmax or, with `multi_label`, the sum of those of a
    sigmoid for each output.

    Args:
        values: Coordinates `(n, r)`.
        targets: 0 or 1, `(n, outputs)`, every column with both of them.
        strengths: The lambdas, largest first.
        weights: Factors of the examples in the loss, `(n,)`. Defaults to
            `None`, 1 for all.
        multi_label: Whether outputs are independent. Defaults to `False`.
        exact: Whether to go on to the end. Defaults to `False`.

    Yields:
        A `Solution` for each lambda.
    """
    factors = np.ones(len(values)) if weights is None else weights
    rates = np.average(targets, axis=0, weights=factors).clip(1e-6, 1 - 1e-6)
    bias = np.log(rates / (1 - rates)) if multi_label else np.log(rates)
    found = Solution(np.zeros((values.shape[1], targets.shape[1])), bias)
    for strength in strengths:
        with one_thread(values.size):
            found = _solve(
                values,
                targets,
                factors[:, None],
                strength,
                found,
                multi_label,
                exact,
            )
        yield found


@contextlib.contextmanager
def one_thread(size: int) -> Iterator[None]:
    """Keeps small products on one thread.

    NumPy and SciPy bring a pool of threads each, which get into each other's
    way in short products: ten times slower on two busy cores.

    Args:
        size: Numbers in the matrix.

    Yields:
        Nothing.
    """
    if size > _LARGE:
        yield
        return
    with _pools().limit(limits=1):
        yield


@functools.cache
def _pools() -> ThreadpoolController:
    """The pools of this process; looking for them takes longer than a step."""
    import scipy.linalg  # noqa: F401, so that its pool is there
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
    """Solves one lambda in rounds, each in units of the curvature before."""
    from scipy.optimize import minimize

    outputs = targets.shape[1]
    activate = _sigmoid if multi_label else _softmax
    w, b = start

    def loss(flat: np.ndarray, by: np.ndarray) -> tuple[float, np.ndarray]:
        scaled = flat.reshape(-1, outputs) / by
        w, b = scaled[:-1], scaled[-1]
        losses, found = activate(values @ w + b, targets)
        errors = factors * (found - targets)
        slopes = np.vstack(
            [values.T @ errors + strength * w, errors.sum(axis=0)]
        )
        return (
            float((factors * losses).sum())
            + strength / 2 * float((w**2).sum()),
            (slopes / by).ravel(),
        )

    for _ in range(_ROUNDS if exact else 1):
        losses, found = activate(values @ w + b, targets)
        slope = factors * found * (1 - found)
        curvature = np.vstack([_squared(values, slope), slope.sum(axis=0)])
        # Where the fit is sure there is next to none, and steps would be wild.
        curvature[-1] = curvature[-1].clip(min=1e-3)
        curvature[:-1] += strength
        by = np.sqrt(curvature)
        before = float((factors * losses).sum())
        before += strength / 2 * float((w**2).sum())
        step = minimize(
            loss,
            (np.vstack([w, b]) * by).ravel(),
            args=(by,),
            jac=True,
            method="L-BFGS-B",
            options={
                "gtol": (_EXACT if exact else _ROUGH) * np.sqrt(before),
                "ftol": 0.0,
                "maxcor": 20,
                "maxiter": _STEPS,
            },
        )
        scaled = step.x.reshape(-1, outputs) / by
        w, b = scaled[:-1], scaled[-1]
        if step.nit < _STEPS:
            break
    return Solution(w, b)


def _squared(values: np.ndarray, slope: np.ndarray) -> np.ndarray:
    """`(values^2)' slope`, in pieces that fit the cache."""
    parts = [
        (values[i : i + 4096] ** 2).T @ slope[i : i + 4096]
        for i in range(0, len(values), 4096)
    ]
    return np.sum(parts, axis=0)


def softmax(scores: np.ndarray) -> np.ndarray:
    """Probabilities of rows of scores."""
    found = np.exp(scores - scores.max(axis=1, keepdims=True))
    return found / found.sum(axis=1, keepdims=True)


def sigmoid(scores: np.ndarray) -> np.ndarray:
    """Probabilities of single scores."""
    return np.exp(-np.logaddexp(0, -scores))


def _softmax(
    scores: np.ndarray, targets: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The cross-entropy of each example, `(n, 1)`, and the probabilities."""
    highest = scores.max(axis=1, keepdims=True)
    found = np.exp(scores - highest)
    total = found.sum(axis=1, keepdims=True)
    found /= total
    right = (scores * targets).sum(axis=1, keepdims=True)
    return np.log(total) + highest - right, found


def _sigmoid(
    scores: np.ndarray, targets: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The cross-entropy of each output, `(n, outputs)`, and probabilities."""
    return np.logaddexp(0, scores) - scores * targets, sigmoid(scores)
