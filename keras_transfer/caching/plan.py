"""The caching plan of a run, as a table."""

from __future__ import annotations

import dataclasses

from keras_transfer._utils.memory import format_bytes
from keras_transfer.caching.cuts import Cut


@dataclasses.dataclass(frozen=True)
class PlannedPhase:
    """The plan of one phase.

    Attributes:
        name: Name of the phase.
        passes: Number of passes over the training examples.
        why: The reason, in words.
        cut: Cut at which activations are cached. Defaults to `None`: the whole
            model is computed in each pass.
        tier: `"memory"` or `"disk"`. Defaults to `""`.
        views: Number of cached views of each training example. Defaults to `1`.
        frozen_flops: Operations below the cut, for one example. Defaults to
            `0`.
        flops: Operations of the whole forward pass. Defaults to `0`.
        num_bytes: Size of the cache in bytes. Defaults to `0`.
        seconds: Expected time from the cache, extraction included. Defaults to
            `None`, not measured.
        direct: Expected time without a cache. Defaults to `None`.
        bound: Upper bound on the speed-up of the phase. Defaults to `1.0`.
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
    """The parts of a run that are computed once, and those of each pass.

    Attributes:
        phases: Plan of each phase.
        took: Seconds that each phase took, by its place; filled by the run.
            Defaults to `{}`.
        extracted: Number of forward passes of single examples through frozen
            networks, by the place of the phase; filled by the run. Defaults to
            `{}`.

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
        """Records that a phase caches nothing after all.

        Args:
            place: Index of the phase.
            why: The reason, in words.
        """
        phases = list(self.phases)
        old = phases[place]
        phases[place] = PlannedPhase(old.name, old.passes, why)
        self.phases = tuple(phases)

    def explain(self) -> str:
        """Returns a table of what is cached where, its cost, and the reason.

        FLOPs are those of one example's forward pass, sizes those of the whole
        cache, and the bound is that of the phase alone.
        """
        header = (
            "phase",
            "passes",
            "cached",
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
            cached = phase.cut is not None
            took = self.took.get(place)
            passed = self.extracted.get(place)
            rows.append(
                (
                    f"{place + 1} {phase.name}",
                    str(phase.passes),
                    phase.cut.name if phase.cut else "nothing",
                    phase.tier or "-",
                    str(phase.views) if cached else "-",
                    f"{phase.frozen_flops / 1e9:.3f}/{phase.flops / 1e9:.3f}",
                    format_bytes(phase.num_bytes) if cached else "-",
                    _seconds(phase.seconds if cached else phase.direct),
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
