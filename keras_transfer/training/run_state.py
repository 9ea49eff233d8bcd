"""`RunState`: the weights of a run, its history, and where it resumes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import keras
import numpy as np

from keras_transfer.distribute import ProcessGroup
from keras_transfer.strategies.phase import Phase
from keras_transfer.training.history import History, Row
from keras_transfer.training.run_directory import (
    Begun,
    RunDirectory,
    State,
    Unsaved,
)
from keras_transfer.training.run_identity import check_start


class RunState:
    """The initial and best weights of a run, and its history.

    Args:
        model: The model; it is assigned the initial weights.
        history: The table of the epochs.
        group: The processes that train. Defaults to `None`, this one.
        start: The initial weights. Defaults to `None`, those of the model.
    """

    def __init__(
        self,
        model: keras.Model,
        history: History,
        group: ProcessGroup | None = None,
        start: list[np.ndarray] | None = None,
    ) -> None:
        self.model = model
        self.history = history
        self.directory: RunDirectory | Unsaved = Unsaved()
        self.resumed: State | None = None
        self._group = group or ProcessGroup(None)
        if start is None:
            self.start = copies(model.variables)
        else:
            self.start = start
            assign(model.variables, start)
        self.best = self.start
        # Arrays of variables that cannot change in the phase that runs.
        self.frozen: Mapping[int, np.ndarray] = {}

    def begin(self, phases: Sequence[Phase]) -> str:
        """Restores the run from its directory, in all processes.

        Args:
            phases: The phases of the run.

        Returns:
            A line that says where the run resumes, or `""`.

        Raises:
            ValueError: If the model does not belong to the run.
        """
        packed = self._group.share(self._load)
        begun = Begun.unpack(packed or {})
        if begun.is_new:
            assign(self.model.variables, begun.start)
            self.start = self.best = begun.start
            return ""
        candidates = [begun.start]
        message = ""
        self.resumed = state = begun.state
        if state is not None:
            self.history.rows, self.history.best = state.rows, state.best
            self.best = begun.best or self.best
            candidates += [state.variables, self.best]
            epoch = state.rows[-1]["epoch"] if state.rows else 0
            message = f"Resuming after phase {state.phase + 1}, epoch {epoch}."
        check_start(self.model, candidates, phases)
        assign(self.model.variables, begun.start)
        self.start = begun.start
        if state is None:
            self.best = begun.start
        return message

    def _load(self) -> dict[str, np.ndarray]:
        begun = self.directory.load()
        if begun is None:
            # Heads are random: all processes use that of the first.
            begun = Begun(self.start, None, None, is_new=True)
        return begun.pack()

    def share(self, variables: Sequence[keras.Variable]) -> None:
        """Gives all processes the values of the first one.

        Args:
            variables: Variables whose values were computed in each process: the
                last bits of a sum are not the same on all machines.
        """
        if self._group.size > 1:
            local = Begun(copies(variables), None, None)
            packed = self._group.share(local.pack)
            assign(variables, Begun.unpack(packed or {}).start)

    def freeze(self, above: Sequence[keras.Variable]) -> None:
        """Records the variables that cannot change in the next phase.

        Args:
            above: The variables of the network that is trained.
        """
        open_ = {id(variable) for variable in above}
        self.frozen = {
            # Unchanged variables share the array of the start.
            id(v): start if np.array_equal(start, v) else np.array(v)
            for v, start in zip(self.model.variables, self.start, strict=True)
            if id(v) not in open_
        }

    def arrays(
        self, averages: Mapping[int, keras.Variable] | None = None
    ) -> list[np.ndarray]:
        """Returns the values of the variables of the model.

        Args:
            averages: Variables that replace others, by the `id` of these.
                Defaults to `None`.
        """
        return [
            self.frozen[id(v)]
            if id(v) in self.frozen
            else np.array((averages or {}).get(id(v), v))
            for v in self.model.variables
        ]

    def record(self, row: Row, weights: list[np.ndarray]) -> bool:
        """Adds an epoch to the history, and saves its weights if it is best.

        Args:
            row: The row of the epoch.
            weights: The validated weights.

        Returns:
            Whether it is the best so far.

        Raises:
            FloatingPointError: If a weight is not finite.
        """
        if not all(
            np.isfinite(a).all() for a in weights if a.dtype.kind == "f"
        ):
            raise FloatingPointError(
                f"The weights are not finite after epoch {row['epoch']} of "
                f"phase {row['name']!r}. Lower `learning_rate` (see "
                "`find_learning_rate`), or set `global_clipnorm=1.0`."
            )
        is_best = self.history.add(row)
        self.directory.claim(self.start)
        if is_best:
            self.best = weights
            self.directory.save_best(len(self.history.rows) - 1, weights)
        return is_best

    def save(
        self,
        phase: int,
        finished: bool,
        steps: list[dict[str, int]],
        optimizer: Sequence[keras.Variable],
    ) -> None:
        """Writes the state to the directory, where there is one.

        Args:
            phase: Index of the phase.
            finished: Whether the phase has ended.
            steps: The step counts of the optimizer, as in its config.
            optimizer: The variables of the optimizer.
        """
        self.directory.save_state(
            lambda: State(
                phase=phase,
                finished=finished,
                rows=self.history.rows,
                best=self.history.best,
                steps=steps,
                variables=self.arrays(),
                optimizer=copies(optimizer),
            )
        )


def copies(variables: Sequence[keras.Variable]) -> list[np.ndarray]:
    """Returns copies of the values of variables."""
    return [np.array(variable) for variable in variables]


def assign(
    variables: Sequence[keras.Variable], arrays: Sequence[np.ndarray]
) -> None:
    """Assigns an array to each variable."""
    for variable, array in zip(variables, arrays, strict=True):
        variable.assign(array)
