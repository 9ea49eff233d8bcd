"""`SearchSpec`: all inputs of one search, read and checked once."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras

from keras_transfer._utils.checks import is_integer
from keras_transfer._utils.progress import Progress
from keras_transfer.distribute import (
    ProcessGroup,
    check_batch_size,
    choose_devices,
    refuse_open_scope,
)
from keras_transfer.training.settings import Settings, make_settings
from keras_transfer.tuning.space import SearchSpace, check_fields
from keras_transfer.tuning.workers import role

if TYPE_CHECKING:
    import tensorflow as tf

# Folder in which several processes cache activations by default.
_FEATURES = "features"


@dataclasses.dataclass(frozen=True, eq=False)
class TrialSpec:
    """Settings of each trial.

    Attributes:
        source: A model, a backbone or its name, or a function.
        data: Same as in `fine_tune`.
        settings: Settings of training besides the search space.
        epochs: Passes over the data in the main phase, or `None`.
        max_trials: Largest number of trials.
        executions: Number of runs of each trial.
        keep: Number of trials whose weights are saved.
        stop_hopeless: Whether a trial may end early.
        ahead: Whether the whole space is tried in a known order, so that some
            trials can be computed together.
        parallel: Number of trials to train side by side, where the next ones
            are known.
        ignore: Names of findings of `check` that are intended.
        strategy: The strategy that trains on several devices, or `None`.
    """

    source: Any
    data: Any
    settings: Settings
    epochs: int | None
    max_trials: int
    executions: int
    keep: int
    stop_hopeless: bool
    ahead: bool
    parallel: int
    ignore: Sequence[str]
    strategy: tf.distribute.Strategy | None


@dataclasses.dataclass(frozen=True, eq=False)
class SearchSpec:
    """All inputs of one search.

    Attributes:
        trials: Settings of each trial.
        space: Search space; `None` where a function declares it.
        oracle: A name, or a `keras_tuner.Oracle`.
        objective: A column, a `keras_tuner.Objective`, or `None`.
        soup: Whether to average saved weights.
        directory: Folder of the search, or `None`.
        role: `"chief"` or `"worker"` of a search over several processes, else
            `""`.
        progress: Writer of progress lines.
    """

    trials: TrialSpec
    space: SearchSpace | Mapping[str, Any] | None
    oracle: Any
    objective: Any
    soup: bool
    directory: Path | None
    role: str
    progress: Progress

    @property
    def verbose(self) -> int:
        """Verbosity of Keras-Tuner itself."""
        return max(0, self.progress.verbose - 1)


def read_search(
    model: Any,
    data: Any,
    *,
    space: Any,
    max_trials: int,
    oracle: Any,
    objective: Any,
    epochs: int | None,
    executions_per_trial: int,
    directory: str | os.PathLike[str] | None,
    stop_hopeless: bool,
    store: Any,
    parallel: int | None,
    devices: Any,
    keep: int,
    soup: bool,
    ignore: Sequence[str],
    verbose: int,
    **settings: Any,
) -> SearchSpec:
    """Reads and checks the arguments of `search`.

    Args:
        model: Same as in `search`.
        data: Same as in `search`.
        space: Same as in `search`.
        max_trials: Same as in `search`.
        oracle: Same as in `search`.
        objective: Same as in `search`.
        epochs: Same as in `search`.
        executions_per_trial: Same as in `search`.
        directory: Same as in `search`.
        stop_hopeless: Same as in `search`.
        store: Same as in `search`.
        parallel: Same as in `search`.
        devices: Same as in `search`.
        keep: Same as in `search`.
        soup: Same as in `search`.
        ignore: Same as in `search`.
        verbose: Same as in `search`.
        **settings: Further fields of the settings.

    Returns:
        A `SearchSpec`.

    Raises:
        ValueError: If arguments do not fit each other.
        TypeError: If an argument is of another type.
    """
    for name, value in (
        ("max_trials", max_trials),
        ("executions_per_trial", executions_per_trial),
        ("keep", keep),
        ("parallel", 1 if parallel is None else parallel),
    ):
        if not is_integer(value) or value < 1:
            raise ValueError(
                f"`{name}` must be an integer above 0. Received: "
                f"{name}={value!r}"
            )
    process_role = role()
    folder = None if directory is None else Path(directory)
    if process_role and folder is None:
        raise ValueError(
            "`directory` must be a folder that all processes of the search "
            "share. Received: directory=None"
        )
    if process_role and folder is not None and store is None:
        store = folder / _FEATURES  # All processes share the cache.
    trials = TrialSpec(
        source=model,
        data=data,
        settings=make_settings(store=store, **settings),
        epochs=epochs,
        max_trials=max_trials,
        executions=executions_per_trial,
        keep=keep,
        stop_hopeless=stop_hopeless,
        ahead=oracle == "grid" and max_trials > 1 and not process_role,
        parallel=parallel or _count_parallel(),
        ignore=ignore,
        strategy=_choose_devices(model, devices, settings["batch_size"]),
    )
    return SearchSpec(
        trials,
        space,
        oracle,
        objective,
        soup,
        folder,
        process_role,
        Progress(verbose),
    )


def read_space(space: Any) -> SearchSpace:
    """Makes a space from the argument of the user.

    Args:
        space: A `SearchSpace`, a dict of its fields, or `None`.

    Returns:
        A `SearchSpace`.

    Raises:
        TypeError: If it is something else.
    """
    if space is None or isinstance(space, Mapping):
        return check_fields(space or {})
    if not isinstance(space, SearchSpace):
        raise TypeError(
            "`space` must be a `SearchSpace` or a dict. Received: "
            f"space={space!r:.100}"
        )
    return space


def check_function(space: Any, soup: bool) -> None:
    """Raises for arguments that a function as `model` rules out.

    Args:
        space: The argument of the user.
        soup: Whether weights are to be averaged.

    Raises:
        ValueError: If one of them is given.
    """
    if space is not None:
        raise ValueError(
            "`space` must be None where `model` is a function, which "
            f"declares its own. Received: space={space!r:.200}"
        )
    if soup:
        raise ValueError(
            "`soup` must be False where `model` is a function, whose "
            "trials may have different weights. Received: soup=True"
        )


def _choose_devices(
    model: Any, devices: Any, batch_size: int
) -> tf.distribute.Strategy | None:
    # A backbone or a function makes models of its own, in no scope.
    refuse_open_scope()
    user_model = model if isinstance(model, keras.Model) else None
    strategy = choose_devices(devices, user_model)
    check_batch_size(batch_size, strategy)
    if ProcessGroup(strategy).size > 1:
        raise ValueError(
            "`devices` must be devices of this machine: in a search over "
            "several, each runs different trials; see "
            "recipes/search_distributed.sh. "
            "Received: a strategy over several workers."
        )
    return strategy


def _count_parallel() -> int:
    import tensorflow as tf

    several = (os.cpu_count() or 1) > 1
    return 2 if several and not tf.config.list_physical_devices("GPU") else 1
