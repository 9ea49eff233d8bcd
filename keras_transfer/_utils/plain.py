"""Descriptions of values that do not depend on the process."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np


def plain(value: Any) -> Any:
    """Describes a value in JSON types, equally in every process."""
    if isinstance(value, np.ndarray):
        content = hashlib.sha256(np.ascontiguousarray(value).tobytes())
        return [str(value.dtype), list(value.shape), content.hexdigest()]
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, functools.partial):
        return [plain(value.func), plain(value.args), plain(value.keywords)]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = dataclasses.asdict(value)
        return {"class": type(value).__name__} | {
            name: plain(field) for name, field in fields.items()
        }
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, Sequence):
        return [plain(item) for item in value]
    if hasattr(value, "get_config"):
        config = value.get_config()
        config.pop("name", None)
        return {"class": type(value).__name__, **plain(config)}
    # A function by its name: its address differs from process to process.
    return getattr(value, "__qualname__", type(value).__name__)
