"""Probes of all kinds, with the strength chosen on held-out examples."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from keras_transfer.probes import path_table, paths
from keras_transfer.probes.group_lasso import group_lasso
from keras_transfer.probes.linear import Probe
from keras_transfer.probes.path_table import PathRow
from keras_transfer.probes.paths import LAMBDAS
from keras_transfer.probes.problem import Problem
from keras_transfer.probes.ridge import decompose
from keras_transfer.probes.solver import rotate, sigmoid, softmax

VARIANCES = tuple(10.0 ** np.linspace(4, -2, 25))

NEIGHBOURS = (1, 3, 5, 10, 20, 50)

# In factors of 10, since the whole path is solved for each share of columns.
HEAD2TOE_LAMBDAS = tuple(10.0**exponent for exponent in range(-6, 6))

HEAD2TOE_SHARES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)


class ChosenProbe(NamedTuple):
    """A fitted probe, and the table that its strength was chosen from.

    Attributes:
        strength: The chosen strength.
        rows: The table, a row per strength; empty if nothing was held out.
        outputs: Function from features `(m, d)` to outputs `(m, outputs)`.
        probe: The linear map, or `None` if the probe is not linear in all
            features. Defaults to `None`.
        kept: Indices of the columns that are used, or `None` for all. Defaults
            to `None`.

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
) -> ChosenProbe:
    """Fits logistic regression: multinomial, or one for each of several labels.

    Args:
        problem: A `Problem` with classes.
        strengths: The lambdas. Defaults to `None`, which means `LAMBDAS`, 45
            values between 1e-6 and 1e5.

    Returns:
        A `ChosenProbe`.

    Example:

    >>> rows = np.arange(4)
    >>> problem = Problem(
    ...     np.eye(4), rows % 2, 2, "classification", ((rows, rows),)
    ... )
    >>> logistic(problem).probe.kernel.shape
    (4, 2)
    """
    ordered = _descending(strengths or LAMBDAS)
    # One rotation serves all splits, since it changes neither loss nor penalty.
    coordinates = rotate(problem.features).values  # [n, r]
    predictions = [
        _predict_path(
            problem, coordinates[fit], fit, coordinates[held_out], ordered
        )
        for fit, held_out in problem.splits
    ]
    targets = problem.held_out(problem.targets)
    rows = _table(predictions, targets, ordered, problem.measure)
    best = _best(rows, ordered)
    probe = _solve(problem, problem.features, best.strength)
    return _linear(probe, rows, _link(problem))


def ridge(
    problem: Problem, strengths: Sequence[float] | None = None
) -> ChosenProbe:
    """Fits ridge regression; classes are coded as -1 and 1.

    If nothing is held out, lambda is chosen by leave-one-out in closed form.

    Args:
        problem: A `Problem`.
        strengths: The lambdas. Defaults to `None`, which means `LAMBDAS`, 45
            values between 1e-6 and 1e5.

    Returns:
        A `ChosenProbe`, whose outputs are not probabilities.

    Example:

    >>> x = np.arange(8.0)[:, None]
    >>> problem = Problem(x, 2 * x, 1, "regression", ())
    >>> round(float(ridge(problem).probe.kernel[0, 0]), 3)
    2.0
    """
    ordered = _descending(strengths or LAMBDAS)
    x, targets = problem.features, problem.coded  # [n, d], [n, outputs]
    measure = path_table.squared_losses
    if problem.kind != "regression":
        targets = 2.0 * targets - 1  # 0 and 1 become -1 and 1
        several = problem.kind == "multi-label"
        measure = (
            path_table.signed_losses if several else path_table.coded_losses
        )
    # Lambda counts examples, but the decomposition sums over rows.
    scaled = [strength * problem.rows_per_example for strength in ordered]
    path = decompose(x, targets)
    if problem.splits:
        predictions = [
            decompose(x[fit], targets[fit]).predict(x[held_out], scaled)
            for fit, held_out in problem.splits
        ]
        held_out_targets = problem.held_out(targets)
    else:
        # Leaving one row out proves nothing if the example has other rows.
        single = problem.rows_per_example == 1
        predictions = [path.leave_one_out(scaled)] if single else []
        held_out_targets = [targets]
    rows = _table(predictions, held_out_targets, ordered, measure)
    best = _best(rows, ordered)
    probe = path.solution(best.strength * problem.rows_per_example)
    return _linear(probe._replace(strength=best.strength), rows, _identity)


