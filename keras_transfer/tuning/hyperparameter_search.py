"""`search`: Keras-Tuner over learning rate, lambda and unfreeze depth."""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
import tempfile
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras

from keras_transfer._utils.checks import is_integer
from keras_transfer._utils.progress import Progress
from keras_transfer.data import Augmentation
from keras_transfer.distribute import (
    ProcessGroup,
    check_batch_size,
    choose_devices,
)
from keras_transfer.training.run_directory import (
    check_directory,
    open_directory,
)
from keras_transfer.training.settings import Settings
from keras_transfer.tuning.hypermodel_trainer import HypermodelTrainer
from keras_transfer.tuning.journal import Journal, replay, watch
from keras_transfer.tuning.search_result import SearchResult, make_rows
from keras_transfer.tuning.soup import check_soup, make_soup
from keras_transfer.tuning.space import SearchSpace, check_fields
from keras_transfer.tuning.space_trainer import SpaceTrainer
from keras_transfer.tuning.trial_runner import TrialRunner
from keras_transfer.tuning.trial_store import TrialStore
from keras_transfer.tuning.workers import Leases, await_chief, role, work

# Where Keras-Tuner writes its own files, for whoever reads them.
_PROJECT = "keras_tuner"


# Where several processes keep activations, unless the user says it.
_FEATURES = "features"


