"""`cross_validate`: what a way to train is worth, on all examples."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import os
import random
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_transfer._utils.checks import did_you_mean, is_integer
from keras_transfer._utils.progress import Progress
from keras_transfer.caching.store.store import Choice, open_store
from keras_transfer.data import LabelledData
from keras_transfer.evaluation.evaluation import Evaluation, evaluate_outputs
from keras_transfer.evaluation.intervals import paired_interval, student
from keras_transfer.experiments.folds import (
    draw_labels,
    make_folds,
    make_pool,
    pool_labelled,
    split_off,
)
from keras_transfer.training.fine_tuning import fine_tune
from keras_transfer.training.run_directory import open_directory


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class CrossValidation:
    """The result of `cross_validate`; `str()` of it is a table.

    Attributes:
        evaluations: For each fold the `Evaluation` on what it held out.
        histories: For each fold the table of its epochs, `Run.history`.

    Example:

    >>> pair = (arrays.astype("float32"), labels)
    >>> build = functools.partial(build_classifier, backbone, num_classes=3)
    >>> found = cross_validate(
    ...     build, pair, 3, strategy=LinearProbe(exact=True), verbose=0
    ... )
    >>> len(found.scores("accuracy")), len(found.pooled().ids)
    (3, 30)
    """

    evaluations: tuple[Evaluation, ...]
    histories: tuple[dict[str, list[Any]], ...]

    def scores(self, metric: str = "accuracy") -> np.ndarray:
        """Returns a metric by fold.

        Args:
            metric: A key of the evaluations. Defaults to `"accuracy"`.

        Returns:
            float64 array `(folds,)`.

        Raises:
            ValueError: If there is no such metric.
        """
        known = self.evaluations[0]
        if metric not in known:
            raise ValueError(
                f"`metric` must be one of {', '.join(known)}. Received: "
                f"metric={metric!r}.{did_you_mean(str(metric), known)}"
            )
        return np.array([found[metric] for found in self.evaluations])

    def interval(
        self,
        metric: str = "accuracy",
        confidence: float = 0.95,
        *,
        corrected: bool = True,
    ) -> tuple[float, float]:
        """Returns the mean of a metric over the folds and its half-width.

        `mean -+ t(k - 1) * s * sqrt(1 / k + n_test / n_train)` for `k` folds
        with the standard deviation `s` between them, where
        `n_test / n_train = 1 / (k - 1)`. Student's own interval,
        `mean -+ t(k - 1) * s * sqrt(1 / k)`, is too narrow, since any two
        folds share most of what they train with. Nadeau and Bengio derived the
        correction for random splits; for folds it is an approximation, as no
        unbiased estimate of that variance exists. Where folds trained with a
        few labels of each class they share fewer of them, and it is wide.

        Args:
            metric: A key of the evaluations. Defaults to `"accuracy"`.
            confidence: Probability in `(0, 1)`. Defaults to `0.95`.
            corrected: Whether to use the first formula, or the second.
                Defaults to `True`.

        Returns:
            Tuple `(mean, half_width)`.

        Raises:
            ValueError: If there is no such metric or `confidence` is out of
                range.

        Reference:
            - Nadeau & Bengio, 2003, https://doi.org/10.1023/A:1024068626366
        """
        mean, half_width = student(self.scores(metric), confidence)
        if corrected:
            half_width *= _correction(len(self.evaluations))
        return mean, half_width

    def minus(
        self,
        other: CrossValidation,
        metric: str = "accuracy",
        confidence: float = 0.95,
    ) -> tuple[float, float]:
        """Returns the mean of a metric less another's, over the same folds.

        The interval of `interval`, over the differences: what a fold adds to
        both cancels.

        Args:
            other: What the same folds were measured with.
            metric: A key of the evaluations. Defaults to `"accuracy"`.
            confidence: Probability in `(0, 1)`. Defaults to `0.95`.

        Returns:
            Tuple `(mean difference, half_width)`.

        Raises:
            ValueError: If the folds are not the same, there is no such metric
                or `confidence` is out of range.
        """
        held_out = [found.ids for found in self.evaluations]
        if held_out != [found.ids for found in other.evaluations]:
            raise ValueError(
                "`other` must have held out the same examples, fold by fold. "
                "Received: other ones. Pass both the same `seed` and `folds`."
            )
        mean, half_width = paired_interval(
            self.scores(metric), other.scores(metric), confidence
        )
        return mean, half_width * _correction(len(self.evaluations))

    def pooled(self) -> Evaluation:
        """Joins what was held out: each example once.

        For the confusion matrix, the most confused pairs and the top losses
        over all the data. Its intervals are those of one model on so many
        examples, and know nothing of how the models differ; see `interval`.

        Returns:
            An `Evaluation`, fold by fold.
        """
        first = self.evaluations[0]
        parts = self.evaluations
        return evaluate_outputs(
            np.concatenate([part.outputs for part in parts]),
            np.concatenate([part.labels for part in parts]),
            ids=[name for part in parts for name in part.ids],
            class_names=first.class_names or None,
            kind=first.kind,
            from_logits=first.from_logits,
        )

    def __repr__(self) -> str:
        means = ", ".join(
            f"{name} {self.scores(name).mean():.4g}"
            for name in self.evaluations[0]
        )
        return f"<CrossValidation: {means}, {len(self.evaluations)} folds>"

    def __str__(self) -> str:
        metrics = tuple(self.evaluations[0])
        rows = [
            (str(number), str(len(found.ids)), *(found[m] for m in metrics))
            for number, found in enumerate(self.evaluations, start=1)
        ]
        intervals = [self.interval(metric) for metric in metrics]
        rows.append(("mean", "", *(mean for mean, _ in intervals)))
        rows.append(("+-", "", *(half for _, half in intervals)))
        total = sum(len(found.ids) for found in self.evaluations)
        return "\n".join(
            [
                f"{len(self.evaluations)} folds, {total} examples; +- is the "
                "95 % interval, corrected for shared training examples",
                f"  {'fold':<6}{'examples':>10}"
                + "".join(f"{metric:>13}" for metric in metrics),
                *(
                    f"  {name:<6}{count:>10}"
                    + "".join(f"{value:>13.4f}" for value in values)
                    for name, count, *values in rows
                ),
            ]
        )


def _correction(folds: int) -> float:
    """What widens Student's interval, for training examples in common."""
    return math.sqrt(1 + folds / (folds - 1))


