"""`cross_validate`: k-fold cross-validation of a training."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
import random
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_transfer._utils.checks import is_integer
from keras_transfer._utils.progress import Progress
from keras_transfer.caching.store.store import Choice, open_store
from keras_transfer.data import LabelledData
from keras_transfer.experiments.cross_validation_result import CrossValidation
from keras_transfer.experiments.folds import (
    Pool,
    draw_labels,
    make_folds,
    make_pool,
    pool_labelled,
    split_off,
    with_groups,
)
from keras_transfer.tasks import choose_task
from keras_transfer.training.fine_tuning import fine_tune
from keras_transfer.training.run_directory import open_directory


def cross_validate(
    build: Callable[[], keras.Model],
    data: Any,
    folds: int = 5,
    *,
    validation_fraction: float = 0.0,
    labels_per_class: int | None = None,
    groups: Any = None,
    directory: str | os.PathLike[str] | None = None,
    seed: int = 0,
    verbose: int = 1,
    **arguments: Any,
) -> CrossValidation:
    """Trains and evaluates by k-fold cross-validation.

    Each fold holds out a different part of the examples, trains a new model on
    the rest by `fine_tune`, and evaluates it on the held-out part. That part
    influences neither the training nor the choice of the best epoch, which is
    the last one unless `validation_fraction` sets examples aside to choose by.

    Folds are stratified by class; identical examples, and those of one group,
    stay in one fold. The folds depend on `seed` and the examples, not on the
    split of `load_images` into train and validation.

    Args:
        build: Function that returns a new model each time. Python's and
            NumPy's random generators are seeded for the call, so that Keras
            draws the same new weights for the same `seed`.
        data: Labelled data, from `load_images` or `load_texts`, whose train and
            validation examples are divided anew and whose test examples are not
            used; or a pair of arrays `(inputs, labels)`.
        folds: Number of folds, at least 2. Defaults to `5`.
        validation_fraction: Fraction in `[0, 1)` of the training examples of a
            fold that is set aside to choose the best epoch. Defaults to `0.0`.
        labels_per_class: Number of (different) examples of each class that a
            fold trains with, including those set aside. Each fold draws its
            own; a smaller draw is part of a larger one. Defaults to `None`:
            all.
        groups: One group for each example of a pair of arrays (a patient, a
            scene), whose examples stay in one fold. Data from `load_images`
            and `load_texts` have groups of their own if these were passed
            `groups`. Defaults to `None`.
        directory: Folder to save the runs in, as `fold-1`, `fold-2` and so on.
            The same call resumes after an interruption: it reads finished
            folds and continues with the next epoch. Defaults to `None`.
        seed: Seed of the folds; fold `i`, from 0, is built and trained with
            `seed + i`. Defaults to `0`.
        verbose: `0` to write nothing, `1` for a line per fold, `2` for a line
            per epoch as well, `3` for Keras' progress bar. Defaults to `1`.
        **arguments: Further arguments of `fine_tune`, such as
            `strategy="lp-ft"`.

    Returns:
        A `CrossValidation`: `scores(metric)`, `interval(metric)`, `pooled()`.

    Raises:
        ValueError: If `folds` is more than a class has (different) examples,
            or `labels_per_class` more than a fold leaves of one, `build`
            returns the same model again, `directory` belongs to another run,
            or an argument of `fine_tune` is invalid.
        TypeError: If `build` is not a function that returns models, or `data`
            is of another type.
        OSError: If `directory` cannot be written to.

    Example:

    >>> data = load_images((arrays, labels))
    >>> result = cross_validate(
    ...     lambda: build_classifier(backbone, data=data),
    ...     data,
    ...     folds=2,
    ...     strategy=LinearProbe(exact=True),
    ...     verbose=0,
    ... )
    >>> mean, half_width = result.interval("accuracy")
    """
    _check(build, folds, validation_fraction, seed, verbose, arguments)
    if labels_per_class is not None and (
        not is_integer(labels_per_class) or labels_per_class < 1
    ):
        raise ValueError(
            "`labels_per_class` must be an integer of at least 1, or None. "
            f"Received: labels_per_class={labels_per_class!r}"
        )
    models = _Models(build)
    # Detects a model that is returned twice early.
    first = models.make(seed)
    if isinstance(data, LabelledData):
        pool = pool_labelled(data)
    else:
        pool = make_pool(data, functools.partial(_format_for, first, arguments))
    pool = with_groups(pool, groups, data)
    del first
    parts = make_folds(pool, int(folds), int(seed))
    everything = np.arange(len(pool.ids))
    rests = [np.setdiff1d(everything, part) for part in parts]
    if labels_per_class is not None:
        # Drawn anew in each fold, since the draw is most of the variance.
        rests = [
            draw_labels(pool, rest, int(labels_per_class), int(seed) + index)
            for index, rest in enumerate(rests)
        ]
    arguments["store"] = _shared_store(arguments.get("store"))
    progress = Progress(verbose)
    evaluations, histories = [], []
    with contextlib.ExitStack() as stack:
        if directory is not None:
            manifest = _manifest(
                pool, folds, seed, validation_fraction, labels_per_class
            )
            stack.enter_context(open_directory(directory, manifest)).claim()
        for index, held_out in enumerate(parts):
            own_seed = int(seed) + index
            train, validation = split_off(
                pool, rests[index], validation_fraction, own_seed
            )
            run = fine_tune(
                models.make(own_seed),
                pool.select(train, validation, held_out),
                seed=own_seed,
                verbose=max(0, verbose - 1),
                **arguments | _places(directory, arguments, index),
            )
            if verbose == 1 and not index:
                for finding in run.diagnosis.without("no-validation").warnings:
                    progress.say(f"{finding.message} {finding.cure}")
            evaluation = dataclasses.replace(
                run.evaluate(), ids=tuple(pool.ids[i] for i in held_out)
            )
            evaluations.append(evaluation)
            histories.append(run.history)
            del run  # Frees the model before the next one is built.
            numbers = ", ".join(f"{k} {v:.4f}" for k, v in evaluation.items())
            progress.say(f"fold {index + 1}/{folds}: {numbers}")
    return CrossValidation(tuple(evaluations), tuple(histories))


# --- The models ---


class _Models:
    """Models from `build`, none of which shares a variable with another.

    Args:
        build: The user's function.
    """

    def __init__(self, build: Callable[[], keras.Model]) -> None:
        self._build = build
        # Weak, so that a model is freed after its fold.
        self._variables: list[weakref.ref[keras.Variable]] = []

    def make(self, seed: int) -> keras.Model:
        """Returns a new model; raises if it shares variables with another."""
        with _seeded(seed):
            model = self._build()
        if not isinstance(model, keras.Model):
            raise TypeError(
                "`build` must return a `keras.Model`. Received: "
                f"{type(model).__name__}"
            )
        alive = [variable() for variable in self._variables]
        known = {id(variable) for variable in alive if variable is not None}
        if any(id(variable) in known for variable in model.variables):
            raise ValueError(
                "`build` must return a new model each time, with weights of "
                "its own, since a model that is trained already has seen the "
                f"examples of the next fold. Received: model {model.name!r} "
                "with variables of an earlier one. Build it in the function."
            )
        self._variables += map(weakref.ref, model.variables)
        return model


@contextlib.contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Seeds the generators that Keras uses, and restores them afterwards."""
    of_python, of_numpy = random.getstate(), np.random.get_state()
    random.seed(seed)
    np.random.seed(seed % 2**32)
    try:
        yield
    finally:
        random.setstate(of_python)
        np.random.set_state(of_numpy)


