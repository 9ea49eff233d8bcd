"""`Table`: rows of cells, with numbers that errors name."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

Row = tuple[int, list[Any]]


@dataclasses.dataclass
class Table:
    """Rows of a table.

    Args:
        name: Name of the table in ids and errors.
        columns: Names of the columns, or `None` if a first row may hold them.
        rows: The number of each row, and its cells. In a text file, that is
            the number of the line where it begins.
        folder: Folder that paths are relative to.
        unit: Name of what is numbered, `"line"` or `"row"`.
        delimiter: Character between cells of a text file. Defaults to `""`.
    """

    name: str
    columns: list[str] | None
    rows: list[Row]
    folder: Path
    unit: str
    delimiter: str = ""

    def place(self, number: int) -> str:
        """Returns the name of a row in errors."""
        return f"{self.unit} {number}"

    def header(self) -> list[str]:
        """Returns the names of the columns, or the cells of the first row."""
        if self.columns is not None:
            return self.columns
        return [str(cell) for cell in self.rows[0][1]]


def folded(names: Sequence[str]) -> list[str]:
    """Returns names of columns as they are compared."""
    return [str(name).strip().lower() for name in names]
