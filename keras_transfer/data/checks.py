"""Checks of arguments that several modules take."""

from __future__ import annotations

from typing import Any

import numpy as np

from keras_transfer._utils.checks import is_integer

Size = tuple[int, int]


def check_image_size(image_size: Any) -> Size | None:
    """Returns `(height, width)` or `None`; raises for anything else."""
    if image_size is None:
        return None
    pair = (image_size,) * 2 if is_integer(image_size) else image_size
    good = isinstance(pair, tuple | list) and len(pair) == 2
    if not good or not all(is_integer(n) and n > 0 for n in pair):
        raise ValueError(
            "`image_size` must be (height, width) or one integer, above 0. "
            f"Received: image_size={image_size!r}."
        )
    return int(pair[0]), int(pair[1])


def check_integer(name: str, value: Any, least: int) -> None:
    """Raises unless `value` is an integer of at least `least`."""
    if not is_integer(value) or value < least:
        raise ValueError(
            f"`{name}` must be an integer of at least {least}. Received: "
            f"{name}={value!r}."
        )


def check_indices(indices: Any, count: int) -> np.ndarray:
    """Returns indices in `[0, count)` as an array; raises for anything else."""
    chosen = np.asarray(indices)
    if chosen.size == 0:
        chosen = chosen.astype(np.int64)
    good = chosen.ndim == 1 and chosen.dtype.kind in "iu"
    if not good or ((chosen < 0) | (chosen >= count)).any():
        raise ValueError(
            f"`indices` must be integers in [0, {count}). Received: "
            f"indices={indices!r:.100}."
        )
    return chosen


def check_choice(name: str, value: Any, choices: tuple[str, ...]) -> None:
    """Raises unless `value` is one of `choices`."""
    if value not in choices:
        listed = " or ".join(f'"{choice}"' for choice in choices)
        raise ValueError(
            f"`{name}` must be {listed}. Received: {name}={value!r}."
        )
