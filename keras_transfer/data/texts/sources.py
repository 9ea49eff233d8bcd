"""Records of texts and their class names, from files and from memory."""

from __future__ import annotations

import csv
import dataclasses
import io
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from keras_transfer.data import tfds
from keras_transfer.data.images.sources import SPLIT_NAMES

# Delimiter by extension.
_TABLES = {".csv": ",", ".tsv": "\t"}

_TEXT_COLUMNS = ("text", "sentence", "review", "question", "content")

_LABEL_COLUMNS = ("label", "class", "category", "sentiment", "target")

Column = str | int | None


@dataclasses.dataclass
class TextRecords:
    """Contents of a source of texts, one entry per text in most fields.

    Args:
        ids: Stable ids of the texts. Defaults to `[]`.
        texts: The texts. Defaults to `[]`.
        labels: Class name of each text. Defaults to `[]`.
        splits: The split of each text in the source, or `None`. Defaults to
            `[]`.
        ignored: Names of ignored files and folders. Defaults to `[]`.
        class_names: The classes of a source that numbers them, in its order.
            Defaults to `None`.
    """

    ids: list[str] = dataclasses.field(default_factory=list)
    texts: list[str] = dataclasses.field(default_factory=list)
    labels: list[str] = dataclasses.field(default_factory=list)
    splits: list[str | None] = dataclasses.field(default_factory=list)
    ignored: list[str] = dataclasses.field(default_factory=list)
    class_names: tuple[str, ...] | None = None

    def add(self, row_id: str, text: str, label: str, split: Any) -> None:
        """Adds one text."""
        self.ids.append(row_id)
        self.texts.append(text)
        self.labels.append(label)
        self.splits.append(split)


def read_texts(
    source: Any,
    *,
    text: Column,
    label: Column,
    encoding: str,
    header: bool | None,
) -> TextRecords:
    """Reads any source that `load_texts` supports.

    Args:
        source: The source.
        text: Name or number of the column with the texts, or `None`.
        label: Name or number of the column with the classes, or `None`.
        encoding: Encoding of files.
        header: Whether the first row of a table names its columns, or `None` to
            detect that.

    Returns:
        `TextRecords`.

    Raises:
        ValueError: If the source cannot be read.
        TypeError: If the source is of another type.
    """
    records = TextRecords()
    if isinstance(source, str) and source.startswith("tfds:"):
        by_split, records.class_names = tfds.read_texts(source)
        for split, pair in by_split.items():
            _read_pair(records, pair, split)
        return records
    if isinstance(source, str | os.PathLike):
        path = Path(source).expanduser()
        if path.is_file() and path.suffix.lower() in _TABLES:
            _read_table(records, path, None, text, label, encoding, header)
        elif path.is_dir():
            _read_folder(records, path, text, label, encoding, header)
        else:
            raise ValueError(
                "`source` must be a .csv or .tsv file, a folder of them or of "
                'class folders with .txt files, arrays or "tfds:name". '
                f"Received: source={str(source)!r}, "
                + (
                    "a file of another type."
                    if path.exists()
                    else "which does not exist."
                )
            )
        return records
    pairs = source if isinstance(source, Mapping) else {None: source}
    known = [SPLIT_NAMES.get(str(name)) for name in pairs]
    if isinstance(source, Mapping) and (
        None in known or len(set(known)) < len(known)
    ):
        raise ValueError(
            '`source` must have keys "train", "validation" and "test", each '
            f"once. Received: {list(pairs)}."
        )
    for name, pair in pairs.items():
        _read_pair(records, pair, name and SPLIT_NAMES[name])
    return records


