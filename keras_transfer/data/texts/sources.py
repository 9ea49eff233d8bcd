"""Records of texts and their class names, from files and from memory."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from keras_transfer.data import tfds
from keras_transfer.data.datasets import Rows, parts_of_pair, read_rows
from keras_transfer.data.images import decoding
from keras_transfer.data.labels import (
    FoundNames,
    as_cells,
    check_numbers,
    is_missing,
    label_name,
)
from keras_transfer.data.layout import (
    ClassRoot,
    find_class_roots,
    list_folder,
)
from keras_transfer.data.splitting import SPLIT_NAMES, split_of
from keras_transfer.data.tables import reading
from keras_transfer.data.tables.columns import (
    LABEL_COLUMNS,
    Column,
    Role,
    check_no_header,
    drop_misfits,
    find_columns,
    take_header,
)
from keras_transfer.data.tables.table import Table

_TEXT_COLUMNS = ("text", "sentence", "review", "question", "content")


@dataclasses.dataclass
class TextRecords:
    """Contents of a source of texts, one entry per text in most fields.

    Args:
        ids: Stable ids of the texts. Defaults to `[]`.
        texts: The texts; `""` where one is missing. Defaults to `[]`.
        labels: Class name of each text; `""` where it is missing. Defaults to
            `[]`.
        splits: The split of each text in the source, or `None`. Defaults to
            `[]`.
        ignored: Names of ignored files and folders. Defaults to `[]`.
        unusable: Pairs `(id, reason)` of rows that cannot be read. Defaults to
            `[]`.
        groups: Cells of the column of groups, one for each text; empty without
            such a column. Defaults to `[]`.
        class_names: The classes of a source that numbers them, in its order.
            Defaults to `None`.
        found: Names of classes to check together. Defaults to
            `FoundNames()`.
    """

    ids: list[str] = dataclasses.field(default_factory=list)
    texts: list[str] = dataclasses.field(default_factory=list)
    labels: list[str] = dataclasses.field(default_factory=list)
    splits: list[str | None] = dataclasses.field(default_factory=list)
    ignored: list[str] = dataclasses.field(default_factory=list)
    unusable: list[tuple[str, str]] = dataclasses.field(default_factory=list)
    groups: list[Any] = dataclasses.field(default_factory=list)
    class_names: tuple[str, ...] | None = None
    found: FoundNames = dataclasses.field(default_factory=FoundNames)

    def add(self, row_id: str, text: str, label: str, split: Any) -> None:
        """Adds one text."""
        self.ids.append(row_id)
        self.texts.append(text)
        self.labels.append(label)
        self.splits.append(split)


@dataclasses.dataclass(frozen=True)
class Reading:
    """Arguments of `load_texts` that say how a source is read.

    Args:
        text_column: Name or number of the column with the texts, or `None`.
        label_column: Name or number of the column with the classes, or `None`.
        encoding: Encoding of files.
        header: Whether the first row of a table names its columns, or `None` to
            detect that.
        class_names: The declared classes, or `None`.
        group_column: Name of the column with the groups, or `None`.
    """

    text_column: Column
    label_column: Column
    encoding: str
    header: bool | None
    class_names: tuple[str, ...] | None
    group_column: str | None


def read_texts(source: Any, how: Reading) -> TextRecords:
    """Reads any source that `load_texts` supports.

    Args:
        source: The source.
        how: The arguments of the reading.

    Returns:
        `TextRecords`.

    Raises:
        ValueError: If the source cannot be read.
        TypeError: If the source is of another type.
    """
    records = TextRecords()
    source = parts_of_pair(source)
    if isinstance(source, str) and source.startswith("tfds:"):
        by_split, records.class_names = tfds.read_texts(source)
        for split, pair in by_split.items():
            _read_pair(records, pair, split, how, declared=True)
    elif isinstance(source, Mapping):
        known = [SPLIT_NAMES.get(str(name)) for name in source]
        if None in known or len(set(known)) < len(known):
            raise ValueError(
                '`source` must have keys "train", "validation" and "test", '
                f"each once. Received: {list(source)}."
            )
        for name, part in source.items():
            _read_part(records, part, SPLIT_NAMES[name], how)
    else:
        _read_part(records, source, None, how)
    records.found.check()
    return records


def _read_part(
    records: TextRecords, source: Any, split: str | None, how: Reading
) -> None:
    """Reads all of a source, or one split of it."""
    tables = _table_paths(source)
    if rows := read_rows(source, "source", "text", _decoded):
        pair = (rows.inputs, _labels_of(records, rows, split or "all"))
        declared = rows.class_names is not None
        _read_pair(records, pair, split, how, declared)
    elif tables or reading.is_frame(source):
        for table in tables or [source]:
            _read_table(records, table, split, how)
    elif isinstance(source, str | os.PathLike):
        path = Path(source).expanduser()
        if not path.is_dir():
            raise ValueError(
                f"`source` must be a {reading.ENDINGS} file, a folder of them "
                'or of class folders with .txt files, arrays or "tfds:name". '
                f"Received: source={str(source)!r}, "
                + (
                    "a file of another type."
                    if path.exists()
                    else f"which does not exist (looked in {Path.cwd()})."
                )
            )
        if split is None:
            _read_folder(records, path, how)
        else:
            _read_class_folders(records, path, ClassRoot(split, path, ""), how)
    else:
        _read_pair(records, source, split, how)


def _decoded(text: Any) -> Any:
    return text.decode("utf-8", "replace") if isinstance(text, bytes) else text


def _labels_of(records: TextRecords, rows: Rows, split: str) -> list[Any]:
    """Returns one label for each text: a name if the source declares them."""
    labels = [_one_label(label, i) for i, label in enumerate(rows.labels)]
    names = rows.class_names
    if names is None:
        return labels
    if records.class_names not in (None, names):
        raise ValueError(
            "`source` must have the same classes in every split. Received: "
            f"{records.class_names} and {names}."
        )
    records.class_names = names
    numbers = [x for x in labels if not is_missing(x)]
    check_numbers(numbers, names, split)
    return ["" if is_missing(x) else names[int(x)] for x in labels]


def _one_label(label: Any, number: int) -> Any:
    """Returns the label of a text, the place of the 1 in a one-hot row."""
    row = np.asarray(label).reshape(-1)
    if row.size == 1:
        return _decoded(row[0])
    if row.dtype.kind == "f" and np.isnan(row).any():
        return None
    hot = row.dtype.kind in "biuf" and np.isin(row, (0, 1)).all()
    if not hot or row.sum() != 1:
        raise ValueError(
            "`source` must have one class for each text: a label, or a one-hot "
            f"row. Received: row {number} with {row.tolist()}. Keep one class "
            "of each, such as `.map(lambda x, y: (x, tf.argmax(y, -1)))`."
        )
    return int(row.argmax())


def _table_paths(source: Any) -> list[Path]:
    """Returns the paths of tables: one, or a list of them."""
    if isinstance(source, str | os.PathLike):
        source = [source]
    if not isinstance(source, list | tuple) or not all(
        isinstance(item, str | os.PathLike) for item in source
    ):
        return []
    paths = [Path(item).expanduser() for item in source]
    return paths if all(map(_is_table_file, paths)) else []


def _is_table_file(path: Path) -> bool:
    return reading.is_table(path) and path.is_file()


def _read_pair(
    records: TextRecords,
    pair: Any,
    split: str | None,
    how: Reading,
    declared: bool = False,
) -> None:
    if not isinstance(pair, tuple | list) or len(pair) != 2:
        raise TypeError(
            "`source` must be a path, a pair (texts, labels), a data frame, a "
            f'dict of them or "tfds:name". Received: {type(pair).__name__}.'
        )
    shape = np.shape(pair[0]) if hasattr(pair[0], "shape") else None
    texts = as_cells(pair[0]) if not isinstance(pair[0], str) else []
    odd = next((n for n, t in enumerate(texts) if not _is_text(t)), None)
    if odd is not None or not texts or (shape and len(shape) != 1):
        raise TypeError(
            "`source` must hold texts as one array or list of `str`. Received: "
            f"{len(texts)} texts"
            + (
                ""
                if odd is None
                else f", not all of them `str`: row {odd} is of type "
                f"{type(texts[odd]).__name__}."
            )
        )
    labels = pair[1]
    if np.ndim(labels) == 2 and np.shape(labels)[1] == 1:
        labels = np.asarray(labels)[:, 0]
    kind = np.asarray(labels).dtype
    cells = as_cells(labels) if np.ndim(labels) == 1 else []
    fractions = kind.kind == "f" and any(
        not is_missing(cell) and not float(cell).is_integer() for cell in cells
    )
    if len(cells) != len(texts) or kind.kind not in "iufUOb" or fractions:
        raise ValueError(
            "`source` must hold as many labels as texts, integers or names. "
            f"Received: {len(texts)} texts, labels of shape "
            f"{np.shape(labels)} and dtype {kind}."
        )
    known = how.class_names or ()
    names = [
        str(cell) if declared else label_name(cell, known) for cell in cells
    ]
    if not declared and not known:
        records.found.add(names, "labels")
    for number, (text, name) in enumerate(zip(texts, names, strict=True)):
        content = "" if is_missing(text) else text
        records.add(f"{split or 'all'}/{number:06}", content, name, split)


def _is_text(value: Any) -> bool:
    return isinstance(value, str) or is_missing(value)


def _read_folder(records: TextRecords, root: Path, how: Reading) -> None:
    tables = [
        path
        for path in sorted(root.iterdir())
        if _is_table_file(path) and split_of(reading.stem_of(path))
    ]
    table_splits = [split_of(reading.stem_of(path)) for path in tables]
    if len(set(table_splits)) < len(table_splits):
        raise ValueError(
            "`source` must hold one file for each split. Received: "
            f"{', '.join(path.name for path in tables)} in {str(root)!r}."
        )
    for split, path in zip(table_splits, tables, strict=True):
        _read_table(records, path, split, how)
    if tables:
        used = set(tables)
        others = [path for path in sorted(root.iterdir()) if path not in used]
        records.ignored += [path.name for path in others]
        return
    roots = find_class_roots(
        root,
        _is_text_file,
        ignored=records.ignored,
        unusable=records.unusable,
    )
    if roots[0].split is not None:
        records.ignored += list_folder(root)[1]
    for class_root in roots:
        _read_class_folders(records, root, class_root, how)
    if not records.ids:
        raise ValueError(
            "`source` must hold train.csv or train.tsv, or class folders with "
            f".txt files. Received: source={str(root)!r}, which holds neither."
        )


def _is_text_file(name: str) -> bool:
    return name.lower().endswith(".txt")


def _read_class_folders(
    records: TextRecords, root: Path, class_root: ClassRoot, how: Reading
) -> None:

    def note(err: OSError) -> None:
        name = Path(err.filename).relative_to(root).as_posix()
        records.unusable.append((f"{name}/", decoding.reason(err)))

    paths = [
        Path(folder, name)
        for folder, _, names in os.walk(class_root.folder, onerror=note)
        for name in names
    ]
    for path in sorted(paths):
        parts = path.relative_to(class_root.folder).parts
        text_id = path.relative_to(root).as_posix()
        if not path.is_file():
            continue
        if not _is_text_file(path.name) or len(parts) < 2:
            records.ignored.append(text_id)
        else:
            content = reading.decode_text(
                reading.read_file(path), path, how.encoding
            )
            records.add(text_id, content, parts[0], class_root.split)


def _read_table(
    records: TextRecords, source: Any, split: str | None, how: Reading
) -> None:
    table = reading.read_table(source, how.encoding)
    roles = (
        Role("text", how.text_column, _TEXT_COLUMNS, marks_header=False),
        Role("label", how.label_column, LABEL_COLUMNS),
        Role("split", None, ("split",), optional=True),
        Role("group", how.group_column, (), optional=True),
    )
    take_header(table, roles, how.header)
    columns = find_columns(table, roles)
    text, label = columns["text"], columns["label"]
    if table.columns is None and how.header is None:
        check_no_header(table, text, label, _TEXT_COLUMNS)
    rows, misfits = drop_misfits(table, label)
    records.unusable += [
        (f"{table.name}:{number}", reason) for number, reason in misfits.items()
    ]
    known = how.class_names or ()
    names = [label_name(row[label], known) for _, row in rows]
    if not known:
        _note_names(records, table, text, label, rows, names)
    for (number, row), name in zip(rows, names, strict=True):
        row_split = split
        if "split" in columns:
            row_split = _split_of(row[columns["split"]], table, number)
        content = "" if is_missing(row[text]) else row[text]
        if not isinstance(content, str):
            raise ValueError(
                "`text_column` must be a column of texts. Received: "
                f"{table.header()[text]!r} of {table.name!r}, whose "
                f"{table.place(number)} holds {content!r:.40}."
            )
        records.add(f"{table.name}:{number}", content, name, row_split)
        if "group" in columns:
            records.groups.append(row[columns["group"]])


def _note_names(
    records: TextRecords,
    table: Table,
    text: int,
    label: int,
    rows: Sequence[tuple[int, list[Any]]],
    names: Sequence[str],
) -> None:
    """Notes names of classes to check, and the column of the texts."""
    titles = [
        f'"{table.columns[i]}"' if table.columns else str(i)
        for i in (text, label)
    ]
    different = len({str(row[text]) for _, row in rows})
    records.found.add(
        names,
        f"column {titles[1]} of {table.name!r}",
        f" Column {titles[0]}, read as the texts, has {different}. If they are "
        "exchanged, or others are meant, pass `text_column` and "
        "`label_column`.",
    )


def _split_of(value: Any, table: Table, number: int) -> str | None:
    name = "" if is_missing(value) else str(value).strip().lower()
    if not name:
        return None
    if name not in SPLIT_NAMES:
        raise ValueError(
            f"`source` must have splits among {', '.join(SPLIT_NAMES)}. "
            f"Received: {table.name!r}, {table.place(number)}: {name!r}."
        )
    return SPLIT_NAMES[name]
