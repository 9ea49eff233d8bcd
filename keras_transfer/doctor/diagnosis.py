"""What `check` returns."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any, Literal


@dataclasses.dataclass(frozen=True)
class Finding:
    """One thing that is wrong, or may be.

    Args:
        name: Stable identifier, such as `"stale-compile"`.
        severity: `"error"`: the training cannot give what is wanted;
            `"warning"`: it may be meant.
        message: What was found.
        cure: What to type.

    Example:

    >>> print(Finding("nan-data", "error", "Images hold NaN.", "Drop them."))
    error nan-data: Images hold NaN.
      Cure: Drop them.
    """

    name: str
    severity: Literal["error", "warning"]
    message: str
    cure: str

    def __str__(self) -> str:
        return f"{self.severity} {self.name}: {self.message}\n  Cure: " + (
            self.cure
        )


@dataclasses.dataclass(frozen=True, repr=False)
class Diagnosis(Sequence[Finding]):
    """The findings of `check`, errors first; `str(diagnosis)` lists them.

    A read-only sequence of `Finding`, empty where nothing was found.

    Args:
        findings: Tuple of `Finding`. Defaults to `()`.

    Example:

    >>> finding = Finding("nan-data", "error", "Images hold NaN.", "Drop them.")
    >>> diagnosis = Diagnosis((finding,))
    >>> diagnosis.ok, diagnosis[0].name
    (False, 'nan-data')
    """

    findings: tuple[Finding, ...] = ()

    @property
    def errors(self) -> tuple[Finding, ...]:
        """The findings that are errors."""
        return tuple(f for f in self.findings if f.severity == "error")

    @property
    def warnings(self) -> tuple[Finding, ...]:
        """The findings that are warnings."""
        return tuple(f for f in self.findings if f.severity == "warning")

    @property
    def ok(self) -> bool:
        """Whether there are no errors."""
        return not self.errors

    def without(self, *names: str) -> Diagnosis:
        """Returns the diagnosis without the findings of these names.

        Args:
            *names: Such as `"stale-compile"`.

        Returns:
            A `Diagnosis`.
        """
        return Diagnosis(tuple(f for f in self if f.name not in names))

    def raise_for_errors(self) -> None:
        """Raises all errors at once, with their cures.

        Raises:
            ValueError: If there is an error.
        """
        if self.errors:
            raise ValueError(_table(self.errors))

    def __getitem__(self, index: Any) -> Any:
        return self.findings[index]

    def __iter__(self) -> Iterator[Finding]:
        return iter(self.findings)

    def __len__(self) -> int:
        return len(self.findings)

    def __repr__(self) -> str:
        names = ", ".join(f"{f.severity} {f.name}" for f in self.findings)
        return f"<Diagnosis: {names or 'nothing found'}>"

    def __str__(self) -> str:
        return _table(self.findings) if self.findings else "Nothing found."


def _table(findings: Sequence[Finding]) -> str:
    counts = []
    for severity in ("error", "warning"):
        number = sum(f.severity == severity for f in findings)
        if number:
            counts.append(plural(number, severity))
    return "\n".join([" and ".join(counts) + ":", *map(str, findings)])


def plural(number: int, noun: str) -> str:
    """Returns number and noun, which takes an `s` beyond one."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def some(names: Sequence[str]) -> str:
    """Returns the first three names."""
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
