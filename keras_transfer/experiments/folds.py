"""Folds of a data set, stratified, with identical examples in one fold."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Any

import numpy as np

from keras_transfer.data import LabelledData, scanning, splitting
from keras_transfer.data.adapters.opening import open_data
from keras_transfer.data.grouping import complete_groups, join_groups
from keras_transfer.data.images.pixels import digest_image

# --- The examples ---


@dataclasses.dataclass(frozen=True)
class Pool:
    """The examples to divide into folds.

    Attributes:
        ids: Name of each example.
        classes: Names of the classes of each example; empty for regression.
        exclusive: Whether each example has exactly one class.
        groups: int `(n,)`, equal for identical examples.
        digest: Hexadecimal digest of examples and labels.
        together: int `(n,)`, equal for examples that stay in one fold: those
            that are identical, or of one group.
        select: Function from indices for training, validation and test to data
            for `fine_tune`.
    """

    ids: tuple[str, ...]
    classes: tuple[tuple[str, ...], ...]
    exclusive: bool
    groups: np.ndarray
    digest: str
    together: np.ndarray
    select: Callable[[np.ndarray, np.ndarray, np.ndarray], Any]


def pool_labelled(data: LabelledData) -> Pool:
    """Joins the training and validation examples of labelled data."""
    splits = [s for s in (data.train, data.validation) if len(s)]
    sources = {id(getattr(split, "pixels", None)) for split in splits}
    if len(sources) > 1:
        raise ValueError(
            "`data` must hold train and validation images of one source. "
            "Received: images of two. Load them together: `load_images({"
            '"train": ..., "validation": ...})`.'
        )
    joined = splits[0]
    for split in splits[1:]:
        joined = joined.joined(split)
    # Sorted by id, so that the original splits do not matter.
    order = sorted(range(len(joined)), key=joined.ids.__getitem__)
    whole = joined.subset(order)
    report = data.report
    group_names = {
        name: group[0]
        for groups in (report.copies, report.leaks, report.conflicts)
        for group in groups
        for name in group
    }
    size = getattr(data, "image_size", None)
    digest = hashlib.sha256(repr((data.class_names, size)).encode())
    resize = getattr(data, "resize", "stretch")
    if resize != "stretch":  # Otherwise as before there were others.
        digest.update(resize.encode())
    digest.update(repr(whole.ids).encode("utf-8", "surrogatepass"))
    digest.update(np.ascontiguousarray(whole.labels).tobytes())

    def select(
        train: np.ndarray, validation: np.ndarray, test: np.ndarray
    ) -> LabelledData:
        parts = {"train": train, "validation": validation, "test": test}
        return dataclasses.replace(
            data,
            **{  # type: ignore[arg-type]
                name: dataclasses.replace(whole.subset(indices), name=name)
                for name, indices in parts.items()
            },
        )

    groups = numbered(group_names.get(name, name) for name in whole.ids)
    if whole.groups is not None:
        digest.update(repr(whole.groups).encode("utf-8", "surrogatepass"))
    kind = "multi-hot" if data.train.multi_label else "indices"
    return Pool(
        ids=whole.ids,
        classes=classes_of(whole.labels, kind, data.class_names),
        exclusive=not data.train.multi_label,
        groups=groups,
        digest=digest.hexdigest(),
        together=_together(groups, whole.groups),
        select=select,
    )


def make_pool(data: Any, format_for: Callable[[str], str]) -> Pool:
    """Makes a `Pool` from a pair of arrays.

    Args:
        data: The pair.
        format_for: Function from the format of the labels to the one in which
            the model is trained: integers may be numbers to predict.
    """
    if not isinstance(data, tuple | list) or len(data) != 2:
        raise TypeError(
            "`data` must be labelled data, such as from `load_images`, or a "
            "pair (inputs, labels) of arrays. Received: "
            f"{type(data).__name__}"
        )
    pair = (np.asarray(data[0]), np.asarray(data[1]))
    # Checks the arrays, and detects the kind of labels.
    source = open_data(pair, batch_size=1, seed=0, augment=None, cache=None)
    label_format = format_for(source.label_format)

    def select(
        train: np.ndarray, validation: np.ndarray, test: np.ndarray
    ) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        parts = {"train": train, "validation": validation, "test": test}
        return {
            name: (pair[0][indices], pair[1][indices])
            for name, indices in parts.items()
            if len(indices)
        }

    groups = numbered(
        row if isinstance(row, str) else digest_image(row) for row in pair[0]
    )
    return Pool(
        ids=tuple(map(str, range(len(pair[0])))),
        classes=classes_of(pair[1], label_format),
        exclusive=label_format in ("indices", "one-hot"),
        groups=groups,
        digest=source.digest(),
        together=groups,
        select=select,
    )


def with_groups(pool: Pool, groups: Any, data: Any) -> Pool:
    """Returns the pool with one more group for each example.

    Args:
        pool: The pool.
        groups: One group for each example, as `load_images` takes them, or
            `None`.
        data: The data of the pool.

    Raises:
        ValueError: If there are not as many, one is missing, or the data have
            groups of their own.
    """
    if groups is None:
        return pool
    if isinstance(data, LabelledData):
        raise ValueError(
            "`groups` must be None for data from `load_images` or "
            "`load_texts`, which have groups of their own if they were loaded "
            "with them. Received: both. Pass `groups` to these."
        )
    keys = complete_groups(groups, pool.ids)
    digest = hashlib.sha256(f"{pool.digest} {keys}".encode()).hexdigest()
    return dataclasses.replace(
        pool, digest=digest, together=_together(pool.groups, keys)
    )


def _together(
    groups: np.ndarray, keys: Sequence[Hashable] | None
) -> np.ndarray:
    """Joins groups of identical examples with further ones."""
    joined = join_groups(scanning.group_equal(groups.tolist()), keys)
    together = np.empty(len(groups), np.int64)
    for number, group in enumerate(joined):
        together[group] = number
    return together


def classes_of(
    labels: np.ndarray, kind: str, names: tuple[str, ...] | None = None
) -> tuple[tuple[str, ...], ...]:
    """Returns the names of the classes of each example."""
    if kind in ("numbers", "fractions", "soft"):
        return ((),) * len(labels)
    if kind == "indices":
        rows = [[int(label)] for label in labels.reshape(-1)]
    else:
        rows = [np.flatnonzero(row).tolist() for row in labels]
    return tuple(
        tuple(names[i] if names else str(i) for i in row) for row in rows
    )


def numbered(keys: Iterable[Hashable]) -> np.ndarray:
    """Numbers keys by their first appearance."""
    numbers: dict[Hashable, int] = {}
    return np.array([numbers.setdefault(key, len(numbers)) for key in keys])


# --- The folds ---


def make_folds(pool: Pool, folds: int, seed: int) -> list[np.ndarray]:
    """Returns the held-out indices of each fold."""
    from sklearn import model_selection

    strata = pool.classes if pool.exclusive else ((),) * len(pool.ids)
    groups: dict[tuple[str, ...], set[int]] = {}
    for names, group in zip(strata, pool.together.tolist(), strict=True):
        groups.setdefault(names, set()).add(group)
    smallest = min(groups, key=lambda names: len(groups[names]))
    most = len(groups[smallest])
    if folds > most:
        of_class = f' of class "{smallest[0]}"' if smallest else ""
        raise ValueError(
            f"`folds` must be at most {most}, the number of different "
            f"examples or groups{of_class}. Received: folds={folds}"
        )
    has_duplicates = len(set(pool.together.tolist())) < len(pool.together)
    if pool.exclusive:
        splitter = (
            "StratifiedGroupKFold" if has_duplicates else "StratifiedKFold"
        )
    else:
        splitter = "GroupKFold" if has_duplicates else "KFold"
    splits = getattr(model_selection, splitter)(
        folds, shuffle=True, random_state=seed % 2**32
    ).split(
        np.zeros(len(pool.ids)),
        numbered(strata),
        pool.together if has_duplicates else None,
    )
    return [held_out for _, held_out in splits]


def draw_labels(
    pool: Pool, indices: np.ndarray, count: int, seed: int
) -> np.ndarray:
    """Draws `count` different examples of each class, by their ids."""
    counts = count_labels(pool, indices)
    smallest = min(counts, key=counts.__getitem__)
    if counts[smallest] < count:
        raise ValueError(
            f"`labels_per_class` must be at most {counts[smallest]}, the "
            "number of different examples that a fold leaves of class "
            f'"{smallest}" to train with. Received: labels_per_class={count}'
        )
    indices = without_duplicates(pool, indices)
    ids = [pool.ids[i] for i in indices]
    classes = numbered(pool.classes)[indices]
    return indices[splitting.draw_shots(ids, classes, count, seed)]


def without_duplicates(pool: Pool, indices: np.ndarray) -> np.ndarray:
    """Returns the first index of each group of identical examples."""
    _, first = np.unique(pool.groups[indices], return_index=True)
    return indices[np.sort(first)]


def count_labels(pool: Pool, indices: np.ndarray) -> dict[str, int]:
    """Returns the number of different examples of each class."""
    if not (pool.exclusive and pool.classes):
        raise ValueError(
            "`labels_per_class` needs one class for each example. Received: "
            "several labels per example, or numbers."
        )
    counts = dict.fromkeys((name for (name,) in pool.classes), 0)
    for index in without_duplicates(pool, indices):
        counts[pool.classes[index][0]] += 1
    return counts


def labels_left(data: LabelledData, folds: int, seed: int) -> dict[str, int]:
    """Returns the number of labels of each class in every training set.

    Args:
        data: The data.
        folds: Number of folds.
        seed: Seed, as for `cross_validate`.

    Returns:
        Dictionary from class names that occur to the smallest number of
        different examples, over the folds.

    Raises:
        ValueError: If `folds` is more than a class has different examples, or
            an example has several classes.

    Example:

    >>> data = load_images((arrays, labels), split=(1.0, 0.0, 0.0))
    >>> sorted(labels_left(data, folds=2, seed=0)) == sorted(data.class_names)
    True
    """
    pool = pool_labelled(data)
    everything = np.arange(len(pool.ids))
    counts = [
        count_labels(pool, np.setdiff1d(everything, part))
        for part in make_folds(pool, folds, seed)
    ]
    return {name: min(part[name] for part in counts) for name in counts[0]}


def split_off(
    pool: Pool, indices: np.ndarray, fraction: float, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Divides indices into those for training and for validation."""
    if not fraction:
        return indices, indices[:0]
    parts = splitting.split_examples(
        [pool.ids[i] for i in indices],
        [pool.classes[i] for i in indices],
        scanning.group_equal(pool.together[indices].tolist()),
        {"train": 1 - fraction, "validation": fraction},
        seed,
    )
    chosen = np.array(parts) == "validation"
    if not chosen.any():
        raise ValueError(
            "`validation_fraction` must give at least one of the "
            f"{len(indices)} training examples of a fold. Received: "
            f"validation_fraction={fraction}"
        )
    return indices[~chosen], indices[chosen]
