"""`fit_probe`: what frozen features know, in seconds and without training."""

from __future__ import annotations

import math
import numbers
import warnings
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from keras_transfer import probes
from keras_transfer._utils.checks import did_you_mean, is_integer
from keras_transfer.features.features import (
    Features,
    FeatureSplit,
    Part,
    unit_norm,
)
from keras_transfer.features.fitted_probe import FittedProbe

_KINDS = {
    "logistic": probes.logistic,
    "ridge": probes.ridge,
    "knn": probes.neighbours,
    "nearest-mean": probes.nearest_mean,
    "head2toe": probes.head2toe,
}


def fit_probe(
    features: Features | FeatureSplit,
    *,
    kind: str = "logistic",
    strengths: Sequence[float] | None = None,
    standardize: bool = True,
    folds: int = 5,
    seed: int = 0,
) -> FittedProbe:
    """Fits a probe to frozen features, solved to the end.

    Its one free number is chosen by the loss on the validation examples, or by
    cross-validation where there are none; then it is fitted to all of them. It
    is one of:

    `"logistic"`: `min sum_i -ln softmax(x_i W + b)[y_i] + lambda / 2 sum W^2`
    by L-BFGS, over 45 lambdas between 1e-6 and 1e5; for several labels an
    example a sigmoid for each. Two classes are one regression, as in
    scikit-learn: the penalty is on the difference of the columns.
    `"ridge"`: `min sum_i |x_i W + b - y_i|^2 + lambda sum W^2`, the same
    lambdas, from one decomposition; for numbers, and for classes coded as -1
    and 1. Without validation examples lambda is chosen by leave-one-out.
    `"nearest-mean"`: `softmax_c(-|x - m_c|^2 / (2 v))` with the class means
    `m` and the variance `v` in 25 values.
    `"knn"`: the shares of the classes among the k examples with the largest
    cosine; k of 1, 3, 5, 10, 20, 50, chosen by accuracy.
    `"head2toe"`: for the features of many blocks: logistic regression on those
    columns that a group lasso ranks highest; their share is chosen too.

    All views of training examples are fitted, those of one example together
    counting as one.

    Args:
        features: What `extract_features` returned: `Features`, or a
            `FeatureSplit` to train on.
        kind: See above. Defaults to `"logistic"`.
        strengths: The values to choose from: lambdas, variances or numbers of
            neighbours. Defaults to `None`, those above.
        standardize: Whether each part (a block of a backbone) is centred and
            divided by one number, the root of the mean variance of its
            columns, so that lambda means the same for all backbones. A part
            then weighs as many times more as it has more columns; `False`
            leaves parts that were joined at unit norm, which weigh the same.
            (A number for each column would raise the noise of those that
            hardly vary.) For `"knn"`: whether parts
            are brought to unit norm. Defaults to `True`.
        folds: Number of parts for cross-validation, 2 or more. Defaults to
            `5`.
        seed: Of the folds. Defaults to `0`.

    Returns:
        A `FittedProbe`.

    Raises:
        ValueError: If an argument is out of range; if there are no labels, one
            class alone, or features that are not finite, no vectors, or
            differ between the splits.
        TypeError: If `features` is something else.

    Example:

    >>> data = load_images((arrays, labels), split=(0.8, 0.0, 0.2))
    >>> features = extract_features(backbone, data, verbose=0)
    >>> probe = fit_probe(features, kind="ridge")
    >>> len(probe.evaluate(features.test).ids)
    6

    Reference:
        - Kornblith et al., 2019, https://arxiv.org/abs/1805.08974
        - Evci et al., 2022, https://arxiv.org/abs/2201.03529 (Head2Toe)
    """
    features = _check_features(features)
    _check_arguments(kind, strengths, folds, seed)
    problem = _problem_of(features, kind)
    rows = _gather(features, problem, kind, folds, seed)
    if kind == "knn":
        _check_neighbours(strengths, rows)
    parts = features.parts or (Part("", "", 0, rows.features.shape[1]),)
    scale = _Scale.of(
        rows.features[: rows.num_train],
        parts,
        unit=kind == "head2toe" or (kind == "knn" and standardize),
        center=standardize and kind != "knn",
    )
    choice = _KINDS[kind](
        probes.Problem(
            scale.apply(rows.features),
            rows.targets,
            problem.num_outputs,
            problem.kind,
            rows.splits,
            rows.copies,
        ),
        None if strengths is None else tuple(map(float, strengths)),
    )
    kernel = bias = None
    if choice.probe is not None:
        kernel = choice.probe.kernel / scale.by[:, None]
        bias = (choice.probe.bias - scale.mean @ kernel).astype(np.float32)
        kernel = kernel.astype(np.float32)
    return FittedProbe(
        kind,
        problem.kind,
        choice.strength,
        choice.rows,
        _chosen_by(kind, features, rows),
        _at_edge(kind, choice, strengths),
        features.class_names,
        features.parts,
        len(scale.by),
        kernel,
        bias,
        choice.kept,
        problem.num_outputs,
        lambda raw: choice.outputs(scale.apply(raw)),
    )


