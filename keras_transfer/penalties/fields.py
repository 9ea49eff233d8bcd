"""Checks of the fields of penalties."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import Any

import keras

from keras_transfer._utils.checks import is_integer
from keras_transfer.penalties.attached import (
    check_coefficient,
)
from keras_transfer.penalties.terms import (
    KINDS,
    new_variable,
)


def check_fields(penalty: Any) -> None:
    """Checks the fields of a penalty, and converts them to plain values."""
    for item in fields(penalty):
        value = checked_filters(item.name, getattr(penalty, item.name))
        # The dataclass is frozen.
        object.__setattr__(penalty, item.name, value)


def checked_coefficients(penalty: Any) -> dict[str, keras.Variable]:
    """Makes a variable for each coefficient of a penalty, by name."""
    values = {f.name: getattr(penalty, f.name) for f in fields(penalty)}
    return {
        name: new_variable(value, name)
        for name, value in values.items()
        if isinstance(value, float)
    }


def checked_filters(name: str, value: Any) -> Any:
    """Returns the value of a field, checked and converted."""
    if name == "on":
        return check_names(
            name, value, f"a tuple out of {', '.join(KINDS)}", KINDS
        )
    if name == "blocks":
        rule = "None, or names of blocks or patterns for them"
        is_single = isinstance(value, str | None)
        return value if is_single else check_names(name, value, rule)
    if name == "decoupled":
        if not isinstance(value, bool):
            raise ValueError(
                "`decoupled` must be True or False. Received: "
                f"decoupled={value!r}"
            )
        return value
    if name == "k":
        if not is_integer(value) or value < 1:
            raise ValueError(
                f"`k` must be a positive integer. Received: k={value!r}"
            )
        return int(value)
    return check_coefficient(name, value)


def check_names(
    name: str, value: Any, rule: str, choices: Sequence[str] = ()
) -> tuple[str, ...]:
    """Returns names as a tuple; raises unless they follow the rule."""
    names = value if isinstance(value, list | tuple) else ()
    are_valid = all(
        isinstance(n, str) and n in (choices or (n,)) for n in names
    )
    if not names or not are_valid or len(set(names)) != len(names):
        raise ValueError(
            f"`{name}` must be {rule}, at least one and each once. Received: "
            f"{name}={value!r:.100}"
        )
    return tuple(names)
