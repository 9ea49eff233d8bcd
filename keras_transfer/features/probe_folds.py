"""Folds of the cross-validation of a probe."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np


def make_folds(
    targets: np.ndarray,
    kind: str,
    folds: int,
    seed: int,
    groups: Sequence[str] | None = None,
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Divides examples into folds with scikit-learn's splitters.

    Args:
        targets: The targets `(n, ...)`.
        kind: Kind of the target; `"classification"` is stratified.
        folds: Number of folds, at most.
        seed: Seed of the folds.
        groups: Group of each example, whose examples stay in one fold. Defaults
            to `None`.

    Returns:
        Pairs of the indices to fit and those held out; none if classes have a
        single example.

    Raises:
        ValueError: If all examples are of one group.
    """
    from sklearn import model_selection

    stratified = kind == "classification"
    most = len(targets)
    if stratified:
        most = int(np.bincount(targets).max())
    if groups is not None:
        if len(set(groups)) < 2:
            raise ValueError(
                "`groups` must hold at least two groups, so that each fold is "
                f"of others than it is fitted to. Received: {set(groups)}. "
                "Pass features with validation examples, or groups=None."
            )
        most = min(most, len(set(groups)))
    count = min(folds, most)
    if count < 2:
        return []
    name = ("Stratified" if stratified else "") + (
        "KFold" if groups is None else "GroupKFold"
    )
    splitter = getattr(model_selection, name)(
        count, shuffle=True, random_state=seed
    )
    with warnings.catch_warnings():
        # Classes with fewer examples than folds are absent from some folds.
        warnings.filterwarnings("ignore", "The least populated class")
        warnings.filterwarnings("ignore", "The number of unique classes")
        return list(splitter.split(targets, targets, groups))
