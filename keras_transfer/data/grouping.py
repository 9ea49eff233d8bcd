"""Groups of examples that stay in one split: patients, scenes, copies."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Hashable, Sequence
from typing import Any

from keras_transfer.data.labels import (
    as_cells,
    is_missing,
    label_name,
    refuse_gaps,
)

GroupsLike = str | Callable[[str], Any] | Sequence[Any] | None

NO_GROUP = "it has no group"


def group_keys(
    groups: GroupsLike, ids: Sequence[str], column: Sequence[Any]
) -> list[str] | None:
    """Returns the group of each example, `""` if it has none.

    Args:
        groups: Name of a column, function from an id to a group, one group for
            each example, or `None`.
        ids: The ids of the examples.
        column: Cells of the named column; empty if the source has no columns.

    Returns:
        A list of names, or `None` without groups.

    Raises:
        ValueError: If there is no such column, or another number of groups than
            examples.
        TypeError: If `groups` is of another type.
    """
    if groups is None:
        return None
    if isinstance(groups, str):
        if len(column) != len(ids):
            raise ValueError(
                "`groups` must be a function from ids to groups, or one group "
                "for each example, unless the source is a table. Received: "
                f"groups={groups!r} and a source without columns."
            )
        cells = list(column)
    elif callable(groups):
        cells = [groups(name) for name in ids]
    elif hasattr(groups, "__len__"):
        cells = as_cells(groups)
    else:
        raise TypeError(
            "`groups` must be the name of a column, a function from ids to "
            "groups, or one group for each example. Received: "
            f"{type(groups).__name__}."
        )
    if len(cells) != len(ids):
        raise ValueError(
            "`groups` must hold one group for each example. Received: "
            f"{len(cells)} groups for {len(ids)} examples. Pass a function "
            "from ids to groups."
        )
    return [
        "" if is_missing(cell) else label_name(cell, (str(cell).strip(),))
        for cell in cells
    ]


def complete_groups(groups: GroupsLike, ids: Sequence[str]) -> list[str] | None:
    """Returns the group of each example, where nothing can be left out.

    Args:
        groups: Function from an id to a group, one group for each example, or
            `None`.
        ids: The ids of the examples.

    Returns:
        A list of names, or `None` without groups.

    Raises:
        ValueError: If there is another number of groups than examples, or an
            example has none.
        TypeError: If `groups` is of another type.
    """
    keys = group_keys(groups, ids, ())
    if keys is not None:
        refuse_gaps("groups", [key or None for key in keys], "groups")
    return keys


def join_groups(
    copies: Sequence[Sequence[int]], keys: Sequence[Hashable] | None
) -> list[list[int]]:
    """Joins groups that share an example.

    Args:
        copies: Groups of positions; together they hold each position once.
        keys: Further group of each position, or `None`.

    Returns:
        Groups of positions, in the order of their first ones.

    Example:

    >>> join_groups([[0, 2], [1], [3]], keys=["a", "b", "b", "c"])
    [[0, 1, 2], [3]]
    """
    if keys is None:
        return [list(group) for group in copies]
    parent = list(range(len(keys)))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    first: dict[Hashable, int] = {}
    for i, key in enumerate(keys):
        parent[root(i)] = root(first.setdefault(key, i))
    for group in copies:
        for i in group[1:]:
            parent[root(i)] = root(group[0])
    joined: dict[int, list[int]] = {}
    for i in range(len(keys)):
        joined.setdefault(root(i), []).append(i)
    return list(joined.values())


def note_groups_apart(
    keys: Sequence[str] | None, splits: Sequence[str]
) -> tuple[str, ...]:
    """Warns of groups that the source has in several splits, and returns that.

    Args:
        keys: The group of each example, or `None`.
        splits: The split of each example.
    """
    found: dict[str, set[str]] = {}
    for key, split in zip(keys or (), splits, strict=keys is not None):
        found.setdefault(key, set()).add(split)
    apart = sorted(key for key, names in found.items() if len(names) > 1)
    if not apart:
        return ()
    note = (
        f"{len(apart)} groups are in different splits of the source, so scores "
        f"are too high. The first is {apart[0]!r}. Leave the splits of the "
        "source out, so that they are made by groups."
    )
    warnings.warn(note, UserWarning, stacklevel=3)
    return (note,)
