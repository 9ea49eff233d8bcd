"""Active learning: examples to label next."""

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
    """Selects representative examples, by greedy k-centre clustering.

    Each is the example farthest from all selected so far; the first is the one
    nearest to the mean. The largest distance of any example to a selected one
    is at most twice the optimum for `count` examples.

    Args:
        features: Array `(n, d)`, or `Features` of a split.
        count: Number of examples to select.
        labelled: Rows that are labelled already. Defaults to `()`.

    Returns:
        Tuple of `ChosenExample`, in order of selection. The score is the
        distance to the nearest example selected before (to the mean, for the
        very first).

    Raises:
        ValueError: If fewer than `count` examples are left.

    Example:

    >>> features = np.array([[0.0], [0.1], [5.0], [9.0]])
    >>> examples = select_representative(features, 2, labelled=[0])
    >>> [example.row for example in examples]
    [3, 2]

    Reference:
        - Sener and Savarese, 2018, https://arxiv.org/abs/1708.00489
        - Gonzalez, 1985, https://doi.org/10.1016/0304-3975(85)90224-5
    """
    ids = ids_of(features)
    features = check_features(features)
    rows = np.asarray(labelled)
    known = np.unique(rows) if rows.size else np.empty(0, np.int64)
    if known.dtype.kind not in "iu" or (
        len(known) and not 0 <= known[0] <= known[-1] < len(features)
    ):
        raise ValueError(
            "`labelled` must be rows, integers from 0 to "
            f"{len(features) - 1}. Received: {known.dtype} "
            f"{known.tolist()[:5]}"
        )
    _check_count(count, len(features) - len(known))
    # Distance of each example to the nearest selected one, [n].
    nearest = np.full(len(features), np.inf)
    for row in known:
        nearest = np.minimum(nearest, _distances(features, features[row]))
    chosen: list[ChosenExample] = []
    selected = np.zeros(len(features), bool)
    selected[known] = True
    while len(chosen) < count:
        if selected.any():
            row = int(np.where(selected, -1.0, nearest).argmax())
        else:
            nearest = _distances(features, features.mean(axis=0))
            row = int(nearest.argmin())
        chosen.append(ChosenExample(row, ids[row], float(nearest[row])))
        distances = _distances(features, features[row])
        nearest = (
            np.minimum(nearest, distances) if selected.any() else distances
        )
        selected[row] = True
    return tuple(chosen)


def select_uncertain(
    probabilities: Any, count: int, *, ids: Sequence[str] | None = None
) -> tuple[ChosenExample, ...]:
    """Selects the examples that a classifier is least certain about.

    Args:
        probabilities: Array `(n, classes)`; rows sum to 1.
        count: Number of examples to select.
        ids: Names of the examples. Defaults to `None`: their rows.

    Returns:
        Tuple of `ChosenExample`, smallest score first. The score is the margin
        between the two most likely classes.

    Raises:
        ValueError: If rows are not probabilities, or there are fewer than
            `count` examples.

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
            "`probabilities` must have at least two classes. Received: "
            f"shape {probabilities.shape}"
        )
    names = ids_of(probabilities) if ids is None else tuple(ids)
    if len(names) != len(probabilities):
        raise ValueError(
            f"`ids` must be {len(probabilities)} names, one per example. "
            f"Received: {len(names)}."
        )
    top_two = np.sort(probabilities, axis=1)[:, -2:]  # [n, 2]
    margins = top_two[:, 1] - top_two[:, 0]
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
            f"examples left. Received: count={count!r}"
        )
