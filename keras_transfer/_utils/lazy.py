"""Names of a package that are imported when they are first used."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any


def importing(
    namespace: dict[str, Any], modules: Mapping[str, str]
) -> Callable[[str], object]:
    """Makes the `__getattr__` of a package.

    Args:
        namespace: `globals()` of the package.
        modules: For each name the module of the package that has it.

    Returns:
        Function from a name to what it names.
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
