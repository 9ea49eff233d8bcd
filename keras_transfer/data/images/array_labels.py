"""Labels of images in memory: names, integers, one-hot and multi-hot rows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from keras_transfer.data.images.reading import Reading
from keras_transfer.data.labels import (
    NO_LABEL,
    as_cells,
    check_classes_recur,
    check_numbers,
    has_no_label,
    is_missing,
    label_name,
    split_labels,
)

# The label of an example that has none, among integers.
_GAP = -1


class LabelRows(NamedTuple):
    """Labels of all examples.

    Attributes:
        names: Class names of each example.
        class_names: Names of all classes, or `None` if they are not declared.
        problems: The reason why an example cannot be used, by its index.
    """

    names: list[tuple[str, ...]]
    class_names: tuple[str, ...] | None
    problems: dict[int, str]


def read_labels(
    by_split: Mapping[str, Any],
    class_names: tuple[str, ...] | None,
    how: Reading,
) -> LabelRows:
    """Reads the labels of every split.

    Args:
        by_split: Labels by the name of the split.
        class_names: The declared classes, or `None`.
        how: The arguments of the reading.

    Returns:
        `LabelRows`.

    Raises:
        ValueError: If the labels are of no known format, or lie outside the
            classes.
    """
    read = {
        name: _read(labels, name, how, class_names)
        for name, labels in by_split.items()
    }
    kinds = {(x.dtype.kind, x.shape[1:]) for x in read.values()}
    if len(kinds) > 1:
        received = [f"{n} {x.dtype} {x.shape}" for n, x in read.items()]
        raise ValueError(
            "`source` must have the same kind of labels in every split. "
            f"Received: {', '.join(received)}."
        )
    labels = np.concatenate(list(read.values()))
    if labels.dtype == object:
        rows = [x if isinstance(x, tuple) else (x,) for x in labels]
        gaps = [row == ("",) for row in rows]
    else:
        gaps = (labels.reshape(len(labels), -1) == _GAP).any(axis=1).tolist()
        class_names = _numbered(labels, class_names)
        rows = _rows(labels, class_names)
    if labels.dtype == object and class_names is None and not how.multi_label:
        check_classes_recur([row[0] for row in rows], "labels")
    problems = {i: NO_LABEL for i, gap in enumerate(gaps) if gap}
    return LabelRows(rows, class_names, problems)


def _numbered(
    labels: np.ndarray, class_names: tuple[str, ...] | None
) -> tuple[str, ...]:
    """Returns a name for each number that labels may have."""
    one_per_example = labels.ndim == 1
    count = int(labels.max()) + 1 if one_per_example else labels.shape[1]
    if class_names is None:
        if one_per_example:
            check_classes_recur(
                [str(x) if x != _GAP else "" for x in labels.tolist()],
                "labels",
            )
        class_names = tuple(str(i) for i in range(count))
    # More names than labels are fine: a class may have no example here.
    if not one_per_example and count != len(class_names):
        raise ValueError(
            "`class_names` must name every class of the labels. Received: "
            f"{count} columns, outside the {len(class_names)} classes "
            f"{list(class_names)[:10]}."
        )
    return class_names


def _rows(
    labels: np.ndarray, class_names: tuple[str, ...]
) -> list[tuple[str, ...]]:
    if labels.ndim == 1:
        return [(class_names[i],) if i != _GAP else () for i in labels]
    names = np.asarray(class_names, dtype=object)
    return [tuple(names[row > 0]) for row in labels]


def _read(
    labels: Any, name: str, how: Reading, class_names: tuple[str, ...] | None
) -> np.ndarray:
    """Returns objects `(n,)` of names, or integers `(n,)` or `(n, C)`.

    A missing label is `""` among names, and a row of -1 among integers.
    """
    array = _as_array(labels, name)
    if array.dtype == object and how.multi_label:
        rows, _ = split_labels(list(array), how.separator, how.known)
        missing = [has_no_label(cell, how.known) for cell in array]
        return _objects(
            [("",) if gap else x for x, gap in zip(rows, missing, strict=True)]
        )
    if array.dtype == object:
        return _objects([label_name(x, how.known) for x in array])
    if array.ndim == 2 and array.shape[1] == 1 and not how.multi_label:
        array = array[:, 0]
    if not len(array) or array.dtype.kind not in "biuf" or array.ndim > 2:
        raise ValueError(_rule(array, name))
    gaps = np.isnan(array.reshape(len(array), -1).astype(float)).any(axis=1)
    whole = array[~gaps]
    if how.multi_label:
        if array.ndim != 2 or not np.isin(whole, (0, 1)).all():
            raise ValueError(
                "`multi_label` needs labels of shape (n, num_classes) that are "
                f"0 or 1, or names. Received: {_describe(array, name)}."
            )
    elif array.ndim == 2:
        one_hot = np.isin(whole, (0, 1)).all() and (whole.sum(1) == 1).all()
        if not one_hot:
            raise ValueError(
                "Labels with two axes must be one-hot. Received: "
                f"{_describe(array, name)}, with rows that do not hold "
                f"exactly one 1. {_advice(whole)}"
            )
    else:
        check_numbers(whole, class_names, name)
    result = np.full(array.shape, _GAP, np.int64)
    result[~gaps] = whole.astype(np.int64)
    return result


def _as_array(labels: Any, name: str) -> np.ndarray:
    """Returns numbers, with NaN for gaps, or objects for names."""
    if isinstance(labels, np.ndarray) and labels.dtype.kind in "biuf":
        masked = isinstance(labels, np.ma.MaskedArray) and labels.mask.any()
        return np.ma.filled(labels.astype(float), np.nan) if masked else labels
    cells = as_cells(labels)
    present = [cell for cell in cells if not is_missing(cell)]
    scalars = all(np.ndim(cell) == 0 for cell in present)
    if any(isinstance(cell, str | bytes) for cell in present) and scalars:
        return _objects(cells)
    if scalars and len(present) < len(cells):
        cells = [np.nan if is_missing(cell) else cell for cell in cells]
    try:
        array = np.asarray(cells)
    except ValueError:  # Lists of several lengths: names of each image.
        return _objects(cells)
    return array if array.dtype.kind in "biuf" else _objects(cells)


def _objects(values: list[Any]) -> np.ndarray:
    array = np.empty(len(values), dtype=object)
    for i, value in enumerate(values):
        array[i] = value
    return array


def _advice(rows: np.ndarray) -> str:
    if np.isin(rows, (0, 1)).all():
        return "Pass multi_label=True for several classes per image."
    return (
        "For one class per image, pass labels.argmax(axis=1); `fine_tune` "
        "takes shares of classes as they are, in a pair (inputs, labels)."
    )


def _rule(labels: np.ndarray, name: str) -> str:
    return (
        "Labels must be integers of at least 0 of shape (n,), one-hot of "
        "shape (n, num_classes), or class names. Received: "
        f"{_describe(labels, name)}."
    )


def _describe(labels: np.ndarray, name: str) -> str:
    flat = labels.ravel()[:5].tolist()
    return f"{name} labels of shape {labels.shape}, {labels.dtype}: {flat}"
