"""Greedy soup: weights of several trials averaged into one model."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import keras
import numpy as np

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


def stir(
    candidates: Mapping[str, Arrays],
    start: Sequence[np.ndarray],
    evaluate: Callable[[Arrays], Mapping[str, float]],
    better: Callable[[Mapping[str, float], Mapping[str, float]], bool],
) -> tuple[tuple[str, ...], Arrays, Mapping[str, float]]:
    """Adds trials to an average as long as it becomes better.

    The greedy recipe of Wortsman et al., "Model soups: averaging weights of
    multiple fine-tuned models improves accuracy without increasing inference
    time", 2022, https://arxiv.org/abs/2203.05482.

    Args:
        candidates: Arrays of trials, the best trial first.
        start: Arrays that all of them began with.
        evaluate: Function from arrays to validation metrics.
        better: Whether the first metrics are better than the second.

    Returns:
        The trials that are in, their mean, and its metrics.
    """
    (name, arrays), *others = candidates.items()
    names, inside = [name], [arrays]
    mean, metrics = arrays, evaluate(arrays)
    for name, arrays in others:
        tried = average([*inside, arrays], start)
        found = evaluate(tried)
        if better(found, metrics):
            names.append(name)
            inside.append(arrays)
            mean, metrics = tried, found
    return tuple(names), mean, metrics
