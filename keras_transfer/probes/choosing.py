"""Probes of every kind, with the strength chosen on held-out examples."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from keras_transfer.probes import paths, table
from keras_transfer.probes.group_lasso import group_lasso
from keras_transfer.probes.linear import Probe
from keras_transfer.probes.paths import LAMBDAS
from keras_transfer.probes.ridge import decompose
from keras_transfer.probes.solver import rotate, sigmoid, softmax
from keras_transfer.probes.table import PathRow

VARIANCES = tuple(10.0 ** np.linspace(4, -2, 25))


NEIGHBOURS = (1, 3, 5, 10, 20, 50)


# In factors of 10: all of them are walked for each share of the columns.
HEAD2TOE_LAMBDAS = tuple(10.0**exponent for exponent in range(-6, 6))


KEPT = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)


class Problem(NamedTuple):
    """What a probe is to learn, and by which examples it is chosen.

    Attributes:
        features: float64 `(n, d)`.
        targets: Class indices `(n,)`, or `(n, outputs)`: 0/1 or numbers.
        num_outputs: Number of classes or outputs.
        kind: `"classification"`, `"multi-label"` or `"regression"`.
        splits: Pairs of rows to fit and rows to choose by. Empty where nothing
            can be held out.
        copies: How many rows each example has, so that lambda counts examples.
            Defaults to `1`.

    Example:

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
    copies: int = 1

    @property
    def coded(self) -> np.ndarray:
        """The targets as a matrix: one-hot, 0/1 or numbers."""
        if self.kind == "classification":
            return np.eye(self.num_outputs)[self.targets]
        return self.targets

    @property
    def factor(self) -> float:
        """What the solver's lambda is, where the problem's is 1."""
        # Two classes are one regression, as in scikit-learn: with the
        # difference w of both columns, lambda / 2 |w|^2 is lambda |W|^2.
        two = (
            self.kind == "classification" and len(np.unique(self.targets)) == 2
        )
        return self.copies * (2.0 if two else 1.0)

    @property
    def measure(self) -> table.Measure:
        """How probabilities are measured."""
        if self.kind == "multi-label":
            return table.binary_log_losses
        return table.log_losses

    def held_out(self, targets: np.ndarray) -> list[np.ndarray]:
        """Returns the targets to choose by, of each split.

        Args:
            targets: `(n, ...)`.

        Returns:
            An array for each split.
        """
        return [targets[held] for _, held in self.splits]


class Choice(NamedTuple):
    """A fitted probe and the table it was chosen by.

    Attributes:
        strength: The chosen strength.
        rows: The table; empty where nothing could be held out.
        outputs: Function from features `(m, d)` to outputs `(m, outputs)`.
        probe: The linear map, or `None` where it is none. Defaults to `None`.
        kept: The columns that are used, or `None` for all. Defaults to `None`.

    Example:

    >>> rows = np.arange(4)
    >>> problem = Problem(
    ...     np.eye(4), rows % 2, 2, "classification", ((rows, rows),)
    ... )
    >>> neighbours(problem, (1,)).outputs(np.eye(4)[:1])
    array([[1., 0.]])
    """

    strength: float
    rows: tuple[PathRow, ...]
    outputs: Callable[[np.ndarray], np.ndarray]
    probe: Probe | None = None
    kept: np.ndarray | None = None


def logistic(
    problem: Problem, strengths: Sequence[float] | None = None
) -> Choice:
    """Logistic regression: multinomial, or one for each of several labels.

    Args:
        problem: A `Problem` with classes.
        strengths: The lambdas. Defaults to `None`: `LAMBDAS`, 45 between 1e-6
            and 1e5.

    Returns:
        A `Choice`.

    Example:

    >>> rows = np.arange(4)
    >>> problem = Problem(
    ...     np.eye(4), rows % 2, 2, "classification", ((rows, rows),)
    ... )
    >>> logistic(problem).probe.kernel.shape
    (4, 2)
    """
    ordered = _descending(strengths or LAMBDAS)
    turned = rotate(problem.features)
    walks = [
        _walk(problem, turned.values[some], some, turned.values[held], ordered)
        for some, held in problem.splits
    ]
    held_out = problem.held_out(problem.targets)
    rows = _table(walks, held_out, ordered, problem.measure)
    best = _best(rows, ordered)
    probe = _solve(problem, problem.features, best.strength)
    return _linear(probe, rows, _link(problem))


