"""Ridge regression for all lambdas, from one decomposition."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from keras_transfer.probes.linear import Probe


class RidgePath(NamedTuple):
    """Singular value decomposition of a ridge regression, for every lambda.

    `min sum_i |x_i W + b - y_i|^2 + lambda * sum W^2`. With the centred
    features `U S V'`: `W = V (S^2 + lambda)^-1 S U' Y`, so that a further
    lambda costs only the products.

    Attributes:
        mean: Mean of the features, `(d,)`.
        target_mean: Mean of the targets, `(outputs,)`.
        u: Orthonormal columns, `(n, r)`.
        s: Singular values above rounding errors, `(r,)`.
        v: Orthonormal columns, `(d, r)`.
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
        """Yields the outputs for other features, lambda by lambda.

        Args:
            held_out: Features `(m, d)`.
            strengths: The lambdas.

        Yields:
            float64 `(m, outputs)`.
        """
        projected = (held_out - self.mean) @ self.v  # [m, r]
        for strength in strengths:
            yield projected @ self._coefficients(strength) + self.target_mean

    def leave_one_out(self, strengths: Sequence[float]) -> Iterator[np.ndarray]:
        """Yields the prediction for each example by a fit without it.

        `y_i - (y_i - f_i) / (1 - h_i)`, where `f = H y` is the fit to all
        examples and `h` the diagonal of `H`.

        Args:
            strengths: The lambdas, above 0.

        Yields:
            float64 `(n, outputs)`.

        Reference:
            - Allen, 1974, https://doi.org/10.1080/00401706.1974.10489157
        """
        # H = 1/n + U diag(s^2 / (s^2 + lambda)) U'; the 1/n is the intercept.
        # Split y - H y into the part outside the span of U and the part inside,
        # which shrinks by g = lambda / (s^2 + lambda). Computing g directly,
        # not as 1 - s^2 / (s^2 + lambda), avoids cancellation for small lambda.
        projected = self.u.T @ self.targets  # [r, outputs]
        outside = self.targets - self.u @ projected  # [n, outputs]
        # 1 - h_i = (1 - 1/n - sum_k u_ik^2) + sum_k u_ik^2 g_k.  [n]
        outside_share = 1 - 1 / len(self.u) - (self.u**2).sum(axis=1)
        for strength in strengths:
            shrinkage = strength / (self.s**2 + strength)  # [r]
            residuals = outside + self.u @ (shrinkage[:, None] * projected)
            one_minus_h = outside_share + self.u**2 @ shrinkage
            one_minus_h = np.maximum(one_minus_h, np.finfo(float).tiny)
            targets = self.targets + self.target_mean
            yield targets - residuals / one_minus_h[:, None]

    def _coefficients(self, strength: float) -> np.ndarray:
        """Returns `(S^2 + lambda)^-1 S U' Y`, `(r, outputs)`."""
        factors = self.s / (self.s**2 + strength)
        return factors[:, None] * (self.u.T @ self.targets)


def decompose(features: np.ndarray, targets: np.ndarray) -> RidgePath:
    """Decomposes a ridge regression, once for all lambdas.

    Args:
        features: Array `(n, d)`.
        targets: Array `(n, outputs)`.

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
    # The threshold of `numpy.linalg.matrix_rank`.  [min(n, d)]
    used = s > max(features.shape) * np.finfo(float).eps * s.max(initial=0)
    return RidgePath(
        mean,
        target_mean,
        u[:, used],
        s[used],
        vt[used].T,
        targets - target_mean,
    )
