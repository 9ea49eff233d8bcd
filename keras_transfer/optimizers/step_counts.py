"""Step counts of the variables that an optimizer trains."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras

from keras_transfer.optimizers.inner import VariableStep


class StepCounts:
    """One step count for all variables that started together.

    A single count for all variables would be wrong: with the count of an
    earlier phase, Adam would skip the bias correction of a new variable, whose
    moments are empty, and take steps up to 6.5 times too large.
    """

    def __init__(self) -> None:
        self._counts: list[keras.Variable] = []
        # Pairs of a count and the count of the previous optimizer that it
        # continues.
        self._continued: list[tuple[keras.Variable, keras.Variable]] = []

    def share(
        self,
        owner: keras.optimizers.Optimizer,
        steps: Sequence[VariableStep | None],
        saved: Sequence[dict[str, Any]],
    ) -> None:
        """Replaces the counts of `steps` by shared ones.

        Args:
            owner: Optimizer that the shared counts are variables of.
            steps: Steps by variable; `None` for a variable that never moves.
            saved: Notes on the same variables in the config of a saved
                optimizer, or nothing.
        """
        counts: dict[int, keras.Variable] = {}
        for index, step in enumerate(steps):
            if step is None:
                continue
            count = step.count
            # The counts of a saved optimizer are all 0 until its state is
            # loaded, so the notes tell which variables share one.
            group = (
                saved[index]["count"]
                if saved
                else int(keras.ops.convert_to_numpy(count))
            )
            if group not in counts:
                counts[group] = owner.add_variable(
                    shape=(),
                    initializer="zeros",
                    dtype="int",
                    aggregation="only_first_replica",
                    name=f"iteration_{len(counts)}",
                )
                counts[group].assign(count)
                if group and not saved:
                    self._continued.append((counts[group], count))
            step.count = step.optimizer._iterations = counts[group]
        self._counts = list(counts.values())

    def index(self, step: VariableStep | None) -> int:
        """Returns the position of the count of `step`, 0 for `None`."""
        if step is None:
            return 0
        return [id(count) for count in self._counts].index(id(step.count))

    def advance(self, steps: Any) -> None:
        """Adds a number of steps, an integer tensor, to all counts."""
        for count in self._counts:
            count.assign_add(steps)

    def continue_previous(self) -> None:
        """Sets counts to those of the optimizer that this one continues."""
        for count, previous in self._continued:
            count.assign(previous)
