"""Rows of comma-, semicolon- and tab-separated text.

Python's `csv` in its strict mode is the reader: it alone refuses text after a
closing quotation mark and a quotation mark that is never closed. pyarrow reads
both in silence, and counts rows instead of lines; pandas finds the second only.
"""

from __future__ import annotations

import csv
import io
import re
import threading
from collections.abc import Sequence

Lines = list[tuple[int, list[str]]]

_DELIMITERS = (",", ";", "\t", "|")

# A quoted cell with what must follow it.
_QUOTED_TAB_CELL = re.compile(
    r'(?:^|(?<=\t))"((?:[^"]|"")*+)"(?=\t|\r?$)', re.MULTILINE
)

_LIMIT_LOCK = threading.Lock()


def parse(content: str, name: str, tabs: bool) -> tuple[Lines, str]:
    """Parses the text of a file.

    Args:
        content: The text.
        name: Name of the file in errors.
        tabs: Whether tabs are tried first, as in a .tsv file.

    Returns:
        Tuple of the rows that are not empty, each with the number of the line
        where it begins, and the delimiter.

    Raises:
        ValueError: If a quotation mark is not closed; the error names its line.
    """
    lines = list(io.StringIO(content, newline=""))
    if lines and (declared := re.fullmatch(r"sep=(.)\r?\n?", lines[0])):
        return _rows(lines, 1, declared[1], name), declared[1]  # Excel's.
    order = ["\t", *(d for d in _DELIMITERS if d != "\t")]
    order = order if tabs else list(_DELIMITERS)
    chosen = None
    for delimiter in order:
        try:
            rows = _rows(lines, 0, delimiter, name)
        except ValueError:
            continue
        widths = {len(row) for _, row in rows}
        if len(widths) == 1 and max(widths) > 1:
            return rows, delimiter
        if chosen is None and rows and len(rows[0][1]) > 1:
            chosen = delimiter
    if chosen is None:
        first = next((line for line in lines if line.strip()), "")
        chosen = next((d for d in order if d in first), order[0])
    return _rows(lines, 0, chosen, name), chosen


def _rows(lines: list[str], start: int, delimiter: str, name: str) -> Lines:
    quoted = delimiter != "\t" or _quotes_cells("".join(lines[start:]))
    reader = csv.reader(
        lines[start:],
        delimiter=delimiter,
        quoting=csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE,
        strict=True,
    )
    rows: Lines = []
    number = start + 1
    # The limit of cells is a setting of the module: it is put back.
    with _LIMIT_LOCK:
        limit = csv.field_size_limit(sum(map(len, lines)) + 1)
        try:
            for row in reader:
                if any(cell.strip() for cell in row):
                    rows.append((number, row))
                number = start + reader.line_num + 1
        except csv.Error as err:
            line = _open_quote(lines, number, delimiter)
            raise ValueError(
                "`source` must be a table whose quotation marks are closed. "
                f"Received: {name!r}, where a quotation mark opens a cell in "
                f"line {line} and is not closed at the end of the cell "
                f'({err}). Remove it, or write the cell as "..." with each '
                "quotation mark inside it doubled."
            ) from err
        finally:
            csv.field_size_limit(limit)
    return rows


def _quotes_cells(content: str) -> bool:
    """Tells whether quotation marks in tab-separated text quote cells.

    In most such files they are part of a text. A writer that quotes has every
    mark in a whole quoted cell; besides, it doubles marks within a cell, quotes
    the header, or quotes tabs and line ends that lines alone do not account
    for.
    """
    if '"' not in content or '"' in _QUOTED_TAB_CELL.sub("", content):
        return False
    if any('""' in match[1] for match in _QUOTED_TAB_CELL.finditer(content)):
        return True
    lines = [line for line in content.splitlines() if line.strip()]
    header = lines[0].split("\t")
    if len(header) > 1 and all(
        len(cell) > 1 and cell[0] == cell[-1] == '"' for cell in header
    ):
        return True
    return len({line.count("\t") for line in lines}) > 1


def _open_quote(lines: Sequence[str], number: int, delimiter: str) -> int:
    """Returns the line in which the cell opens that cannot be read."""
    text = "".join(lines[number - 1 :])
    end = re.escape(delimiter)
    cell = re.compile(rf'(?:"(?:[^"]|"")*+"|(?!")[^{end}\r\n]*)(?:{end}|\r?\n)')
    place = 0
    while (match := cell.match(text, place)) and match.end() > place:
        place = match.end()
    return number + text.count("\n", 0, place)
