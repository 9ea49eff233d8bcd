"""`fit_probe`: probes on frozen features, fitted in seconds."""

from __future__ import annotations

import math
import numbers
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from keras_transfer import probes
from keras_transfer._utils.checks import (
    check_integer,
    did_you_mean,
    is_integer,
    refuse,
)
from keras_transfer.data.grouping import complete_groups
from keras_transfer.features.features import (
    BlockColumns,
    Features,
    FeatureSplit,
    unit_norm,
)
from keras_transfer.features.fitted_probe import FittedProbe
from keras_transfer.features.probe_folds import make_folds
from keras_transfer.probes.linear import check_finite

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
    groups: Sequence[Any] | None = None,
) -> FittedProbe:
    """Fits a probe to frozen features, solved exactly.

    Its single hyper-parameter is chosen by the loss on the validation examples
    or, without any, by cross-validation; then the probe is fitted to all
    examples. The kinds are:

    `"logistic"`: `min sum_i -ln softmax(x_i W + b)[y_i] + lambda / 2 sum W^2`
    by L-BFGS, over 45 lambdas between 1e-6 and 1e5; a sigmoid per class if
    examples have several labels. Two classes are one regression, as in
    scikit-learn: the penalty is on the difference of the columns.
    `"ridge"`: `min sum_i |x_i W + b - y_i|^2 + lambda sum W^2` over the same
    lambdas, from one decomposition; for numbers, and for classes coded as -1
    and 1. Without validation examples, lambda is chosen by leave-one-out.
    `"nearest-mean"`: `softmax_c(-|x - m_c|^2 / (2 v))` with the class means
    `m`, over 25 values of the variance `v`.
    `"knn"`: shares of the classes among the k examples with the largest cosine
    similarity; k of 1, 3, 5, 10, 20, 50, chosen by accuracy.
    `"head2toe"`, for the features of many blocks: logistic regression on the
    columns that a group lasso ranks highest; their share is chosen too.

    All views of the training examples are fitted; the views of an example
    together count as one example.

    Args:
        features: `Features` from `extract_features`, or a `FeatureSplit` to
            train on.
        kind: Kind of the probe, see above. Defaults to `"logistic"`.
        strengths: The values to choose from: lambdas, variances or numbers of
            neighbours. Defaults to `None`, the values above.
        standardize: Whether each part (a block of a backbone) is centred and
            divided by a single number, the root of the mean variance of its
            columns, so that lambda means the same for all backbones. The weight
            of a part is then proportional to its number of columns; with
            `False`, parts that were joined at unit norm have equal weight.
            (Dividing each column by its own number would amplify the noise of
            columns that hardly vary.) For `"knn"`: whether parts are scaled to
            unit norm. Defaults to `True`.
        folds: Number of folds of the cross-validation, at least 2. Defaults to
            `5`.
        seed: Seed of the folds. Defaults to `0`.
        groups: One group for each training example (a patient, a scene), such
            as `data.train.groups`, whose examples stay in one fold. Defaults to
            `None`.

    Returns:
        A `FittedProbe`.

    Raises:
        ValueError: If an argument is out of range; if there are no labels, or a
            single class; or if features are not finite, not vectors, or differ
            between the splits.
        TypeError: If `features` is of another type.

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
    target = _target_of(features, kind)
    rows = _gather_rows(features, target, kind, folds, seed, groups)
    if kind == "knn":
        _check_neighbours(strengths, rows)
    parts = features.parts or (BlockColumns("", "", 0, rows.features.shape[1]),)
    scale = _Scale.of(
        rows.features[: rows.num_train],
        parts,
        unit=kind == "head2toe" or (kind == "knn" and standardize),
        center=standardize and kind != "knn",
    )
    chosen = _KINDS[kind](
        probes.Problem(
            scale.apply(rows.features),
            rows.targets,
            target.num_outputs,
            target.kind,
            rows.splits,
            rows.rows_per_example,
        ),
        None if strengths is None else tuple(map(float, strengths)),
    )
    kernel = bias = None
    if chosen.probe is not None:
        # ((x - mean) / by) W + b = x (W / by) + (b - mean (W / by)).
        kernel = chosen.probe.kernel / scale.by[:, None]  # [d, outputs]
        bias = (chosen.probe.bias - scale.mean @ kernel).astype(np.float32)
        kernel = kernel.astype(np.float32)
    return FittedProbe(
        kind,
        target.kind,
        chosen.strength,
        chosen.rows,
        _chosen_by(kind, features, rows),
        _at_edge(kind, chosen, strengths),
        features.class_names,
        features.parts,
        len(scale.by),
        kernel,
        bias,
        chosen.kept,
        target.num_outputs,
        lambda raw: chosen.outputs(scale.apply(raw)),
    )


class _Target(NamedTuple):
    """The kind of the labels, and the number of outputs for them."""

    kind: str
    num_outputs: int


class _Rows(NamedTuple):
    """All rows to fit, and the rows that the strength is chosen by.

    Attributes:
        features: float64 `(n, d)`, a row for each view of each example.
        targets: Targets of the rows, `(n, ...)`.
        splits: Pairs of (rows to fit, rows to choose by).
        rows_per_example: Number of rows of each example.
        num_train: Number of rows of training examples, which come first.
    """

    features: np.ndarray
    targets: np.ndarray
    splits: tuple[tuple[np.ndarray, np.ndarray], ...]
    rows_per_example: int
    num_train: int


class _Scale(NamedTuple):
    """Scaling `(x - mean) / by`, after scaling `units` to unit norm."""

    mean: np.ndarray
    by: np.ndarray
    units: tuple[BlockColumns, ...]

    @classmethod
    def of(
        cls,
        x: np.ndarray,
        parts: Sequence[BlockColumns],
        unit: bool,
        center: bool,
    ) -> _Scale:
        """Fits the scaling to features `(n, d)`."""
        width = x.shape[1]
        units = tuple(parts) if unit else ()
        identity = cls(np.zeros(width), np.ones(width), units)
        if not center:
            return identity
        x = identity.apply(x)
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
            "`features` must be `Features` from `extract_features`. Received: "
            f"{type(features).__name__}. Join several by `stack_features`; for "
            "arrays, use `keras_transfer.probes`."
        )
    train, validation = features.train, _validation(features)
    for name, split in (("train", train), ("validation", validation)):
        if split is None:
            continue
        if len(split.shape) != 1:
            raise ValueError(
                "`features` must be vectors, one per example. Received: "
                f"{name} features of shape {split.shape}. Extract them with "
                '`pooling="avg"`.'
            )
        if split.labels is None:
            raise ValueError(
                f"`features` must have labels. Received: {name} features "
                "without any. Extract them from an `ImageData` or from a pair "
                "(images, labels)."
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
        refuse("strengths", "finite numbers above 0, at least one", strengths)
    check_integer("folds", folds, 2)
    check_integer("seed", seed, 0)


def _target_of(features: Features, kind: str) -> _Target:
    """Reads off the labels whether they are classes, several, or numbers."""
    splits = [s for s in (features.train, _validation(features)) if s]
    all_labels = [np.asarray(split.labels) for split in splits]
    labels = all_labels[0]
    if any(other.shape[1:] != labels.shape[1:] for other in all_labels):
        raise ValueError(
            "`features` must have labels of one shape in all splits. Received: "
            f"{', '.join(str(other.shape) for other in all_labels)}."
        )
    if labels.ndim == 1 and labels.dtype.kind in "iub":
        return _class_target(all_labels, features.class_names)
    binary = all(((y == 0) | (y == 1)).all() for y in all_labels)
    if labels.ndim == 2 and binary:
        if (labels == labels[0]).all():
            raise ValueError(
                "`features` must have labels that differ between training "
                "examples. Received: the same labels for all of them."
            )
        if kind == "nearest-mean":
            raise ValueError(
                '`kind` must be "logistic", "ridge", "knn" or "head2toe" for '
                "examples with several labels, because the means of "
                "overlapping classes do not separate them. Received: "
                'kind="nearest-mean".'
            )
        return _Target("multi-label", labels.shape[1])
    if kind != "ridge":
        raise ValueError(
            '`kind` must be "ridge" for labels that are numbers. Received: '
            f'kind="{kind}", labels of {labels.dtype} of shape '
            f"{labels.shape}. Classes are integers (n,), or 0 and 1 (n, "
            "num_classes)."
        )
    if labels.ndim > 2 or not all(np.isfinite(y).all() for y in all_labels):
        raise ValueError(
            "`features` must have finite labels of shape (n,) or (n, outputs). "
            f"Received: labels of shape {labels.shape}."
        )
    return _Target("regression", 1 if labels.ndim == 1 else labels.shape[1])


def _class_target(
    all_labels: Sequence[np.ndarray], names: tuple[str, ...] | None
) -> _Target:
    largest = max(int(labels.max()) for labels in all_labels)
    smallest = min(int(labels.min()) for labels in all_labels)
    size = len(names) if names else largest + 1
    if smallest < 0 or largest >= size:
        raise ValueError(
            f"`features` must have labels in [0, {size}), one for each class. "
            f"Received: labels from {smallest} to {largest}."
        )
    present = len(np.unique(all_labels[0]))
    if present < 2:
        raise ValueError(
            "`features` must have training examples of at least two classes. "
            f"Received: {present}."
        )
    return _Target("classification", size)


def _gather_rows(
    features: Features,
    target: _Target,
    kind: str,
    folds: int,
    seed: int,
    groups: Sequence[Any] | None,
) -> _Rows:
    """Gathers all rows to fit, those of validation examples last."""
    train, validation = features.train, _validation(features)
    views = train.views
    # [examples, views, d] -> [examples * views, d]: the rows of an example are
    # adjacent, its first view first.
    x = train.all_views.reshape(-1, train.shape[0])
    y = _targets(train, target)
    num_train = len(x)
    keys = complete_groups(groups, tuple(map(str, range(len(y)))))
    splits: tuple[tuple[np.ndarray, np.ndarray], ...] = ()
    if validation is not None:
        # Repeated, so that each counts as much as a training example.
        x = np.concatenate([x, np.repeat(validation.values, views, axis=0)])
        y = np.concatenate([y, _targets(validation, target)])
        splits = ((np.arange(num_train), np.arange(num_train, len(x), views)),)
    elif kind != "ridge" or views > 1 or keys is not None:
        # Without them, ridge has leave-one-out instead.
        # All views are fitted, and only the first is predicted.
        splits = tuple(
            (_rows_of(fit, views), held_out * views)
            for fit, held_out in make_folds(y, target.kind, folds, seed, keys)
        )
    y = np.repeat(y, views, axis=0)
    check_finite(x)
    return _Rows(x.astype(np.float64), y, splits, views, num_train)


def _targets(split: FeatureSplit, target: _Target) -> np.ndarray:
    labels = np.asarray(split.labels)
    if target.kind == "classification":
        return labels.astype(np.int64)
    return labels.astype(np.float64).reshape(len(labels), target.num_outputs)


def _rows_of(examples: np.ndarray, views: int) -> np.ndarray:
    """Returns the rows of all views of examples."""
    return (examples[:, None] * views + np.arange(views)).ravel()


def _check_neighbours(strengths: Sequence[float] | None, rows: _Rows) -> None:
    sizes = [len(fit) for fit, _ in rows.splits] or [len(rows.features)]
    if strengths is None:
        return
    if not all(is_integer(k) and k <= min(sizes) for k in strengths):
        refuse(
            "strengths",
            'integers for `kind="knn"`, numbers of neighbours from 1 to '
            f"{min(sizes)}",
            strengths,
        )


def _chosen_by(kind: str, features: Features, rows: _Rows) -> str:
    validation = _validation(features)
    if validation is not None:
        return f"{len(validation)} validation examples"
    if kind == "ridge" and rows.rows_per_example == 1 and not rows.splits:
        return "leave-one-out"
    if rows.splits:
        return f"{len(rows.splits)}-fold cross-validation"
    return "default, since each class has a single example"


def _at_edge(
    kind: str, chosen: probes.ChosenProbe, strengths: Sequence[float] | None
) -> bool:
    if not chosen.rows or (strengths is not None and len(strengths) < 2):
        return False
    tried = [row.strength for row in chosen.rows]
    if kind == "knn":
        return chosen.strength == max(tried) > 1
    # The path stops early only after the loss has risen, so the last row of
    # such a path is never the chosen one.
    return chosen.strength in (min(tried), max(tried))