def nearest_mean(
    problem: Problem, strengths: Sequence[float] | None = None
) -> ChosenProbe:
    """Fits the nearest class mean, with the variance of the smallest loss.

    Args:
        problem: A `Problem` with one class per example.
        strengths: The variances. Defaults to `None`, which means `VARIANCES`,
            25 values between 1e-2 and 1e4.

    Returns:
        A `ChosenProbe`.

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
    predictions = [
        paths.nearest_mean_path(x[fit], labels[fit], x[held_out], ordered, size)
        for fit, held_out in problem.splits
    ]
    targets = problem.held_out(labels)
    rows = _table(predictions, targets, ordered, problem.measure)
    best = _best(rows, ordered)
    probe = paths.nearest_mean(x, labels, size, best.strength)
    return _linear(probe, rows, softmax)


def neighbours(
    problem: Problem, strengths: Sequence[float] | None = None
) -> ChosenProbe:
    """Fits k nearest neighbours, which predict their shares of the classes.

    k is chosen by accuracy, since a share of 0 has an infinite log-loss.

    Args:
        problem: A `Problem` with classes.
        strengths: The values of k. Defaults to `None`, which means 1, 3, 5, 10,
            20 and 50, up to the number of examples.

    Returns:
        A `ChosenProbe`.

    Example:

    >>> rows = np.arange(4)
    >>> problem = Problem(
    ...     np.eye(4), rows % 2, 2, "classification", ((rows, rows),)
    ... )
    >>> neighbours(problem).strength
    1.0
    """
    x, targets = problem.features, problem.coded
    sizes = [len(fit) for fit, _ in problem.splits] or [len(x)]
    candidates = sorted(strengths or NEIGHBOURS)
    numbers = tuple(float(k) for k in candidates if k <= min(sizes))
    predictions = [
        paths.neighbour_path(x[fit], targets[fit], x[held_out], numbers)
        for fit, held_out in problem.splits
    ]
    held_out_targets = problem.held_out(problem.targets)
    rows = _table(predictions, held_out_targets, numbers, problem.measure)
    best = PathRow(numbers[0], 0.0)
    if rows:
        best = max(rows, key=lambda row: (row.accuracy or 0.0, -row.loss))

    def outputs(features: np.ndarray) -> np.ndarray:
        return next(
            paths.neighbour_path(x, targets, features, (best.strength,))
        )

    return ChosenProbe(best.strength, rows, outputs)


def head2toe(
    problem: Problem, strengths: Sequence[float] | None = None
) -> ChosenProbe:
    """Fits logistic regression on the columns that a group lasso ranks highest.

    A group lasso scores each column by the norm of its coefficients; the share
    of columns and lambda are chosen together. Each fold ranks the columns
    again, without its held-out examples.

    Args:
        problem: A `Problem` with classes, the features of each block scaled to
            unit norm.
        strengths: The lambdas. Defaults to `None`, which means 12 values
            between 1e-6 and 1e5.

    Returns:
        A `ChosenProbe`.

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
    rankings = [_rank_columns(problem, fit) for fit, _ in problem.splits]
    counts = sorted({max(1, round(share * width)) for share in HEAD2TOE_SHARES})
    targets = problem.held_out(problem.targets)
    rows: list[PathRow] = []
    for count in counts if problem.splits else ():
        predictions = []
        for ranking, split in zip(rankings, problem.splits, strict=True):
            fit, held_out = split
            columns = ranking[:count]
            coordinates = rotate(x[np.ix_(fit, columns)])
            projected = coordinates.of(x[np.ix_(held_out, columns)])
            predictions.append(
                _predict_path(
                    problem, coordinates.values, fit, projected, ordered
                )
            )
        rows += _table(predictions, targets, ordered, problem.measure, count)
    best = _best(rows, ordered)
    ranking = _rank_columns(problem, np.arange(len(x)))
    kept = np.sort(ranking[: best.kept or width])
    probe = _solve(problem, x[:, kept], best.strength)
    link = _link(problem)

    def outputs(features: np.ndarray) -> np.ndarray:
        return link(features[:, kept] @ probe.kernel + probe.bias)

    return ChosenProbe(best.strength, tuple(rows), outputs, None, kept)


