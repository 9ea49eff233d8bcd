"""Greedy soup: weights of several trials averaged into one model."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np

from keras_transfer.strategies.strategies import resolve
from keras_transfer.tuning.space import SearchSpace
from keras_transfer.tuning.space_trainer import SpaceTrainer
from keras_transfer.tuning.trial_store import TrialStore

Arrays = Mapping[int, np.ndarray]


@dataclasses.dataclass(frozen=True, eq=False)
class Soup:
    """The average of the weights of several trials.

    Attributes:
        trials: Those that are in it, the best one first.
        metrics: Its validation metrics; those of the best trial where no other
            one made it better.
        model: The model, compiled.
    """

    trials: tuple[str, ...]
    metrics: Mapping[str, float]
    model: keras.Model


def average(some: Sequence[Arrays], start: Sequence[np.ndarray]) -> Arrays:
    """Returns the mean of arrays, each of which may be left at its start.

    Args:
        some: Arrays by place. What is not a float, such as the state of
            dropout, is that of the first.
        start: What is at a place where nothing is given.
    """
    mean: dict[int, np.ndarray] = {}
    for place in sorted({place for one in some for place in one}):
        first = start[place]
        if first.dtype.kind != "f":
            mean[place] = some[0].get(place, first)
            continue
        total = sum(np.float64(one.get(place, first)) for one in some)
        mean[place] = np.asarray(total / len(some), first.dtype)
    return mean


def check_soup(space: SearchSpace) -> None:
    """Raises where trials cannot be averaged.

    Args:
        space: What varies.

    Raises:
        ValueError: If a strategy moves statistics of BatchNormalization, of
            which an average of weights would need its own.
    """
    for strategy in space.options("strategy"):
        if strategy is not None and any(
            phase.train_batch_norm for phase in resolve(strategy)
        ):
            raise ValueError(
                "`soup` must be False where a strategy has "
                "train_batch_norm=True: the statistics of each trial fit its "
                f"own weights alone. Received: soup=True, {strategy!r:.200}"
            )


def make_soup(
    trainer: SpaceTrainer,
    records: TrialStore,
    trials: Mapping[str, Any],
    objective: str,
    sign: int,
) -> Soup:
    """Adds trials to an average as long as it becomes better.

    The greedy recipe of Wortsman et al., "Model soups: averaging weights of
    multiple fine-tuned models improves accuracy without increasing inference
    time", 2022, https://arxiv.org/abs/2203.05482. Trials whose weights were
    not kept, or whose model is another one, stay out.

    Args:
        trainer: What evaluates.
        records: What was kept of trials.
        trials: Hyperparameters by trial, the best trial first.
        objective: Name of what is to become better.
        sign: 1 where more of it is better, else -1.
    """
    (first, best), *_ = trials.items()
    judge = trainer.judge(best)
    names: list[str] = []
    inside: list[Arrays] = []
    metrics: Mapping[str, float] = {}
    for name, hp in trials.items():
        arrays = records.weights(name)
        if arrays is None or trainer.head(hp) != trainer.head(best):
            continue
        found = judge.evaluate(average([*inside, arrays], judge.start))
        if not names or sign * (found[objective] - metrics[objective]) > 0:
            names.append(name)
            inside.append(arrays)
            metrics = found
    seed = (records.read(first) or {}).get("seed", 0)
    model = trainer.load(best, average(inside, judge.start), seed)
    return Soup(tuple(names), metrics, model)
