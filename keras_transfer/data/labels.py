"""Names of classes in the cells of any source: missing, numbered, combined."""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from typing import Any

import numpy as np

from keras_transfer.data.report import printable

# The cells that pandas reads as missing; a class of such a name is declared
# by `class_names`.
_MISSING_NAMES = frozenset(
    "#N/A,#N/A N/A,#NA,-1.#IND,-1.#QNAN,-NaN,-nan,1.#IND,1.#QNAN,<NA>,N/A,NA,"
    "NULL,NaN,NaT,None,n/a,nan,null".split(",")
)

NO_LABEL = "it has no label"

# Fewer examples than these may have a class each.
_FEW, _SEVERAL = 5, 20

# Characters between several labels: those that names rarely hold, and others.
_SEPARATORS, _WEAK_SEPARATORS = (";", "|", ","), ("/", "+", " ")

_QUOTED = re.compile(r"'([^']*)'|\"([^\"]*)\"")


def is_missing(value: Any) -> bool:
    """Tells whether a cell is empty: None, NaN, NaT, NA, or no characters."""
    if value is None or value is np.ma.masked:
        return True
    if isinstance(value, str | bytes):
        return not value.strip()
    try:
        return bool(value != value)  # NaN and NaT alone differ from themselves.
    except TypeError:  # pandas.NA has no truth.
        return True
    except ValueError:  # An array.
        return False


def as_cells(values: Any) -> list[Any]:
    """Returns the values of a column as they are, not as one dtype.

    NumPy makes the names "nan" and "None" of the gaps in a list of `str`.
    """
    if isinstance(values, np.ma.MaskedArray):
        values = np.ma.filled(values.astype(object), None)
    if hasattr(values, "numpy"):
        values = values.numpy()
    return list(values)


def label_name(value: Any, class_names: Collection[str] = ()) -> str:
    """Returns the class name in a cell, `""` if it is missing.

    Args:
        value: The cell: text, bytes or a number.
        class_names: Declared classes, which are never missing. Defaults to
            `()`.

    Returns:
        The name; of a whole number without decimals, since a gap turns a column
        of integers into floats.
    """
    if is_missing(value):
        return ""
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    if isinstance(value, float | np.floating) and float(value).is_integer():
        value = int(value)
    name = str(value).strip()
    return "" if name in _MISSING_NAMES and name not in class_names else name


def has_no_label(cell: Any, class_names: Collection[str] = ()) -> bool:
    """Tells whether a cell of several labels is missing.

    Args:
        cell: The cell: names, or a list of them. Characters without a name, and
            an empty list, mean none of the classes.
        class_names: Declared classes, which are never missing. Defaults to
            `()`.
    """
    if isinstance(cell, list | tuple | np.ndarray):
        return False
    if isinstance(cell, bytes):
        cell = cell.decode("utf-8", "replace")
    if isinstance(cell, str):
        return bool(cell.strip()) and not label_name(cell, class_names)
    return is_missing(cell)


def check_numbers(
    labels: Any, class_names: Sequence[str] | None, split: str
) -> None:
    """Raises unless labels are numbers of classes.

    Args:
        labels: Numbers `(n,)`, without those that are missing.
        class_names: All classes, or `None` if they are not declared.
        split: Name of the split in errors, or `"all"`.

    Raises:
        ValueError: If a number is negative, has decimals or is too large.
    """
    numbers = np.asarray(labels)
    wrong = (numbers < 0) | (numbers != np.floor(numbers))
    classes = ""
    if class_names is not None:
        wrong |= numbers >= len(class_names)
        classes = (
            f", outside the {len(class_names)} classes {list(class_names)[:10]}"
        )
    if wrong.any():
        part = "" if split == "all" else f"{split} "
        raise ValueError(
            "Labels must be integers of at least 0, each the number of a "
            f"class. Received: {wrong.sum()} of {len(numbers)} {part}labels "
            f"that are not, such as label {numbers[wrong][0]:g}{classes}. "
            "Correct them, or leave them out: many data sets hide the labels "
            "of their test split behind -1."
        )


def refuse_gaps(argument: str, values: Any, kind: str) -> None:
    """Raises if texts or labels in an array are missing; names their rows.

    Args:
        argument: Name of the argument that holds them.
        values: An array or a list.
        kind: Name of the values, such as `"labels"`.

    Raises:
        ValueError: If a value is None, NaN or the like.
    """
    array = np.asarray(values)
    if not array.size:
        return
    classes = kind != "groups"
    if array.dtype.kind == "f":
        missing = np.isnan(array).reshape(len(array), -1).any(axis=1)
        rows = np.flatnonzero(missing).tolist()
        # Numbers to predict, which the loaders do not take.
        present = array[~missing]
        classes = classes and bool((present == np.floor(present)).all())
    elif array.dtype == object and array.ndim == 1:
        rows = [
            i
            for i, value in enumerate(array)
            if is_missing(value) and not isinstance(value, str)
        ]
    else:
        return
    if rows:
        shown = ", ".join(map(str, rows[:10])) + ", ..." * (len(rows) > 10)
        raise ValueError(
            f"`{argument}` must have {kind} in every row. Received: none in "
            f"{len(rows)} rows: {shown}. Remove these rows"
            + (
                "; of labelled images or texts, `load_images` or `load_texts` "
                'with on_error="skip" leaves them out.'
                if classes
                else "."
            )
        )


def sorted_names(names: Iterable[str]) -> tuple[str, ...]:
    """Sorts names of classes: as numbers if all of them are, else as text."""
    names = sorted(names)
    numbers = [number_in(name) for name in names]
    if any(number is None for number in numbers):
        return tuple(names)
    return tuple(sorted(names, key=lambda name: (float(name), name)))


