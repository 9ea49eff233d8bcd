"""Reads Google docstrings: sections and their entries."""

from __future__ import annotations

import ast
import inspect
import re

SECTION = re.compile(r"^([A-Z][A-Za-z ]*):$")
ENTRY = re.compile(r"^\*{0,2}([\w., *]+?)(?: \([^)]*\))?:(?: |$)(.*)")
DEFAULT = re.compile(r"\bDefaults to\b(?: `(.*?)`)?(.*)")

Function = ast.FunctionDef | ast.AsyncFunctionDef
Definition = Function | ast.ClassDef


def split_sections(doc: str) -> dict[str, list[str]]:
    """Returns the lines below each `Title:` of a Google docstring."""
    sections: dict[str, list[str]] = {}
    lines: list[str] = []
    for line in inspect.cleandoc(doc).splitlines():
        title = SECTION.match(line)
        if title:
            lines = sections.setdefault(title[1], [])
        else:
            lines.append(line)
    return sections


def entries(lines: list[str]) -> dict[str, str]:
    """Returns `name: text` entries; deeper lines continue an entry."""
    found: dict[str, str] = {}
    name = ""
    for line in inspect.cleandoc("\n".join(["", *lines])).splitlines():
        entry = None if line.startswith(" ") else ENTRY.match(line)
        if entry:
            name = entry[1]
            found[name] = entry[2].strip()
        elif name:
            found[name] = f"{found[name]} {line.strip()}".strip()
    return found


def has_example(doc: str) -> bool:
    """Looks for `>>>` lines or fenced Python in the `Example` section."""
    sections = split_sections(doc)
    text = "\n".join(sections.get("Example", sections.get("Examples", [])))
    return ">>> " in text or "```python" in text
