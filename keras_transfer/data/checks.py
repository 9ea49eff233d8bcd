"""Checks of arguments about data that several modules take."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from keras_transfer._utils.checks import is_integer, refuse
from keras_transfer.data.splitting import SPLITS

Size = tuple[int, int]


def check_split_names(argument: str, names: Iterable[str]) -> None:
    """Raises unless the keys of a dict name splits, train among them.

    Args:
        argument: Name of the argument that holds the dict.
        names: The keys of the dict.

    Raises:
        ValueError: If a key is unknown, or train is missing.
    """
    names = list(names)
    if "train" not in names or any(name not in SPLITS for name in names):
        raise ValueError(
            f'`{argument}` must have the key "train" and, optionally, '
            f'"validation" and "test". Received: keys {names}.'
        )


def check_image_size(image_size: Any) -> Size | None:
    """Returns `(height, width)` or `None`; raises for anything else."""
    if image_size is None:
        return None
    pair = (image_size,) * 2 if is_integer(image_size) else image_size
    valid = isinstance(pair, tuple | list) and len(pair) == 2
    if not valid or not all(is_integer(n) and n > 0 for n in pair):
        refuse(
            "image_size",
            "(height, width) or one integer, above 0",
            image_size,
        )
    return int(pair[0]), int(pair[1])


def check_indices(indices: Any, count: int) -> np.ndarray:
    """Returns indices in `[0, count)` as an array; raises for anything else."""
    chosen = np.asarray(indices)
    if chosen.size == 0:
        chosen = chosen.astype(np.int64)
    valid = chosen.ndim == 1 and chosen.dtype.kind in "iu"
    if not valid or ((chosen < 0) | (chosen >= count)).any():
        refuse("indices", f"integers in [0, {count})", indices)
    return chosen
