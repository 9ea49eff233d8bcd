"""Results as lines of JSON: what was stopped does what is missing."""

import json
from pathlib import Path


def read(path: Path) -> list[dict]:
    """The results so far."""
    if not path.exists():
        return []
    lines = path.read_text("utf-8").splitlines()
    return [json.loads(line) for line in lines]


def write(path: Path, row: dict) -> None:
    """Adds a line."""
    with open(path, "a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")
    print(row, flush=True)
