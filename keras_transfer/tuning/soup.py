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
        trials: Ids of its members, the best one first.
        metrics: Its validation metrics; those of the best trial if no other one
            improved the average.
        model: The model, compiled.
    """

    trials: tuple[str, ...]
    metrics: Mapping[str, float]
    model: keras.Model


def average(members: Sequence[Arrays], start: Sequence[np.ndarray]) -> Arrays:
    """Returns the mean of arrays, where a missing one stands at its start.

    Args:
        members: Arrays by place. Arrays that are not floats, such as the state
            of dropout, are taken from the first member.
        start: Arrays for places that a member lacks.
    """
    mean: dict[int, np.ndarray] = {}
    for place in sorted({place for member in members for place in member}):
        first = start[place]
        if first.dtype.kind != "f":
            mean[place] = members[0].get(place, first)
            continue
        total = sum(np.float64(member.get(place, first)) for member in members)
        mean[place] = np.asarray(total / len(members), first.dtype)
    return mean


def check_soup(space: SearchSpace) -> None:
    """Raises where trials cannot be averaged.

    Args:
        space: The search space.

    Raises:
        ValueError: If a strategy updates statistics of BatchNormalization:
            averaged weights would need statistics of their own.
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
    """Adds trials to an average as long as it improves.

    The greedy recipe of Wortsman et al., "Model soups: averaging weights of
    multiple fine-tuned models improves accuracy without increasing inference
    time", 2022, https://arxiv.org/abs/2203.05482. Trials whose weights were
    not saved, or whose head differs, are left out.

    Args:
        trainer: Trainer that evaluates averages.
        records: Store of the trials.
        trials: Hyperparameters by trial, the best trial first.
        objective: Name of the metric to improve.
        sign: 1 where a higher value is better, else -1.
    """
    (first, best), *_ = trials.items()
    judge = trainer.judge(best)
    names: list[str] = []
    members: list[Arrays] = []
    metrics: Mapping[str, float] = {}
    for name, hp in trials.items():
        arrays = records.weights(name)
        if arrays is None or trainer.head(hp) != trainer.head(best):
            continue
        candidate = judge.evaluate(average([*members, arrays], judge.start))
        if not names or sign * (candidate[objective] - metrics[objective]) > 0:
            names.append(name)
            members.append(arrays)
            metrics = candidate
    seed = (records.read(first) or {}).get("seed", 0)
    model = trainer.load(best, average(members, judge.start), seed)
    return Soup(tuple(names), metrics, model)
