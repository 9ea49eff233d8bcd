"""`DataReport`: skipped files, duplicates and notes from loading a data set."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

_ITEMS_SHOWN = 10


def printable(text: str) -> str:
    """Escapes the bytes of `text` that are not UTF-8."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def list_problems(problems: Sequence[tuple[str, str]]) -> str:
    """Lists the first problems, one per line, and the number of others."""
    lines = [
        f"  {printable(name)}: {why}" for name, why in problems[:_ITEMS_SHOWN]
    ]
    if len(problems) > _ITEMS_SHOWN:
        lines.append(f"  ... and {len(problems) - _ITEMS_SHOWN} more")
    return "\n".join(lines)


def raise_for_unusable(problems: Sequence[tuple[str, str]], kind: str) -> None:
    """Raises one error that lists all unusable examples, if there are any.

    Args:
        problems: Pairs `(id, reason)` of the unusable examples.
        kind: Name of the examples, such as `"images"`.

    Raises:
        ValueError: If there are any problems.
    """
    if problems:
        raise ValueError(
            f"`source` must hold {kind} that can be used. Received: "
            f"{len(problems)} that cannot:\n{list_problems(problems)}\n"
            'Repair or remove them, or pass on_error="skip".'
        )


def check_named(present: set[str], class_names: tuple[str, ...]) -> None:
    """Raises if `class_names` lacks a class of the source."""
    unknown = sorted(present.difference(class_names))
    if unknown:
        raise ValueError(
            "`class_names` must name every class of the source. Received: "
            f"{printable(repr(unknown[:10]))} outside the classes "
            f"{class_names[:10]}."
        )


@dataclasses.dataclass(frozen=True)
class DataReport:
    """Findings from loading a data set; `str(report)` is a readable text.

    Args:
        skipped: Tuple of `(example id, reason)` for all examples skipped by
            `on_error="skip"`. Defaults to `()`.
        leaks: Groups of ids of identical examples in different splits. Defaults
            to `()`.
        conflicts: Groups of ids of identical examples with different labels.
            Defaults to `()`.
        copies: Groups of ids of identical examples with the same label in the
            same split, which are harmless. Defaults to `()`.
        ignored: Names of ignored files and folders: files with another
            extension, or next to the folders of the splits. Hidden files are
            not listed. Defaults to `()`.
        notes: Sentences about the splits, such as one about a class too small
            for every split. Defaults to `()`.
        kind: Name of the examples. Defaults to `"images"`.

    Example:

    >>> report = DataReport(skipped=(("rose/1.jpg", "the file is empty"),))
    >>> report.duplicates
    ()
    >>> print(report)
    1 skipped:
      rose/1.jpg: the file is empty
    """

    skipped: tuple[tuple[str, str], ...] = ()
    leaks: tuple[tuple[str, ...], ...] = ()
    conflicts: tuple[tuple[str, ...], ...] = ()
    copies: tuple[tuple[str, ...], ...] = ()
    ignored: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    kind: str = "images"

    @property
    def duplicates(self) -> tuple[tuple[str, ...], ...]:
        """Groups of harmful duplicates: leaks and conflicts."""
        return tuple(sorted({*self.leaks, *self.conflicts}))

    def __str__(self) -> str:
        lines = []
        if self.skipped:
            lines.append(f"{len(self.skipped)} skipped:")
            lines.append(list_problems(self.skipped))
        for title, groups in (
            (f"identical {self.kind} in different splits", self.leaks),
            (f"identical {self.kind} with different labels", self.conflicts),
            ("harmless duplicates (same split and label)", self.copies),
        ):
            if groups:
                shown = groups[:_ITEMS_SHOWN]
                lines.append(f"{len(groups)} groups of {title}:")
                lines += [f"  {_join(group)}" for group in shown]
                if len(groups) > len(shown):
                    lines.append(f"  ... and {len(groups) - len(shown)} more")
        if self.ignored:
            lines.append(
                f"{len(self.ignored)} ignored, not {self.kind} by their name: "
                f"{_join(self.ignored)}"
            )
        lines += self.notes
        return "\n".join(lines) if lines else "Nothing to report."


def _join(names: Sequence[str]) -> str:
    shown = ", ".join(printable(name) for name in names[:_ITEMS_SHOWN])
    return f"{shown}, ..." if len(names) > _ITEMS_SHOWN else shown