def search(
    model: Any,
    data: Any,
    *,
    space: SearchSpace | Mapping[str, Any] | None = None,
    trials: int = 24,
    oracle: Any = "bayesian",
    objective: Any = None,
    epochs: int | None = None,
    executions: int = 1,
    directory: str | os.PathLike[str] | None = None,
    batch_size: int = 32,
    loss: str | keras.losses.Loss | Callable[..., Any] | None = None,
    augment: Augmentation | None = None,
    class_weight: Mapping[int, float] | str | None = None,
    clip_norm: float | None = None,
    ema: float | None = None,
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
    """Searches learning rate, lambda and depth, at the price of a few trials.

    Keras-Tuner proposes, and every trial starts at activations that are
    computed once for all: trials of one depth share one compiled training step,
    which takes other rates and lambdas without a new trace. A trial gives the
    numbers that `fine_tune` gives with the same arguments. All trials see the
    examples in the same order.

    Args:
        model: What `load_backbone` takes or returned; a model made by a
            builder, or any functional one, whose weights all trials start from;
            or a function `build(hp)` (or a `keras_tuner.HyperModel`) that
            returns one, which says itself what varies, and is trained as it
            was compiled, from what is computed already.
        data: As for `fine_tune`, with validation examples. Test examples are
            not looked at.
        space: A `SearchSpace`, or a dict of its fields. Defaults to `None`,
            `SearchSpace()`.
        trials: How many to run at most; `"hyperband"` and an oracle of yours
            have numbers of their own. Defaults to `24`.
        oracle: `"bayesian"`, `"random"`, `"grid"` (of lists), `"hyperband"`
            (each rung begins anew, with a schedule over its own epochs), or a
            `keras_tuner.Oracle`. Defaults to `"bayesian"`.
        objective: Column that says which trial is best, such as `"val_loss"`,
            or a `keras_tuner.Objective`. Defaults to `None`: the validation
            accuracy, for regression the validation loss.
        epochs: Passes over the data in the main phase of a trial. Defaults to
            `None`, those of the strategy.
        executions: Runs of each trial, with `seed`, `seed + 1`, ..., whose
            mean counts; `views` are those of `seed`. Defaults to `1`.
        directory: Folder that keeps the search: the same call goes on where it
            was stopped, by whatever, and one with more `trials` (of as many
            digits) goes on from fewer. Defaults to `None`.
        batch_size: Examples in a step. Defaults to `32`.
        loss: A Keras loss. Defaults to `None`: by output and labels.
        augment: Changes of the training images. Defaults to `None`.
        class_weight: Weights of classes, or `"balanced"`. Defaults to `None`.
        clip_norm: Largest norm of the gradient. Defaults to `None`.
        ema: Momentum of averaged weights. Defaults to `None`.
        patience: Epochs without a new best after which a phase ends. Defaults
            to `None`.
        stop_hopeless: Whether a trial ends early whose best epoch so far is
            below the median of what earlier trials had reached by then.
            Defaults to `False`.
        mixed_precision: As for `fine_tune`. Defaults to `None`.
        cache: Whether decoded images stay in memory. Defaults to `None`.
        store: Where activations are kept: `"memory"`, a folder, a
            `FeatureStore`, or `False`. Defaults to `None`: wherever the plan
            finds it faster.
        parallel: How many trials of a grid to train side by side in threads,
            which keeps cores busy that steps of a small network leave idle;
            each has a copy of the model. Defaults to `None`: `2` on a CPU of
            several cores, else `1`.
        devices: `"auto"` for all GPUs of this machine, how many of them
            (of logical CPUs where there is none), or a
            `tf.distribute.Strategy` over them: each trial trains on all of
            them, one after the other. (Several machines take trials of their
            own; see recipes/search_distributed.sh.) Defaults to `None`: one
            device.
        keep: Trials whose weights are kept, the best ones. Defaults to `5`.
        soup: Whether to average the weights of the kept trials as long as the
            objective becomes better, as `result.soup`. Defaults to `False`.
        ignore: Names of findings of `check` that are meant. Defaults to `()`.
        seed: Integer: of proposals, order and what is drawn. Defaults to `0`.
        verbose: `0` for silence, `1` for a line a trial, `2` for Keras-Tuner's
            tables as well. Defaults to `1`.

    Returns:
        A `SearchResult`: `best_model`, `table()`, `plot(path)`, `tuner`.

    Raises:
        ValueError: If arguments do not fit each other, the model or the data;
            if `directory` is another search's.
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
    for name, value in (
        ("trials", trials),
        ("executions", executions),
        ("keep", keep),
        ("parallel", 1 if parallel is None else parallel),
    ):
        if not is_integer(value) or value < 1:
            raise ValueError(
                f"`{name}` must be an integer above 0. Received: "
                f"{name}={value!r}"
            )
    from keras_transfer.tuning import tuner

    part = role()
    if part and directory is None:
        raise ValueError(
            "`directory` must be a folder that all processes of the search "
            "share. Received: directory=None"
        )
    if part and directory is not None and store is None:
        store = Path(directory) / _FEATURES  # What one computes, all have.
    settings = Settings(
        batch_size=batch_size,
        loss=loss,
        augment=augment,
        class_weight=class_weight,
        clip_norm=clip_norm,
        ema=ema,
        patience=patience,
        mixed_precision=mixed_precision,
        cache=cache,
        store=store,
        seed=seed,
    )
    strategy = choose_devices(devices, _model_of(model))
    check_batch_size(batch_size, strategy)
    if ProcessGroup(strategy).size > 1:
        raise ValueError(
            "`devices` must be devices of this machine: in a search over "
            "several, each takes trials of its own; see "
            "recipes/search_distributed.sh. "
            "Received: a strategy over several workers."
        )
    progress = Progress(verbose)
    build = tuner.function_of(model)
    benches: SpaceTrainer | HypermodelTrainer
    if build is None:
        varied = _space(space)
        if soup:
            check_soup(varied)
        benches = SpaceTrainer(
            model,
            data,
            varied,
            settings,
            epochs=epochs,
            trials=trials,
            executions=executions,
            ahead=oracle == "grid" and trials > 1 and not part,
            parallel=parallel or _count_parallel(),
            progress=progress,
            ignore=ignore,
            strategy=strategy,
        )
    else:
        _check_function(space, soup)
        benches = HypermodelTrainer(
            build,
            data,
            settings,
            tuner.HyperParameters(),
            epochs=epochs,
            ignore=ignore,
            strategy=strategy,
        )
    objective = tuner.objective_of(oracle, objective)
    name, monitor = benches.columns.choose(
        getattr(objective, "name", objective)
    )
    if soup and not name.startswith("val_"):
        raise ValueError(
            "`soup` must be False where `objective` is not measured on "
            f"validation examples. Received: objective={name!r}, soup=True"
        )
    benches.use(monitor)
    made = tuner.make_oracle(
        oracle, benches.space, objective or name, trials, epochs, seed
    )
    made.verbose = max(0, verbose - 1)
    card = {
        **benches.describe(),
        "oracle": [type(made).__name__, made.seed],
        "objective": name,
        "executions": executions,
        "epochs": epochs,
        "stop_hopeless": stop_hopeless,
    }
    with contextlib.ExitStack() as stack:
        stack.callback(benches.close)
        temporary = stack.enter_context(contextlib.ExitStack())
        if directory is None:
            folder = Path(tempfile.mkdtemp(prefix="keras_transfer_"))
            temporary.callback(shutil.rmtree, folder, ignore_errors=True)
        else:
            folder = Path(directory)
            _claim(folder, card, part, stack)
        records = TrialStore(folder)
        runner = TrialRunner(
            benches,
            records,
            objective=name,
            executions=executions,
            seed=seed,
            keep=keep,
            stop_hopeless=stop_hopeless,
            progress=progress,
            fail=tuner.failed,
            parameters=tuner.HyperParameters,
        )
        searching = tuner.TransferTuner(
            run_trial=runner.run,
            say=progress.say,
            load_model=lambda trial: runner.load(trial.trial_id),
            hypermodel=build,
            oracle=made,
            directory=str(folder),
            project_name=_PROJECT,
            overwrite=part != "worker",
        )
        runner.oracle = searching.oracle
        if part == "worker":
            work(runner, searching)
        else:
            journal = Journal(folder / "journal.jsonl")
            replay(made, journal)
            watch(made, journal)
            if part == "chief":
                leases = Leases(made, journal)
                stack.enter_context(leases.watching())
        if build is None:
            searching.hypermodel = tuner.Untrained(benches.make)
        if made.trials:
            progress.say(f"{len(made.end_order)} trials are there; going on.")
        with _quiet(part == "chief" and verbose < 2):
            searching.search(verbose=max(0, verbose - 1))
        known = {} if part == "worker" else made.trials
        rows = make_rows(records, name, runner.sign, known)
        if not any(row["status"] == "completed" for row in rows):
            why = rows[0].get("error", "") if rows else "no trial began"
            raise RuntimeError(f"Every trial failed, the first one: {why}")
        result = SearchResult(
            rows=rows,
            objective=name,
            tuner=searching,
            plans=tuple(benches.plans),
            _sign=runner.sign,
            _records=records,
            _load=runner.load,
        )
        if soup and isinstance(benches, SpaceTrainer) and part != "worker":
            best = {
                row["trial"]: runner.chosen(row["trial"])
                for row in rows
                if row["status"] == "completed"
            }
            result.soup = make_soup(benches, records, best, name, runner.sign)
        benches.account()
        if result.probe is not None:
            progress.say(result.compare_with_probe())
        if directory is None:
            # Weights are read when they are asked for.
            weakref.finalize(result, temporary.pop_all().close)
        elif part != "worker":
            result.save_table(folder / "table.csv")
    return result


def _model_of(model: Any) -> keras.Model | None:
    return model if isinstance(model, keras.Model) else None


def _check_function(space: Any, soup: bool) -> None:
    if space is not None:
        raise ValueError(
            "`space` must be None where `model` is a function, which says "
            f"what varies. Received: space={space!r:.200}"
        )
    if soup:
        raise ValueError(
            "`soup` must be False where `model` is a function, whose "
            "trials may have different weights. Received: soup=True"
        )


def _claim(
    folder: Path,
    card: Mapping[str, Any],
    part: str,
    stack: contextlib.ExitStack,
) -> None:
    """Makes a directory that of this search, or sees that it is."""
    if part == "worker":
        await_chief()
        check_directory(folder, card)
        return
    fresh = not (folder / "run.json").exists()
    stack.enter_context(open_directory(folder, card)).claim()
    if fresh:
        stack.push(functools.partial(_give_up, folder))


@contextlib.contextmanager
def _quiet(yes: bool) -> Iterator[None]:
    """Keras-Tuner prints whenever it sends a condition."""
    with contextlib.ExitStack() as stack:
        if yes:
            nowhere = stack.enter_context(open(os.devnull, "w"))
            stack.enter_context(contextlib.redirect_stdout(nowhere))
        yield


def _give_up(folder: Path, kind: Any, error: Any, _: Any) -> None:
    """Leaves nothing of a search that failed before a trial finished."""
    if isinstance(error, Exception) and not TrialStore(folder).names():
        for name in ("run.json", "journal.jsonl"):
            (folder / name).unlink(missing_ok=True)
        shutil.rmtree(folder / _PROJECT, ignore_errors=True)


def _count_parallel() -> int:
    import tensorflow as tf

    several = (os.cpu_count() or 1) > 1
    return 2 if several and not tf.config.list_physical_devices("GPU") else 1


def _space(space: SearchSpace | Mapping[str, Any] | None) -> SearchSpace:
    if space is None or isinstance(space, Mapping):
        return check_fields(space or {})
    if not isinstance(space, SearchSpace):
        raise TypeError(
            "`space` must be a `SearchSpace` or a dict. Received: "
            f"space={space!r:.100}"
        )
    return space
