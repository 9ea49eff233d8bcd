"""Lazy imports: names of a package, imported on first use."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any


def importing(
    namespace: dict[str, Any], modules: Mapping[str, str]
) -> Callable[[str], object]:
    """Makes the `__getattr__` of a package.

    Args:
        namespace: The package's `globals()`.
        modules: The module of the package that defines each name, by name.

    Returns:
        Function from a name to the object of that name.
    """
    package = namespace["__name__"]

    def get(name: str) -> object:
        if name not in modules:
            raise AttributeError(
                f"module {package!r} has no attribute {name!r}"
            )
        module = import_module(f"{package}.{modules[name]}")
        value = namespace[name] = getattr(module, name)
        return value

    return get
