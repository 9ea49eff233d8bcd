"""Label errors, duplicates and outliers of a data set, by its features."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from keras_transfer._utils.checks import is_integer
from keras_transfer.features.arrays import check_classes, check_features, ids_of
from keras_transfer.features.probe_score import FOLDS, held_out_probabilities


class LabelError(NamedTuple):
    """An example whose label is likely wrong.

    Attributes:
        row: Row of the example.
        id: Name of the example; its row if it has none.
        label: The given label.
        suggested: The label of similar examples.
        margin: Probability of `suggested` minus that of `label`, in `[0, 1]`.
        probability: Probability of `label`.
    """

    row: int
    id: str
    label: int
    suggested: int
    margin: float
    probability: float


class Duplicate(NamedTuple):
    """A pair of nearly identical examples.

    Attributes:
        first: Row of the first one.
        second: Row of the second one, greater than `first`.
        first_id: Name of the first one.
        second_id: Name of the second one.
        similarity: Cosine of their features.
    """

    first: int
    second: int
    first_id: str
    second_id: str
    similarity: float


class ChosenExample(NamedTuple):
    """A selected example.

    Attributes:
        row: Row of the example.
        id: Name of the example; its row if it has none.
        score: Reason for the selection; see the function that made it.
    """

    row: int
    id: str
    score: float


def find_label_errors(
    features: Any, labels: Any = None, *, seed: int = 0
) -> tuple[LabelError, ...]:
    """Finds examples whose label is likely wrong, by confident learning.

    Logistic regression predicts class probabilities of held-out examples, fold
    by fold. A class is confident of an example if its probability is at least
    the average over the examples labelled with it. The share of examples of a
    label for which another class is the most confident estimates the number of
    errors; that many examples are reported, those with the largest margin.
    Labels of fewer than five examples are never reported, since a fold may not
    have seen any of them.

    Args:
        features: Array `(n, d)`, or `Features` of a split.
        labels: Class indices `(n,)`, or one-hot rows. Defaults to `None`:
            those of the split.
        seed: Seed of the folds. Defaults to `0`.

    Returns:
        Tuple of `LabelError`, smallest probability of the given label first,
        with labels as in `labels`.

    Raises:
        ValueError: If shapes do not fit, a number is not finite, or there is
            one class only.

    Example:

    >>> labels = np.arange(60) % 2
    >>> noise = np.random.default_rng(0).normal(size=(60, 4))
    >>> features = noise + 9 * labels[:, None]
    >>> labels[7] = 0
    >>> [error.row for error in find_label_errors(features, labels)]
    [7]

    Reference:
        - Northcutt et al., 2021, https://arxiv.org/abs/1911.00068
    """
    ids = ids_of(features)
    if labels is None:
        labels = getattr(features, "labels", None)
    if labels is None:
        raise ValueError(
            "`labels` must be given if `features` is an array. Received: "
            "labels=None"
        )
    features = check_features(features)
    array = np.asarray(labels)
    classes = check_classes(labels, len(features))
    if array.ndim == 2 and array.shape[1] > 1:
        array = array.argmax(axis=1)
    names = np.unique(array)
    probabilities = held_out_probabilities(features, classes, seed)
    # Mean probability of a class over the examples labelled with it, [classes].
    thresholds = np.array(
        [probabilities[classes == c, c].mean() for c in range(len(names))]
    )
    confident = np.where(probabilities >= thresholds, probabilities, -1.0)
    counted = confident.max(axis=1) >= 0
    # The confident joint, [given class, most confident class].
    joint = np.zeros((len(names), len(names)))
    np.add.at(joint, (classes[counted], confident.argmax(axis=1)[counted]), 1)
    sizes = np.bincount(classes)
    errors = []
    for label, suggested in np.argwhere(joint > 0):
        if label == suggested or sizes[label] < FOLDS:
            continue
        # Scaled to all examples of the label, counted or not.
        share = joint[label, suggested] / joint[label].sum()
        rows = np.flatnonzero(classes == label)
        margins = probabilities[rows, suggested] - probabilities[rows, label]
        order = np.argsort(-margins)[: round(share * sizes[label])]
        errors += [
            LabelError(
                int(row),
                ids[row],
                int(names[label]),
                int(names[suggested]),
                m,
                float(probabilities[row, label]),
            )
            for row, m in zip(rows[order], margins[order].tolist(), strict=True)
            # Each example once, with its most likely class.
            if m > 0 and probabilities[row].argmax() == suggested
        ]
    # An example whose label is impossible comes before one between two others,
    # whatever the most likely class is.
    return tuple(sorted(errors, key=lambda e: (e.probability, -e.margin)))


def find_duplicates(
    features: Any, *, threshold: float = 0.98
) -> tuple[Duplicate, ...]:
    """Finds pairs of nearly identical examples.

    Args:
        features: Array `(n, d)`, or `Features` of a split; they are centred
            first.
        threshold: Smallest cosine of a duplicate, in `(0, 1]`. Defaults to
            `0.98`.

    Returns:
        Tuple of `Duplicate`, most similar pair first.

    Raises:
        ValueError: If an argument is out of range.

    Example:

    >>> features = np.random.default_rng(0).normal(size=(9, 8))
    >>> features[5] = 1.01 * features[2]
    >>> [(pair.first, pair.second) for pair in find_duplicates(features)]
    [(2, 5)]
    """
    if not 0 < threshold <= 1:
        raise ValueError(
            "`threshold` must be a cosine in (0, 1]. Received: threshold="
            f"{threshold!r}"
        )
    ids = ids_of(features)
    scaled = _unit(check_features(features))
    # Examples at the mean have no direction. An additional coordinate makes
    # them similar to each other, and to nothing else.
    at_mean = ~scaled.any(axis=1, keepdims=True)
    scaled = np.hstack([scaled, at_mean])
    duplicates = []
    for start in range(0, len(scaled), _ROWS_PER_CHUNK):
        # Cosines of a chunk with all examples, [rows, n].
        cosines = scaled[start : start + _ROWS_PER_CHUNK] @ scaled.T
        for row, column in np.argwhere(cosines >= threshold - 1e-12):
            pair = start + int(row), int(column)
            if pair[0] < pair[1]:
                cosine = min(float(cosines[row, column]), 1.0)
                names = ids[pair[0]], ids[pair[1]]
                duplicates.append(Duplicate(*pair, *names, cosine))
    return tuple(sorted(duplicates, key=lambda pair: -pair.similarity))


# A chunk is compared with all examples, in one product of matrices.
_ROWS_PER_CHUNK = 1024


def find_outliers(
    features: Any, count: int = 20, *, neighbours: int = 10
) -> tuple[ChosenExample, ...]:
    """Finds the examples that are farthest from their nearest neighbours.

    Args:
        features: Array `(n, d)`, or `Features` of a split.
        count: Largest number of outliers. Defaults to `20`.
        neighbours: Number of neighbours, as for `outlier_scores`. Defaults to
            `10`.

    Returns:
        Tuple of `ChosenExample`, farthest first. The score is that of
        `outlier_scores`.

    Raises:
        ValueError: If an argument is out of range.

    Example:

    >>> features = np.ones([20, 4]) + 0.1 * np.eye(20, 4)
    >>> features[3] = [9, -9, 9, -9]
    >>> [outlier.row for outlier in find_outliers(features, 1, neighbours=3)]
    [3]
    """
    if not is_integer(count) or count < 1:
        raise ValueError(
            f"`count` must be an integer above 0. Received: count={count!r}"
        )
    ids = ids_of(features)
    scores = outlier_scores(features, neighbours=neighbours)
    order = np.argsort(-scores, kind="stable")[:count]
    return tuple(
        ChosenExample(int(row), ids[row], float(scores[row])) for row in order
    )


def outlier_scores(features: Any, *, neighbours: int = 10) -> np.ndarray:
    """Returns the mean distance of each example to its nearest neighbours.

    Args:
        features: Array `(n, d)`, or `Features` of a split; they are centred
            first.
        neighbours: Number of nearest neighbours. Defaults to `10`.

    Returns:
        float64 `(n,)`, the mean of `1 - cosine` over the neighbours; outliers
        have high scores.

    Raises:
        ValueError: If an argument is out of range.

    Example:

    >>> features = np.ones([20, 4]) + 0.1 * np.eye(20, 4)
    >>> features[3] = [9, -9, 9, -9]
    >>> int(outlier_scores(features, neighbours=3).argmax())
    3

    Reference:
        - Ramaswamy et al., 2000, https://doi.org/10.1145/342009.335437
    """
    features = check_features(features)
    if not is_integer(neighbours) or not 1 <= neighbours < len(features):
        raise ValueError(
            "`neighbours` must be an integer from 1 to the number of examples "
            f"minus one. Received: neighbours={neighbours!r}, {len(features)} "
            "examples"
        )
    scaled = _unit(features)
    scores = np.empty(len(scaled))
    for start in range(0, len(scaled), _ROWS_PER_CHUNK):
        # Distances of a chunk to all examples, [rows, n].
        distances = 1 - scaled[start : start + _ROWS_PER_CHUNK] @ scaled.T
        rows = np.arange(len(distances))
        distances[rows, start + rows] = np.inf  # Not its own neighbour.
        nearest = np.partition(distances, neighbours - 1)[:, :neighbours]
        scores[start : start + _ROWS_PER_CHUNK] = nearest.mean(axis=1)
    return scores


def _unit(features: np.ndarray) -> np.ndarray:
    """Returns centred rows of length 1, or 0 for rows at the mean."""
    centred = features - features.mean(axis=0)
    lengths = np.linalg.norm(centred, axis=1, keepdims=True)
    # Shorter rows are rounding errors.
    least = 1e-5 * np.linalg.norm(features, axis=1).max()
    return np.divide(
        centred, lengths, out=np.zeros_like(centred), where=lengths > least
    )
