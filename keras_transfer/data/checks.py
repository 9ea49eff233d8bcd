"""Checks of arguments that several modules take."""

from __future__ import annotations

from typing import Any

import numpy as np

Size = tuple[int, int]


def check_image_size(image_size: Any) -> Size | None:
    """Returns `(height, width)` or `None`; raises for anything else."""
    if image_size is None:
        return None
    pair = (image_size,) * 2 if _is_integer(image_size) else image_size
    good = isinstance(pair, tuple | list) and len(pair) == 2
    if not good or not all(_is_integer(n) and n > 0 for n in pair):
        raise ValueError(
            "`image_size` must be (height, width) or one integer, above 0. "
            f"Received: image_size={image_size!r}."
        )
    return int(pair[0]), int(pair[1])


def check_integer(name: str, value: Any, least: int) -> None:
    """Raises unless `value` is an integer of at least `least`."""
    if not _is_integer(value) or value < least:
        raise ValueError(
            f"`{name}` must be an integer of at least {least}. Received: "
            f"{name}={value!r}."
        )


def check_choice(name: str, value: Any, choices: tuple[str, ...]) -> None:
    """Raises unless `value` is one of `choices`."""
    if value not in choices:
        listed = " or ".join(f'"{choice}"' for choice in choices)
        raise ValueError(
            f"`{name}` must be {listed}. Received: {name}={value!r}."
        )


def check_class_names(class_names: Any) -> tuple[str, ...] | None:
    """Returns the names as a tuple, or `None`."""
    if class_names is None:
        return None
    names = () if isinstance(class_names, str) else tuple(class_names)
    good = names and all(isinstance(name, str) and name for name in names)
    if not good or len(set(names)) != len(names):
        raise ValueError(
            "`class_names` must be different, non-empty strings. Received: "
            f"class_names={class_names!r:.200}."
        )
    return names


def _is_integer(value: Any) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool)
