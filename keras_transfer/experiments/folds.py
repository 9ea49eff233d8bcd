"""Folds of a data set."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Hashable, Iterable
from typing import Any

import numpy as np

from keras_transfer.data import LabelledData, scanning, splitting
from keras_transfer.data.adapters.opening import open_data
from keras_transfer.data.images.pixels import digest_image

# --- The examples ---


@dataclasses.dataclass(frozen=True)
class Pool:
    """All examples that are divided into folds.

    Attributes:
        ids: One string an example.
        classes: For each example the names of its classes; none for numbers.
        exclusive: Whether each example has exactly one.
        groups: int `(n,)`: equal for identical examples.
        digest: Hexadecimal digest.
        select: Function from the indices to train, to choose and to measure
            with to data for `fine_tune`.
    """

    ids: tuple[str, ...]
    classes: tuple[tuple[str, ...], ...]
    exclusive: bool
    groups: np.ndarray
    digest: str
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
    # By id, so that it does not matter which split an image came from.
    order = sorted(range(len(joined)), key=joined.ids.__getitem__)
    whole = joined.subset(order)
    report = data.report
    same = {
        name: group[0]
        for groups in (report.copies, report.leaks, report.conflicts)
        for group in groups
        for name in group
    }
    size = getattr(data, "image_size", None)
    digest = hashlib.sha256(repr((data.class_names, size)).encode())
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

    kind = "multi-hot" if data.train.multi_label else "indices"
    return Pool(
        ids=whole.ids,
        classes=classes_of(whole.labels, kind, data.class_names),
        exclusive=not data.train.multi_label,
        groups=numbered(same.get(name, name) for name in whole.ids),
        digest=digest.hexdigest(),
        select=select,
    )


def make_pool(data: Any) -> Pool:
    """Makes a pool of a pair of arrays."""
    if not isinstance(data, tuple | list) or len(data) != 2:
        raise TypeError(
            "`data` must be what `load_images` returned, or a pair (inputs, "
            f"labels) of arrays. Received: {type(data).__name__}"
        )
    pair = (np.asarray(data[0]), np.asarray(data[1]))
    # Checks them, and tells what the labels are.
    source = open_data(pair, batch_size=1, seed=0, augment=None, cache=None)

    def select(
        train: np.ndarray, validation: np.ndarray, test: np.ndarray
    ) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        parts = {"train": train, "validation": validation, "test": test}
        return {
            name: (pair[0][indices], pair[1][indices])
            for name, indices in parts.items()
            if len(indices)
        }

    return Pool(
        ids=tuple(map(str, range(len(pair[0])))),
        classes=classes_of(pair[1], source.label_format),
        exclusive=source.label_format in ("indices", "one-hot"),
        groups=numbered(
            row if isinstance(row, str) else digest_image(row)
            for row in pair[0]
        ),
        digest=source.digest(),
        select=select,
    )


def classes_of(
    labels: np.ndarray, kind: str, names: tuple[str, ...] | None = None
) -> tuple[tuple[str, ...], ...]:
    """Returns the names of the classes of each example."""
    if kind == "numbers":
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
    """Returns the indices that each fold holds out."""
    from sklearn import model_selection

    strata = pool.classes if pool.exclusive else ((),) * len(pool.ids)
    different: dict[tuple[str, ...], set[int]] = {}
    for names, group in zip(strata, pool.groups.tolist(), strict=True):
        different.setdefault(names, set()).add(group)
    smallest = min(different, key=lambda names: len(different[names]))
    most = len(different[smallest])
    if folds > most:
        of_class = f' of class "{smallest[0]}"' if smallest else ""
        raise ValueError(
            f"`folds` must be at most {most}, the number of different "
            f"examples{of_class}. Received: folds={folds}"
        )
    copies = len(set(pool.groups.tolist())) < len(pool.groups)
    if pool.exclusive:
        make = "StratifiedGroupKFold" if copies else "StratifiedKFold"
    else:
        make = "GroupKFold" if copies else "KFold"
    divide = getattr(model_selection, make)(
        folds, shuffle=True, random_state=seed % 2**32
    )
    parts = divide.split(
        np.zeros(len(pool.ids)),
        numbered(strata),
        pool.groups if copies else None,
    )
    return [held_out for _, held_out in parts]


def draw_labels(
    pool: Pool, indices: np.ndarray, count: int, seed: int
) -> np.ndarray:
    """Draws as many different examples of each class, by their ids."""
    left = left_in_fold(pool, indices)
    smallest = min(left, key=left.__getitem__)
    if left[smallest] < count:
        raise ValueError(
            f"`labels_per_class` must be at most {left[smallest]}, the number "
            f'of different examples that a fold leaves of class "{smallest}" '
            f"to train with. Received: labels_per_class={count}"
        )
    indices = differ(pool, indices)
    ids = [pool.ids[i] for i in indices]
    classes = numbered(pool.classes)[indices]
    return indices[splitting.draw_shots(ids, classes, count, seed)]


def differ(pool: Pool, indices: np.ndarray) -> np.ndarray:
    """The first of each group of copies."""
    _, first = np.unique(pool.groups[indices], return_index=True)
    return indices[np.sort(first)]


def left_in_fold(pool: Pool, indices: np.ndarray) -> dict[str, int]:
    """How many different examples of each class there are."""
    if not (pool.exclusive and pool.classes):
        raise ValueError(
            "`labels_per_class` needs one class for each example. Received: "
            "several labels for one, or numbers."
        )
    counts = dict.fromkeys((name for (name,) in pool.classes), 0)
    for index in differ(pool, indices):
        counts[pool.classes[index][0]] += 1
    return counts


def labels_left(data: LabelledData, folds: int, seed: int) -> dict[str, int]:
    """Says how many labels of each class every fold leaves to train with.

    Args:
        data: The data.
        folds: Parts that are held out in turn.
        seed: That of `cross_validate`.

    Returns:
        The number of different examples of each class that occurs, in the fold
        that leaves the fewest.

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
        left_in_fold(pool, np.setdiff1d(everything, part))
        for part in make_folds(pool, folds, seed)
    ]
    return {name: min(part[name] for part in counts) for name in counts[0]}


def split_off(
    pool: Pool, indices: np.ndarray, fraction: float, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Divides the indices into those to train with and to choose by."""
    if not fraction:
        return indices, indices[:0]
    parts = splitting.split_examples(
        [pool.ids[i] for i in indices],
        [pool.classes[i] for i in indices],
        scanning.group_equal(pool.groups[indices].tolist()),
        {"train": 1 - fraction, "validation": fraction},
        seed,
    )
    chosen = np.array(parts) == "validation"
    if not chosen.any():
        raise ValueError(
            "`validation_fraction` must give at least one of the "
            f"{len(indices)} examples that a fold trains with. Received: "
            f"validation_fraction={fraction}"
        )
    return indices[~chosen], indices[chosen]