class _Target(NamedTuple):
    kind: str
    num_outputs: int


class _Rows(NamedTuple):
    features: np.ndarray
    targets: np.ndarray
    splits: tuple[tuple[np.ndarray, np.ndarray], ...]
    copies: int
    num_train: int


class _Scale(NamedTuple):
    """`(x - mean) / by`, of parts at unit norm if so wanted."""

    mean: np.ndarray
    by: np.ndarray
    units: tuple[Part, ...]

    @classmethod
    def of(
        cls, x: np.ndarray, parts: Sequence[Part], unit: bool, center: bool
    ) -> _Scale:
        width = x.shape[1]
        units = tuple(parts) if unit else ()
        found = cls(np.zeros(width), np.ones(width), units)
        if not center:
            return found
        x = found.apply(x)
        by, variances = np.ones(width), x.var(axis=0)
        for part in parts:
            columns = slice(part.start, part.stop)
            by[columns] = math.sqrt(variances[columns].mean()) or 1.0
        return cls(x.mean(axis=0), by, units)

    def apply(self, x: np.ndarray) -> np.ndarray:
        if self.units:
            x = x.copy()
        for part in self.units:
            columns = slice(part.start, part.stop)
            x[:, columns] = unit_norm(x[:, columns])
        return (x - self.mean) / self.by


def _check_features(features: Features | FeatureSplit) -> Features:
    if isinstance(features, FeatureSplit):
        features = Features(features)
    if not isinstance(features, Features):
        raise TypeError(
            "`features` must be what `extract_features` returned. Received: "
            f"{type(features).__name__}. Several: `stack_features`; arrays: "
            "`keras_transfer.probes`."
        )
    train, validation = features.train, _validation(features)
    for name, split in (("train", train), ("validation", validation)):
        if split is None:
            continue
        if len(split.shape) != 1:
            raise ValueError(
                "`features` must be vectors, one for each example. Received: "
                f"{name} features of shape {split.shape}. Extract them with "
                '`pooling="avg"`.'
            )
        if split.labels is None:
            raise ValueError(
                f"`features` must have labels. Received: {name} features "
                "without any. Extract them from what `load_images` returned, "
                "or from a pair (images, labels)."
            )
    if len(train) < 2:
        raise ValueError(
            "`features` must hold at least two training examples. Received: "
            f"{len(train)}."
        )
    if validation is not None and (
        validation.shape != train.shape or validation.parts != train.parts
    ):
        raise ValueError(
            "`features` must be of the same backbones and blocks in all "
            f"splits. Received: train {train!r}, validation {validation!r}."
        )
    return features


def _validation(features: Features) -> FeatureSplit | None:
    split = features.validation
    return split if split is not None and len(split) else None


def _check_arguments(
    kind: str, strengths: Sequence[float] | None, folds: int, seed: int
) -> None:
    if kind not in _KINDS:
        raise ValueError(
            f"`kind` must be one of {', '.join(map(repr, _KINDS))}. Received: "
            f"kind={kind!r}.{did_you_mean(str(kind), _KINDS)}"
        )
    if strengths is not None and (
        not len(strengths)
        or not all(
            isinstance(s, numbers.Real) and 0 < float(s) < math.inf
            for s in strengths
        )
    ):
        raise ValueError(
            "`strengths` must be finite numbers above 0, at least one. "
            f"Received: strengths={strengths!r:.100}"
        )
    if not is_integer(folds) or folds < 2:
        raise ValueError(
            f"`folds` must be an integer of at least 2. Received: {folds!r}"
        )
    if not is_integer(seed) or seed < 0:
        raise ValueError(
            f"`seed` must be an integer of at least 0. Received: {seed!r}"
        )


def _problem_of(features: Features, kind: str) -> _Target:
    """What the labels ask for: classes, several of them, or numbers."""
    splits = [s for s in (features.train, _validation(features)) if s]
    given = [np.asarray(split.labels) for split in splits]
    labels = given[0]
    if any(other.shape[1:] != labels.shape[1:] for other in given):
        raise ValueError(
            "`features` must have labels of one shape in all splits. Received: "
            f"{', '.join(str(other.shape) for other in given)}."
        )
    if labels.ndim == 1 and labels.dtype.kind in "iub":
        return _classes(given, features.class_names)
    binary = all(((y == 0) | (y == 1)).all() for y in given)
    if labels.ndim == 2 and binary:
        if (labels == labels[0]).all():
            raise ValueError(
                "`features` must have labels that differ between training "
                "examples. Received: the same for all of them."
            )
        if kind == "nearest-mean":
            raise ValueError(
                '`kind` must be "logistic", "ridge", "knn" or "head2toe" for '
                "examples with several labels: the means of classes that "
                'overlap do not tell them apart. Received: kind="nearest-mean"'
            )
        return _Target("multi-label", labels.shape[1])
    if kind != "ridge":
        raise ValueError(
            '`kind` must be "ridge" for labels that are numbers. Received: '
            f'kind="{kind}", labels of {labels.dtype} of shape '
            f"{labels.shape}. Classes are integers (n,), or 0 and 1 (n, "
            "num_classes)."
        )
    if labels.ndim > 2 or not all(np.isfinite(y).all() for y in given):
        raise ValueError(
            "`features` must have labels (n,) or (n, outputs), all of them "
            f"finite. Received: labels of shape {labels.shape}."
        )
    return _Target("regression", 1 if labels.ndim == 1 else labels.shape[1])


