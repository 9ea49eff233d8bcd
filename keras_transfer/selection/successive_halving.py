"""Backbones side by side: each image once, the better half goes on."""

from __future__ import annotations

import dataclasses
import functools
import math
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from keras_transfer.backbones import Backbone, load_backbone
from keras_transfer.caching.cost import count_flops
from keras_transfer.caching.feeds import feed_inputs
from keras_transfer.caching.filling import fill, open_entries
from keras_transfer.caching.store import FeatureStore
from keras_transfer.caching.views import make_views
from keras_transfer.data import ImageSplit
from keras_transfer.data.examples import Examples, examples_of
from keras_transfer.features.backbone_outputs import cut_at, load
from keras_transfer.features.probe_score import probe_score
from keras_transfer.selection.class_separability import h_score, parc
from keras_transfer.selection.logme import logme
from keras_transfer.selection.ranking import RankedBackbone, Ranking
from keras_transfer.selection.source_label_scores import leep, nce, nleep

# Functions of features and labels, besides the probe.
SCORES: dict[str, Callable[[np.ndarray, np.ndarray], float]] = {
    "logme": logme,
    "h_score": h_score,
    "parc": parc,
    "nleep": nleep,
}


# Functions of what the backbone's own classifier says, and labels.
SOURCE_SCORES: dict[str, Callable[[np.ndarray, np.ndarray], float]] = {
    "leep": leep,
    "nce": nce,
}


# Decoded images that wait for all backbones.
_IMAGES_BYTES = 256 * 2**20


# PARC compares all pairs.
_MOST_PAIRS = 2_000


class Candidate:
    """A backbone while it is ranked."""

    def __init__(
        self,
        backbone: str | Path | Backbone,
        shape: tuple[int, int, int],
        store: FeatureStore,
        batch_size: int,
    ) -> None:
        if not isinstance(backbone, Backbone):
            backbone = load_backbone(backbone, input_shape=shape)
        self.name = backbone.name
        self.licence = backbone.spec.licence
        self.imagenet_top1 = backbone.spec.imagenet_top1
        self._classifier = backbone.classifier
        self.parameters = backbone.model.count_params()
        loaded = load(backbone, shape)
        self._outputs = cut_at(loaded, None, "avg", shape, "tensorflow", 0)
        (network,) = self._outputs.targets
        self.flops = count_flops(network, [shape])
        self._store = store
        self._batch_size = batch_size
        self._look = np.zeros((batch_size, *shape), np.float32)
        self._begun = False
        self.has_classifier = backbone.classifier is not None
        self.features = np.empty((0, 0), np.float32)
        self.passes = 0
        self.seconds = 0.0

    def extend(self, examples: Examples) -> None:
        """Computes the features of more images, or finds them."""
        views = make_views(1)
        entries = open_entries(
            self._store, self._outputs.targets, examples, views,
            engine=self._outputs.engine,
        )  # fmt: skip
        (entry,) = entries[0]
        if not self._begun and (entry.find(examples.digests)[:, 0] < 0).any():
            # Compiled before the clock runs; noise is no image.
            self._outputs.compute(self._look)
            self._begun = True
        feed = feed_inputs(examples, self._timed, [1], views, self._batch_size)
        tally = fill(self._store, entries, examples.digests, feed)
        self.passes += tally.passes
        (found,) = entry.gather(entry.find(examples.digests))
        found = found.astype(np.float32, copy=False)
        known = [self.features] if len(self.features) else []
        self.features = np.concatenate([*known, found])

    def _timed(self, images: Any) -> Any:
        """Computes; the clock leaves out what is decoded for all."""
        started = time.monotonic()
        found = self._outputs.compute(images)
        self.seconds += time.monotonic() - started
        return found

    def source_probabilities(self) -> np.ndarray | None:
        """What its own classifier says, `(n, source classes)`."""
        if self._classifier is None:
            return None
        found: np.ndarray = self._classifier.predict(
            self.features, batch_size=1024, verbose=0
        )
        return found

    @property
    def images_per_second(self) -> float:
        """As measured; 0 where nothing was computed."""
        return self.passes / self.seconds if self.seconds else 0.0


class SuccessiveHalving:
    """All backbones, rung by rung."""

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
        self._order = _in_shares(self._labels, seed)
        self._running = list(candidates)
        self._scores = scores
        self._by = by
        self._seed = seed
        self._verbose = verbose
        self.rows: dict[str, RankedBackbone] = {}

    def run(self, budget: float | None, first: int) -> None:
        """Ranks until all images were seen, or the budget is spent."""
        begun, seen, total = time.monotonic(), 0, len(self._order)
        until = total if budget is None else min(first, total)
        while True:
            started, ran = time.monotonic(), len(self._running)
            before = sum(c.passes for c in self._running)
            self._see(self._order[seen:until])
            for candidate in self._running:
                self.rows[candidate.name] = self._judge(candidate)
            count, seen = until - seen, until
            if seen == total or budget is None:
                return
            now = time.monotonic()
            left = budget - (now - begun)
            if left <= 0:
                return
            computed = sum(c.passes for c in self._running) - before
            # All that it takes for an image: decoding, networks, probes.
            each = (now - started) / (ran * count)
            until = min(2 * seen, total)
            if computed < ran * count / 2:
                continue  # Found in the store: what it takes is not known.
            if (total - seen) * ran * each <= left:
                until = total
            else:
                self._halve()

    def _halve(self) -> None:
        key = self._key
        order = sorted(
            self._running, key=lambda c: key(self.rows[c.name]), reverse=True
        )
        self._running = order[: math.ceil(len(order) / 2)]

    def _see(self, rows: np.ndarray) -> None:
        """Decodes images once, for all who run."""
        size = max(1, _IMAGES_BYTES // math.prod(self._examples.shape))
        for start in range(0, len(rows), size):
            some = rows[start : start + size]
            decoded: dict[int, np.ndarray] = {}

            def read(index: int, some: Any = some, known: Any = decoded) -> Any:
                # Two threads may both decode an image, and find the same.
                if index not in known:
                    known[index] = self._examples.read(int(some[index]))
                return known[index]

            part = dataclasses.replace(
                self._examples,
                read=read,
                num_examples=len(some),
                digest=functools.partial(
                    self._examples.digests.__getitem__, some
                ),
            )
            for candidate in self._running:
                candidate.extend(part)

    def _judge(self, candidate: Candidate) -> RankedBackbone:
        count = len(candidate.features)
        labels = self._labels[self._order[:count]]
        features = candidate.features
        scores = {}
        asked = SOURCE_SCORES.keys() & set(self._scores)
        source = candidate.source_probabilities() if asked else None
        for name in self._scores:
            most = _MOST_PAIRS if name == "parc" else count
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
            candidate.imagenet_top1,
            candidate.parameters,
            candidate.flops,
            candidate.images_per_second,
            candidate.licence,
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
        """All rows, the best first."""
        rows = sorted(
            self.rows.values(),
            key=lambda row: (row.examples, self._key(row)),
            reverse=True,
        )
        return Ranking(tuple(rows), self._by, sum(c.passes for c in candidates))


def _in_shares(labels: np.ndarray, seed: int) -> np.ndarray:
    """An order whose beginnings hold all classes in their shares."""
    shuffled = np.random.default_rng(seed).permutation(len(labels))
    place = np.empty(len(labels))
    for label in np.unique(labels):
        mine = shuffled[labels[shuffled] == label]
        place[mine] = (np.arange(len(mine)) + 0.5) / len(mine)
    return shuffled[np.argsort(place[shuffled], kind="stable")]