def cross_validate(
    build: Callable[[], keras.Model],
    data: Any,
    folds: int = 5,
    *,
    validation_fraction: float = 0.0,
    labels_per_class: int | None = None,
    directory: str | os.PathLike[str] | None = None,
    seed: int = 0,
    verbose: int = 1,
    **arguments: Any,
) -> CrossValidation:
    """Trains and measures by k-fold cross-validation.

    Each fold holds another part of the examples out, trains a new model with
    the rest by `fine_tune`, and measures it on what it held out. That part has
    no say in the training, nor in which epoch is the best: it is the last one,
    unless `validation_fraction` sets some of the rest aside to choose by.

    Classes have equal shares in all folds; identical examples stay in one. The
    folds follow from `seed` and the examples, not from how `load_images`
    divided these into train and validation.

    Args:
        build: Function that returns a new model each time. Python's and
            NumPy's random generators are seeded for the call, so that Keras
            draws the same new weights for the same `seed`.
        data: What `load_images` returned, of which train and validation are
            divided anew and the test examples are not looked at; or a pair of
            arrays `(inputs, labels)`.
        folds: Integer from 2, parts that are held out in turn. Defaults to
            `5`.
        validation_fraction: Fraction in `[0, 1)` of what a fold trains with to
            choose the best epoch by. Defaults to `0.0`.
        labels_per_class: How many (different) examples of each class a fold
            trains with, those to choose by among them. Each fold draws its
            own; a smaller number's are among a larger one's. Defaults to
            `None`: all.
        directory: Folder that keeps the runs, in `fold-1`, `fold-2` and so on:
            started again after a stop, the same call reads the folds that are
            finished and goes on with the next epoch. Defaults to `None`.
        seed: Integer that decides the folds; fold `i`, from 0, is built and
            trained with `seed + i`. Defaults to `0`.
        verbose: `0` for silence, `1` for a line a fold, `2` for a line an
            epoch as well, `3` for Keras' progress bar. Defaults to `1`.
        **arguments: For `fine_tune`, such as `strategy="lp-ft"`.

    Returns:
        A `CrossValidation`: `scores(metric)`, `interval(metric)`, `pooled()`.

    Raises:
        ValueError: If `folds` is more than a class has (different) examples,
            or `labels_per_class` more than a fold leaves of one, `build`
            returns the same model again, `directory` is another run's, or
            `fine_tune` refuses its arguments.
        TypeError: If `build` is no function that returns models, or the data
            are of another type.
        OSError: If `directory` cannot be written to.

    Example:

    >>> data = load_images((arrays, labels))
    >>> found = cross_validate(
    ...     lambda: build_classifier(backbone, data=data),
    ...     data,
    ...     folds=2,
    ...     strategy=LinearProbe(exact=True),
    ...     verbose=0,
    ... )
    >>> mean, half_width = found.interval("accuracy")
    """
    _check(build, folds, validation_fraction, seed, verbose, arguments)
    if labels_per_class is not None and (
        not is_integer(labels_per_class) or labels_per_class < 1
    ):
        raise ValueError(
            "`labels_per_class` must be an integer of at least 1, or None. "
            f"Received: labels_per_class={labels_per_class!r}"
        )
    labelled = isinstance(data, LabelledData)
    pool = pool_labelled(data) if labelled else make_pool(data)
    parts = make_folds(pool, int(folds), int(seed))
    everything = np.arange(len(pool.ids))
    rests = [np.setdiff1d(everything, part) for part in parts]
    if labels_per_class is not None:
        # Other ones in each fold: which are drawn is most of what varies.
        rests = [
            draw_labels(pool, rest, int(labels_per_class), int(seed) + index)
            for index, rest in enumerate(rests)
        ]
    models = _Models(build)
    # What one fold computes serves the others.
    if arguments.get("store") is None:
        arguments["store"] = Choice()
    elif arguments["store"] is not False and not isinstance(
        arguments["store"], Choice
    ):
        arguments["store"] = open_store(arguments["store"])
    progress = Progress(verbose)
    evaluations, histories = [], []
    with contextlib.ExitStack() as stack:
        if directory is not None:
            card = {
                "cross_validation": int(folds),
                "seed": int(seed),
                "validation_fraction": float(validation_fraction),
                "data": pool.digest,
            }
            if labels_per_class is not None:
                card["labels_per_class"] = int(labels_per_class)
            stack.enter_context(open_directory(directory, card)).claim()
        models.make(seed)  # So that a model that comes again is found at once.
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
            found = dataclasses.replace(
                run.evaluate(), ids=tuple(pool.ids[i] for i in held_out)
            )
            evaluations.append(found)
            histories.append(run.history)
            del run  # One model at a time.
            numbers = ", ".join(f"{k} {v:.4f}" for k, v in found.items())
            progress.say(f"fold {index + 1}/{folds}: {numbers}")
    return CrossValidation(tuple(evaluations), tuple(histories))


