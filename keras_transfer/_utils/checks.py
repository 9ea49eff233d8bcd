"""Checks of arguments, and the errors they raise."""

from __future__ import annotations

import difflib
import math
import numbers
from collections.abc import Iterable, Mapping
from typing import Any, NoReturn

import numpy as np

# Rows of shares sum to 1 up to rounding, in half precision as well.
SUM_TOLERANCE = 1e-3


def refuse(name: str, rule: str, value: object) -> NoReturn:
    """Raises the `ValueError` of an argument that breaks its rule.

    Args:
        name: Name of the argument.
        rule: The rule, to be read after "must be".
        value: The value that the caller passed.

    Raises:
        ValueError: Always.
    """
    raise ValueError(
        f"`{name}` must be {rule}. Received: {name}={value!r:.200}."
    )


def check_class_names(class_names: Any) -> tuple[str, ...] | None:
    """Returns the names as a tuple, or `None` for `None`."""
    if class_names is None:
        return None
    names = () if isinstance(class_names, str) else tuple(class_names)
    valid = names and all(isinstance(name, str) and name for name in names)
    if not valid or len(set(names)) != len(names):
        refuse("class_names", "different, non-empty strings", class_names)
    return names


def is_integer(value: Any) -> bool:
    """Tells whether `value` is a Python or NumPy integer, not a bool."""
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def is_number(value: Any) -> bool:
    """Tells whether `value` is an integer or float of Python, not a bool."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def check_integer(name: str, value: Any, least: int) -> None:
    """Raises unless `value` is an integer of at least `least`."""
    if not is_integer(value) or value < least:
        refuse(name, f"an integer of at least {least}", value)


def check_choice(name: str, value: Any, choices: Iterable[str]) -> None:
    """Raises unless `value` is one of `choices`."""
    if value not in (names := tuple(choices)):
        refuse(name, " or ".join(f'"{choice}"' for choice in names), value)


def check_multiplier(name: str, value: Any) -> None:
    """Raises unless `value` is a finite number of at least 0."""
    number = isinstance(value, numbers.Real)
    if not number or not 0 <= float(value) < math.inf:
        refuse(name, "a finite number of at least 0", value)


def check_multipliers(multipliers: Mapping[str, float]) -> dict[str, float]:
    """Returns the multipliers as a dict of floats."""
    if not isinstance(multipliers, Mapping):
        raise TypeError(
            "`multipliers` must be a mapping from names to floats. Received: "
            f"multipliers={multipliers!r:.100}"
        )
    for name, multiplier in multipliers.items():
        check_multiplier(f"multipliers[{name!r}]", multiplier)
    return {name: float(value) for name, value in multipliers.items()}


def check_is_described(name: str, schedule: Any) -> None:
    """Raises unless a schedule of Keras has a configuration.

    Args:
        name: Name of the argument that holds it.
        schedule: The schedule.

    Raises:
        TypeError: If it has none.
    """
    try:
        schedule.get_config()
    except NotImplementedError as err:
        raise TypeError(
            f"`{name}` must have a schedule with a configuration, which tells "
            "a run that goes on from another one. Received: a "
            f"{type(schedule).__name__} without `get_config`. Define it, to "
            "return the arguments of its `__init__`."
        ) from err


def did_you_mean(name: str, choices: Iterable[str]) -> str:
    """Returns `" Did you mean ...?"` for a misspelt name, or `""`.

    Args:
        name: The name that the user wrote.
        choices: The names that exist.

    Returns:
        A sentence with a leading space, or the empty string if no choice is
        similar.
    """
    by_folded = {choice.casefold(): choice for choice in choices}
    matches = difflib.get_close_matches(name.casefold(), by_folded, n=3)
    if not matches:
        return ""
    return f" Did you mean {', '.join(repr(by_folded[m]) for m in matches)}?"
