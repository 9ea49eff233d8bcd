"""Tables from files (CSV, TSV, JSON Lines, Parquet) and data frames."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from keras_transfer.data.images import decoding
from keras_transfer.data.tables.delimited import parse
from keras_transfer.data.tables.table import Table

_COMPRESSIONS: dict[str, Callable[[bytes], bytes]] = {
    ".gz": gzip.decompress,
    ".bz2": bz2.decompress,
    ".xz": lzma.decompress,
}

_TEXTS = (".csv", ".tsv", ".tab")
_RECORDS = (".jsonl", ".ndjson", ".json")
_COLUMNS = (".parquet", ".pq")

ENDINGS = ".csv, .tsv, .jsonl or .parquet (or .csv.gz)"

# Byte order marks of texts that are not in UTF-8.
_MARKS = {b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}


def kind_of(path: Path) -> str:
    """Returns the ending that names the format, without a compression."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] in _COMPRESSIONS:
        suffixes.pop()
    return suffixes[-1] if suffixes else ""


def stem_of(path: Path) -> str:
    """Returns the name of a file without its endings."""
    name = path.name
    if path.suffix.lower() in _COMPRESSIONS:
        name = Path(name).stem
    return Path(name).stem


def is_table(path: Path) -> bool:
    """Tells whether the name of a file is that of a table."""
    return kind_of(path) in (*_TEXTS, *_RECORDS, *_COLUMNS)


def is_frame(source: Any) -> bool:
    """Tells whether an object is a data frame, of whichever package."""
    return hasattr(source, "__arrow_c_stream__") or hasattr(
        source, "__dataframe__"
    )


def read_table(source: Any, encoding: str = "utf-8") -> Table:
    """Reads a file or a data frame.

    Args:
        source: Path of a table, or a data frame.
        encoding: Encoding of text files. Defaults to `"utf-8"`.

    Returns:
        `Table`, with at least one row.

    Raises:
        ValueError: If it cannot be read, or is empty.
    """
    if is_frame(source):
        table = _read_frame(source)
    else:
        path = Path(source)
        kind = kind_of(path)
        if kind in _COLUMNS:
            table = _read_parquet(path)
        elif kind in _RECORDS:
            table = _read_records(path, encoding)
        else:
            content = decode_text(read_file(path), path, encoding)
            rows, delimiter = parse(content, str(path), kind != ".csv")
            table = Table(
                path.name, None, [*rows], path.parent, "line", delimiter
            )
    if not table.rows:
        raise ValueError(
            "`source` must be a table with a header and at least one row. "
            f"Received: {table.name!r}, an empty table."
        )
    return table


def read_file(path: Path) -> bytes:
    """Reads a file, decompressed."""
    try:
        content = path.read_bytes()
        decompress = _COMPRESSIONS.get(path.suffix.lower())
        return decompress(content) if decompress else content
    except (OSError, EOFError, lzma.LZMAError) as err:
        raise ValueError(
            f"`source` must be a file that can be read. Received: "
            f"{str(path)!r}: {decoding.reason(err)}."
        ) from err


def decode_text(content: bytes, path: Path, encoding: str) -> str:
    """Decodes the content of a text file, without its byte order mark."""
    if encoding.lower().replace("_", "-") in ("utf-8", "utf8"):
        encoding = _MARKS.get(content[:2], encoding)
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as err:
        line = content.count(b"\n", 0, err.start) + 1
        raise ValueError(
            f"`encoding` must be the encoding of {str(path)!r}, such as "
            f'"latin-1". Received: encoding={encoding!r}, which fails at byte '
            f"{err.start} (line {line})."
        ) from err
    except LookupError as err:
        raise ValueError(
            "`encoding` must be known to Python. Received: "
            f"encoding={encoding!r}."
        ) from err
    return text.removeprefix("\ufeff")


def _read_records(path: Path, encoding: str) -> Table:
    """Reads one JSON object a line, or a file of one list of them."""
    content = decode_text(read_file(path), path, encoding)
    unit = "line"
    records: list[tuple[int, Any]] = []
    if content.lstrip()[:1] == "[":
        unit = "row"
        records = list(enumerate(_parse_json(content, path, 1)))
    else:
        # Not `splitlines`, which also ends lines at U+2028 within a text.
        for number, line in enumerate(content.split("\n"), start=1):
            if line.strip():
                records.append((number, _parse_json(line, path, number)))
    columns: dict[str, None] = {}
    for number, record in records:
        if not isinstance(record, Mapping):
            raise ValueError(
                "`source` must hold one JSON object for each example. "
                f"Received: {str(path)!r}, whose {unit} {number} is a "
                f"{type(record).__name__}."
            )
        columns.update(dict.fromkeys(record))
    rows = [(n, [record.get(c) for c in columns]) for n, record in records]
    return Table(path.name, list(columns), rows, path.parent, unit)


def _parse_json(text: str, path: Path, number: int) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as err:
        raise ValueError(
            "`source` must hold one JSON object in each line. Received: "
            f"{str(path)!r}, whose line {number + err.lineno - 1} cannot be "
            f"read: {err.msg} at column {err.colno}."
        ) from err


def _read_parquet(path: Path) -> Table:
    import pyarrow
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.read_table(path)
    except (pyarrow.ArrowException, OSError) as err:
        raise ValueError(
            "`source` must be a Parquet file that can be read. Received: "
            f"{str(path)!r}: {str(err)[:200]}."
        ) from err
    return _from_arrow(table, path.name, path.parent)


def _read_frame(frame: Any) -> Table:
    import pyarrow
    import pyarrow.interchange

    try:
        table = (
            pyarrow.table(frame)
            if hasattr(frame, "__arrow_c_stream__")
            else pyarrow.interchange.from_dataframe(frame)
        )
    except (pyarrow.ArrowException, TypeError, ValueError) as err:
        if not hasattr(frame, "columns"):
            raise
        return _by_column(frame, err)
    return _from_arrow(table, "table", Path())


def _by_column(frame: Any, err: Exception) -> Table:
    """Reads a data frame whose columns hold values of several types."""
    try:
        names = list(frame.columns)
        cells = [list(frame[name]) for name in names]
    except (TypeError, KeyError) as inner:
        raise ValueError(
            "`source` must be a data frame that Arrow reads. Received: "
            f"{type(frame).__name__}: {str(err)[:200]}"
        ) from inner
    rows = [(n, list(row)) for n, row in enumerate(zip(*cells, strict=True))]
    return Table("table", [str(name) for name in names], rows, Path(), "row")


def _from_arrow(table: Any, name: str, folder: Path) -> Table:
    # The index of a pandas data frame is no column.
    names = [c for c in table.column_names if not c.startswith("__index_level")]
    cells = [table.column(column).to_pylist() for column in names]
    rows = [(n, list(row)) for n, row in enumerate(zip(*cells, strict=True))]
    return Table(name, names, rows, folder, "row")
