"""`search`: Keras-Tuner over learning rate, lambda and unfreeze depth."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import keras

from keras_transfer.data import Augmentation
from keras_transfer.tasks.extra_metrics import MetricLike
from keras_transfer.tuning.hypermodel_trainer import HypermodelTrainer
from keras_transfer.tuning.journal import Journal, replay, watch
from keras_transfer.tuning.search_directory import PROJECT, SearchDirectory
from keras_transfer.tuning.search_result import SearchResult, make_rows
from keras_transfer.tuning.search_spec import (
    SearchSpec,
    check_function,
    read_search,
    read_space,
)
from keras_transfer.tuning.soup import check_soup, make_soup
from keras_transfer.tuning.space import SearchSpace
from keras_transfer.tuning.space_trainer import SpaceTrainer
from keras_transfer.tuning.trial_runner import TrialRunner
from keras_transfer.tuning.trial_store import TrialStore
from keras_transfer.tuning.trial_trainer import TrialTrainer
from keras_transfer.tuning.workers import Leases, work


def search(
    model: Any,
    data: Any,
    *,
    space: SearchSpace | Mapping[str, Any] | None = None,
    max_trials: int = 24,
    oracle: Any = "bayesian",
    objective: Any = None,
    epochs: int | None = None,
    executions_per_trial: int = 1,
    directory: str | os.PathLike[str] | None = None,
    batch_size: int = 32,
    loss: str | keras.losses.Loss | Callable[..., Any] | None = None,
    metrics: Sequence[MetricLike] = (),
    augment: Augmentation | None = None,
    class_weight: Mapping[int, float] | str | None = None,
    global_clipnorm: float | None = None,
    ema_momentum: float | None = None,
    patience: int | None = None,
    stop_hopeless: bool = False,
    mixed_precision: bool | str | None = None,
    cache: bool | None = None,
    store: Any = None,
    parallel: int | None = None,
    devices: Any = None,
    keep: int = 5,
    soup: bool = False,
    ignore: Sequence[str] = (),
    seed: int = 0,
    verbose: int = 1,
) -> SearchResult:
    """Searches learning rate, lambda and depth, at the cost of a few trials.

    Keras-Tuner proposes values, and all trials train on activations that are
    computed once. Trials of one depth share one compiled training step, which
    takes other rates and lambdas without a new trace. A trial gives the same
    results as `fine_tune` with the same arguments. All trials see the examples
    in the same order.

    Args:
        model: A backbone or its name, as `load_backbone` takes it; a model from
            a builder, or any functional one, whose weights all trials start
            from; or a function `build(hp)` (or a `keras_tuner.HyperModel`) that
            returns one, declares its own search space, and compiles the model
            for its trial.
        data: Data as in `fine_tune`, with validation examples. Test examples
            are not used.
        space: A `SearchSpace`, or a dict of its fields. Defaults to `None`,
            `SearchSpace()`.
        max_trials: Largest number of trials; `"hyperband"` and a custom oracle
            have their own limits. Defaults to `24`.
        oracle: `"bayesian"`, `"random"`, `"grid"` (of lists), `"hyperband"`
            (each rung starts again, with a schedule over its own epochs), or a
            `keras_tuner.Oracle`. Defaults to `"bayesian"`.
        objective: Column that ranks trials, such as `"val_loss"`, a pair of it
            and `"min"` or `"max"`, or a `keras_tuner.Objective`. Defaults to
            `None`: the validation accuracy, for regression the validation loss.
        epochs: Passes over the data in the main phase of a trial. Defaults to
            `None`, those of the strategy.
        executions_per_trial: Runs of each trial, with `seed`, `seed + 1`, ...,
            whose mean counts; `views` are those of `seed`. Defaults to `1`.
        directory: Folder of the search. After an interruption of any kind the
            same call resumes it; a call with more `max_trials` (of as many
            digits) continues it. Defaults to `None`.
        batch_size: Examples in a step. Defaults to `32`.
        loss: A Keras loss. Defaults to `None`: by output and labels.
        metrics: Further metrics, as in `fine_tune`. A function `build(hp)` has
            those that it compiles. Defaults to `()`.
        augment: Changes of the training images. Defaults to `None`.
        class_weight: Weights of classes, or `"balanced"`. Defaults to `None`.
        global_clipnorm: Largest norm of the gradient. Defaults to `None`.
        ema_momentum: Momentum of averaged weights. Defaults to `None`.
        patience: Epochs without a new best after which a phase ends. Defaults
            to `None`.
        stop_hopeless: Whether a trial ends early if its best epoch so far is
            below the median of earlier trials at the same epoch. Defaults to
            `False`.
        mixed_precision: Same as in `fine_tune`. Defaults to `None`.
        cache: Whether decoded images stay in memory. Defaults to `None`.
        store: Cache of activations: `"memory"`, a folder, a `FeatureStore`, or
            `False`. Defaults to `None`: cached where the plan finds it faster.
        parallel: Number of trials of a grid to train side by side in threads,
            each on a copy of the model: steps of a small network leave cores
            idle. Defaults to `None`: `2` on a CPU of several cores, else `1`.
        devices: `"auto"` for all GPUs of this machine, a number of GPUs (of
            logical CPUs where there is none), or a `tf.distribute.Strategy`
            over them: each trial in turn trains on all of them. (Several
            machines run different trials; see recipes/search_distributed.sh.)
            Defaults to `None`: one device.
        keep: Number of trials, the best ones, whose weights are saved. Defaults
            to `5`.
        soup: Whether to average the saved weights as long as the objective
            improves, as `result.soup`. Defaults to `False`.
        ignore: Names of findings of `check` that are intended. Defaults to
            `()`.
        seed: Integer: seed of proposals, order and random draws. Defaults to
            `0`.
        verbose: `0` for silence, `1` for one line per trial, `2` for the tables
            of Keras-Tuner as well. Defaults to `1`.

    Returns:
        A `SearchResult`: `best_model`, `table()`, `plot(path)`, `tuner`.

    Raises:
        ValueError: If arguments do not fit each other, the model or the data;
            if `directory` belongs to another search.
        TypeError: If an argument is of another type.
        RuntimeError: If every trial failed.
        OSError: If `directory` or `store` cannot be written to.

    Example:

    >>> data = load_images((arrays, labels))
    >>> space = SearchSpace(learning_rate=[1e-3, 1e-2], lambda_=0, depth=0)
    >>> result = search(
    ...     backbone, data, space=space, oracle="grid", epochs=1, verbose=0
    ... )
    >>> len(result.rows)
    2

    Reference:
        - Wortsman et al., 2022, model soups,
          https://arxiv.org/abs/2203.05482
        - Golovin et al., 2017, Google Vizier (the median rule),
          https://doi.org/10.1145/3097983.3098043
    """
    spec = read_search(
        model,
        data,
        space=space,
        max_trials=max_trials,
        oracle=oracle,
        objective=objective,
        epochs=epochs,
        executions_per_trial=executions_per_trial,
        directory=directory,
        stop_hopeless=stop_hopeless,
        store=store,
        parallel=parallel,
        devices=devices,
        keep=keep,
        soup=soup,
        ignore=ignore,
        verbose=verbose,
        batch_size=batch_size,
        loss=loss,
        metrics=metrics,
        augment=augment,
        class_weight=class_weight,
        global_clipnorm=global_clipnorm,
        ema_momentum=ema_momentum,
        patience=patience,
        mixed_precision=mixed_precision,
        cache=cache,
        seed=seed,
    )
    trainer = make_trainer(spec)
    try:
        return run_search(spec, trainer)
    finally:
        trainer.close()


def make_trainer(spec: SearchSpec) -> TrialTrainer:
    """Makes the trainer of the trials of a search.

    Args:
        spec: The search.

    Returns:
        A `TrialTrainer`.

    Raises:
        ValueError: If the model does not support the space.
    """
    from keras_transfer.tuning import tuner

    build = tuner.function_of(spec.trials.source)
    if build is not None:
        check_function(spec.space, spec.soup)
        return HypermodelTrainer(spec.trials, build, tuner.HyperParameters())
    space = read_space(spec.space)
    if spec.soup:
        check_soup(space)
    return SpaceTrainer(spec.trials, space, spec.progress)


def run_search(spec: SearchSpec, trainer: TrialTrainer) -> SearchResult:
    """Runs the trials of a search, or the remaining ones.

    Args:
        spec: The search.
        trainer: Trains the trials.

    Returns:
        The `SearchResult`.

    Raises:
        ValueError: If the directory is that of another search.
        RuntimeError: If every trial failed.
    """
    from keras_transfer.tuning import tuner

    name, oracle = _choose_oracle(spec, trainer)
    trials = spec.trials
    manifest = {
        **trainer.describe(),
        "oracle": [type(oracle).__name__, oracle.seed],
        "objective": name,
        "executions_per_trial": trials.executions,
        "epochs": trials.epochs,
        "stop_hopeless": trials.stop_hopeless,
    }
    with (
        SearchDirectory(spec, manifest) as folder,
        contextlib.ExitStack() as stack,
    ):
        store = TrialStore(folder.path)
        runner = TrialRunner(
            trainer,
            store,
            trials,
            objective=name,
            progress=spec.progress,
            fail=tuner.failed,
            parameters=tuner.HyperParameters,
        )
        if spec.role != "worker":
            tuner.rank_by(oracle, runner.rank)
        search_tuner = tuner.TransferTuner(
            run_trial=runner.run,
            say=spec.progress.say,
            load_model=lambda trial: runner.load(trial.trial_id),
            hypermodel=trainer.build,
            oracle=oracle,
            directory=str(folder.path),
            project_name=PROJECT,
            overwrite=spec.role != "worker",
        )
        runner.oracle = search_tuner.oracle
        if spec.role == "worker":
            work(runner, search_tuner)
        else:
            journal = Journal(folder.path / "journal.jsonl")
            _resume(spec, oracle, journal, stack)
        if trainer.build is None:
            search_tuner.hypermodel = tuner.Untrained(trainer.make)
        with _quiet(spec.role == "chief" and not spec.verbose):
            search_tuner.search(verbose=spec.verbose)
        result = _collect(spec, trainer, runner, store, search_tuner)
        spec.progress.say(trainer.account())
        if result.probe is not None:
            spec.progress.say(result.compare_with_probe())
        if spec.directory is not None and spec.role != "worker":
            result.save_table(folder.path / "table.csv")
        # The result reads weights on demand.
        folder.keep_for(result)
    return result


def _choose_oracle(spec: SearchSpec, trainer: TrialTrainer) -> tuple[str, Any]:
    """Chooses the column that ranks trials, and makes the oracle."""
    from keras_transfer.tuning import tuner

    trials = spec.trials
    objective = tuner.objective_of(spec.oracle, spec.objective)
    name, monitor = trainer.metrics.choose(
        getattr(objective, "name", objective)
    )
    if spec.soup and not name.startswith("val_"):
        raise ValueError(
            "`soup` must be False where `objective` is not measured on "
            f"validation examples. Received: objective={name!r}, soup=True"
        )
    order = getattr(objective, "direction", None)
    both = monitor is not None and order in ("min", "max")
    trainer.use((monitor, order) if both else monitor)
    oracle = tuner.make_oracle(
        spec.oracle,
        trainer.space,
        objective or name,
        trials.max_trials,
        trials.epochs,
        trials.settings.data.seed,
    )
    oracle.verbose = spec.verbose
    return name, oracle


def _resume(
    spec: SearchSpec,
    oracle: Any,
    journal: Journal,
    stack: contextlib.ExitStack,
) -> None:
    """Replays the trials of a search that was stopped, and records new ones."""
    replay(oracle, journal)
    watch(oracle, journal)
    if spec.role == "chief":
        stack.enter_context(Leases(oracle, journal).watching())
    if oracle.trials:
        count = len(oracle.end_order)
        spec.progress.say(f"Resuming after {count} completed trials.")


def _collect(
    spec: SearchSpec,
    trainer: TrialTrainer,
    runner: TrialRunner,
    store: TrialStore,
    search_tuner: Any,
) -> SearchResult:
    """Makes the result from the trials of all processes."""
    trials = {} if spec.role == "worker" else search_tuner.oracle.trials
    rows = make_rows(store, runner.objective, runner.sign, trials)
    completed = [row for row in rows if row["status"] == "completed"]
    if not completed:
        why = rows[0].get("error", "") if rows else "no trial began"
        raise RuntimeError(f"Every trial failed, the first one: {why}")
    result = SearchResult(
        rows=rows,
        objective=runner.objective,
        tuner=search_tuner,
        plans=tuple(trainer.plans),
        _sign=runner.sign,
        _records=store,
        _load=runner.load,
    )
    if (
        spec.soup
        and isinstance(trainer, SpaceTrainer)
        and spec.role != "worker"
    ):
        best = {row["trial"]: runner.chosen(row["trial"]) for row in completed}
        result.soup = make_soup(
            trainer, store, best, runner.objective, runner.sign
        )
    return result


@contextlib.contextmanager
def _quiet(enabled: bool) -> Iterator[None]:
    """Silences Keras-Tuner, which prints whenever it sends a condition."""
    with contextlib.ExitStack() as stack:
        if enabled:
            nowhere = stack.enter_context(open(os.devnull, "w"))
            stack.enter_context(contextlib.redirect_stdout(nowhere))
        yield