def _read_pair(records: TextRecords, pair: Any, split: str | None) -> None:
    if not isinstance(pair, tuple | list) or len(pair) != 2:
        raise TypeError(
            "`source` must be a path, a pair (texts, labels), a dict of pairs "
            f'or "tfds:name". Received: {type(pair).__name__}.'
        )
    texts, labels = pair
    texts = np.asarray(texts, dtype=object)
    labels = _column(np.asarray(labels))
    if texts.ndim != 1 or not all(isinstance(t, str) for t in texts):
        raise TypeError(
            "`source` must hold texts as one array or list of `str`. Received: "
            f"an array of shape {texts.shape}"
            + ("" if texts.ndim != 1 else ", not all of them `str`.")
        )
    if labels.shape != texts.shape or labels.dtype.kind not in "iuUOb":
        raise ValueError(
            "`source` must hold as many labels as texts, integers or names. "
            f"Received: {len(texts)} texts, labels of shape {labels.shape} and "
            f"dtype {labels.dtype}."
        )
    for number, (text, label) in enumerate(zip(texts, labels, strict=True)):
        name = _name_of(label)
        records.add(f"{split or 'all'}/{number:06}", text, name, split)


def _column(labels: np.ndarray) -> np.ndarray:
    """Returns labels of shape `(n, 1)` as `(n,)`; raises for fractions."""
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.dtype.kind == "f":
        # Integers with gaps are floats in pandas.
        known = labels[~np.isnan(labels)]
        if (known == np.floor(known)).all() and np.isfinite(known).all():
            return labels.astype(object)
    return labels


def _name_of(label: Any) -> str:
    """Returns the class name of a label, `""` for a missing one."""
    # In pandas, a missing label is None or NaN.
    if label is None or label != label:
        return ""
    if isinstance(label, float) and label.is_integer():
        label = int(label)
    return str(label)


def _read_folder(
    records: TextRecords,
    root: Path,
    text: Column,
    label: Column,
    encoding: str,
    header: bool | None,
) -> None:
    tables = [
        path
        for path in sorted(root.iterdir())
        if path.suffix.lower() in _TABLES and path.stem.lower() in SPLIT_NAMES
    ]
    table_splits = [SPLIT_NAMES[path.stem.lower()] for path in tables]
    if len(set(table_splits)) < len(table_splits):
        raise ValueError(
            "`source` must hold one file for each split. Received: "
            f"{', '.join(path.name for path in tables)} in {str(root)!r}."
        )
    for split, path in zip(table_splits, tables, strict=True):
        _read_table(records, path, split, text, label, encoding, header)
    if tables:
        used = set(tables)
        others = [path for path in sorted(root.iterdir()) if path not in used]
        records.ignored += [path.name for path in others]
        return
    folders = [path for path in sorted(root.iterdir()) if path.is_dir()]
    split_paths = [path for path in folders if path.name.lower() in SPLIT_NAMES]
    split_folders: list[tuple[str | None, Path]] = [
        (SPLIT_NAMES[path.name.lower()], path) for path in split_paths
    ]
    if split_folders:
        paths = sorted(root.iterdir())
        others = [path for path in paths if path not in split_paths]
        records.ignored += [path.name for path in others]
    for split_name, folder in split_folders or [(None, root)]:
        for path in sorted(folder.rglob("*")):
            parts = path.relative_to(folder).parts
            text_id = path.relative_to(root).as_posix()
            if path.suffix.lower() == ".txt" and len(parts) > 1:
                content = _decode(path, encoding)
                records.add(text_id, content, parts[0], split_name)
            elif path.is_file():
                records.ignored.append(text_id)
    if not records.ids:
        raise ValueError(
            "`source` must hold train.csv or train.tsv, or class folders with "
            f".txt files. Received: source={str(root)!r}, which holds neither."
        )


