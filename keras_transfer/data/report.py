"""What loading found out about the data: bad files, duplicates, oddities."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

SHOWN = 10


def printable(text: str) -> str:
    """Returns `text` with bytes that are not UTF-8 shown as escapes."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def list_problems(problems: Sequence[tuple[str, str]]) -> str:
    """Lists the first problems, one per line, and counts the rest."""
    lines = [f"  {printable(name)}: {why}" for name, why in problems[:SHOWN]]
    if len(problems) > SHOWN:
        lines.append(f"  ... and {len(problems) - SHOWN} more")
    return "\n".join(lines)


def refuse(skipped: Sequence[tuple[str, str]], kind: str) -> None:
    """Raises one error that lists what cannot be used, if anything.

    Args:
        skipped: `(id, reason)` of each.
        kind: What they are, such as `"images"`.

    Raises:
        ValueError: If there are any.
    """
    if skipped:
        raise ValueError(
            f"`source` must hold {kind} that can be used. Received: "
            f"{len(skipped)} that cannot:\n{list_problems(skipped)}\n"
            'Repair or remove them, or pass on_error="skip".'
        )


def check_named(found: set[str], class_names: tuple[str, ...]) -> None:
    """Raises where a source has classes that `class_names` lacks."""
    unknown = sorted(found.difference(class_names))
    if unknown:
        raise ValueError(
            "`class_names` must name every class of the source. Received: "
            f"{printable(repr(unknown[:10]))} outside the classes "
            f"{class_names[:10]}."
        )


@dataclasses.dataclass(frozen=True)
class DataReport:
    """What loading found; `str(report)` is the readable form.

    Args:
        skipped: Tuple of `(example id, reason)` of everything left out with
            `on_error="skip"`. Defaults to `()`.
        leaks: Groups of ids of identical examples that stand in different
            splits. Defaults to `()`.
        conflicts: Groups of ids of identical examples with different labels.
            Defaults to `()`.
        copies: Groups of ids of identical examples with the same label in the
            same split, which does no harm. Defaults to `()`.
        ignored: Names of files and folders that are no candidates: another
            extension, or beside the split folders. Hidden ones are not
            listed. Defaults to `()`.
        notes: Sentences about the splits, such as a class too small to stand
            in each of them. Defaults to `()`.
        kind: What the examples are. Defaults to `"images"`.

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
        """Groups of identical examples that do harm: leaks and conflicts."""
        return tuple(sorted({*self.leaks, *self.conflicts}))

    def __str__(self) -> str:
        parts = []
        if self.skipped:
            parts.append(f"{len(self.skipped)} skipped:")
            parts.append(list_problems(self.skipped))
        for title, groups in (
            (f"identical {self.kind} in different splits", self.leaks),
            (f"identical {self.kind} with different labels", self.conflicts),
            ("harmless copies (same split and label)", self.copies),
        ):
            if groups:
                parts.append(f"{len(groups)} groups of {title}:")
                parts += [f"  {_join(group)}" for group in groups[:SHOWN]]
                if len(groups) > SHOWN:
                    parts.append(f"  ... and {len(groups) - SHOWN} more")
        if self.ignored:
            parts.append(
                f"{len(self.ignored)} ignored, no {self.kind} by their name: "
                f"{_join(self.ignored)}"
            )
        parts += self.notes
        return "\n".join(parts) if parts else "Nothing to report."


def _join(names: Sequence[str]) -> str:
    shown = ", ".join(printable(name) for name in names[:SHOWN])
    return f"{shown}, ..." if len(names) > SHOWN else shown
