"""Successive halving of backbones: each round drops the worse half."""

from __future__ import annotations

import dataclasses
import functools
import math
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from keras_transfer.data import ImageSplit
from keras_transfer.data.examples import examples_of
from keras_transfer.features.probe_score import probe_score
from keras_transfer.selection.candidate import Candidate
from keras_transfer.selection.class_separability import h_score, parc
from keras_transfer.selection.logme import logme
from keras_transfer.selection.ranking import RankedBackbone, Ranking
from keras_transfer.selection.source_label_scores import leep, nce, nleep

# Scores of features and labels, besides the probe.
SCORES: dict[str, Callable[[np.ndarray, np.ndarray], float]] = {
    "logme": logme,
    "h_score": h_score,
    "parc": parc,
    "nleep": nleep,
}


# Scores of the probabilities of the backbone's own classifier, and labels.
SOURCE_SCORES: dict[str, Callable[[np.ndarray, np.ndarray], float]] = {
    "leep": leep,
    "nce": nce,
}


# Memory for decoded images, which are shared by all backbones.
_DECODED_BYTES = 256 * 2**20


# PARC compares all pairs of images.
_PARC_IMAGES = 2_000


class SuccessiveHalving:
    """Backbones that are ranked on more and more images.

    Args:
        split: The images and their labels.
        candidates: The backbones.
        scores: Names of the scores to compute.
        by: Name of the score to sort by, or `"probe"`.
        seed: Seed of the order of the images, and of the folds.
        verbose: 0 to write nothing.
    """

    def __init__(
        self,
        split: ImageSplit,
        candidates: Sequence[Candidate],
        scores: tuple[str, ...],
        by: str,
        seed: int,
        verbose: int,
    ) -> None:
        self._split = split
        self._examples = examples_of(split)
        self._labels = np.asarray(split.labels)
        self._order = _stratified_order(self._labels, seed)
        self._running = list(candidates)
        self._scores = scores
        self._by = by
        self._seed = seed
        self._verbose = verbose
        self.rows: dict[str, RankedBackbone] = {}

    def run(self, budget: float | None, first: int) -> None:
        """Ranks until all images are used, or the budget is spent."""
        begun, seen, total = time.monotonic(), 0, len(self._order)
        until = total if budget is None else min(first, total)
        while True:
            started, running = time.monotonic(), len(self._running)
            before = sum(c.passes for c in self._running)
            self._extend(self._order[seen:until])
            for candidate in self._running:
                self.rows[candidate.name] = self._row(candidate)
            count, seen = until - seen, until
            if seen == total or budget is None:
                return
            now = time.monotonic()
            remaining = budget - (now - begun)
            if remaining <= 0:
                return
            computed = sum(c.passes for c in self._running) - before
            # All costs of an image: decoding, the networks, the probes.
            seconds_per_image = (now - started) / (running * count)
            until = min(2 * seen, total)
            if computed < running * count / 2:
                continue  # Most came from the store: the cost is unknown.
            if (total - seen) * running * seconds_per_image <= remaining:
                until = total
            else:
                self._halve()

    def _halve(self) -> None:
        key = self._key
        order = sorted(
            self._running, key=lambda c: key(self.rows[c.name]), reverse=True
        )
        self._running = order[: math.ceil(len(order) / 2)]

    def _extend(self, rows: np.ndarray) -> None:
        """Decodes images once, for all candidates that are left."""
        size = max(1, _DECODED_BYTES // math.prod(self._examples.shape))
        for start in range(0, len(rows), size):
            chunk = rows[start : start + size]
            decoded: dict[int, np.ndarray] = {}

            def read(
                index: int, chunk: Any = chunk, decoded: Any = decoded
            ) -> Any:
                # Two threads may decode the same image, with equal results.
                if index not in decoded:
                    decoded[index] = self._examples.read(int(chunk[index]))
                return decoded[index]

            examples = dataclasses.replace(
                self._examples,
                read=read,
                num_examples=len(chunk),
                digest=functools.partial(
                    self._examples.digests.__getitem__, chunk
                ),
            )
            for candidate in self._running:
                candidate.extend(examples)

    def _row(self, candidate: Candidate) -> RankedBackbone:
        count = len(candidate.features)
        labels = self._labels[self._order[:count]]
        features = candidate.features
        scores = {}
        needs_source = SOURCE_SCORES.keys() & set(self._scores)
        source = candidate.source_probabilities() if needs_source else None
        for name in self._scores:
            most = _PARC_IMAGES if name == "parc" else count
            if name in SCORES:
                scores[name] = SCORES[name](features[:most], labels[:most])
            elif source is None:
                scores[name] = math.nan
            else:
                scores[name] = SOURCE_SCORES[name](source, labels)
        row = RankedBackbone(
            candidate.name,
            count,
            probe_score(features, labels, seed=self._seed),
            scores,
            candidate.spec.imagenet_top1,
            candidate.parameters,
            candidate.flops,
            candidate.images_per_second,
            candidate.spec.licence,
        )
        if self._verbose:
            probe = f"probe {row.probe.accuracy:.1%}"
            sys.stdout.write(f"{row.name}: {count} images, {probe}\n")
            sys.stdout.flush()
        return row

    def _key(self, row: RankedBackbone) -> float:
        if self._by == "probe":
            return row.probe.accuracy
        score = row.scores[self._by]
        return score if math.isfinite(score) else -math.inf

    def ranking(self, candidates: Sequence[Candidate]) -> Ranking:
        """Returns the ranking, best first."""
        rows = sorted(
            self.rows.values(),
            key=lambda row: (row.examples, self._key(row)),
            reverse=True,
        )
        return Ranking(tuple(rows), self._by, sum(c.passes for c in candidates))


def _stratified_order(labels: np.ndarray, seed: int) -> np.ndarray:
    """Returns an order, every prefix of which has the classes' shares."""
    shuffled = np.random.default_rng(seed).permutation(len(labels))
    place = np.empty(len(labels))
    for label in np.unique(labels):
        members = shuffled[labels[shuffled] == label]
        # Spread evenly over [0, 1], so that classes interleave.
        place[members] = (np.arange(len(members)) + 0.5) / len(members)
    return shuffled[np.argsort(place[shuffled], kind="stable")]
