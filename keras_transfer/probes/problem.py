"""The problem that a probe solves: features, targets and held-out rows."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from keras_transfer.probes import path_table


class Problem(NamedTuple):
    """Features and targets of a probe, and the rows its strength is chosen by.

    Attributes:
        features: float64 `(n, d)`.
        targets: Class indices `(n,)`, or `(n, outputs)`: 0/1 or numbers.
        num_outputs: Number of classes or outputs.
        kind: Kind of the targets: `"classification"`, `"multi-label"` or
            `"regression"`.
        splits: Pairs of (rows to fit, rows to choose by). Empty if nothing can
            be held out.
        rows_per_example: Number of rows of each example, so that lambda counts
            examples. Defaults to `1`.

    Example:

    >>> from keras_transfer.probes import logistic
    >>> rows = np.arange(4)
    >>> problem = Problem(
    ...     np.eye(4), rows % 2, 2, "classification", ((rows, rows),)
    ... )
    >>> logistic(problem, (1.0, 0.1)).strength
    0.1
    """

    features: np.ndarray
    targets: np.ndarray
    num_outputs: int
    kind: str
    splits: tuple[tuple[np.ndarray, np.ndarray], ...]
    rows_per_example: int = 1

    @property
    def coded(self) -> np.ndarray:
        """The targets as a matrix `(n, outputs)`: one-hot, 0/1 or numbers."""
        if self.kind == "classification":
            return np.eye(self.num_outputs)[self.targets]
        return self.targets

    @property
    def factor(self) -> float:
        """The solver's lambda divided by the lambda of this problem.

        The solver sums the loss over rows, not examples. Two classes are one
        regression, as in scikit-learn: with `W = (-w/2, w/2)`,
        `lambda / 2 * |w|^2 = lambda * |W|^2`, twice the penalty on `W`.
        """
        binary = (
            self.kind == "classification" and len(np.unique(self.targets)) == 2
        )
        return self.rows_per_example * (2.0 if binary else 1.0)

    @property
    def measure(self) -> path_table.Measure:
        """The loss of predicted probabilities."""
        if self.kind == "multi-label":
            return path_table.binary_log_losses
        return path_table.log_losses

    def held_out(self, targets: np.ndarray) -> list[np.ndarray]:
        """Returns the held-out targets of each split.

        Args:
            targets: Array `(n, ...)`.

        Returns:
            An array for each split.
        """
        return [targets[held_out] for _, held_out in self.splits]
