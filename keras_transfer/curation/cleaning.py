"""What is wrong with a data set, by its features: labels, copies, strangers."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from keras_transfer._utils.checks import is_integer
from keras_transfer.features.arrays import check_classes, check_features, ids_of
from keras_transfer.features.probe_score import FOLDS, held_out_probabilities


class LabelError(NamedTuple):
    """An example whose label is likely wrong.

    Attributes:
        row: Its row.
        id: Its name; the row where it has none.
        label: The label that it has.
        suggested: The label that the others like it have.
        margin: How much more likely that one is, in `[0, 1]`.
    """

    row: int
    id: str
    label: int
    suggested: int
    margin: float


class Duplicate(NamedTuple):
    """Two examples that are nearly the same.

    Attributes:
        first: The row of one.
        second: The row of the other, behind it.
        first_id: The name of one.
        second_id: The name of the other.
        similarity: The cosine of their features.
    """

    first: int
    second: int
    first_id: str
    second_id: str
    similarity: float


class ChosenExample(NamedTuple):
    """An example that was chosen.

    Attributes:
        row: Its row.
        id: Its name; the row where it has none.
        score: Why it was chosen, as the function that chose it says.
    """

    row: int
    id: str
    score: float


def find_label_errors(
    features: Any, labels: Any = None, *, seed: int = 0
) -> tuple[LabelError, ...]:
    """Finds examples whose label is likely wrong, by confident learning.

    Logistic regression over folds says how likely each class is for examples
    that it was not fitted to. A class is confident of an example where it is at
    least as likely as for those that bear its label, on average. How often
    another one than the label's is the most confident says how many labels of a
    class are wrong; suspected are so many of those that are the more likely of
    the other class. Labels of fewer than five examples are not suspected: a
    fold may have seen none of them.

    Args:
        features: `(n, d)`, or what `extract_features` returned for a split.
        labels: Class indices `(n,)`, or one-hot rows. Defaults to `None`:
            those of the split.
        seed: Of the folds. Defaults to `0`.

    Returns:
        `LabelError` for each, the clearest first. Labels are those that were
        given.

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
            "`labels` must be given where the features are an array. Received: "
            "labels=None"
        )
    features = check_features(features)
    given = np.asarray(labels)
    classes = check_classes(labels, len(features))
    if given.ndim == 2 and given.shape[1] > 1:
        given = given.argmax(axis=1)
    names = np.unique(given)
    likely = held_out_probabilities(features, classes, seed)
    thresholds = np.array(
        [likely[classes == c, c].mean() for c in range(len(names))]
    )
    confident = np.where(likely >= thresholds, likely, -1.0)
    counted = confident.max(axis=1) >= 0
    joint = np.zeros((len(names), len(names)))
    np.add.at(joint, (classes[counted], confident.argmax(axis=1)[counted]), 1)
    sizes = np.bincount(classes)
    found = []
    for label, suggested in np.argwhere(joint > 0):
        if label == suggested or sizes[label] < FOLDS:
            continue
        # As many of the label as the share of those that are counted.
        share = joint[label, suggested] / joint[label].sum()
        rows = np.flatnonzero(classes == label)
        margins = likely[rows, suggested] - likely[rows, label]
        order = np.argsort(-margins)[: round(share * sizes[label])]
        found += [
            LabelError(
                int(row), ids[row], int(names[label]), int(names[suggested]), m
            )
            for row, m in zip(rows[order], margins[order].tolist(), strict=True)
            # Of several classes the likeliest.
            if m > 0 and likely[row].argmax() == suggested
        ]
    return tuple(sorted(found, key=lambda error: -error.margin))


def find_duplicates(
    features: Any, *, threshold: float = 0.98
) -> tuple[Duplicate, ...]:
    """Finds pairs of examples that are nearly the same.

    Args:
        features: `(n, d)`, or what `extract_features` returned for a split;
            centred here.
        threshold: Cosine in `(0, 1]` from which on a pair counts. Defaults to
            `0.98`.

    Returns:
        `Duplicate` for each pair, the most alike first.

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
    # What lies at the mean has no direction: it is like what lies there too.
    at_mean = ~scaled.any(axis=1, keepdims=True)
    scaled = np.hstack([scaled, at_mean])
    found = []
    for start in range(0, len(scaled), _AT_ONCE):
        alike = scaled[start : start + _AT_ONCE] @ scaled.T
        for row, column in np.argwhere(alike >= threshold - 1e-12):
            pair = start + int(row), int(column)
            if pair[0] < pair[1]:
                cosine = min(float(alike[row, column]), 1.0)
                names = ids[pair[0]], ids[pair[1]]
                found.append(Duplicate(*pair, *names, cosine))
    return tuple(sorted(found, key=lambda pair: -pair.similarity))


# Rows that are compared with all others at once.
_AT_ONCE = 1024


def find_outliers(
    features: Any, count: int = 20, *, neighbours: int = 10
) -> tuple[ChosenExample, ...]:
    """Finds the examples that are farthest from those most like them.

    Args:
        features: `(n, d)`, or what `extract_features` returned for a split.
        count: How many at most. Defaults to `20`.
        neighbours: As for `outlier_scores`. Defaults to `10`.

    Returns:
        `ChosenExample` for each, with `outlier_scores` for a score, the
        strangest first.

    Raises:
        ValueError: If an argument is out of range.

    Example:

    >>> features = np.ones([20, 4]) + 0.1 * np.eye(20, 4)
    >>> features[3] = [9, -9, 9, -9]
    >>> [found.row for found in find_outliers(features, 1, neighbours=3)]
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
    """Returns how far each example is from those most like it.

    Args:
        features: `(n, d)`, or what `extract_features` returned for a split;
            centred here.
        neighbours: How many count. Defaults to `10`.

    Returns:
        float64 `(n,)`: the mean of 1 less the cosine; more is stranger.

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
            f"less one. Received: neighbours={neighbours!r}, {len(features)} "
            "examples"
        )
    scaled = _unit(features)
    scores = np.empty(len(scaled))
    for start in range(0, len(scaled), _AT_ONCE):
        apart = 1 - scaled[start : start + _AT_ONCE] @ scaled.T
        rows = np.arange(len(apart))
        apart[rows, start + rows] = np.inf  # Itself.
        nearest = np.partition(apart, neighbours - 1, axis=1)[:, :neighbours]
        scores[start : start + _AT_ONCE] = nearest.mean(axis=1)
    return scores


def _unit(features: np.ndarray) -> np.ndarray:
    centred = features - features.mean(axis=0)
    lengths = np.linalg.norm(centred, axis=1, keepdims=True)
    # Below, it is rounding.
    least = 1e-5 * np.linalg.norm(features, axis=1).max()
    return np.divide(
        centred, lengths, out=np.zeros_like(centred), where=lengths > least
    )
