"""Columns of a table by their role, and rows that do not fit them."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from keras_transfer._utils.checks import did_you_mean
from keras_transfer.data.labels import label_name, number_in
from keras_transfer.data.tables.table import Table, folded

Column = str | int | None

LABEL_COLUMNS = (
    "label",
    "labels",
    "class",
    "class_name",
    "category",
    "sentiment",
    "target",
)

# Most columns that an error lists.
_SHOWN = 20


@dataclasses.dataclass(frozen=True)
class Role:
    """A column that a source needs.

    Args:
        name: Name of the role; the argument is `name` followed by `"_column"`.
        wanted: Name or number of the column, or `None` to find it.
        known: Names that such columns usually have.
        marks_header: Whether such a name in the first row shows that the row
            is a header. Defaults to `True`.
        optional: Whether the table may lack the column. Defaults to `False`.
    """

    name: str
    wanted: Column
    known: tuple[str, ...]
    marks_header: bool = True
    optional: bool = False


def take_header(
    table: Table, roles: Sequence[Role], header: bool | None
) -> None:
    """Moves the first row of a text file to `columns` if it is a header."""
    if table.columns is not None:
        return
    first = table.header()
    names = folded(first)
    if header is None:
        header = any(isinstance(role.wanted, str) for role in roles) or any(
            role.marks_header and name in names
            for role in roles
            for name in role.known
            if not role.optional
        )
    if header:
        table.columns = [name.strip() for name in first]
        del table.rows[0]
        if not table.rows:
            raise ValueError(
                "`source` must be a table with a header and at least one row. "
                f"Received: {table.name!r}, which holds the header alone."
            )


def find_columns(table: Table, roles: Sequence[Role]) -> dict[str, int]:
    """Returns the number of the column of each role that the table has.

    Args:
        table: The table; with `columns`, unless the roles are found by number.
        roles: The roles. In a table without a header, those that are not
            optional are its first columns, in this order.

    Returns:
        Dict from the names of roles to numbers of columns.

    Raises:
        ValueError: If a column is missing, or taken for two roles.
    """
    found: dict[str, int] = {}
    required = [role.name for role in roles if not role.optional]
    for role in roles:
        place = _place(table, role)
        if place is None and not role.optional:
            if table.columns is not None:
                raise ValueError(_missing(table, role))
            place = required.index(role.name)
        if place is not None:
            found[role.name] = place
    width = len(table.header())
    # Groups may be the labels, or the paths.
    places = [place for name, place in found.items() if name != "group"]
    if len(set(places)) < len(places) or not all(
        0 <= place < width for place in places
    ):
        names = " and ".join(f"`{name}_column`" for name in found)
        raise ValueError(
            f"{names} must be {_count(len(found))} columns. Received: "
            f"{', '.join(map(str, places))} of {table.name!r}, which has "
            f"{width}."
        )
    return found


def _count(number: int) -> str:
    return {2: "two", 3: "three", 4: "four"}.get(number, str(number))


def _place(table: Table, role: Role) -> int | None:
    if isinstance(role.wanted, int):
        return role.wanted
    if table.columns is None:
        return None
    exact = [role.wanted] if role.wanted is not None else []
    names = [str(name) for name in table.columns]
    candidates = [name.lower() for name in exact or role.known]
    matches = [i for i, name in enumerate(names) if name in exact]
    lower = folded(names)
    for name in candidates:
        matches = matches or [
            i for i, other in enumerate(lower) if other == name
        ]
    if len(matches) > 1:
        raise ValueError(
            f"`{role.name}_column` must be one column. Received: "
            f"{table.name!r} with {len(matches)} columns "
            f"{names[matches[0]]!r}. Pass {role.name}_column=NUMBER."
        )
    if not matches and role.wanted is not None:
        raise ValueError(_missing(table, role))
    return matches[0] if matches else None


def _missing(table: Table, role: Role) -> str:
    names = [str(name) for name in table.columns or ()]
    wanted = role.wanted if isinstance(role.wanted, str) else None
    rule = (
        ""
        if wanted is not None or not role.known
        else f" Usual names are {', '.join(role.known[:5])}."
    )
    separated = (
        f", separated by {_name_of(table.delimiter)}" if table.delimiter else ""
    )
    argument = "groups" if role.name == "group" else f"{role.name}_column"
    return (
        f"`{argument}` must be a column of {table.name!r}. Received: "
        f"{argument}={role.wanted!r}; columns "
        f"{names[:_SHOWN]}{separated}, without "
        f'"{wanted or role.name}".{did_you_mean(wanted or role.name, names)}'
        f"{rule} Pass {argument}=NAME."
    )


def _name_of(delimiter: str) -> str:
    names = {",": "commas", ";": "semicolons", "\t": "tabs"}
    return names.get(delimiter, repr(delimiter))


def check_no_header(
    table: Table, text: int, label: int, known: Sequence[str]
) -> None:
    """Raises if the first of the rows seems to be a header.

    Args:
        table: A table without a header.
        text: Number of the column with the texts.
        label: Number of the column with the labels.
        known: Usual names of a column with texts.

    Raises:
        ValueError: If the label of the first row is found in no other, and
            something else speaks against an example.
    """
    first = table.header()
    rows = [row for _, row in table.rows[1:] if len(row) > max(text, label)]
    if len(first) <= max(text, label) or not rows:
        return
    name = label_name(first[label])
    counts = Counter(label_name(row[label]) for row in rows)
    counts.pop("", None)
    if not counts or name.lower() in map(str.lower, counts):
        return
    spaced = sum(" " in row[text].strip() for row in rows)
    odd = (
        min(counts.values()) > 1,
        any(cell in known for cell in folded(first)),
        number_in(name) is None and None not in map(number_in, counts),
        first[text].isidentifier() and 2 * spaced > len(rows) > 1,
    )
    if any(odd):
        raise ValueError(
            "`text_column` and `label_column` must be given if the first row "
            f"has unknown names. Received: {table.name!r}, which begins with "
            f"{', '.join(first)}. If that is an example, pass header=False."
        )


def drop_misfits(
    table: Table, label: int | None
) -> tuple[list[tuple[int, list[Any]]], dict[int, str]]:
    """Separates rows that have other cells than the header.

    Args:
        table: The table.
        label: Number of the column with the labels, or `None`.

    Returns:
        Tuple of the rows that fit, and the reason by the number of each other
        row.
    """
    width = len(table.header())
    names: Mapping[str, int] = {}
    if label is not None and table.delimiter:
        names = Counter(
            str(row[label]) for _, row in table.rows if len(row) == width
        )
    rows, reasons = [], {}
    for number, row in table.rows:
        while len(row) > width and not str(row[-1]).strip():
            row = row[:-1]
        if len(row) != width:
            mark = (
                ". A cell with "
                f"{table.delimiter!r} in it must be in quotation marks"
                if len(row) > width and table.delimiter != "\t"
                else ""
            )
            reasons[number] = (
                f"it has {len(row)} columns, and the first row {width}{mark}"
            )
        elif names and _swallows(row, label, width, table.delimiter, names):
            reasons[number] = (
                "a cell goes on over the rows that follow: a quotation mark "
                f"opens in {table.unit} {number} and is closed lines later"
            )
        else:
            rows.append((number, row))
    return rows, reasons


def _swallows(
    row: Sequence[Any],
    label: int | None,
    width: int,
    delimiter: str,
    names: Mapping[str, int],
) -> bool:
    """Tells whether the lines within a cell look like rows of the table."""
    for cell in row:
        lines = str(cell).splitlines()[1:]
        if lines and all(
            len(cells) == width and cells[label or 0] in names
            for cells in (line.split(delimiter) for line in lines)
        ):
            return True
    return False
