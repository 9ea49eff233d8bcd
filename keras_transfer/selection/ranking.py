"""`rank_backbones`: which pretrained network, before anything is trained."""

from __future__ import annotations

import csv
import dataclasses
import functools
import io
import math
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from keras_transfer._checks import is_integer
from keras_transfer._errors import nearest
from keras_transfer._files import whole_file
from keras_transfer.backbones import Backbone, load_backbone
from keras_transfer.data import ImageData, ImageSplit
from keras_transfer.features import FeatureStore
from keras_transfer.features.backbones import cut_at, load
from keras_transfer.features.cost import count_flops
from keras_transfer.features.examples import Examples, examples_of
from keras_transfer.features.extraction import open_store
from keras_transfer.features.filling import feed_inputs, fill, open_entries
from keras_transfer.features.views import make_views
from keras_transfer.reports import plot_costs
from keras_transfer.selection._arrays import check_classes
from keras_transfer.selection.evidence import logme
from keras_transfer.selection.probe_score import (
    FOLDS,
    ProbeScore,
    probe_score,
)
from keras_transfer.selection.separation import h_score, parc
from keras_transfer.selection.source_classes import leep, nce, nleep

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


class RankedBackbone(NamedTuple):
    """A row of a `Ranking`.

    Attributes:
        name: Of the backbone.
        examples: Training images that it was judged by; fewer than there are
            where others were better by then.
        probe: Cross-validated accuracy of a linear probe.
        scores: The other scores, by name: more is better; NaN for `"leep"` and
            `"nce"` of a backbone without a classifier of its own.
        imagenet_top1: Accuracy of its published weights on ImageNet, which a
            score has to beat; `None` where it is not known.
        parameters: Weights and biases.
        flops: Operations of a forward pass of an image.
        images_per_second: Through the network, as measured here, without
            decoding; 0 where all was in the store.
        licence: Of the weights.
    """

    name: str
    examples: int
    probe: ProbeScore
    scores: dict[str, float]
    imagenet_top1: float | None
    parameters: int
    flops: int
    images_per_second: float
    licence: str


@dataclasses.dataclass(frozen=True)
class Ranking:
    """What `rank_backbones` returns: the best first.

    Attributes:
        rows: A `RankedBackbone` for each, by the images they were judged by,
            then by `by`.
        by: The score that they are sorted by.
        computed: Times that an image passed a backbone.
    """

    rows: tuple[RankedBackbone, ...]
    by: str
    computed: int

    @property
    def best(self) -> str:
        """The name of the first row."""
        return self.rows[0].name

    def __str__(self) -> str:
        return self.table()

    def table(self) -> str:
        """Returns the rows as text."""
        names = list(self.rows[0].scores)
        width = max(len(row.name) for row in self.rows)
        head = f"{'backbone':<{width}}  images  probe (95 %)          "
        head += "  ".join(f"{name:>8}" for name in names)
        lines = [
            f"{head}  ImageNet  million weights  GFLOPs  images/s  licence"
        ]
        for row in self.rows:
            probe = row.probe
            line = f"{row.name:<{width}}  {row.examples:>6}  "
            line += f"{probe.accuracy:6.1%} ({probe.low:.1%}-{probe.high:.1%})"
            line = f"{line:<{width + 31}} "
            line += "  ".join(
                f"{row.scores[name]:>8.3f}"
                if math.isfinite(row.scores[name])
                else f"{'-':>8}"
                for name in names
            )
            top1, speed = row.imagenet_top1, row.images_per_second
            line += f"  {top1:>8.1%}" if top1 else f"{'-':>10}"
            line += f"  {row.parameters / 1e6:>15.2f}  {row.flops / 1e9:>6.2f}"
            line += f"  {speed:>8.0f}" if speed else f"{'-':>10}"
            lines.append(f"{line}  {row.licence}")
        return "\n".join(lines)

    def save_table(self, path: str | os.PathLike[str]) -> None:
        """Writes the rows as CSV, with the licences.

        Args:
            path: The file.
        """
        text = io.StringIO()
        writer = csv.writer(text)
        names = list(self.rows[0].scores)
        writer.writerow(
            ["backbone", "images", "probe", "low", "high", *names]
            + ["imagenet_top1", "parameters", "flops"]
            + ["images_per_second", "licence"]
        )
        for row in self.rows:
            writer.writerow(
                [row.name, row.examples, *row.probe]
                + [row.scores[name] for name in names]
                + [row.imagenet_top1, row.parameters, row.flops]
                + [round(row.images_per_second, 1), row.licence]
            )
        with whole_file(Path(path)) as partial:
            partial.write_text(text.getvalue(), encoding="utf-8")

    def plot(self, path: str | os.PathLike[str]) -> None:
        """Draws the accuracy of the probe against operations.

        Args:
            path: PNG file to write.
        """
        plot_costs(
            {row.name: row.flops for row in self.rows},
            {row.name: (*row.probe,) for row in self.rows},
            self.pareto(),
            Path(path),
        )

    def pareto(self) -> tuple[str, ...]:
        """Returns the names of those that no other beats in both.

        In the accuracy of the probe, and in operations of a forward pass.
        """
        found = []
        for row in self.rows:
            beaten = any(
                other.probe.accuracy >= row.probe.accuracy
                and other.flops <= row.flops
                and (other.probe.accuracy, -other.flops)
                > (row.probe.accuracy, -row.flops)
                for other in self.rows
                if other is not row
            )
            if not beaten:
                found.append(row.name)
        return tuple(found)


