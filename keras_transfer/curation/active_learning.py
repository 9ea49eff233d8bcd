"""Which examples to label next."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from keras_transfer._utils.checks import is_integer
from keras_transfer.curation.cleaning import ChosenExample
from keras_transfer.features.arrays import (
    check_features,
    check_probabilities,
    ids_of,
)


def select_representative(
    features: Any, count: int, *, labelled: Any = ()
) -> tuple[ChosenExample, ...]:
    """Chooses examples that stand for all, by the greedy k-centre.

    Each is the one that is farthest from all that were chosen before; the
    first is the one nearest to the mean. The largest distance to a chosen one
    is at most twice what is possible with so many.

    Args:
        features: `(n, d)`, or what `extract_features` returned for a split.
        count: How many to choose.
        labelled: Rows that are labelled already. Defaults to `()`.

    Returns:
        `ChosenExample` for each, in the order in which they were chosen, with
        the distance to the nearest one before for a score (to the mean, for
        the first of all).

    Raises:
        ValueError: If there are not so many left.

    Example:

    >>> features = np.array([[0.0], [0.1], [5.0], [9.0]])
    >>> found = select_representative(features, 2, labelled=[0])
    >>> [example.row for example in found]
    [3, 2]

    Reference:
        - Sener and Savarese, 2018, https://arxiv.org/abs/1708.00489
        - Gonzalez, 1985, https://doi.org/10.1016/0304-3975(85)90224-5
    """
    ids = ids_of(features)
    features = check_features(features)
    given = np.asarray(labelled)
    known = np.unique(given) if given.size else np.empty(0, np.int64)
    if known.dtype.kind not in "iu" or (
        len(known) and not 0 <= known[0] <= known[-1] < len(features)
    ):
        raise ValueError(
            "`labelled` must be rows, integers from 0 to "
            f"{len(features) - 1}. Received: {known.dtype} "
            f"{known.tolist()[:5]}"
        )
    _check_count(count, len(features) - len(known))
    apart = np.full(len(features), np.inf)
    for row in known:
        apart = np.minimum(apart, _distances(features, features[row]))
    chosen: list[ChosenExample] = []
    taken = np.zeros(len(features), bool)
    taken[known] = True
    while len(chosen) < count:
        if taken.any():
            row = int(np.where(taken, -1.0, apart).argmax())
        else:
            apart = _distances(features, features.mean(axis=0))
            row = int(apart.argmin())
        chosen.append(ChosenExample(row, ids[row], float(apart[row])))
        mine = _distances(features, features[row])
        apart = np.minimum(apart, mine) if taken.any() else mine
        taken[row] = True
    return tuple(chosen)


def select_uncertain(
    probabilities: Any, count: int, *, ids: Sequence[str] | None = None
) -> tuple[ChosenExample, ...]:
    """Chooses the examples that a classifier can least decide about.

    Args:
        probabilities: `(n, classes)`; rows sum to 1.
        count: How many to choose.
        ids: Names of the examples. Defaults to `None`: their rows.

    Returns:
        `ChosenExample` for each, with the margin between the two most likely
        classes for a score, the smallest first.

    Raises:
        ValueError: If rows are no probabilities, or there are not so many.

    Example:

    >>> odds = np.array([[0.9, 0.1], [0.5, 0.5], [0.6, 0.4]])
    >>> [example.row for example in select_uncertain(odds, 2)]
    [1, 2]

    Reference:
        - Scheffer et al., 2001, https://doi.org/10.1007/3-540-44816-0_31
    """
    probabilities = check_probabilities(probabilities, least=1)
    _check_count(count, len(probabilities))
    if probabilities.shape[1] < 2:
        raise ValueError(
            "`probabilities` must be of two classes at least. Received: "
            f"shape {probabilities.shape}"
        )
    names = ids_of(probabilities) if ids is None else tuple(ids)
    if len(names) != len(probabilities):
        raise ValueError(
            f"`ids` must be {len(probabilities)}, one for each example. "
            f"Received: {len(names)}."
        )
    two = np.sort(probabilities, axis=1)[:, -2:]
    margins = two[:, 1] - two[:, 0]
    return tuple(
        ChosenExample(int(row), names[row], float(margins[row]))
        for row in np.argsort(margins, kind="stable")[:count]
    )


def _distances(features: np.ndarray, point: np.ndarray) -> np.ndarray:
    distances: np.ndarray = np.linalg.norm(features - point, axis=1)
    return distances


def _check_count(count: int, most: int) -> None:
    if not is_integer(count) or not 1 <= count <= most:
        raise ValueError(
            f"`count` must be an integer from 1 to {most}, the number of "
            f"examples that are left. Received: count={count!r}"
        )
