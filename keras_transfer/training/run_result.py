"""Result of `fine_tune`."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_transfer.caching.plan import Plan
from keras_transfer.data import ImageSplit, LabelledData, TextSplit
from keras_transfer.doctor import Diagnosis
from keras_transfer.evaluation.evaluation import Evaluation
from keras_transfer.reports.curves import plot_history
from keras_transfer.strategies.phase import Phase
from keras_transfer.tasks.task import Task


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Run:
    """The result of `fine_tune`; the model holds the best weights.

    Attributes:
        model: The model, trained, compiled with plain Keras parts.
        phases: The phases that ran.
        rows: The table of the epochs: a dict for each, over all phases.
        best: Index of the row whose weights the model holds.
        trainable: Paths of the variables that trained, by phase.
        diagnosis: Findings of `check` before training.
        plan: Caching plan of the run; see `plan.explain()`.
        directory: Folder of the run, or `None`.
        is_chief: Whether this process writes files, where there are several.
            Defaults to `True`.

    Example:

    >>> data = load_images((arrays, labels))
    >>> model = build_classifier(backbone, data=data)
    >>> run = fine_tune(model, data, strategy="lp-ft", epochs=1, verbose=0)
    >>> print(run.summary().splitlines()[0])
    phase 1: linear probe, depth 0, 2 variables, 0 of 0 epochs, ... s
    """

    model: keras.Model
    phases: tuple[Phase, ...]
    rows: tuple[Mapping[str, Any], ...]
    best: int
    trainable: tuple[tuple[str, ...], ...]
    diagnosis: Diagnosis
    plan: Plan
    directory: Path | None
    _task: Task
    _batch_size: int
    _data: Any
    is_chief: bool = True

    @property
    def history(self) -> dict[str, list[Any]]:
        """The table by columns; `None` where an epoch has no such number.

        `phase`, `name`, `epoch` (in its phase, from 1; 0 is the exact probe),
        `depth`, `learning_rate` (the last one), `loss`, the metrics, the same
        with `val_`, `seconds`.
        """
        names: dict[str, None] = {}
        for row in self.rows:
            names.update(dict.fromkeys(row))
        return {name: [row.get(name) for row in self.rows] for name in names}

    def evaluate(self, data: Any = None) -> Evaluation:
        """Measures the model on labelled examples.

        Args:
            data: A split such as `data.test`, a pair of arrays, or a batched
                `tf.data.Dataset` in a fixed order. Defaults to `None`: the test
                examples of the training data.

        Returns:
            An `Evaluation`: a mapping of metrics, with intervals, confusion
            matrix, most confused pairs and top losses.

        Raises:
            ValueError: If there are no examples.
            TypeError: If `data` is something else.
        """
        if data is None:
            data = _test_split(self._data)
        class_names = None
        if self._task.names_classes:
            class_names = getattr(self._data, "class_names", None)
        ids = None
        if isinstance(data, LabelledData):
            raise TypeError(
                "`data` must be one split, such as `data.test`. Received: all "
                "of them."
            )
        if isinstance(data, ImageSplit | TextSplit):
            labels, ids = data.labels, data.ids
            class_names = data.class_names
            inputs = data.batches(self._batch_size)
            outputs = self.model.predict(inputs, verbose=0)
        elif hasattr(data, "element_spec"):
            pairs = [
                (self.model.predict_on_batch(batch[0]), np.asarray(batch[1]))
                for batch in data
            ]
            outputs = np.concatenate([pair[0] for pair in pairs])
            labels = np.concatenate([pair[1] for pair in pairs])
        elif isinstance(data, tuple | list) and len(data) == 2:
            inputs, labels = (np.asarray(array) for array in data)
            outputs = self.model.predict(
                inputs, batch_size=self._batch_size, verbose=0
            )
        else:
            raise TypeError(
                "`data` must be a split such as `data.test`, a pair of arrays "
                f"or a tf.data.Dataset. Received: {type(data).__name__}"
            )
        names = class_names or ()
        if len(names) == 2 and outputs.shape[1:] == (1,):
            class_names = names[1:]  # A single output is the second class.
        return self._task.evaluate(
            outputs, labels, ids=ids, class_names=class_names
        )

    def plot(self, path: str | Path) -> None:
        """Draws loss and metric over all phases.

        Args:
            path: PNG file to write.
        """
        plot_history(self.history, path)

    def summary(self) -> str:
        """Returns the trained variables and results of each phase, as text."""
        lines = []
        for index, (phase, paths) in enumerate(
            zip(self.phases, self.trainable, strict=True)
        ):
            epochs = [row for row in self.rows if row["phase"] == index]
            depth = phase.blocks or phase.depth
            lines.append(
                f"phase {index + 1}: {phase.name}, depth {depth}, "
                f"{len(paths)} variables, "
                f"{sum(row['epoch'] > 0 for row in epochs)} of {phase.epochs} "
                f"epochs, {sum(row['seconds'] for row in epochs):.1f} s"
            )
        row = self.rows[self.best]
        numbers = ", ".join(
            f"{name} {row[name]:.4f}"
            for name in ("val_accuracy", "val_loss", "accuracy", "loss")
            if row.get(name) is not None
        )
        lines.append(
            f"weights of phase {row['phase'] + 1}, epoch {row['epoch']}"
            f"{': ' if numbers else ''}{numbers}"
        )
        return "\n".join(lines)

    def __repr__(self) -> str:
        return f"<Run of {len(self.rows)} epochs>\n{self.summary()}"


def _test_split(data: Any) -> Any:
    split = getattr(data, "test", None)
    if isinstance(data, Mapping):
        split = data.get("test")
    if split is None or (
        isinstance(split, ImageSplit | TextSplit) and not len(split)
    ):
        raise ValueError(
            "`data` must be given because the training data have no test "
            "examples. Received: None"
        )
    return split
