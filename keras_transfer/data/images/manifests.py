"""Records of the images that a table lists."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path, PureWindowsPath
from typing import Any

from keras_transfer.data.images import decoding
from keras_transfer.data.images.pixels import ArrayPixels
from keras_transfer.data.images.reading import Reading
from keras_transfer.data.images.records import ImageRecords
from keras_transfer.data.labels import (
    NO_LABEL,
    has_no_label,
    is_missing,
    label_name,
    split_labels,
)
from keras_transfer.data.report import list_problems
from keras_transfer.data.splitting import SPLIT_NAMES
from keras_transfer.data.tables.columns import (
    LABEL_COLUMNS,
    Role,
    drop_misfits,
    find_columns,
    take_header,
)
from keras_transfer.data.tables.reading import read_table
from keras_transfer.data.tables.table import Row, Table

_PATH_COLUMNS = (
    "path",
    "filename",
    "file",
    "image",
    "file_name",
    "filepath",
    "file_path",
    "image_path",
    "img_path",
    "image_name",
    "img",
    "image_id",
)

_FLAGS = {"1": True, "true": True, "0": False, "false": False}

Labels = list[tuple[str, ...]]


def read_manifest(
    source: Any, how: Reading
) -> tuple[ImageRecords, list[str | bytes]]:
    """Reads a table of paths and labels.

    Args:
        source: Path of the table, or a data frame.
        how: The arguments of the reading.

    Returns:
        Tuple of the records, without pixels, and the path of each example.

    Raises:
        ValueError: If the table cannot be read, or a row has a label or split
            that is unknown.
    """
    table = read_table(source, how.encoding)
    columns = _columns(table, how)
    rows, misfits = drop_misfits(table, columns.get("label"))
    records = ImageRecords([], ArrayPixels([]), [], [])
    records.unusable += [
        (f"row {number}", reason) for number, reason in misfits.items()
    ]
    problems: list[tuple[str, str]] = []
    labels, absent = _labels(table, rows, columns, how, records, problems)
    paths: list[str | bytes] = []
    first_row: dict[str, int] = {}
    for (number, row), names, gap in zip(rows, labels, absent, strict=True):
        name, image = _image_of(row[columns["path"]], number)
        split = None
        if "split" in columns:
            split = _cell(row[columns["split"]])
            if split.lower() not in SPLIT_NAMES:
                problems.append(
                    (
                        f"row {number}",
                        f"split {split!r} is not train, validation or test",
                    )
                )
                continue
        if not name or gap:
            records.unusable.append(
                (f"row {number}", NO_LABEL if name else "it has no path")
            )
        elif name in first_row:
            reason = f"row {number} lists it again after row {first_row[name]}"
            records.unusable.append((name, reason))
        else:
            first_row[name] = number
            if isinstance(image, str):
                image = _file(table.folder, image)
                why = _similar_file(image)
            else:
                why = None
            if why is not None:
                records.problems[len(records.ids)] = why
            records.ids.append(name)
            records.labels.append(names)
            if "group" in columns:
                records.groups.append(row[columns["group"]])
            records.splits.append(split and SPLIT_NAMES[split.lower()])
            paths.append(image)
    _raise_for(table, problems, how)
    splits = set(records.splits)
    if records.splits and splits.isdisjoint((None, "train")):
        raise ValueError(
            '`source` must have images in split "train". Received: '
            f"{table.name} with only {sorted(filter(None, splits))}."
        )
    return records, paths


def _image_of(value: Any, number: int) -> tuple[str, str | bytes]:
    """Returns the id and the path in a cell, or the bytes of a file.

    Tables of Hugging Face hold `{"bytes": ..., "path": ...}`.
    """
    if isinstance(value, Mapping):
        content, path = value.get("bytes"), _cell(value.get("path"))
        if content is None:
            return path, path
        return path or f"row {number}", content
    if isinstance(value, bytes):
        return f"row {number}", value
    return _cell(value), _cell(value)


def _cell(value: Any) -> str:
    return "" if is_missing(value) else str(value).strip()


def _columns(table: Table, how: Reading) -> dict[str, int]:
    by_flags = how.label_columns is not None
    roles = [
        Role("path", how.path_column, _PATH_COLUMNS),
        Role("label", how.label_column, LABEL_COLUMNS, optional=by_flags),
        Role("split", None, ("split",), optional=True),
        Role("group", how.group_column, (), optional=True),
    ]
    take_header(table, roles, True if by_flags else how.header)
    if table.columns is None and how.header is None:
        _check_first_row(table, how)
    return find_columns(table, roles)


def _check_first_row(table: Table, how: Reading) -> None:
    """Raises if the first row, read as an example, names no image."""
    first = table.header()
    place = how.path_column if isinstance(how.path_column, int) else 0
    cell = first[place] if 0 <= place < len(first) else ""
    ending = os.path.splitext(cell.strip())[1].lower()
    if ending not in decoding.EXTENSIONS:
        raise ValueError(
            "`path_column` and `label_column` must be given if the first row "
            "of a table has unknown names. Received: "
            f'{table.name!r} with columns {first}, without "path". Pass '
            "path_column=NAME and label_column=NAME; if that is an example, "
            "header=False."
        )


def _labels(
    table: Table,
    rows: Sequence[Row],
    columns: dict[str, int],
    how: Reading,
    records: ImageRecords,
    problems: list[tuple[str, str]],
) -> tuple[Labels, list[bool]]:
    """Returns the names of each row, and whether they are missing."""
    if how.label_columns is not None:
        records.class_names = tuple(how.label_columns)
        return _flags(table, rows, how, problems)
    cells = [row[columns["label"]] for _, row in rows]
    if how.multi_label:
        labels, separator = split_labels(cells, how.separator, how.known)
        if separator and how.separator is None:
            records.notes.append(f"Labels are separated by {separator!r}.")
        absent = [has_no_label(cell, how.known) for cell in cells]
    else:
        names = [label_name(cell, how.known) for cell in cells]
        labels = [(name,) for name in names]
        absent = [not name for name in names]
        if not how.known:
            title = "the second column"
            if table.columns is not None:
                title = f'column "{table.columns[columns["label"]]}"'
            records.found.add(names, f"{title} of {table.name!r}")
    for (number, _), names_of_row in zip(rows, labels, strict=True):
        unknown = [n for n in names_of_row if how.known and n not in how.known]
        if unknown and unknown[0]:
            problems.append(
                (
                    f"row {number}",
                    f"label {unknown[0]!r} is outside the classes",
                )
            )
    return labels, absent


def _flags(
    table: Table,
    rows: Sequence[Row],
    how: Reading,
    problems: list[tuple[str, str]],
) -> tuple[Labels, list[bool]]:
    """Reads a column of 0 and 1 for each class."""
    names = tuple(how.label_columns or ())
    places = [
        find_columns(table, [Role("label", name, ())])["label"]
        for name in names
    ]
    labels: Labels = []
    absent = []
    for number, row in rows:
        cells = [label_name(row[place]) for place in places]
        flags = [_FLAGS.get(cell.removesuffix(".0").lower()) for cell in cells]
        chosen = tuple(
            name for name, flag in zip(names, flags, strict=True) if flag
        )
        odd = [
            cell
            for cell, flag in zip(cells, flags, strict=True)
            if flag is None and cell
        ]
        if odd:
            problems.append((f"row {number}", f"{odd[0]!r} is not 0 or 1"))
        elif not how.multi_label and all(cells) and len(chosen) != 1:
            problems.append(
                (
                    f"row {number}",
                    f"{len(chosen)} of its label columns are 1 (several need "
                    "multi_label=True)",
                )
            )
        labels.append(chosen)
        absent.append(not all(cells))
    return labels, absent


def _raise_for(
    table: Table, problems: Sequence[tuple[str, str]], how: Reading
) -> None:
    if not problems:
        return
    classes = f" The classes are {list(how.known)}." if how.known else ""
    raise ValueError(
        "`source` must be a table whose rows all have a path, a label and, if "
        f"there is such a column, a split. Received: {table.name}\n"
        f"{list_problems(problems)}{classes}"
    )


def _file(folder: Path, name: str) -> str:
    """Returns the path of an image; one written on Windows is read, too."""
    path = folder / os.path.expanduser(name)
    if "\\" in name and not path.exists():
        path = folder / PureWindowsPath(name).as_posix()
    return str(path)


def _similar_file(path: str) -> str | None:
    """Returns why a file is not there, if one with an ending besides is."""
    if os.path.splitext(path)[1] or os.path.exists(path):
        return None
    for ending in sorted(decoding.EXTENSIONS):
        if os.path.exists(path + ending):
            return (
                f'no such file, but "{os.path.basename(path)}{ending}" is '
                "there: write paths with their ending"
            )
    return None