# --- The models ---


class _Models:
    """Calls `build`, and knows the variables that it gave before.

    Args:
        build: The user's function.
    """

    def __init__(self, build: Callable[[], keras.Model]) -> None:
        self._build = build
        # Weak, so that a model can go when its fold is done.
        self._given: list[weakref.ref[keras.Variable]] = []

    def make(self, seed: int) -> keras.Model:
        """Returns a model that shares nothing with those before."""
        with _seeded(seed):
            model = self._build()
        if not isinstance(model, keras.Model):
            raise TypeError(
                "`build` must return a `keras.Model`. Received: "
                f"{type(model).__name__}"
            )
        alive = [variable() for variable in self._given]
        known = {id(variable) for variable in alive if variable is not None}
        if any(id(variable) in known for variable in model.variables):
            raise ValueError(
                "`build` must return a new model each time, with weights of "
                "its own: one that was trained before has seen what the next "
                f"fold holds out. Received: model {model.name!r} with "
                "variables of an earlier one. Build it inside the function."
            )
        self._given += map(weakref.ref, model.variables)
        return model


@contextlib.contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Seeds what Keras draws its seeds from, and puts the user's state back."""
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
            "`patience` needs validation examples, and what a fold holds out "
            "must not be used to stop it. Received: "
            f"patience={arguments['patience']!r}, validation_fraction=0. Pass "
            "validation_fraction=0.1."
        )


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
