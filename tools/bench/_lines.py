"""Results as JSON lines, so that an interrupted benchmark can resume."""

import json
from pathlib import Path


def read(path: Path) -> list[dict]:
    """Returns the results so far."""
    if not path.exists():
        return []
    lines = path.read_text("utf-8").splitlines()
    return [json.loads(line) for line in lines]


def write(path: Path, row: dict) -> None:
    """Appends and prints a result."""
    with open(path, "a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")
    print(row, flush=True)
