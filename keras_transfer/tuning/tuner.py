"""The tuner of a search, and its oracles: the interface to Keras-Tuner.

Imported lazily, when a search starts, since it imports Keras-Tuner.
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


# Consecutive trials with the same type of error after which the search ends.
_MAX_EQUAL_FAILURES = 3


class Grid(keras_tuner.Oracle):
    """All choices of a fixed space, in Keras-Tuner's order.

    Keras-Tuner's own grid waits for each trial before it proposes the next one,
    since a function may declare new parameters: workers would wait for each
    other.

    Args:
        **arguments: Arguments of `keras_tuner.Oracle`.
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
        for values_of_one in reversed(options):  # The last varies fastest.
            place, digit = divmod(place, len(values_of_one))
            chosen.append(values_of_one[digit])
        values = dict(zip(names, reversed(chosen), strict=True))
        return {"status": "RUNNING", "values": values}


_ORACLES = {
    "random": keras_tuner.oracles.RandomSearchOracle,
    "grid": Grid,
    "bayesian": keras_tuner.oracles.BayesianOptimizationOracle,
    "hyperband": keras_tuner.oracles.HyperbandOracle,
}


class TransferTuner(keras_tuner.Tuner):
    """A Keras-Tuner tuner whose trials train on cached activations.

    Made by `search`; `results_summary`, `get_best_hyperparameters` and
    `get_best_models` are those of Keras-Tuner.

    Args:
        run_trial: Function from a trial to its metrics.
        load_model: Function from a trial to its model, trained.
        say: Function that prints a line for the user.
        **arguments: Arguments of `keras_tuner.Tuner`.
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
            metrics = self._run(trial)
        except keras_tuner.errors.FailedTrialError:
            raise
        except Exception as err:
            # A single trial may be too large for this machine, or have values
            # that do not fit. Repeated errors, and errors of files, would
            # fail all trials.
            kind = type(err).__name__
            self._failures.append(kind)
            again = (
                self._failures[-_MAX_EQUAL_FAILURES:]
                == [kind] * _MAX_EQUAL_FAILURES
            )
            if isinstance(err, OSError) or again:
                self.failure = err
                raise keras_tuner.errors.FatalError(str(err)) from err
            raise keras_tuner.errors.FailedTrialError(f"{kind}: {err}") from err
        self._failures.clear()
        return metrics

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
        """Runs the remaining trials.

        Args:
            *args: Arguments of `keras_tuner.Tuner.search`; not needed.
            **kwargs: Keyword arguments of the same.
        """
        try:
            super().search(*args, **kwargs)
        except keras_tuner.errors.FatalError:
            if self.failure is None:
                raise
            raise self.failure from None


class Untrained(keras_tuner.HyperModel):
    """The `tuner.hypermodel` of a search over a `SearchSpace`.

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
        model: The `model` argument of `search`.

    Raises:
        ValueError: If it overrides the training of models.
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
    """Returns the error of a failed trial that does not end the search."""
    return keras_tuner.errors.FailedTrialError(message)


def objective_of(oracle: Any, objective: Any) -> Any:
    """Returns the objective of a search; a custom oracle has its own.

    Args:
        oracle: The `oracle` argument of `search`.
        objective: The `objective` argument of `search`.

    Raises:
        ValueError: If the two do not agree.
    """
    if isinstance(objective, tuple):
        if len(objective) != 2 or objective[1] not in ("min", "max"):
            raise ValueError(
                '`objective` must be a column, a pair of it and "min" or '
                '"max", or a `keras_tuner.Objective`. Received: '
                f"objective={objective!r}"
            )
        objective = keras_tuner.Objective(*objective)
    if not isinstance(oracle, keras_tuner.Oracle):
        return objective
    own = oracle.objective
    name = getattr(own, "name", own)
    requested = getattr(objective, "name", objective)
    order = getattr(objective, "direction", getattr(own, "direction", None))
    if objective is not None and (
        requested != name or order != getattr(own, "direction", order)
    ):
        raise ValueError(
            "`objective` must be that of `oracle`. Received: "
            f"objective={objective!r}, where the oracle has {own!r}"
        )
    return own


def rank_by(oracle: Any, key: Callable[[str], Any]) -> None:
    """Makes an oracle order its trials as the result does, ties included.

    Args:
        oracle: A `keras_tuner.Oracle`.
        key: Function from the id of a completed trial to its sort key.
    """

    def get_best_trials(num_trials: int | None = 1) -> list[Any]:
        trials = [
            trial
            for trial in oracle.trials.values()
            if trial.status == "COMPLETED"
        ]
        trials.sort(key=lambda trial: (key(trial.trial_id), trial.trial_id))
        return trials[:num_trials]

    oracle.get_best_trials = get_best_trials


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
        oracle: A name, or a custom oracle, which is returned.
        space: Search space, or `None` where a function declares it.
        objective: Name of the metric, or a `keras_tuner.Objective`.
        trials: Largest number of trials.
        epochs: Largest number of epochs of a trial, which Hyperband needs.
        seed: Seed of the oracle.

    Raises:
        ValueError: If it cannot search the space.
        TypeError: If it is not an oracle.
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
        order = "max" if direction(objective) > 0 else "min"
        objective = keras_tuner.Objective(objective, order)
    arguments: dict[str, Any] = {"objective": objective, "seed": seed + 1}
    # A rate that is too high fails one trial and not the next.
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
                '`space` must hold lists where `oracle` is "grid", which '
                f"cannot enumerate a range. Received: {ranges}. Use lists, "
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
                "the largest number of a trial. Received: epochs=None"
            )
        return _ORACLES[oracle](max_epochs=epochs, **arguments)
    kind = _ORACLES[oracle]
    if oracle == "grid" and space is None:
        kind = keras_tuner.oracles.GridSearchOracle
    return kind(max_trials=trials, **arguments)
