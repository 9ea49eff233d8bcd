"""Result of `compare_transfer`: gains over training from scratch."""

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
from keras_transfer.experiments.cross_validation_result import CrossValidation
from keras_transfer.reports.curves import plot_accuracy_by_labels

SCRATCH = "from scratch"


METHODS = (SCRATCH, "linear probe", "fine-tune")


_CONFIDENCE = 0.95


# Largest difference of accuracies that counts as none.
_MARGIN = 0.05


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class TransferComparison:
    """Result of `compare_transfer`; `str()` of it is a table and a verdict.

    Attributes:
        backbone: Name of the backbone.
        labels_per_class: The numbers of labels; `None` stands for all.
        images_per_class: Mean number of training images of a class in a fold,
            for each of these.
        results: A `CrossValidation` for each method (`"from scratch"`,
            `"linear probe"`, `"fine-tune"`) and number of labels.

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
            way: Method, `"from scratch"`, `"linear probe"` or `"fine-tune"`.
            labels_per_class: One of `self.labels_per_class`.

        Returns:
            float64 `(folds,)`, in `[0, 1]`.

        Raises:
            ValueError: If there is no such method or number.
        """
        return self._result(way, labels_per_class).scores("accuracy")

    def gain(
        self, way: str, labels_per_class: int | None
    ) -> tuple[float, float]:
        """Returns the gain of a method over training from scratch.

        The mean difference of accuracies over the same folds, with an interval
        that is corrected for examples shared by folds, and holds for both
        transfer methods simultaneously (Bonferroni: each at 97.5 %), but not
        for several numbers of labels. The interval is never narrower than that
        of the paired examples, since few folds may agree by chance.

        Args:
            way: Method, `"linear probe"` or `"fine-tune"`.
            labels_per_class: One of `self.labels_per_class`.

        Returns:
            Tuple `(mean difference, half_width)`, in `[-1, 1]`.

        Raises:
            ValueError: If there is no such method or number.

        Reference:
            - Nadeau & Bengio, 2003, https://doi.org/10.1023/A:1024068626366
        """
        confidence = 1 - (1 - _CONFIDENCE) / (len(METHODS) - 1)
        transfer = self._result(way, labels_per_class)
        scratch = self._result(SCRATCH, labels_per_class)
        mean, half_width = transfer.minus(scratch, confidence=confidence)
        differences = _correct(transfer).astype(int) - _correct(scratch)
        _, of_examples = student(differences, confidence)
        return mean, max(half_width, of_examples)

    def best_way(self, labels_per_class: int | None) -> str:
        """Returns the better transfer method, by the mean gain.

        Args:
            labels_per_class: One of `self.labels_per_class`.

        Returns:
            `"linear probe"` or `"fine-tune"`.

        Raises:
            ValueError: If there is no such number.
        """
        return max(
            METHODS[1:],
            key=lambda method: self.gain(method, labels_per_class)[0],
        )

    def effect(self, labels_per_class: int | None) -> str:
        """Returns the effect of the better transfer method, as a word.

        Args:
            labels_per_class: One of `self.labels_per_class`.

        Returns:
            `"helps"` or `"hurts"`; if the interval contains 0, `"no
            difference"` if it lies within 5 points, else `"unclear"`.

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
        """The effect of transfer at each number of labels, as a sentence."""
        parts = []
        for labels, images in zip(
            self.labels_per_class, self.images_per_class, strict=True
        ):
            method = self.best_way(labels)
            mean, half = self.gain(method, labels)
            effect = self.effect(labels)
            points = f"{100 * abs(mean):.0f} +- {100 * half:.0f} points"
            clause = f"{effect} by {points}"
            if effect in ("no difference", "unclear"):
                clause = "makes no difference"
                if effect == "unclear":
                    clause = "is unclear"
                clause += f" ({100 * mean:+.0f} +- {100 * half:.0f} points)"
            parts.append(
                f"{clause} at {images:.0f} labels per class ({method})"
            )
        unclear = any("is unclear" in part for part in parts)
        more = " (more folds or images would tell)" if unclear else ""
        return f"Transfer from {self.backbone} {'; '.join(parts)}{more}."

    def save_table(self, path: str | os.PathLike[str]) -> None:
        """Writes a row for each method, number of labels and fold, as CSV.

        Args:
            path: The file.
        """
        text = io.StringIO()
        writer = csv.writer(text)
        writer.writerow(["way", "labels_per_class", "fold", "accuracy"])
        for (method, labels), result in self.results.items():
            for fold, accuracy in enumerate(result.scores("accuracy"), start=1):
                name = "all" if labels is None else labels
                writer.writerow([method, name, fold, f"{accuracy:.6f}"])
        with atomic_write(Path(path)) as partial:
            partial.write_text(text.getvalue(), encoding="utf-8")

    def plot(self, path: str | os.PathLike[str]) -> None:
        """Draws learning curves: accuracy over labels, for each method.

        Args:
            path: PNG file to write.
        """
        curves = {}
        for method in METHODS:
            results = [self._result(method, n) for n in self.labels_per_class]
            curves[method] = [r.interval("accuracy") for r in results]
        plot_accuracy_by_labels(self.images_per_class, curves, Path(path))

    def _result(
        self, way: str, labels_per_class: int | None
    ) -> CrossValidation:
        if way not in METHODS:
            raise ValueError(
                f"`way` must be one of {', '.join(map(repr, METHODS))}. "
                f"Received: way={way!r}.{did_you_mean(str(way), METHODS)}"
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
            "below it the gain over",
            "training from scratch, +- an interval that holds for both methods",
            f"  {'labels per class':>16}"
            + "".join(f"{method:>20}" for method in METHODS),
        ]
        for labels, images in zip(
            self.labels_per_class, self.images_per_class, strict=True
        ):
            cells, gains = [], []
            for method in METHODS:
                mean, half = self._result(method, labels).interval("accuracy")
                cells.append(f"{100 * mean:.1f} +- {100 * half:.1f}")
                if method == SCRATCH:
                    gains.append("")
                    continue
                mean, half = self.gain(method, labels)
                gains.append(f"{100 * mean:+.1f} +- {100 * half:.1f}")
            lines.append(
                f"  {images:>16.0f}" + "".join(f"{cell:>20}" for cell in cells)
            )
            lines.append(f"  {'':>16}" + "".join(f"{g:>20}" for g in gains))
        return "\n".join([*lines, self.verdict])


def _correct(result: CrossValidation) -> np.ndarray:
    """Returns booleans: held-out examples that are classified correctly."""
    return np.concatenate(
        [
            fold.outputs.argmax(axis=-1) == fold.labels
            for fold in result.evaluations
        ]
    )
