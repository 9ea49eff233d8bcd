"""How near one data set is to another, by the features of both."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from keras_transfer._utils.checks import is_integer
from keras_transfer.features.arrays import check_classes, check_features
from keras_transfer.features.probe_score import (
    FOLDS,
    ProbeScore,
    folds_of,
    probe_score,
)
from keras_transfer.probes import fit_logistic


class NearestClass(NamedTuple):
    """What of all sources is most like a class of the target.

    Attributes:
        target: The label of the class.
        source: The name of the source.
        label: The label of the class there.
        similarity: The cosine of their means, in `[-1, 1]`.
    """

    target: int
    source: str
    label: int
    similarity: float


def domain_accuracy(
    source: Any, target: Any, *, count: int | None = None, seed: int = 0
) -> ProbeScore:
    """Returns how well a linear classifier tells two data sets apart.

    The cross-validated accuracy of logistic regression on as many examples of
    each: about 0.5 where nothing tells them apart (below, where both hold the
    same examples), 1 where everything does. The proxy A-distance is
    `2 (2 accuracy - 1)`. It grows with the number of examples: compare
    sources by the same.

    Args:
        source: Features `(n, d)`.
        target: Features `(m, d)`.
        count: Examples of each. Defaults to `None`: as many as the smaller
            set has.
        seed: Of the draws, and of the folds. Defaults to `0`.

    Returns:
        A `ProbeScore`, with Wilson's interval: less is nearer.

    Raises:
        ValueError: If shapes do not fit, a number is not finite, or a set has
            fewer than five examples.

    Example:

    >>> generator = np.random.default_rng(0)
    >>> one, other = generator.normal(size=(2, 50, 4))
    >>> domain_accuracy(one, other + 9).accuracy
    1.0

    Reference:
        - Ben-David et al., 2010, https://doi.org/10.1007/s10994-009-5152-4
    """
    pair = _check_pair(source, target)
    most = min(map(len, pair))
    if most < FOLDS:
        raise ValueError(
            "`source` and `target` must hold five examples at least. Received: "
            f"{len(pair[0])} and {len(pair[1])}."
        )
    count = most if count is None else count
    if not is_integer(count) or not FOLDS <= count <= most:
        raise ValueError(
            f"`count` must be an integer from {FOLDS} to {most}, what both "
            f"have. Received: count={count!r}"
        )
    generator = np.random.default_rng(seed)
    drawn = [
        some[np.sort(generator.choice(len(some), count, replace=False))]
        for some in pair
    ]
    labels = np.repeat([0, 1], count)
    return probe_score(np.concatenate(drawn), labels, seed=seed)


def reverse_validation(
    source: Any, source_labels: Any, target: Any, *, seed: int = 0
) -> ProbeScore:
    """Returns how well labels survive the way to the target and back.

    Logistic regression on four fifths of the source labels the target, another
    one on the target with these labels predicts the last fifth of the source.
    What both sets have in common carries the labels there and back; the labels
    of the target are not needed, nor need its classes be those of the source.

    Args:
        source: Features `(n, d)`.
        source_labels: Class indices `(n,)` or one-hot rows.
        target: Features `(m, d)`.
        seed: Of the folds. Defaults to `0`.

    Returns:
        A `ProbeScore`, with Wilson's interval: more is nearer.

    Raises:
        ValueError: If shapes do not fit, a number is not finite, or there is
            one class only.

    Example:

    >>> labels = np.arange(60) % 2
    >>> noise = np.random.default_rng(0).normal(size=(2, 60, 4))
    >>> source, target = noise + 9 * labels[:, None]
    >>> reverse_validation(source, labels, target).accuracy
    1.0

    Reference:
        - Zhong et al., 2010, https://doi.org/10.1007/978-3-642-15939-8_35
    """
    source, target = _check_pair(source, target)
    labels = check_classes(source_labels, len(source))
    classes = int(labels.max()) + 1
    joint = np.concatenate([source, target])
    middle, scale = joint.mean(axis=0), np.sqrt(joint.var(axis=0).mean()) or 1.0
    source, target = (source - middle) / scale, (target - middle) / scale
    folds = folds_of(labels, seed)
    right = 0
    for fold in np.unique(folds):
        held_out = folds == fold
        there = _predict(source[~held_out], labels[~held_out], classes, target)
        back = _predict(target, there, classes, source[held_out])
        right += int((back == labels[held_out]).sum())
    return ProbeScore.of(right, len(labels))


def nearest_classes(
    sources: Mapping[str, tuple[Any, Any]], target: Any, target_labels: Any
) -> tuple[NearestClass, ...]:
    """Returns for each class of the target the most similar one of a source.

    By the cosine of the means of the classes, less the mean of all examples.

    Args:
        sources: Features `(n, d)` and class indices `(n,)` by name.
        target: Features `(m, d)`.
        target_labels: Class indices `(m,)`.

    Returns:
        A `NearestClass` for each label of the target, in their order.

    Raises:
        ValueError: If shapes do not fit, a number is not finite, or there is
            no source.

    Example:

    >>> corners = np.eye(4).repeat(2, axis=0)
    >>> sources = {"one": (corners[:4], np.array([0, 0, 1, 1]))}
    >>> target = corners[2:6]
    >>> found = nearest_classes(sources, target, np.array([7, 7, 8, 8]))
    >>> found[0].target, found[0].source, found[0].label
    (7, 'one', 1)
    """
    target = check_features(target)
    if not sources:
        raise ValueError("`sources` must be one at least. Received: none.")
    wanted = _check_labels("`target_labels`", target_labels, len(target))
    middle, count = target.sum(axis=0), len(target)
    places, means = [], []
    for name, (features, labels) in sources.items():
        rows, _ = _check_pair(features, target)
        known = _check_labels(f"`sources[{name!r}]`", labels, len(rows))
        middle, count = middle + rows.sum(axis=0), count + len(rows)
        for label in np.unique(known):
            places.append((name, int(label)))
            means.append(rows[known == label].mean(axis=0))
    middle = middle / count
    centred = np.array(means) - middle
    found = []
    for label in np.unique(wanted):
        mean = target[wanted == label].mean(axis=0) - middle
        lengths = np.linalg.norm(centred, axis=1) * np.linalg.norm(mean)
        cosines = np.divide(
            centred @ mean, lengths, out=np.zeros(len(means)), where=lengths > 0
        )
        best = int(cosines.argmax())
        name, its = places[best]
        similarity = float(np.clip(cosines[best], -1, 1))
        found.append(NearestClass(int(label), name, its, similarity))
    return tuple(found)


def _check_labels(name: str, labels: Any, count: int) -> np.ndarray:
    array = np.asarray(labels)
    if array.shape != (count,) or array.dtype.kind not in "iu":
        raise ValueError(
            f"{name} must have {count} integers, one for each example. "
            f"Received: {array.dtype} of shape {array.shape}."
        )
    return array


def _check_pair(source: Any, target: Any) -> tuple[np.ndarray, np.ndarray]:
    one, other = check_features(source), check_features(target)
    if one.shape[1] != other.shape[1]:
        raise ValueError(
            "`source` and `target` must be features of one backbone. Received: "
            f"{one.shape[1]} and {other.shape[1]} columns."
        )
    return one, other


def _predict(
    features: np.ndarray, labels: np.ndarray, classes: int, others: np.ndarray
) -> np.ndarray:
    present = np.unique(labels)
    if len(present) == 1:  # All that can be said.
        return np.full(len(others), present[0])
    probe = fit_logistic(features, labels, classes)
    found: np.ndarray = (others @ probe.kernel + probe.bias).argmax(axis=1)
    return found
