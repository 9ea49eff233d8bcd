"""Tables in files."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from keras_transfer._utils.files import atomic_write

if TYPE_CHECKING:
    pass


def write_predictions(
    path: str | Path,
    ids: Sequence[str],
    labels: Sequence[int] | np.ndarray,
    probabilities: np.ndarray,
    class_names: Sequence[str],
) -> None:
    """Writes what was predicted for each example, a row each, as CSV.

    Columns `id`, `label`, `predicted`, `confidence` (the probability of the
    predicted class, in `[0, 1]`) and `correct` (1 or 0).

    Args:
        path: CSV file to write, in UTF-8.
        ids: The examples' ids, `n` of them.
        labels: True class indices, `(n,)`.
        probabilities: Predicted probabilities, `(n, num_classes)`.
        class_names: Names of the classes.

    Raises:
        ValueError: If the lengths differ.

    Example:

    >>> path = folder / "predictions.csv"
    >>> write_predictions(path, ["a.jpg"], [1], [[0.2, 0.8]], ["cat", "dog"])
    """
    probabilities = np.asarray(probabilities)
    if not len(ids) == len(labels) == len(probabilities):
        raise ValueError(
            "`ids`, `labels` and `probabilities` must have equal length. "
            f"Received: {len(ids)}, {len(labels)} and {len(probabilities)}"
        )
    rows = [["id", "label", "predicted", "confidence", "correct"]]
    for name, label, row in zip(ids, labels, probabilities, strict=True):
        guess = int(row.argmax())
        known = class_names[label], class_names[guess]
        rows.append(
            [name, *known, f"{row[guess]:.4f}", str(int(guess == label))]
        )
    with (
        atomic_write(Path(path)) as partial,
        open(partial, "w", newline="", encoding="utf-8") as file,
    ):
        csv.writer(file).writerows(rows)
