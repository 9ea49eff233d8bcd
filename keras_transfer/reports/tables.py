"""Tables of results, as files."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from keras_transfer._utils.files import atomic_write


def write_predictions(
    path: str | Path,
    ids: Sequence[str],
    labels: Sequence[int] | np.ndarray,
    probabilities: np.ndarray,
    class_names: Sequence[str],
) -> None:
    """Writes the prediction for each example to a CSV file, a row each.

    The columns are `id`, `label`, `predicted`, `confidence` (the probability of
    the predicted class, in `[0, 1]`) and `correct` (1 or 0).

    Args:
        path: CSV file to write, in UTF-8.
        ids: The ids of the `n` examples.
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
        predicted = int(row.argmax())
        rows.append(
            [
                name,
                class_names[label],
                class_names[predicted],
                f"{row[predicted]:.4f}",
                str(int(predicted == label)),
            ]
        )
    with (
        atomic_write(Path(path)) as partial,
        open(partial, "w", newline="", encoding="utf-8") as file,
    ):
        csv.writer(file).writerows(rows)