class _Candidate:
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


class _Race:
    """All backbones, rung by rung."""

    def __init__(
        self,
        split: ImageSplit,
        candidates: Sequence[_Candidate],
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

    def _judge(self, candidate: _Candidate) -> RankedBackbone:
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

    def ranking(self, candidates: Sequence[_Candidate]) -> Ranking:
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


def _check(
    backbones: Any,
    scores: Any,
    by: str,
    budget: float | None,
    integers: dict[str, tuple[Any, int]],
) -> None:
    for name, value in (("backbones", backbones), ("scores", scores)):
        kinds = Sequence | Mapping if name == "backbones" else Sequence
        if isinstance(value, str) or not isinstance(value, kinds):
            raise TypeError(
                f"`{name}` must be a sequence, such as a list. Received: "
                f"{name}={value!r:.100}"
            )
    if not backbones:
        raise ValueError("`backbones` must be at least one. Received: none.")
    for name in scores:
        known = [*SCORES, *SOURCE_SCORES]
        if name not in known:
            raise ValueError(
                f"`scores` must be of {', '.join(known)}. Received: "
                f"{name!r}.{nearest(str(name), known)}"
            )
    if by not in ("probe", *SCORES, *SOURCE_SCORES):
        raise ValueError(
            '`by` must be "probe" or a score, of '
            f"{', '.join([*SCORES, *SOURCE_SCORES])}. Received: by={by!r}"
        )
    is_number = isinstance(budget, int | float)
    if budget is not None and not (is_number and budget > 0):
        raise ValueError(
            "`budget` must be seconds above 0, or None. Received: budget="
            f"{budget!r}"
        )
    for name, (value, least) in integers.items():
        if not is_integer(value) or value < least:
            raise ValueError(
                f"`{name}` must be an integer from {least} on. Received: "
                f"{name}={value!r}"
            )


def rank_backbones(
    backbones: Sequence[str | Path | Backbone]
    | Mapping[str, str | Path | Backbone],
    data: ImageData | ImageSplit,
    *,
    scores: Sequence[str] = ("logme", "h_score"),
    by: str = "probe",
    budget: float | None = None,
    first: int = 256,
    store: Any = None,
    batch_size: int = 32,
    seed: int = 0,
    verbose: int = 1,
) -> Ranking:
    """Ranks pretrained networks on your images, without training one.

    Each image passes each network once at most, is decoded once for all of
    them, and is found in the store afterwards. With a `budget` of seconds all
    begin with `first` images (classes in equal shares); while the rest would
    take longer than what is left, the better half goes on with twice as many.
    A round that has begun is ended.

    Args:
        backbones: Names out of `list_backbones()`, files, or what
            `load_backbone` returned; or a mapping of these by the names that
            the table shall have. Of several with one name the second is called
            `"name #2"`.
        data: What `load_images` returned, with `image_size`, or a split; the
            training images are looked at.
        scores: Of `"logme"`, `"h_score"`, `"parc"` (of 2,000 images),
            `"nleep"`, and `"leep"` and `"nce"` for backbones out of a model
            that was loaded with its classifier, beside the probe. Defaults to
            `("logme", "h_score")`.
        by: What to sort by: `"probe"` or a score; backbones without it come
            last. Defaults to `"probe"`.
        budget: Seconds for all of it, about. Defaults to `None`: all images.
        first: Images to begin with, where there is a budget. Defaults to
            `256`.
        store: As for `extract_features`. Defaults to `None`, the user's.
        batch_size: Images that are computed at once. Defaults to `32`.
        seed: Of the order of the images, and of the folds. Defaults to `0`.
        verbose: `0` for silence, `1` for a line each. Defaults to `1`.

    Returns:
        A `Ranking`: `table()`, `best`, `pareto()`, `plot(path)`,
        `save_table(path)`.

    Raises:
        ValueError: If an argument is out of range, or the images have several
            classes or sizes, or one class alone.
        TypeError: If an argument is of another type.
        OSError: If the store cannot be written to.

    Example:

    >>> data = load_images((arrays, labels))
    >>> ranking = rank_backbones(["ResNet20"], data, verbose=0)
    >>> ranking.best
    'ResNet20'

    Reference:
        - Jamieson and Talwalkar, 2016, https://arxiv.org/abs/1502.07943
          (successive halving)
    """
    integers = {
        "first": (first, 10),
        "batch_size": (batch_size, 1),
        "seed": (seed, 0),
    }
    _check(backbones, scores, by, budget, integers)
    if by not in ("probe", *scores):
        scores = (*scores, by)
    split = data.train if isinstance(data, ImageData) else data
    if isinstance(data, ImageData) and data.image_size is not None:
        split = dataclasses.replace(split, image_size=data.image_size)
    if not isinstance(split, ImageSplit):
        raise TypeError(
            "`data` must be what `load_images` returned, or one of its splits. "
            f"Received: {type(data).__name__}"
        )
    if split.multi_label:
        raise ValueError(
            "`data` must have one class for each image. Received: several."
        )
    check_classes(split.labels, len(split))
    if len(split) < FOLDS:
        raise ValueError(
            f"`data` must hold {FOLDS} training images at least. Received: "
            f"{len(split)}."
        )
    size = split.common_size()
    shape = (*size, split.pixels.channels)
    opened = open_store(store)
    candidates: list[_Candidate] = []
    given = backbones if isinstance(backbones, Mapping) else {}
    for name, backbone in given.items() or ((None, b) for b in backbones):
        candidate = _Candidate(backbone, shape, opened, batch_size)
        candidate.name = name or candidate.name
        names, number = {other.name for other in candidates}, 2
        plain = candidate.name
        while candidate.name in names:  # Of several widths, or other weights.
            candidate.name, number = f"{plain} #{number}", number + 1
        candidates.append(candidate)
    asked = sorted(SOURCE_SCORES.keys() & set(scores))
    if asked and not any(c.has_classifier for c in candidates):
        raise ValueError(
            "`scores` must be those that a backbone has. Received: "
            f"{asked[0]!r}, which needs a classifier of its own: load a model "
            "with its softmax, `load_backbone(model, ...)`."
        )
    race = _Race(split, candidates, tuple(scores), by, seed, verbose)
    race.run(budget, first)
    return race.ranking(candidates)
