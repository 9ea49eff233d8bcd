"""What differs between two descriptions."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any


def differences(name: str, there: Any, here: Any) -> Iterator[str]:
    """Yields what differs, by its place: `phases[1].epochs: 8 there, 3 here`.

    The digests of models and data say nothing by themselves.
    """
    if there == here:
        return
    if isinstance(there, dict) and isinstance(here, dict):
        for key in dict.fromkeys([*there, *here]):
            place = f"{name}.{key}" if name else key
            yield from differences(place, there.get(key), here.get(key))
    elif (
        isinstance(there, list)
        and isinstance(here, list)
        and len(there) == len(here)
    ):
        for index, (old, new) in enumerate(zip(there, here, strict=True)):
            yield from differences(f"{name}[{index}]", old, new)
    else:
        yield f"{name}: {there!r:.200} there, {here!r:.200} here"
