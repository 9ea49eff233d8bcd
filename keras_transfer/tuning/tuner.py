"""The tuner of a search, and its oracles: all that touches Keras-Tuner.

Imported where a search begins, since it imports Keras-Tuner at once.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

import keras
import keras_tuner

from keras_transfer._utils.checks import did_you_mean
from keras_transfer.training.history import direction
from keras_transfer.tuning.space import Range, SearchSpace

HyperParameters = keras_tuner.HyperParameters


# Trials that fail in the same way, one after the other, end the search.
_SAME = 3


class Grid(keras_tuner.Oracle):
    """All choices of a space that is known, in Keras-Tuner's order.

    Keras-Tuner's own grid waits for each trial before it says the next, since
    a function may name new parameters: workers would wait for each other.

    Args:
        **arguments: Of `keras_tuner.Oracle`.
    """

    def populate_space(self, trial_id: str) -> dict[str, Any]:
        """Called by Keras-Tuner.

        Args:
            trial_id: Id of the trial that asks.
        """
        names = [parameter.name for parameter in self.hyperparameters.space]
        options = [parameter.values for parameter in self.hyperparameters.space]
        place = len(self.start_order)
        if place >= math.prod(map(len, options)):
            return {"status": "STOPPED"}
        chosen = []
        for some in reversed(options):  # The last one varies fastest.
            place, digit = divmod(place, len(some))
            chosen.append(some[digit])
        values = dict(zip(names, reversed(chosen), strict=True))
        return {"status": "RUNNING", "values": values}


_ORACLES = {
    "random": keras_tuner.oracles.RandomSearchOracle,
    "grid": Grid,
    "bayesian": keras_tuner.oracles.BayesianOptimizationOracle,
    "hyperband": keras_tuner.oracles.HyperbandOracle,
}


class TransferTuner(keras_tuner.Tuner):
    """A Keras-Tuner tuner whose trials start at what is computed already.

    Made by `search`; `results_summary`, `get_best_hyperparameters` and
    `get_best_models` are those of Keras-Tuner.

    Args:
        run_trial: Function from a trial to its metrics.
        load_model: Function from a trial to its model, trained.
        say: Function that tells the user a line.
        **arguments: Of `keras_tuner.Tuner`.
    """

    def __init__(
        self,
        run_trial: Callable[[Any], Mapping[str, float] | list[Any]],
        load_model: Callable[[Any], keras.Model],
        say: Callable[[str], None],
        **arguments: Any,
    ) -> None:
        self.failure: Exception | None = None
        self._failures: list[str] = []
        self._run = run_trial
        self._load = load_model
        self._say = say
        super().__init__(**arguments)

    def run_trial(self, trial: Any, *args: Any, **kwargs: Any) -> Any:
        """Called by Keras-Tuner.

        Args:
            trial: The trial.
            *args: Not used.
            **kwargs: Not used.
        """
        try:
            found = self._run(trial)
        except keras_tuner.errors.FailedTrialError:
            raise
        except Exception as err:
            # One trial may be too large for this machine, or of values that
            # do not fit; what happens to one after the other, or concerns
            # files, would happen to all.
            kind = type(err).__name__
            self._failures.append(kind)
            again = self._failures[-_SAME:] == [kind] * _SAME
            if isinstance(err, OSError) or again:
                self.failure = err
                raise keras_tuner.errors.FatalError(str(err)) from err
            raise keras_tuner.errors.FailedTrialError(f"{kind}: {err}") from err
        self._failures.clear()
        return found

    def _try_run_and_update_trial(
        self, trial: Any, *args: Any, **kwargs: Any
    ) -> None:
        # Keras-Tuner prints a traceback for each trial that failed.
        try:
            self._run_and_update_trial(trial, *args, **kwargs)
        except keras_tuner.errors.FailedTrialError as err:
            trial.status, trial.message = "FAILED", str(err)
            self._say(f"trial {trial.trial_id} failed: {err}")
        else:
            trial.status = "COMPLETED"

    def load_model(self, trial: Any) -> keras.Model:
        """Called by Keras-Tuner.

        Args:
            trial: The trial.
        """
        return self._load(trial)

    def search(self, *args: Any, **kwargs: Any) -> None:
        """Runs the trials that are left.

        Args:
            *args: Of `keras_tuner.Tuner`; not needed.
            **kwargs: Likewise.
        """
        try:
            super().search(*args, **kwargs)
        except keras_tuner.errors.FatalError:
            if self.failure is None:
                raise
            raise self.failure from None


class Untrained(keras_tuner.HyperModel):
    """What `tuner.hypermodel.build(hp)` is where a space says what varies.

    Args:
        make: Function from `keras_tuner.HyperParameters` to a model.
    """

    def __init__(self, make: Callable[[Any], keras.Model]) -> None:
        super().__init__()
        self._make = make

    def build(self, hp: Any) -> keras.Model:
        """Called by the user.

        Args:
            hp: `keras_tuner.HyperParameters`.
        """
        return self._make(hp)


def function_of(model: Any) -> Callable[[Any], keras.Model] | None:
    """Returns the function that builds models, if the user passed one.

    Args:
        model: As for `search`.

    Raises:
        ValueError: If it wants to train models itself.
    """
    if isinstance(model, keras_tuner.HyperModel):
        if type(model).fit is not keras_tuner.HyperModel.fit:
            raise ValueError(
                "`model` must leave training to the search. Received: a "
                f"{type(model).__name__} with a `fit` of its own. Vary what "
                "`SearchSpace` has, or use Keras-Tuner itself."
            )
        build: Callable[[Any], keras.Model] = model.build
        return build
    is_model = isinstance(model, keras.Model | type)
    return model if callable(model) and not is_model else None


def failed(message: str) -> Exception:
    """Returns the error of a trial that failed, while the search goes on."""
    return keras_tuner.errors.FailedTrialError(message)


def objective_of(oracle: Any, objective: Any) -> Any:
    """Returns what says which trial is best: an oracle of the user's knows.

    Args:
        oracle: As for `search`.
        objective: As for `search`.

    Raises:
        ValueError: If the two do not agree.
    """
    if not isinstance(oracle, keras_tuner.Oracle):
        return objective
    known = oracle.objective
    name = getattr(known, "name", known)
    wanted = getattr(objective, "name", objective)
    way = getattr(objective, "direction", getattr(known, "direction", None))
    if objective is not None and (
        wanted != name or way != getattr(known, "direction", way)
    ):
        raise ValueError(
            "`objective` must be that of `oracle`. Received: "
            f"objective={objective!r}, where the oracle has {known!r}"
        )
    return known


def make_oracle(
    oracle: Any,
    space: SearchSpace | None,
    objective: Any,
    trials: int,
    epochs: int | None,
    seed: int,
) -> Any:
    """Makes the oracle of a search.

    Args:
        oracle: A name, or an oracle of the user's, which is returned.
        space: What varies, or `None` where a function of the user's says it.
        objective: Name of what is measured, or a `keras_tuner.Objective`.
        trials: How many to run at most.
        epochs: Most epochs of a trial, which Hyperband needs.
        seed: Of what it draws.

    Raises:
        ValueError: If it cannot search the space.
        TypeError: If it is no oracle.
    """
    if isinstance(oracle, keras_tuner.Oracle):
        if space is not None and not oracle.hyperparameters.space:
            space.declare(oracle.hyperparameters)
        return oracle
    if not isinstance(oracle, str):
        raise TypeError(
            "`oracle` must be a name or a `keras_tuner.Oracle`. Received: "
            f"oracle={oracle!r:.100}"
        )
    if oracle not in _ORACLES:
        names = ", ".join(f'"{name}"' for name in _ORACLES)
        raise ValueError(
            f"`oracle` must be {names} or a `keras_tuner.Oracle`. Received: "
            f"oracle={oracle!r}.{did_you_mean(oracle, _ORACLES)}"
        )
    if isinstance(objective, str):
        way = "max" if direction(objective) > 0 else "min"
        objective = keras_tuner.Objective(objective, way)
    arguments: dict[str, Any] = {"objective": objective, "seed": seed + 1}
    # A rate that is too high fails a trial and says nothing of the next one.
    arguments["max_consecutive_failed_trials"] = None
    if space is not None:
        declared = keras_tuner.HyperParameters()
        space.declare(declared)
        arguments["hyperparameters"] = declared
        if oracle == "grid" and space.count() is None:
            ranges = ", ".join(
                f"{field.name}={getattr(space, field.name)!r}"
                for field in dataclasses.fields(space)
                if any(isinstance(o, Range) for o in space.options(field.name))
            )
            raise ValueError(
                '`space` must hold lists where `oracle` is "grid": between two '
                f"numbers there are too many. Received: {ranges}. Write lists, "
                "such as `learning_rate=[1e-4, 1e-3]`, or one value."
            )
        if not declared.space:
            raise ValueError(
                "`space` must vary something. Received: one value for each "
                "field. Use `fine_tune`."
            )
    if oracle == "hyperband":
        if epochs is None:
            raise ValueError(
                '`epochs` must be an integer where `oracle` is "hyperband": '
                "the most that a trial may train. Received: epochs=None"
            )
        return _ORACLES[oracle](max_epochs=epochs, **arguments)
    kind = _ORACLES[oracle]
    if oracle == "grid" and space is None:
        kind = keras_tuner.oracles.GridSearchOracle
    return kind(max_trials=trials, **arguments)
