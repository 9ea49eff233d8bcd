"""What transfer gains over training from scratch, and the verdict."""

from __future__ import annotations

import csv
import dataclasses
import io
import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from keras_transfer._utils.checks import did_you_mean
from keras_transfer._utils.files import atomic_write
from keras_transfer.evaluation.intervals import student
from keras_transfer.experiments.cross_validation import CrossValidation
from keras_transfer.reports.curves import plot_accuracy_by_labels

SCRATCH = "from scratch"


WAYS = (SCRATCH, "linear probe", "fine-tune")


_CONFIDENCE = 0.95


# What is too little to matter, where the interval holds 0.
_MARGIN = 0.05


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class TransferComparison:
    """What `compare_transfer` returns; `str()` of it is table and verdict.

    Attributes:
        backbone: Name of the backbone.
        labels_per_class: The numbers of labels; `None` stands for all.
        images_per_class: For each of them the images of a class that a fold
            trains with, on average.
        results: A `CrossValidation` for each way (`"from scratch"`, `"linear
            probe"`, `"fine-tune"`) and number of labels.

    Example:

    >>> data = load_images((arrays, labels))
    >>> comparison = compare_transfer(
    ...     backbone, data, [2], folds=2, verbose=0,
    ...     from_scratch=FromScratch(epochs=1),
    ...     strategy=LinearProbe(exact=True),
    ... )
    >>> print(comparison.verdict)
    Transfer from small ...
    """

    backbone: str
    labels_per_class: tuple[int | None, ...]
    images_per_class: tuple[float, ...]
    results: Mapping[tuple[str, int | None], CrossValidation]

    def scores(self, way: str, labels_per_class: int | None) -> np.ndarray:
        """Returns the accuracies by fold.

        Args:
            way: `"from scratch"`, `"linear probe"` or `"fine-tune"`.
            labels_per_class: One of `self.labels_per_class`.

        Returns:
            float64 `(folds,)`, in `[0, 1]`.

        Raises:
            ValueError: If there is no such way or number.
        """
        return self._result(way, labels_per_class).scores("accuracy")

    def gain(
        self, way: str, labels_per_class: int | None
    ) -> tuple[float, float]:
        """Returns what a way gains over training from scratch.

        The mean difference of accuracies over the same folds, with an interval
        that is corrected for the examples that folds share, and holds for both
        ways of transfer at once (Bonferroni: each at 97.5 %). Each number of
        labels stands by itself. The interval is never narrower than that of
        the paired examples, since few folds may agree by chance.

        Args:
            way: `"linear probe"` or `"fine-tune"`.
            labels_per_class: One of `self.labels_per_class`.

        Returns:
            Tuple `(mean difference, half_width)`, in `[-1, 1]`.

        Raises:
            ValueError: If there is no such way or number.

        Reference:
            - Nadeau & Bengio, 2003, https://doi.org/10.1023/A:1024068626366
        """
        confidence = 1 - (1 - _CONFIDENCE) / (len(WAYS) - 1)
        ours = self._result(way, labels_per_class)
        theirs = self._result(SCRATCH, labels_per_class)
        mean, half_width = ours.minus(theirs, confidence=confidence)
        _, of_examples = student(
            _rights(ours).astype(int) - _rights(theirs), confidence
        )
        return mean, max(half_width, of_examples)

    def best_way(self, labels_per_class: int | None) -> str:
        """Returns the better way of transfer, by the mean.

        Args:
            labels_per_class: One of `self.labels_per_class`.

        Returns:
            `"linear probe"` or `"fine-tune"`.

        Raises:
            ValueError: If there is no such number.
        """
        return max(
            WAYS[1:], key=lambda way: self.gain(way, labels_per_class)[0]
        )

    def effect(self, labels_per_class: int | None) -> str:
        """Says what transfer does: the better way against from scratch.

        Args:
            labels_per_class: One of `self.labels_per_class`.

        Returns:
            `"helps"` or `"hurts"`; where the interval holds 0, `"no
            difference"` if all of it is within 5 points, else `"unclear"`.

        Raises:
            ValueError: If there is no such number.
        """
        mean, half_width = self.gain(
            self.best_way(labels_per_class), labels_per_class
        )
        if abs(mean) <= half_width:
            small = abs(mean) + half_width <= _MARGIN
            return "no difference" if small else "unclear"
        return "helps" if mean > 0 else "hurts"

    @property
    def verdict(self) -> str:
        """One sentence: what transfer does at each number of labels."""
        parts = []
        for labels, images in zip(
            self.labels_per_class, self.images_per_class, strict=True
        ):
            way = self.best_way(labels)
            mean, half = self.gain(way, labels)
            effect = self.effect(labels)
            points = f"{100 * abs(mean):.0f} +- {100 * half:.0f} points"
            said = f"{effect} by {points}"
            if effect in ("no difference", "unclear"):
                said = "makes no difference"
                if effect == "unclear":
                    said = "is unclear"
                said += f" ({100 * mean:+.0f} +- {100 * half:.0f} points)"
            parts.append(f"{said} at {images:.0f} labels a class ({way})")
        unclear = any("is unclear" in part for part in parts)
        more = " (more folds or images would tell)" if unclear else ""
        return f"Transfer from {self.backbone} {'; '.join(parts)}{more}."

    def save_table(self, path: str | os.PathLike[str]) -> None:
        """Writes a row for each way, number of labels and fold, as CSV.

        Args:
            path: The file.
        """
        text = io.StringIO()
        writer = csv.writer(text)
        writer.writerow(["way", "labels_per_class", "fold", "accuracy"])
        for (way, labels), found in self.results.items():
            for fold, accuracy in enumerate(found.scores("accuracy"), start=1):
                name = "all" if labels is None else labels
                writer.writerow([way, name, fold, f"{accuracy:.6f}"])
        with atomic_write(Path(path)) as partial:
            partial.write_text(text.getvalue(), encoding="utf-8")

    def plot(self, path: str | os.PathLike[str]) -> None:
        """Draws the learning curve: accuracy over labels, for each way.

        Args:
            path: PNG file to write.
        """
        curves = {}
        for way in WAYS:
            found = [self._result(way, n) for n in self.labels_per_class]
            curves[way] = [result.interval("accuracy") for result in found]
        plot_accuracy_by_labels(self.images_per_class, curves, Path(path))

    def _result(
        self, way: str, labels_per_class: int | None
    ) -> CrossValidation:
        if way not in WAYS:
            raise ValueError(
                f"`way` must be one of {', '.join(map(repr, WAYS))}. Received: "
                f"way={way!r}.{did_you_mean(str(way), WAYS)}"
            )
        if (way, labels_per_class) not in self.results:
            raise ValueError(
                "`labels_per_class` must be one of "
                f"{', '.join(map(str, self.labels_per_class))}. Received: "
                f"labels_per_class={labels_per_class!r}"
            )
        return self.results[way, labels_per_class]

    def __repr__(self) -> str:
        return f"<TransferComparison: {self.verdict}>"

    def __str__(self) -> str:
        folds = len(next(iter(self.results.values())).evaluations)
        lines = [
            f"accuracy in percent, mean over {folds} folds +- 95 % interval; "
            "below it what transfer gains",
            "over from scratch, +- an interval for both ways at once",
            f"  {'labels a class':>14}" + "".join(f"{way:>20}" for way in WAYS),
        ]
        for labels, images in zip(
            self.labels_per_class, self.images_per_class, strict=True
        ):
            cells, gains = [], []
            for way in WAYS:
                mean, half = self._result(way, labels).interval("accuracy")
                cells.append(f"{100 * mean:.1f} +- {100 * half:.1f}")
                if way == SCRATCH:
                    gains.append("")
                    continue
                mean, half = self.gain(way, labels)
                gains.append(f"{100 * mean:+.1f} +- {100 * half:.1f}")
            lines.append(
                f"  {images:>14.0f}" + "".join(f"{cell:>20}" for cell in cells)
            )
            lines.append(f"  {'':>14}" + "".join(f"{g:>20}" for g in gains))
        return "\n".join([*lines, self.verdict])


def _rights(found: CrossValidation) -> np.ndarray:
    """Whether each example that was held out was classified rightly."""
    return np.concatenate(
        [
            fold.outputs.argmax(axis=-1) == fold.labels
            for fold in found.evaluations
        ]
    )
