"""Distances between data sets, by the features of both."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from keras_transfer._utils.checks import is_integer
from keras_transfer.features.arrays import check_classes, check_features
from keras_transfer.features.class_columns import flat_classes
from keras_transfer.features.probe_score import (
    FOLDS,
    ProbeScore,
    folds_of,
    probe_score,
)
from keras_transfer.probes import fit_logistic


class NearestClass(NamedTuple):
    """The class of all sources that is most similar to a class of the target.

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
    """Returns the accuracy of a linear classifier of two data sets.

    The cross-validated accuracy of logistic regression on equal numbers of
    examples: about 0.5 if the sets are indistinguishable (lower if they share
    examples), 1 if they are separable. The proxy A-distance is
    `2 (2 accuracy - 1)`. It grows with the number of examples, so compare
    sources at the same `count`.

    Args:
        source: Features `(n, d)`.
        target: Features `(m, d)`.
        count: Number of examples of each set. Defaults to `None`: the size of
            the smaller one.
        seed: Seed of the draws, and of the folds. Defaults to `0`.

    Returns:
        A `ProbeScore`, with Wilson's interval; lower is nearer.

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
            "`source` and `target` must hold at least five examples. Received: "
            f"{len(pair[0])} and {len(pair[1])}."
        )
    count = most if count is None else count
    if not is_integer(count) or not FOLDS <= count <= most:
        raise ValueError(
            f"`count` must be an integer from {FOLDS} to {most}, the size of "
            f"the smaller set. Received: count={count!r}"
        )
    generator = np.random.default_rng(seed)
    samples = [
        rows[np.sort(generator.choice(len(rows), count, replace=False))]
        for rows in pair
    ]
    labels = np.repeat([0, 1], count)
    return probe_score(np.concatenate(samples), labels, seed=seed)


def reverse_validation(
    source: Any, source_labels: Any, target: Any, *, seed: int = 0
) -> ProbeScore:
    """Returns the accuracy of labels carried to the target and back.

    Logistic regression on four fifths of the source labels the target; another
    one, on the target with these labels, predicts the last fifth of the source.
    Structure that both sets share preserves the labels. The labels of the
    target are not needed, nor need its classes be those of the source.

    Args:
        source: Features `(n, d)`.
        source_labels: Class indices `(n,)` or one-hot rows.
        target: Features `(m, d)`.
        seed: Seed of the folds. Defaults to `0`.

    Returns:
        A `ProbeScore`, with Wilson's interval; higher is nearer.

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
    # One scale for all features, so that they keep their relative sizes.
    centre, scale = joint.mean(axis=0), np.sqrt(joint.var(axis=0).mean()) or 1.0
    source, target = (source - centre) / scale, (target - centre) / scale
    folds = folds_of(labels, seed)
    correct = 0
    for fold in np.unique(folds):
        held_out = folds == fold
        target_labels = _predict(
            source[~held_out], labels[~held_out], classes, target
        )
        predicted = _predict(target, target_labels, classes, source[held_out])
        correct += int((predicted == labels[held_out]).sum())
    return ProbeScore.of(correct, len(labels))


def nearest_classes(
    sources: Mapping[str, tuple[Any, Any]], target: Any, target_labels: Any
) -> tuple[NearestClass, ...]:
    """Returns the most similar source class for each class of the target.

    Similarity is the cosine of class means, centred by the mean of all
    examples.

    Args:
        sources: Mapping from names to pairs of features `(n, d)` and class
            indices `(n,)`.
        target: Features `(m, d)`.
        target_labels: Class indices `(m,)`.

    Returns:
        A `NearestClass` for each label of the target, in order.

    Raises:
        ValueError: If shapes do not fit, a number is not finite, or there is
            no source.

    Example:

    >>> corners = np.eye(4).repeat(2, axis=0)
    >>> sources = {"one": (corners[:4], np.array([0, 0, 1, 1]))}
    >>> target = corners[2:6]
    >>> nearest = nearest_classes(sources, target, np.array([7, 7, 8, 8]))
    >>> nearest[0].target, nearest[0].source, nearest[0].label
    (7, 'one', 1)
    """
    target = check_features(target)
    if not sources:
        raise ValueError("`sources` must not be empty. Received: sources={}")
    labels = _check_labels("`target_labels`", target_labels, len(target))
    total, count = target.sum(axis=0), len(target)
    keys, means = [], []
    for name, (features, indices) in sources.items():
        rows, _ = _check_pair(features, target)
        indices = _check_labels(f"`sources[{name!r}]`", indices, len(rows))
        total, count = total + rows.sum(axis=0), count + len(rows)
        for label in np.unique(indices):
            keys.append((name, int(label)))
            means.append(rows[indices == label].mean(axis=0))
    centre = total / count
    centred = np.array(means) - centre  # [source classes, d]
    nearest = []
    for label in np.unique(labels):
        mean = target[labels == label].mean(axis=0) - centre
        lengths = np.linalg.norm(centred, axis=1) * np.linalg.norm(mean)
        cosines = np.divide(
            centred @ mean, lengths, out=np.zeros(len(means)), where=lengths > 0
        )
        best = int(cosines.argmax())
        similarity = float(np.clip(cosines[best], -1, 1))
        nearest.append(NearestClass(int(label), *keys[best], similarity))
    return tuple(nearest)


def _check_labels(name: str, labels: Any, count: int) -> np.ndarray:
    array = flat_classes(np.asarray(labels))
    if array.shape != (count,) or array.dtype.kind not in "iu":
        raise ValueError(
            f"{name} must have {count} integers, one for each example. "
            f"Received: {array.dtype} of shape {array.shape}."
        )
    return array


def _check_pair(source: Any, target: Any) -> tuple[np.ndarray, np.ndarray]:
    source, target = check_features(source), check_features(target)
    if source.shape[1] != target.shape[1]:
        raise ValueError(
            "`source` and `target` must be features of one backbone. Received: "
            f"{source.shape[1]} and {target.shape[1]} columns."
        )
    return source, target


def _predict(
    features: np.ndarray, labels: np.ndarray, classes: int, others: np.ndarray
) -> np.ndarray:
    present = np.unique(labels)
    if len(present) == 1:  # Nothing to fit.
        return np.full(len(others), present[0])
    probe = fit_logistic(features, labels, classes)
    indices: np.ndarray = (others @ probe.kernel + probe.bias).argmax(axis=1)
    return indices
