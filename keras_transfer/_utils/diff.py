"""Differences between two descriptions."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any


def differences(path: str, there: Any, here: Any) -> Iterator[str]:
    """Yields each difference: `phases[1].epochs: 8 there, 3 here`.

    Args:
        path: Path of the two values within their descriptions; `""` for the
            descriptions themselves.
        there: The other description, such as that of a saved run.
        here: The description of this process.

    Yields:
        A line for each value that differs. Unequal dicts and lists of equal
        length are compared item by item.
    """
    if there == here:
        return
    if isinstance(there, dict) and isinstance(here, dict):
        for key in dict.fromkeys([*there, *here]):
            inner = f"{path}.{key}" if path else key
            yield from differences(inner, there.get(key), here.get(key))
    elif (
        isinstance(there, list)
        and isinstance(here, list)
        and len(there) == len(here)
    ):
        for index, (old, new) in enumerate(zip(there, here, strict=True)):
            yield from differences(f"{path}[{index}]", old, new)
    else:
        yield f"{path}: {there!r:.200} there, {here!r:.200} here"