def _classes(
    given: Sequence[np.ndarray], names: tuple[str, ...] | None
) -> _Target:
    largest = max(int(labels.max()) for labels in given)
    smallest = min(int(labels.min()) for labels in given)
    size = len(names) if names else largest + 1
    if smallest < 0 or largest >= size:
        raise ValueError(
            f"`features` must have labels in [0, {size}), one for each class. "
            f"Received: labels from {smallest} to {largest}."
        )
    present = len(np.unique(given[0]))
    if present < 2:
        raise ValueError(
            "`features` must have training examples of at least two classes. "
            f"Received: {present}."
        )
    return _Target("classification", size)


def _gather(
    features: Features, problem: _Target, kind: str, folds: int, seed: int
) -> _Rows:
    """All rows to fit, those of validation last, and who judges whom."""
    train, validation = features.train, _validation(features)
    copies = train.views
    x = train.all_views.reshape(-1, train.shape[0])
    y = _targets(train, problem)
    num_train = len(x)
    splits: tuple[tuple[np.ndarray, np.ndarray], ...] = ()
    if validation is not None:
        # Each counts as much as a training example.
        x = np.concatenate([x, np.repeat(validation.values, copies, axis=0)])
        y = np.concatenate([y, _targets(validation, problem)])
        splits = ((np.arange(num_train), np.arange(num_train, len(x), copies)),)
    elif kind != "ridge" or copies > 1:  # it leaves each out in closed form
        splits = tuple(
            (_places(some, copies), held * copies)
            for some, held in _folds(y, problem.kind, folds, seed)
        )
    y = np.repeat(y, copies, axis=0)
    if not np.isfinite(x).all():
        raise ValueError(
            "`features` must be finite. Received: NaN or infinity; check the "
            "weights of the backbone and the pixels."
        )
    return _Rows(x.astype(np.float64), y, splits, copies, num_train)


def _targets(split: FeatureSplit, problem: _Target) -> np.ndarray:
    labels = np.asarray(split.labels)
    if problem.kind == "classification":
        return labels.astype(np.int64)
    return labels.astype(np.float64).reshape(len(labels), problem.num_outputs)


def _places(examples: np.ndarray, copies: int) -> np.ndarray:
    return (examples[:, None] * copies + np.arange(copies)).ravel()


def _folds(
    targets: np.ndarray, kind: str, folds: int, seed: int
) -> list[tuple[np.ndarray, np.ndarray]]:
    from sklearn.model_selection import KFold, StratifiedKFold

    if kind != "classification":
        maker = KFold(min(folds, len(targets)), shuffle=True, random_state=seed)
        return list(maker.split(targets))
    count = min(folds, int(np.bincount(targets).max()))
    if count < 2:
        return []
    maker = StratifiedKFold(count, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        # A class of fewer examples than folds is missing in some of them.
        warnings.filterwarnings("ignore", "The least populated class")
        warnings.filterwarnings("ignore", "The number of unique classes")
        return list(maker.split(targets, targets))


def _check_neighbours(strengths: Sequence[float] | None, rows: _Rows) -> None:
    sizes = [len(some) for some, _ in rows.splits] or [len(rows.features)]
    if strengths is None:
        return
    if not all(is_integer(k) and k <= min(sizes) for k in strengths):
        raise ValueError(
            '`strengths` must be integers for `kind="knn"`, numbers of '
            f"neighbours from 1 to {min(sizes)}. Received: "
            f"strengths={strengths!r:.100}"
        )


def _chosen_by(kind: str, features: Features, rows: _Rows) -> str:
    validation = _validation(features)
    if validation is not None:
        return f"{len(validation)} validation examples"
    if kind == "ridge" and rows.copies == 1:
        return "leave-one-out"
    if rows.splits:
        return f"{len(rows.splits)}-fold cross-validation"
    return "default, since each class has one example alone"


def _at_edge(
    kind: str, choice: probes.Choice, strengths: Sequence[float] | None
) -> bool:
    if not choice.rows or (strengths is not None and len(strengths) < 2):
        return False
    walked = [row.strength for row in choice.rows]
    if kind == "knn":
        return choice.strength == max(walked) > 1
    # A path that ended early has shown that what lies beyond is worse.
    return choice.strength in (min(walked), max(walked))
