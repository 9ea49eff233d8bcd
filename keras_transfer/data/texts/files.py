"""Reads texts and the names of their classes from files and from memory."""

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
from keras_transfer.data.images.files import SPLIT_NAMES

_TABLES = {".csv": ",", ".tsv": "\t"}


_TEXT_COLUMNS = ("text", "sentence", "review", "question", "content")


_LABEL_COLUMNS = ("label", "class", "category", "sentiment", "target")


Column = str | int | None


@dataclasses.dataclass
class TextRecords:
    """What a source holds, one entry per text.

    Args:
        ids: Stable ids. Defaults to `[]`.
        texts: The texts. Defaults to `[]`.
        labels: The name of the class of each. Defaults to `[]`.
        splits: The split each was given, or `None`. Defaults to `[]`.
        ignored: Names of what is no candidate. Defaults to `[]`.
        class_names: The classes in the order of a source that numbers them.
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
    """Reads any of the sources that `load_texts` takes.

    Args:
        source: The source.
        text: Name or number of the column with the texts, or `None`.
        label: Likewise with the classes.
        encoding: Of files.
        header: Whether the first row of a table names its columns, or `None`
            where that is to be seen.

    Returns:
        `TextRecords`.

    Raises:
        ValueError: If the source cannot be read.
        TypeError: If it is of another type.
    """
    records = TextRecords()
    if isinstance(source, str) and source.startswith("tfds:"):
        pairs, records.class_names = tfds.read_texts(source)
        for split, pair in pairs.items():
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
                + ("another file." if path.exists() else "where nothing is.")
            )
        return records
    parts = source if isinstance(source, Mapping) else {None: source}
    known = [SPLIT_NAMES.get(str(name)) for name in parts]
    if isinstance(source, Mapping) and (
        None in known or len(set(known)) < len(known)
    ):
        raise ValueError(
            '`source` must have keys "train", "validation" and "test", each '
            f"once. Received: {list(parts)}."
        )
    for name, part in parts.items():
        _read_pair(records, part, name and SPLIT_NAMES[name])
    return records


def _read_pair(records: TextRecords, part: Any, split: str | None) -> None:
    if not isinstance(part, tuple | list) or len(part) != 2:
        raise TypeError(
            "`source` must be a path, a pair (texts, labels), a dict of pairs "
            f'or "tfds:name". Received: {type(part).__name__}.'
        )
    texts, labels = part
    texts = np.asarray(texts, dtype=object)
    labels = np.asarray(labels)
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
        # pandas has None and NaN where there is none.
        name = "" if label is None or label != label else str(label)
        records.add(f"{split or 'all'}/{number:06}", text, name, split)


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
    given = [SPLIT_NAMES[path.stem.lower()] for path in tables]
    if len(set(given)) < len(given):
        raise ValueError(
            "`source` must hold one file for each split. Received: "
            f"{', '.join(path.name for path in tables)} in {str(root)!r}."
        )
    for split, path in zip(given, tables, strict=True):
        _read_table(records, path, split, text, label, encoding, header)
    if tables:
        used = set(tables)
        others = [path for path in sorted(root.iterdir()) if path not in used]
        records.ignored += [path.name for path in others]
        return
    folders = [path for path in sorted(root.iterdir()) if path.is_dir()]
    splits = [path for path in folders if path.name.lower() in SPLIT_NAMES]
    places: list[tuple[str | None, Path]]
    places = [(SPLIT_NAMES[path.name.lower()], path) for path in splits]
    if splits:
        others = [path for path in sorted(root.iterdir()) if path not in splits]
        records.ignored += [path.name for path in others]
    for part, place in places or [(None, root)]:
        for path in sorted(place.rglob("*")):
            inside = path.relative_to(place).parts
            row_id = path.relative_to(root).as_posix()
            if path.suffix.lower() == ".txt" and len(inside) > 1:
                records.add(row_id, _decode(path, encoding), inside[0], part)
            elif path.is_file():
                records.ignored.append(row_id)
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
    # Tab-separated texts hold quotation marks that quote nothing.
    quoted = delimiter != "\t"
    reader = csv.reader(
        io.StringIO(content, newline=""),
        delimiter=delimiter,
        quoting=csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE,
    )
    try:
        rows = list(_numbered(reader))
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
                f"the first one {len(first)}. A text with {delimiter!r} in it "
                "needs quotation marks around it in a .csv file."
            )
        given = split
        if split_column is not None:
            given = _split_of(row[split_column], path, number)
        body, name = (row[column] for column in columns)
        records.add(f"{path.name}:{number}", body, name.strip(), given)


def _numbered(reader: Any) -> Iterator[tuple[int, list[str]]]:
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
    """Finds the columns, and whether the first row names them."""
    wanted = (("text", text, _TEXT_COLUMNS), ("label", label, _LABEL_COLUMNS))
    named = header
    if named is None:
        asked = any(isinstance(column, str) for column in (text, label))
        named = asked or any(name in first for name in _LABEL_COLUMNS)
    found: list[int] = []
    for place, (what, column, known) in enumerate(wanted):
        names = (column.lower(),) if isinstance(column, str) else known
        matches = [first.index(name) for name in names if name in first]
        if isinstance(column, int):
            found.append(column)
        elif named and matches:
            found.append(matches[0])
        elif named:
            raise ValueError(
                f"`{what}_column` must be a column of {str(path)!r}, which has "
                f"{', '.join(first)}. Received: {what}_column={column!r}. "
                f"Pass {what}_column=NAME."
            )
        else:
            found.append(place)
    if found[0] == found[1] or min(found) < 0:
        raise ValueError(
            "`text_column` and `label_column` must be two columns. Received: "
            f"{found[0]} and {found[1]} of {str(path)!r}."
        )
    return (found[0], found[1]), named


def _check_no_header(
    first: Sequence[str],
    rows: Sequence[Sequence[str]],
    column: int,
    path: Path,
) -> None:
    """Raises for a first row that seems to name columns nobody knows."""
    counts = Counter(row[column].strip() for row in rows if len(row) > column)
    label = first[column] if len(first) > column else ""
    alone = label not in (name.lower() for name in counts)
    repeated = bool(counts) and min(counts.values()) > 1
    if alone and (repeated or any(name in first for name in _TEXT_COLUMNS)):
        raise ValueError(
            "`text_column` and `label_column` must be given where the first "
            f"row has names of its own. Received: {str(path)!r}, which begins "
            f"with {', '.join(first)}. If that is an example: header=False."
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
            f'`encoding` must be that of {str(path)!r}, such as "latin-1". '
            f"Received: encoding={encoding!r}, which fails at byte {err.start}."
        ) from err
    except LookupError as err:
        raise ValueError(
            "`encoding` must be one that Python knows. Received: "
            f"encoding={encoding!r}"
        ) from err
