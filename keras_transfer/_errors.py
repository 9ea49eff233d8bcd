"""Words shared by the error messages of the package."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def nearest(name: str, choices: Iterable[str]) -> str:
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