def number_in(name: str) -> float | None:
    """Returns the finite number that a name is, or `None`."""
    try:
        number = float(name)
    except ValueError:
        return None
    return number if np.isfinite(number) else None


@dataclasses.dataclass
class FoundNames:
    """Names of classes that no source declares, from all of its parts.

    They are checked together: a small split may have each class once.

    Args:
        names: The name of each example; `""` if it has none. Defaults to `[]`.
        column: Description of the labels of the first part. Defaults to `""`.
        other: Sentence on its other column. Defaults to `""`.
    """

    names: list[str] = dataclasses.field(default_factory=list)
    column: str = ""
    other: str = ""

    def add(self, names: Sequence[str], column: str, other: str = "") -> None:
        """Adds the names of a part."""
        if not self.names:
            self.column, self.other = column, other
        self.names += names

    def check(self) -> None:
        """Raises if the names hardly recur; see `check_classes_recur`."""
        check_classes_recur(self.names, self.column, self.other)


def check_classes_recur(
    names: Sequence[str], column: str, other: str = ""
) -> None:
    """Raises if a column of labels holds no classes: its values hardly recur.

    Args:
        names: The name of each example; `""` if it has none.
        column: Description of the labels, such as `column "v2"`.
        other: Sentence on the other column, with a leading space. Defaults to
            `""`.

    Raises:
        ValueError: If (nearly) each example has a class of its own, or the
            names are numbers with decimals.
    """
    counts = Counter(filter(None, names))
    total = sum(counts.values())
    all_differ = total >= _FEW and len(counts) == total
    hardly = total >= _SEVERAL and len(counts) > total / 2
    decimals = len(counts) > _SEVERAL and any(
        number is not None and not number.is_integer()
        for number in map(number_in, counts)
    )
    if not (all_differ or hardly or decimals):
        return
    shown = ", ".join(repr(name[:40]) for name in list(counts)[:3])
    raise ValueError(
        f"Labels must be classes, which recur. Received: {column} with "
        f"{len(counts)} different values in {total} rows, such as "
        f"{printable(shown)}.{other} To predict numbers, pass arrays "
        "(inputs, numbers) to `fine_tune` with a model of `build_regressor`. "
        "If these are classes, pass class_names=[...]."
    )


def split_labels(
    cells: Sequence[Any], separator: str | None, class_names: Collection[str]
) -> tuple[list[tuple[str, ...]], str | None]:
    """Splits cells of several labels.

    Args:
        cells: Names joined by a separator, lists of names, or missing.
        separator: Text between two names, or `None` to detect it.
        class_names: Declared classes; may be empty.

    Returns:
        Tuple of the names of each example, sorted, and the separator, `None` if
        no cell holds one.

    Raises:
        ValueError: If the separator is not clear.
    """
    texts = [
        cell if isinstance(cell, list | tuple | np.ndarray) else _text(cell)
        for cell in cells
    ]
    if separator is None:
        separator = _detect_separator(
            [text for text in texts if isinstance(text, str)], class_names
        )
    rows = []
    for text in texts:
        parts = text
        if isinstance(text, str):
            parts = [text]
            if _is_list(text):
                parts = ["".join(found) for found in _QUOTED.findall(text)]
            elif separator:
                parts = text.split(separator)
        names = {label_name(part, class_names) for part in parts}
        rows.append(tuple(sorted(names - {""})))
    return rows, separator


def _text(cell: Any) -> str:
    return "" if is_missing(cell) else label_name(cell, _MISSING_NAMES)


def _is_list(text: str) -> bool:
    return text[:1] == "[" and text[-1:] == "]"


def _detect_separator(
    texts: Sequence[str], class_names: Collection[str]
) -> str | None:
    different = {t for t in texts if t and not _is_list(t)} - set(class_names)
    found = [s for s in _SEPARATORS if any(s in text for text in different)]
    if len(found) == 1:
        return found[0]
    if not found:
        found = [s for s in _WEAK_SEPARATORS if recurring(different, s)]
    if not found:
        return None
    shown = next(text for text in sorted(different) if found[0] in text)
    raise ValueError(
        "`separator` must be given because the labels hold "
        f"{' and '.join(map(repr, found))}, and each combination would become "
        f"a class. Received: labels such as {printable(repr(shown))}, "
        f'separator=None. Pass separator={found[0]!r}, or separator=";" if '
        "these are whole names."
    )


def recurring(names: Iterable[str], separator: str) -> tuple[str, ...]:
    """Returns the parts that recur in names once they are split."""
    names = set(names)
    if not any(separator in name for name in names):
        return ()
    parts = Counter(
        part
        for name in names
        for part in {part.strip() for part in name.split(separator)}
    )
    return tuple(part for part, n in parts.items() if part and n > 1)


def check_not_combined(names: Iterable[str], advice: str) -> None:
    """Raises if names of classes are combinations of the same few labels.

    Args:
        names: The names of the classes.
        advice: Sentence on what to do about combinations, without a full stop.

    Raises:
        ValueError: If parts of the names recur between `"|"` or `";"`.
    """
    names = sorted(set(names))
    for separator in ("|", ";"):
        if parts := recurring(names, separator):
            shown = [n for n in names if separator in n][:3]
            raise ValueError(
                "Labels must be one class for each example. Received: "
                f"{printable(repr(shown))}, where {printable(repr(parts[0]))} "
                f"recurs between {separator!r}, so that each combination would "
                f"become a class. {advice}; if these are whole names, pass "
                "class_names=[...]."
            )