def ridge(problem: Problem, strengths: Sequence[float] | None = None) -> Choice:
    """Ridge regression; classes are coded as -1 and 1.

    Where nothing is held out, lambda is chosen by leave-one-out in closed
    form.

    Args:
        problem: A `Problem`.
        strengths: The lambdas. Defaults to `None`: `LAMBDAS`, 45 between 1e-6
            and 1e5.

    Returns:
        A `Choice`, whose outputs are no probabilities.

    Example:

    >>> x = np.arange(8.0)[:, None]
    >>> problem = Problem(x, 2 * x, 1, "regression", ())
    >>> round(float(ridge(problem).probe.kernel[0, 0]), 3)
    2.0
    """
    ordered = _descending(strengths or LAMBDAS)
    x, targets, measure = problem.features, problem.coded, table.squared_losses
    if problem.kind != "regression":
        targets = 2.0 * targets - 1
        several = problem.kind == "multi-label"
        measure = table.signed_losses if several else table.coded_losses
    # Lambda counts examples, the decomposition rows.
    scaled = [strength * problem.copies for strength in ordered]
    whole = decompose(x, targets)
    if problem.splits:
        walks = [
            decompose(x[some], targets[some]).predict(x[held], scaled)
            for some, held in problem.splits
        ]
        held_out = problem.held_out(targets)
    else:
        # Of an example with copies the others would stay.
        alone = problem.copies == 1
        walks = [whole.leave_one_out(scaled)] if alone else []
        held_out = [targets]
    rows = _table(walks, held_out, ordered, measure)
    best = _best(rows, ordered)
    found = whole.solution(best.strength * problem.copies)
    return _linear(found._replace(strength=best.strength), rows, _same)


def nearest_mean(
    problem: Problem, strengths: Sequence[float] | None = None
) -> Choice:
    """The nearest class mean, with the variance that its errors ask for.

    Args:
        problem: A `Problem` with one class an example.
        strengths: The variances. Defaults to `None`: `VARIANCES`, 25 between
            1e-2 and 1e4.

    Returns:
        A `Choice`.

    Example:

    >>> rows = np.arange(4)
    >>> problem = Problem(
    ...     np.eye(4), rows % 2, 2, "classification", ((rows, rows),)
    ... )
    >>> nearest_mean(problem).outputs(np.eye(4)).argmax(-1)
    array([0, 1, 0, 1])
    """
    ordered = _descending(strengths or VARIANCES)
    x, labels, size = problem.features, problem.targets, problem.num_outputs
    walks = [
        paths.nearest_mean_path(x[some], labels[some], x[held], ordered, size)
        for some, held in problem.splits
    ]
    rows = _table(walks, problem.held_out(labels), ordered, problem.measure)
    best = _best(rows, ordered)
    probe = paths.nearest_mean(x, labels, size, best.strength)
    return _linear(probe, rows, softmax)


def neighbours(
    problem: Problem, strengths: Sequence[float] | None = None
) -> Choice:
    """The k nearest neighbours: shares of the classes among them.

    k is chosen by accuracy, since a share of 0 has an infinite log-loss.

    Args:
        problem: A `Problem` with classes.
        strengths: The values of k. Defaults to `None`: 1, 3, 5, 10, 20, 50,
            those of them that there are examples for.

    Returns:
        A `Choice`.

    Example:

    >>> rows = np.arange(4)
    >>> problem = Problem(
    ...     np.eye(4), rows % 2, 2, "classification", ((rows, rows),)
    ... )
    >>> neighbours(problem).strength
    1.0
    """
    x, targets = problem.features, problem.coded
    sizes = [len(some) for some, _ in problem.splits] or [len(x)]
    wanted = strengths or NEIGHBOURS
    numbers = tuple(float(k) for k in sorted(wanted) if k <= min(sizes))
    walks = [
        paths.neighbour_path(x[some], targets[some], x[held], numbers)
        for some, held in problem.splits
    ]
    held_out = problem.held_out(problem.targets)
    rows = _table(walks, held_out, numbers, problem.measure)
    best = PathRow(numbers[0], 0.0)
    if rows:
        best = max(rows, key=lambda row: (row.accuracy or 0.0, -row.loss))

    def outputs(features: np.ndarray) -> np.ndarray:
        return next(
            paths.neighbour_path(x, targets, features, (best.strength,))
        )

    return Choice(best.strength, rows, outputs)


