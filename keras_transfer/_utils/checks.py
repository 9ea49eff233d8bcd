"""Checks of arguments, and the words of their errors."""

from __future__ import annotations

import difflib
import math
import numbers
from collections.abc import Iterable, Mapping
from typing import Any, NoReturn

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


def is_number(value: object) -> bool:
    """Tells whether a value is a number and no bool."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def refuse(name: str, rule: str, value: object) -> NoReturn:
    """Raises a `ValueError` that says the rule and what came.

    Args:
        name: The name of the argument.
        rule: Words that follow "must be".
        value: The value.

    Raises:
        ValueError: Always.
    """
    raise ValueError(f"`{name}` must be {rule}. Received: {name}={value!r}")


def check_multiplier(name: str, value: Any) -> None:
    """Raises unless `value` is a finite number of at least 0."""
    if not isinstance(value, numbers.Real) or not (
        0 <= float(value) < math.inf
    ):
        raise ValueError(
            f"`{name}` must be a finite number of at least 0. Received: "
            f"{value!r}"
        )


def check_multipliers(multipliers: Mapping[str, float]) -> dict[str, float]:
    """Returns the multipliers as floats by name."""
    if not isinstance(multipliers, Mapping):
        raise TypeError(
            "`multipliers` must be a mapping from names to floats. Received: "
            f"multipliers={multipliers!r:.100}"
        )
    for name, multiplier in multipliers.items():
        check_multiplier(f"multipliers[{name!r}]", multiplier)
    return {name: float(value) for name, value in multipliers.items()}


def did_you_mean(name: str, choices: Iterable[str]) -> str:
    """Returns `" Did you mean ...?"` for a misspelt name, or `""`.

    Args:
        name: What the user wrote.
        choices: The names that exist.

    Returns:
        A sentence with a leading space, or the empty string when nothing is
        near.
    """
    by_folded = {choice.casefold(): choice for choice in choices}
    matches = difflib.get_close_matches(name.casefold(), by_folded, n=3)
    if not matches:
        return ""
    return f" Did you mean {', '.join(repr(by_folded[m]) for m in matches)}?"