# --- The arguments ---


def _check(
    build: Any,
    folds: Any,
    fraction: Any,
    seed: Any,
    verbose: Any,
    arguments: dict[str, Any],
) -> None:
    if not callable(build) or isinstance(build, keras.Model):
        raise TypeError(
            "`build` must be a function that returns a new model each time, "
            "such as `lambda: build_classifier(backbone, data=data)`. "
            f"Received: {type(build).__name__}"
        )
    for name, value, least in (
        ("folds", folds, 2),
        ("seed", seed, 0),
        ("verbose", verbose, 0),
    ):
        if not is_integer(value) or value < least:
            raise ValueError(
                f"`{name}` must be an integer of at least {least}. Received: "
                f"{name}={value!r}"
            )
    if not 0 <= fraction < 1:
        raise ValueError(
            "`validation_fraction` must be a fraction in [0, 1). Received: "
            f"validation_fraction={fraction!r}"
        )
    if arguments.get("patience") is not None and not fraction:
        raise ValueError(
            "`patience` needs validation examples, since held-out examples "
            "must not decide when to stop. Received: "
            f"patience={arguments['patience']!r}, validation_fraction=0. Pass "
            "validation_fraction=0.1."
        )


def _format_for(
    model: keras.Model, arguments: dict[str, Any], label_format: str
) -> str:
    """Returns the format of labels as a model trains on them."""
    if arguments.get("task") is not None:
        return label_format
    return choose_task(
        model, label_format, loss=arguments.get("loss")
    ).label_format


def _shared_store(store: Any) -> Any:
    """Returns the store of all folds, which reuse each other's features."""
    if store is None:
        return Choice()
    if store is False or isinstance(store, Choice):
        return store
    return open_store(store)


def _manifest(
    pool: Pool,
    folds: int,
    seed: int,
    validation_fraction: float,
    labels_per_class: int | None,
) -> dict[str, Any]:
    """Returns the settings that a directory must have been started with."""
    manifest = {
        "cross_validation": int(folds),
        "seed": int(seed),
        "validation_fraction": float(validation_fraction),
        "data": pool.digest,
    }
    if labels_per_class is not None:
        manifest["labels_per_class"] = int(labels_per_class)
    return manifest


def _places(
    directory: str | os.PathLike[str] | None,
    arguments: dict[str, Any],
    index: int,
) -> dict[str, Any]:
    """Returns the folders of a fold, as arguments of `fine_tune`."""
    name = f"fold-{index + 1}"
    places: dict[str, Any] = {}
    if directory is not None:
        places["directory"] = Path(directory) / name
    if isinstance(arguments.get("tensorboard"), str | Path):
        places["tensorboard"] = Path(arguments["tensorboard"]) / name
    return places
