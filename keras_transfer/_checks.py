"""Checks of arguments that several layers take."""

from __future__ import annotations

from typing import Any

import numpy as np


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


def is_integer(value: Any) -> bool:
    """Whether `value` is a whole number, of Python or NumPy, and no bool."""
    return isinstance(value, int | np.integer) and not isinstance(value, bool)
