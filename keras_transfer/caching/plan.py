"""What a run computes once, and what in each pass, as a table."""

from __future__ import annotations

import dataclasses

from keras_transfer._utils.memory import format_bytes
from keras_transfer.caching.cuts import Cut


@dataclasses.dataclass(frozen=True)
class PlannedPhase:
    """How one phase is computed.

    Attributes:
        name: Name of the phase.
        passes: Times that the training examples pass.
        why: The reason, in words.
        cut: Where activations are kept. Defaults to `None`: all is computed
            anew in each pass.
        tier: `"memory"` or `"disk"`. Defaults to `""`.
        views: Views of each training example that are kept. Defaults to `1`.
        frozen_flops: Operations below the cut, for one example. Defaults to
            `0`.
        flops: Operations of the whole forward pass. Defaults to `0`.
        num_bytes: Size of what is kept. Defaults to `0`.
        seconds: Expected time from what is kept, extraction included. Defaults
            to `None`, not measured.
        direct: Expected time when all is computed in each pass. Defaults to
            `None`.
        bound: How much faster the phase can become at most. Defaults to `1.0`.
    """

    name: str
    passes: int
    why: str
    cut: Cut | None = None
    tier: str = ""
    views: int = 1
    frozen_flops: int = 0
    flops: int = 0
    num_bytes: int = 0
    seconds: float | None = None
    direct: float | None = None
    bound: float = 1.0


@dataclasses.dataclass(eq=False)
class Plan:
    """What is computed once in a run, and what each pass.

    Attributes:
        phases: How each phase is computed.
        took: Seconds that each phase took, by its place; filled by the run.
            Defaults to `{}`.
        extracted: Passes of single examples through frozen networks, by the
            place of the phase; filled by the run. Defaults to `{}`.

    Example:

    >>> data = load_images((arrays, labels))
    >>> model = build_classifier(backbone, data=data)
    >>> print(plan(model, data, strategy="linear-probe").explain())
    phase ...
    """

    phases: tuple[PlannedPhase, ...]
    took: dict[int, float] = dataclasses.field(default_factory=dict)
    extracted: dict[int, int] = dataclasses.field(default_factory=dict)

    def drop(self, place: int, why: str) -> None:
        """Says that a phase keeps nothing after all.

        Args:
            place: Of the phase.
            why: The reason, in words.
        """
        phases = list(self.phases)
        old = phases[place]
        phases[place] = PlannedPhase(old.name, old.passes, why)
        self.phases = tuple(phases)

    def explain(self) -> str:
        """Returns a table: what is kept where, what it costs, and why.

        FLOPs are those of one example forward; sizes are those of all that is
        kept; the bound is that of the phase alone.
        """
        header = (
            "phase",
            "passes",
            "kept",
            "where",
            "views",
            "frozen/all GFLOPs",
            "size",
            "expected",
            "direct",
            "bound",
            "took",
            "passed frozen",
        )
        rows = [header]
        for place, phase in enumerate(self.phases):
            kept = phase.cut is not None
            took = self.took.get(place)
            passed = self.extracted.get(place)
            rows.append(
                (
                    f"{place + 1} {phase.name}",
                    str(phase.passes),
                    phase.cut.name if phase.cut else "nothing",
                    phase.tier or "-",
                    str(phase.views) if kept else "-",
                    f"{phase.frozen_flops / 1e9:.3f}/{phase.flops / 1e9:.3f}",
                    format_bytes(phase.num_bytes) if kept else "-",
                    _seconds(phase.seconds if kept else phase.direct),
                    _seconds(phase.direct),
                    f"{phase.bound:.1f}x",
                    _seconds(took),
                    "-" if passed is None else str(passed),
                )
            )
        widths = [max(len(row[i]) for row in rows) for i in range(len(header))]
        lines = [
            "  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True))
            for row in rows
        ]
        lines += [
            f"{place + 1} {phase.name}: {phase.why}"
            for place, phase in enumerate(self.phases)
        ]
        return "\n".join(line.rstrip() for line in lines)

    def __repr__(self) -> str:
        return f"<Plan of {len(self.phases)} phases>\n{self.explain()}"


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f} s"