def _rank_columns(problem: Problem, rows: np.ndarray) -> np.ndarray:
    """Ranks the columns by the coefficients of a group lasso, largest first.

    Columns with zero coefficients follow, ranked by the gradient at `W = 0`, so
    that more columns can be kept than the lasso selects.
    """
    x, targets = problem.features[rows], problem.coded[rows]
    several = problem.kind == "multi-label"
    # |W_j| over the outputs, as s_j in Head2Toe.  [columns]
    scores = np.linalg.norm(
        group_lasso(x, targets, multi_label=several), axis=1
    )
    # At W = 0 the errors are the centred targets.  [columns, outputs]
    centered = x - x.mean(axis=0)
    gradients = centered.T @ (targets - targets.mean(axis=0))
    # lexsort sorts by its last key first.
    return np.lexsort((-np.linalg.norm(gradients, axis=1), -scores))


def _predict_path(
    problem: Problem,
    coordinates: np.ndarray,
    rows: np.ndarray,
    held_out: np.ndarray,
    ordered: Sequence[float],
) -> Iterator[np.ndarray]:
    """Yields the probabilities of held-out coordinates for each lambda."""
    link = _link(problem)
    for solution in paths.logistic_path(
        coordinates,
        problem.coded[rows],
        [strength * problem.factor for strength in ordered],
        multi_label=problem.kind == "multi-label",
    ):
        yield link(solution.scores(held_out))


def _solve(problem: Problem, features: np.ndarray, strength: float) -> Probe:
    """Solves the problem for one lambda exactly, on all examples."""
    coordinates = rotate(features)
    solution = next(
        paths.logistic_path(
            coordinates.values,
            problem.coded,
            [strength * problem.factor],
            multi_label=problem.kind == "multi-label",
            exact=True,
        )
    )
    # z = (x - mean) A, so z W + b = x (A W) + (b - mean A W).
    kernel = coordinates.axes @ solution.weights  # [d, r] x [r, outputs]
    return Probe(kernel, solution.bias - coordinates.mean @ kernel, strength)


def _linear(
    probe: Probe,
    rows: Sequence[PathRow],
    link: Callable[[np.ndarray], np.ndarray],
) -> ChosenProbe:
    def outputs(features: np.ndarray) -> np.ndarray:
        return link(features @ probe.kernel + probe.bias)

    return ChosenProbe(probe.strength, tuple(rows), outputs, probe)


def _link(problem: Problem) -> Callable[[np.ndarray], np.ndarray]:
    return sigmoid if problem.kind == "multi-label" else softmax


def _identity(scores: np.ndarray) -> np.ndarray:
    return scores


def _descending(strengths: Sequence[float]) -> tuple[float, ...]:
    """Sorts strongest first, since each solution starts from the one before."""
    return tuple(sorted((float(s) for s in strengths), reverse=True))


def _table(
    predictions: Sequence[Iterator[np.ndarray]],
    targets: Sequence[np.ndarray],
    ordered: Sequence[float],
    measure: path_table.Measure,
    kept: int | None = None,
) -> tuple[PathRow, ...]:
    if not predictions:
        return ()
    return path_table.measure_paths(
        predictions, targets, ordered, measure, kept
    )


def _best(rows: Sequence[PathRow], ordered: Sequence[float]) -> PathRow:
    """Returns the row of the smallest loss; without rows, lambda near 1."""
    if rows:
        return min(rows, key=lambda row: row.loss)
    return PathRow(min(ordered, key=lambda s: abs(np.log(s))), np.nan)