def _read_table(
    records: TextRecords,
    path: Path,
    split: str | None,
    text: Column,
    label: Column,
    encoding: str,
    header: bool | None,
) -> None:
    delimiter = _TABLES[path.suffix.lower()]
    content = _decode(path, encoding).lstrip("\ufeff")
    # In tab-separated files, quotation marks are part of the text.
    quoted = delimiter != "\t"
    reader = csv.reader(
        io.StringIO(content, newline=""),
        delimiter=delimiter,
        quoting=csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE,
    )
    try:
        rows = list(_numbered_rows(reader))
    except csv.Error as err:
        raise ValueError(
            f"`source` must be a table. Received: {str(path)!r}, whose line "
            f"{reader.line_num} cannot be read: {err}."
        ) from err
    if not rows:
        raise ValueError(
            f"`source` must hold texts. Received: {str(path)!r}, an empty file."
        )
    first = [name.strip().lower() for name in rows[0][1]]
    columns, named = _columns(first, path, text, label, header)
    if not named and header is None:
        _check_no_header(first, [row for _, row in rows[1:]], columns[1], path)
    split_column = first.index("split") if named and "split" in first else None
    for number, row in rows[1:] if named else rows:
        if len(row) <= max(columns) or len(row) != len(first):
            raise ValueError(
                "`source` must have as many columns in each row. Received: "
                f"{str(path)!r}, whose line {number} has {len(row)} columns, "
                f"and the first one {len(first)}. In a .csv file, a text that "
                f"contains {delimiter!r} must be in quotation marks."
            )
        row_split = split
        if split_column is not None:
            row_split = _split_of(row[split_column], path, number)
        content, name = (row[column] for column in columns)
        row_id = f"{path.name}:{number}"
        records.add(row_id, content, name.strip(), row_split)


def _numbered_rows(reader: Any) -> Iterator[tuple[int, list[str]]]:
    """Yields the rows that are not empty, with their line numbers."""
    for row in reader:
        if any(cell.strip() for cell in row):
            yield reader.line_num, row


def _columns(
    first: Sequence[str],
    path: Path,
    text: Column,
    label: Column,
    header: bool | None,
) -> tuple[tuple[int, int], bool]:
    """Returns the columns, and whether the first row names them."""
    roles = (("text", text, _TEXT_COLUMNS), ("label", label, _LABEL_COLUMNS))
    named = header
    if named is None:
        by_name = any(isinstance(column, str) for column in (text, label))
        named = by_name or any(name in first for name in _LABEL_COLUMNS)
    indices: list[int] = []
    for default, (role, column, known) in enumerate(roles):
        names = (column.lower(),) if isinstance(column, str) else known
        matches = [first.index(name) for name in names if name in first]
        if isinstance(column, int):
            indices.append(column)
        elif named and matches:
            indices.append(matches[0])
        elif named:
            raise ValueError(
                f"`{role}_column` must be a column of {str(path)!r}, which has "
                f"{', '.join(first)}. Received: {role}_column={column!r}. "
                f"Pass {role}_column=NAME."
            )
        else:
            indices.append(default)
    if indices[0] == indices[1] or min(indices) < 0:
        raise ValueError(
            "`text_column` and `label_column` must be two columns. Received: "
            f"{indices[0]} and {indices[1]} of {str(path)!r}."
        )
    return (indices[0], indices[1]), named


def _check_no_header(
    first: Sequence[str],
    rows: Sequence[Sequence[str]],
    column: int,
    path: Path,
) -> None:
    """Raises if the first row seems to be a header with unknown names."""
    counts = Counter(row[column].strip() for row in rows if len(row) > column)
    label = first[column] if len(first) > column else ""
    unique = label not in (name.lower() for name in counts)
    repeated = bool(counts) and min(counts.values()) > 1
    if unique and (repeated or any(name in first for name in _TEXT_COLUMNS)):
        raise ValueError(
            "`text_column` and `label_column` must be given if the first row "
            f"has unknown names. Received: {str(path)!r}, which begins with "
            f"{', '.join(first)}. If that is an example, pass header=False."
        )


def _split_of(name: str, path: Path, number: int) -> str | None:
    name = name.strip().lower()
    if not name:
        return None
    if name not in SPLIT_NAMES:
        raise ValueError(
            f"`source` must have splits among {', '.join(SPLIT_NAMES)}. "
            f"Received: {str(path)!r}, line {number}: {name!r}."
        )
    return SPLIT_NAMES[name]


def _decode(path: Path, encoding: str) -> str:
    try:
        return path.read_text(encoding=encoding)
    except UnicodeDecodeError as err:
        raise ValueError(
            f"`encoding` must be the encoding of {str(path)!r}, such as "
            f'"latin-1". Received: encoding={encoding!r}, which fails at byte '
            f"{err.start}."
        ) from err
    except LookupError as err:
        raise ValueError(
            "`encoding` must be known to Python. Received: "
            f"encoding={encoding!r}."
        ) from err
