"""Ridge regression for all lambdas from one decomposition."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from keras_transfer.probes.linear import Probe


class RidgePath(NamedTuple):
    """Ridge regression for every lambda, from one decomposition.

    `min sum_i |x_i W + b - y_i|^2 + lambda * sum W^2`. With the centred
    features `U S V'`: `W = V (S^2 + lambda)^-1 S U' Y`, so that another lambda
    costs the products alone.

    Attributes:
        mean: Mean of the features, `(d,)`.
        target_mean: Mean of the targets, `(outputs,)`.
        u: `(n, r)`, orthonormal columns.
        s: Singular values `(r,)`, those above rounding errors.
        v: `(d, r)`, orthonormal columns.
        targets: Centred targets `(n, outputs)`.

    Example:

    >>> x = np.arange(8.0)[:, None]
    >>> path = decompose(x, 2 * x)
    >>> [round(float(path.solution(a).kernel[0, 0]), 2) for a in (0, 42)]
    [2.0, 1.0]
    """

    mean: np.ndarray
    target_mean: np.ndarray
    u: np.ndarray
    s: np.ndarray
    v: np.ndarray
    targets: np.ndarray

    def solution(self, strength: float) -> Probe:
        """Returns the solution of one lambda.

        Args:
            strength: Lambda, at least 0.

        Returns:
            A `Probe`, in float64.
        """
        kernel = self.v @ self._coefficients(strength)
        return Probe(kernel, self.target_mean - self.mean @ kernel, strength)

    def predict(
        self, held_out: np.ndarray, strengths: Sequence[float]
    ) -> Iterator[np.ndarray]:
        """Yields outputs for other features, a lambda after the other.

        Args:
            held_out: `(m, d)`.
            strengths: The lambdas.

        Yields:
            float64 `(m, outputs)`.
        """
        turned = (held_out - self.mean) @ self.v
        for strength in strengths:
            yield turned @ self._coefficients(strength) + self.target_mean

    def leave_one_out(self, strengths: Sequence[float]) -> Iterator[np.ndarray]:
        """Yields for each example what the fit without it says of it.

        `y_i - (y_i - f_i) / (1 - h_i)` with the fit `f` of all examples and
        `h` the diagonal of the matrix that makes it of `y`.

        Args:
            strengths: The lambdas, above 0.

        Yields:
            float64 `(n, outputs)`.

        Reference:
            - Allen, 1974, https://doi.org/10.1080/00401706.1974.10489157
        """
        turned = self.u.T @ self.targets
        outside = self.targets - self.u @ turned
        share = 1 - 1 / len(self.u) - (self.u**2).sum(axis=1)
        for strength in strengths:
            # Not 1 minus the rest, which cancels where lambda is small.
            left = strength / (self.s**2 + strength)
            residuals = outside + self.u @ (left[:, None] * turned)
            free = share + self.u**2 @ left
            free = np.maximum(free, np.finfo(float).tiny)
            targets = self.targets + self.target_mean
            yield targets - residuals / free[:, None]

    def _coefficients(self, strength: float) -> np.ndarray:
        factors = self.s / (self.s**2 + strength)
        return factors[:, None] * (self.u.T @ self.targets)


def decompose(features: np.ndarray, targets: np.ndarray) -> RidgePath:
    """Decomposes a ridge regression, once for all lambdas.

    Args:
        features: `(n, d)`.
        targets: `(n, outputs)`.

    Returns:
        A `RidgePath`.

    Example:

    >>> path = decompose(np.eye(3), np.eye(3))
    >>> path.solution(1.0).kernel.shape
    (3, 3)
    """
    features = features.astype(np.float64)
    mean, target_mean = features.mean(axis=0), targets.mean(axis=0)
    u, s, vt = np.linalg.svd(features - mean, full_matrices=False)
    rank = s > max(features.shape) * np.finfo(float).eps * s.max(initial=0)
    return RidgePath(
        mean,
        target_mean,
        u[:, rank],
        s[rank],
        vt[rank].T,
        targets - target_mean,
    )