def head2toe(
    problem: Problem, strengths: Sequence[float] | None = None
) -> Choice:
    """Logistic regression on the columns that a group lasso ranks highest.

    A group lasso scores each column by the norm of its coefficients; the share
    of columns to keep and lambda are chosen together. Each fold ranks the
    columns anew, without its held-out examples.

    Args:
        problem: A `Problem` with classes; each block's features at unit norm.
        strengths: The lambdas. Defaults to `None`: 12 between 1e-6 and 1e5.

    Returns:
        A `Choice`.

    Example:

    >>> rows = np.arange(4)
    >>> problem = Problem(
    ...     np.eye(4), rows % 2, 2, "classification", ((rows, rows),)
    ... )
    >>> head2toe(problem).outputs(np.eye(4)).argmax(-1)
    array([0, 1, 0, 1])

    Reference:
        - Evci et al., 2022, https://arxiv.org/abs/2201.03529
    """
    ordered = _descending(strengths or HEAD2TOE_LAMBDAS)
    x, width = problem.features, problem.features.shape[1]
    ranked = [_ranking(problem, some) for some, _ in problem.splits]
    counts = sorted({max(1, round(share * width)) for share in KEPT})
    rows: list[PathRow] = []
    for count in counts if problem.splits else ():
        walks = []
        for order, (some, held) in zip(ranked, problem.splits, strict=True):
            columns = order[:count]
            turned = rotate(x[np.ix_(some, columns)])
            predicted = turned.of(x[np.ix_(held, columns)])
            walks.append(
                _walk(problem, turned.values, some, predicted, ordered)
            )
        held_out = problem.held_out(problem.targets)
        rows += _table(walks, held_out, ordered, problem.measure, count)
    best = _best(rows, ordered)
    kept = np.sort(_ranking(problem, np.arange(len(x)))[: best.kept or width])
    probe = _solve(problem, x[:, kept], best.strength)
    link = _link(problem)

    def outputs(features: np.ndarray) -> np.ndarray:
        return link(features[:, kept] @ probe.kernel + probe.bias)

    return Choice(best.strength, tuple(rows), outputs, None, kept)


def _ranking(problem: Problem, rows: np.ndarray) -> np.ndarray:
    """The columns by the group lasso's coefficients, largest first.

    Those without coefficients follow by how the gradient would move them, so
    that more columns may be kept than the lasso uses.
    """
    x, targets = problem.features[rows], problem.coded[rows]
    several = problem.kind == "multi-label"
    scores = np.linalg.norm(
        group_lasso(x, targets, multi_label=several), axis=1
    )
    centered = x - x.mean(axis=0)
    slopes = centered.T @ (targets - targets.mean(axis=0))
    return np.lexsort((-np.linalg.norm(slopes, axis=1), -scores))


def _walk(
    problem: Problem,
    values: np.ndarray,
    rows: np.ndarray,
    held_out: np.ndarray,
    ordered: Sequence[float],
) -> Iterator[np.ndarray]:
    """Yields the probabilities of held-out coordinates for each lambda."""
    link = _link(problem)
    for found in paths.logistic_path(
        values,
        problem.coded[rows],
        [strength * problem.factor for strength in ordered],
        multi_label=problem.kind == "multi-label",
    ):
        yield link(found.scores(held_out))


def _solve(problem: Problem, features: np.ndarray, strength: float) -> Probe:
    """Solves one lambda to the end, on all examples."""
    turned = rotate(features)
    found = next(
        paths.logistic_path(
            turned.values,
            problem.coded,
            [strength * problem.factor],
            multi_label=problem.kind == "multi-label",
            exact=True,
        )
    )
    kernel = turned.axes @ found.weights
    return Probe(kernel, found.bias - turned.mean @ kernel, strength)


def _linear(
    probe: Probe,
    rows: Sequence[PathRow],
    link: Callable[[np.ndarray], np.ndarray],
) -> Choice:
    def outputs(features: np.ndarray) -> np.ndarray:
        return link(features @ probe.kernel + probe.bias)

    return Choice(probe.strength, tuple(rows), outputs, probe)


def _link(problem: Problem) -> Callable[[np.ndarray], np.ndarray]:
    return sigmoid if problem.kind == "multi-label" else softmax


def _same(scores: np.ndarray) -> np.ndarray:
    return scores


def _descending(strengths: Sequence[float]) -> tuple[float, ...]:
    """Strongest first: each solution starts from the one before."""
    return tuple(sorted((float(s) for s in strengths), reverse=True))


def _table(
    walks: Sequence[Iterator[np.ndarray]],
    targets: Sequence[np.ndarray],
    ordered: Sequence[float],
    measure: table.Measure,
    kept: int | None = None,
) -> tuple[PathRow, ...]:
    if not walks:
        return ()
    return table.walk(walks, targets, ordered, measure, kept)


def _best(rows: Sequence[PathRow], ordered: Sequence[float]) -> PathRow:
    """The row of the smallest loss; without a table, lambda nearest to 1."""
    if rows:
        return min(rows, key=lambda row: row.loss)
    return PathRow(min(ordered, key=lambda s: abs(np.log(s))), np.nan)
