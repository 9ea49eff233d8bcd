"""The table of ranked backbones."""

from __future__ import annotations

import csv
import dataclasses
import io
import math
import os
from pathlib import Path
from typing import NamedTuple

from keras_transfer._utils.files import atomic_write
from keras_transfer.features.probe_score import ProbeScore
from keras_transfer.reports.plots import plot_costs


class RankedBackbone(NamedTuple):
    """A row of a `Ranking`.

    Attributes:
        name: Name of the backbone.
        examples: Number of training images used; fewer than all if the
            backbone was eliminated early.
        probe: Cross-validated accuracy of a linear probe.
        scores: The other scores, by name; higher is better. NaN for `"leep"`
            and `"nce"` of a backbone without a classifier of its own.
        imagenet_top1: ImageNet accuracy of its published weights, the baseline
            of any score; `None` if unknown.
        parameters: Number of parameters.
        flops: Operations of a forward pass of one image.
        images_per_second: Measured speed of the network, without decoding; 0
            if all features were in the store.
        licence: Licence of the weights.
    """

    name: str
    examples: int
    probe: ProbeScore
    scores: dict[str, float]
    imagenet_top1: float | None
    parameters: int
    flops: int
    images_per_second: float
    licence: str


@dataclasses.dataclass(frozen=True)
class Ranking:
    """Result of `rank_backbones`, best first.

    Attributes:
        rows: A `RankedBackbone` for each, sorted by the number of images used,
            then by `by`.
        by: Name of the score to sort by.
        computed: Number of times that an image passed a backbone.
    """

    rows: tuple[RankedBackbone, ...]
    by: str
    computed: int

    @property
    def best(self) -> str:
        """The name of the first row."""
        return self.rows[0].name

    def __str__(self) -> str:
        return self.table()

    def table(self) -> str:
        """Returns the rows as text."""
        names = list(self.rows[0].scores)
        width = max(len(row.name) for row in self.rows)
        head = f"{'backbone':<{width}}  images  probe (95 %)          "
        head += "  ".join(f"{name:>8}" for name in names)
        lines = [
            f"{head}  ImageNet  million weights  GFLOPs  images/s  licence"
        ]
        for row in self.rows:
            line = f"{row.name:<{width}}  {row.examples:>6}  {row.probe!s}"
            line = f"{line:<{width + 31}} "
            line += "  ".join(
                f"{row.scores[name]:>8.3f}"
                if math.isfinite(row.scores[name])
                else f"{'-':>8}"
                for name in names
            )
            top1, speed = row.imagenet_top1, row.images_per_second
            line += f"  {top1:>8.1%}" if top1 else f"{'-':>10}"
            line += f"  {row.parameters / 1e6:>15.2f}  {row.flops / 1e9:>6.2f}"
            line += f"  {speed:>8.0f}" if speed else f"{'-':>10}"
            lines.append(f"{line}  {row.licence}")
        return "\n".join(lines)

    def save_table(self, path: str | os.PathLike[str]) -> None:
        """Writes the rows as CSV, with the licences.

        Args:
            path: The file.
        """
        text = io.StringIO()
        writer = csv.writer(text)
        names = list(self.rows[0].scores)
        writer.writerow(
            ["backbone", "images", "probe", "low", "high", *names]
            + ["imagenet_top1", "parameters", "flops"]
            + ["images_per_second", "licence"]
        )
        for row in self.rows:
            writer.writerow(
                [row.name, row.examples, *row.probe]
                + [row.scores[name] for name in names]
                + [row.imagenet_top1, row.parameters, row.flops]
                + [round(row.images_per_second, 1), row.licence]
            )
        with atomic_write(Path(path)) as partial:
            partial.write_text(text.getvalue(), encoding="utf-8")

    def plot(self, path: str | os.PathLike[str]) -> None:
        """Draws the accuracy of the probe against operations.

        Args:
            path: PNG file to write.
        """
        plot_costs(
            {row.name: row.flops for row in self.rows},
            {row.name: (*row.probe,) for row in self.rows},
            self.pareto(),
            Path(path),
        )

    def pareto(self) -> tuple[str, ...]:
        """Returns the names of the Pareto-optimal backbones.

        No other has both a better probe accuracy and fewer operations.
        """
        names = []
        for row in self.rows:
            beaten = any(
                other.probe.accuracy >= row.probe.accuracy
                and other.flops <= row.flops
                and (other.probe.accuracy, -other.flops)
                > (row.probe.accuracy, -row.flops)
                for other in self.rows
                if other is not row
            )
            if not beaten:
                names.append(row.name)
        return tuple(names)
