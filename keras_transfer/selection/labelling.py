"""Which examples to label next."""

from __future__ import annotations

from typing import Any

import numpy as np

from keras_transfer._checks import is_integer
from keras_transfer.selection._arrays import (
    check_features,
    check_probabilities,
)


def select_representative(
    features: Any, count: int, *, labelled: Any = ()
) -> np.ndarray:
    """Chooses examples that stand for all, by the greedy k-centre.

    Each is the one that is farthest from all that were chosen before; the
    first is the one nearest to the mean. The largest distance to a chosen one
    is at most twice what is possible with so many.

    Args:
        features: `(n, d)`.
        count: How many to choose.
        labelled: Rows that are labelled already. Defaults to `()`.

    Returns:
        int64 `(count,)` of rows, in the order in which they were chosen.

    Raises:
        ValueError: If there are not so many left.

    Example:

    >>> features = np.array([[0.0], [0.1], [5.0], [9.0]])
    >>> select_representative(features, 2, labelled=[0]).tolist()
    [3, 2]

    Reference:
        - Sener and Savarese, 2018, https://arxiv.org/abs/1708.00489
        - Gonzalez, 1985, https://doi.org/10.1016/0304-3975(85)90224-5
    """
    features = check_features(features)
    known = np.unique(np.asarray(labelled, dtype=np.int64))
    _check_count(count, len(features) - len(known))
    if len(known) and not 0 <= known[0] <= known[-1] < len(features):
        raise ValueError(
            f"`labelled` must be rows of {len(features)} examples. Received: "
            f"{known.tolist()[:5]}"
        )
    apart = np.full(len(features), np.inf)
    for row in known:
        apart = np.minimum(apart, _distances(features, features[row]))
    chosen: list[int] = []
    if not len(known):
        middle = _distances(features, features.mean(axis=0))
        chosen.append(int(middle.argmin()))
        apart = _distances(features, features[chosen[0]])
    taken = np.zeros(len(features), bool)
    taken[known] = True
    taken[chosen] = True
    while len(chosen) < count:
        row = int(np.where(taken, -1.0, apart).argmax())
        chosen.append(row)
        taken[row] = True
        apart = np.minimum(apart, _distances(features, features[row]))
    return np.array(chosen)


def select_uncertain(probabilities: Any, count: int) -> np.ndarray:
    """Chooses the examples that a classifier can least decide about.

    Args:
        probabilities: `(n, classes)`; rows sum to 1.
        count: How many to choose.

    Returns:
        int64 `(count,)` of rows: the smallest margin between the two most
        likely classes first.

    Raises:
        ValueError: If rows are no probabilities, or there are not so many.

    Example:

    >>> odds = np.array([[0.9, 0.1], [0.5, 0.5], [0.6, 0.4]])
    >>> select_uncertain(odds, 2).tolist()
    [1, 2]

    Reference:
        - Scheffer et al., 2001, https://doi.org/10.1007/3-540-44816-0_31
    """
    probabilities = check_probabilities(probabilities)
    _check_count(count, len(probabilities))
    if probabilities.shape[1] < 2:
        raise ValueError(
            "`probabilities` must be of two classes at least. Received: "
            f"shape {probabilities.shape}"
        )
    two = np.sort(probabilities, axis=1)[:, -2:]
    return np.argsort(two[:, 1] - two[:, 0], kind="stable")[:count]


def _distances(features: np.ndarray, point: np.ndarray) -> np.ndarray:
    distances: np.ndarray = np.linalg.norm(features - point, axis=1)
    return distances


def _check_count(count: int, most: int) -> None:
    if not is_integer(count) or not 1 <= count <= most:
        raise ValueError(
            f"`count` must be an integer from 1 to {most}, the number of "
            f"examples that are left. Received: count={count!r}"
        )
