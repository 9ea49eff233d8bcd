"""`Diagnosis` and `Finding`: the result of `check`."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any, Literal


@dataclasses.dataclass(frozen=True)
class Finding:
    """One problem, or possible problem.

    Args:
        name: Stable identifier, such as `"stale-compile"`.
        severity: `"error"` if the training cannot succeed, `"warning"` if the
            setting may be intended.
        message: Description of the problem.
        cure: Code or advice that solves it.

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
        problem = f"{self.severity} {self.name}: {self.message}"
        return f"{problem}\n  Cure: {self.cure}"


@dataclasses.dataclass(frozen=True, repr=False)
class Diagnosis(Sequence[Finding]):
    """The findings of `check`, errors first; `str(diagnosis)` lists them.

    A read-only sequence of `Finding`, empty if nothing was found.

    Args:
        findings: The findings, as a tuple. Defaults to `()`.

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
        """Tells whether there are no errors."""
        return not self.errors

    def without(self, *names: str) -> Diagnosis:
        """Returns the diagnosis without the findings of some names.

        Args:
            *names: Names of findings, such as `"stale-compile"`.

        Returns:
            A `Diagnosis`.
        """
        return Diagnosis(tuple(f for f in self if f.name not in names))

    def raise_for_errors(self) -> None:
        """Raises one error that lists all errors, with their cures.

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
    """Returns number and noun, the latter with an `s` unless it is one."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def first_names(names: Sequence[str]) -> str:
    """Lists the first three names."""
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
