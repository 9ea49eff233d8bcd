"""`rank_sources`: which data set to pretrain on, or to take labels from."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from keras_transfer.backbones import Backbone
from keras_transfer.caching.store.store import open_store
from keras_transfer.data import ImageData, ImageSplit
from keras_transfer.features import extract_features
from keras_transfer.features.arrays import check_classes
from keras_transfer.features.probe_score import FOLDS, ProbeScore
from keras_transfer.probes import fit_logistic
from keras_transfer.selection.domain_distance import (
    NearestClass,
    domain_accuracy,
    nearest_classes,
    reverse_validation,
)
from keras_transfer.selection.inputs import training_images


class RankedSource(NamedTuple):
    """A row of a `SourceRanking`.

    Attributes:
        name: Of the source.
        examples: How many it has.
        domain: How well a classifier tells it from the target: 0.5 is near, 1
            is far.
        reverse: How well its labels survive the way to the target and back.
        transferred: The accuracy of a probe of its labels on the target, where
            it has all classes of the target by name; `None` where not.
        classes: How many classes of the target are nearest to one of its own.
    """

    name: str
    examples: int
    domain: ProbeScore
    reverse: ProbeScore
    transferred: ProbeScore | None
    classes: int


@dataclasses.dataclass(frozen=True)
class SourceRanking:
    """What `rank_sources` returns: the nearest first.

    Attributes:
        rows: A `RankedSource` for each, by the accuracy of the domain
            classifier, on as many images of each source.
        nearest: For each class of the target the name of the class, that of
            the nearest source, of its nearest class, and the similarity.
        backbone: Whose features were compared.
    """

    rows: tuple[RankedSource, ...]
    nearest: tuple[tuple[str, str, str, float], ...]
    backbone: str

    @property
    def best(self) -> str:
        """The name of the first row."""
        return self.rows[0].name

    def __str__(self) -> str:
        return self.table()

    def table(self) -> str:
        """Returns the rows, and the nearest source of each class, as text."""
        width = max(6, *(len(row.name) for row in self.rows))
        lines = [
            f"{'source':<{width}}  images  told apart (95 %)     "
            f"there and back        on the target         classes"
        ]
        for row in self.rows:
            cells = [
                f"{'-':>6}" if found is None else str(found)
                for found in (row.domain, row.reverse, row.transferred)
            ]
            text = "".join(f"{cell:<22}" for cell in cells)
            lines.append(
                f"{row.name:<{width}}  {row.examples:>6}  {text}"
                f"{row.classes:>7}"
            )
        lines.append("")
        lines += [
            f"{name}: nearest to {label} of {source} (cosine {cosine:.2f})"
            for name, source, label, cosine in self.nearest
        ]
        return "\n".join(lines)


def rank_sources(
    sources: Mapping[str, ImageData | ImageSplit],
    target: ImageData | ImageSplit,
    backbone: str | Path | Backbone = "ResNet20",
    *,
    store: Any = None,
    seed: int = 0,
    verbose: int = 1,
) -> SourceRanking:
    """Ranks labelled data sets by how near they are to yours.

    By the features of one backbone, through which each image passes once. A
    source that no classifier tells from the target, and whose labels survive
    the way there and back, is worth pretraining on, or joining.

    Args:
        sources: Data sets by name, as `load_images` returned them, or splits;
            the training images are looked at.
        target: Yours, of the same image size.
        backbone: A name out of `list_backbones()`, or what `load_backbone`
            returned. Defaults to `"ResNet20"`, for small images; photos want
            one that knows photos.
        store: As for `extract_features`. Defaults to `None`, the user's.
        seed: Of draws and folds. Defaults to `0`.
        verbose: `0` for silence, `1` for the progress of the extraction.
            Defaults to `1`.

    Returns:
        A `SourceRanking`: `table()`, `best`, `nearest`.

    Raises:
        ValueError: If there is no source, an image has several classes or
            sizes, or a set has fewer than five images.
        TypeError: If a data set is something else.
        OSError: If the store cannot be written to.

    Example:

    >>> data = load_images((arrays, labels))
    >>> found = rank_sources({"itself": data.train}, data, verbose=0)
    >>> found.best
    'itself'

    Reference:
        - Ben-David et al., 2010, https://doi.org/10.1007/s10994-009-5152-4
          (telling domains apart)
        - Zhong et al., 2010, https://doi.org/10.1007/978-3-642-15939-8_35
          (reverse validation)
    """
    if not isinstance(sources, Mapping) or not sources:
        raise ValueError(
            '`sources` must be data sets by name, such as {"photos": data}. '
            f"Received: {type(sources).__name__}"
            f"{'' if sources else ', empty'}"
        )
    splits = {
        name: _checked(f"sources[{name!r}]", some)
        for name, some in sources.items()
    }
    wanted = _checked("target", target)
    shapes = {
        name: (*split.common_size(), split.pixels.channels)
        for name, split in {**splits, "the target": wanted}.items()
    }
    if len(set(shapes.values())) > 1:
        raise ValueError(
            "`sources` and `target` must have images of one size (which a "
            f"classifier would tell apart). Received: {shapes}. Pass "
            "`image_size` and `channels` to `load_images`."
        )
    if not isinstance(backbone, str | Path | Backbone):
        raise TypeError(
            "`backbone` must be a name or what `load_backbone` returned. "
            f"Received: {type(backbone).__name__}"
        )
    opened = open_store(store)

    def features_of(split: ImageSplit) -> np.ndarray:
        found = extract_features(
            backbone, split, store=opened, seed=seed, verbose=verbose
        )
        values: np.ndarray = found.values.astype(np.float64)
        return values

    known = {name: (features_of(some), some) for name, some in splits.items()}
    mine = features_of(wanted)
    nearest = nearest_classes(
        {name: (rows, split.labels) for name, (rows, split) in known.items()},
        mine,
        wanted.labels,
    )
    # Of few images a classifier learns little, and would take them for near.
    count = min(len(mine), *map(len, splits.values()))
    rows = [
        RankedSource(
            name,
            len(split),
            domain_accuracy(theirs, mine, count=count, seed=seed),
            reverse_validation(theirs, split.labels, mine, seed=seed),
            _transferred(theirs, split, mine, wanted),
            sum(found.source == name for found in nearest),
        )
        for name, (theirs, split) in known.items()
    ]
    rows.sort(key=lambda row: row.domain.accuracy)
    return SourceRanking(
        tuple(rows),
        tuple(_named(found, known, wanted) for found in nearest),
        backbone.name if isinstance(backbone, Backbone) else str(backbone),
    )


def _checked(name: str, data: Any) -> ImageSplit:
    split = training_images(name, data)
    if name != "target":
        check_classes(split.labels, len(split))
    if len(split) < FOLDS:
        raise ValueError(
            f"`{name}` must hold five images at least. Received: {len(split)}."
        )
    return split


def _transferred(
    theirs: np.ndarray, split: ImageSplit, mine: np.ndarray, wanted: ImageSplit
) -> ProbeScore | None:
    """The accuracy of the source's labels on the target."""
    names = list(split.class_names)
    used = [wanted.class_names[label] for label in np.unique(wanted.labels)]
    present = {names[label] for label in np.unique(split.labels)}
    if not present.issuperset(used) or len(present) < 2:
        return None
    probe = fit_logistic(theirs, np.asarray(split.labels), len(names))
    guesses = (mine @ probe.kernel + probe.bias).argmax(axis=1)
    right = sum(
        names[guess] == wanted.class_names[label]
        for guess, label in zip(guesses, wanted.labels, strict=True)
    )
    return ProbeScore.of(right, len(mine))


def _named(
    found: NearestClass,
    known: Mapping[str, tuple[np.ndarray, ImageSplit]],
    wanted: ImageSplit,
) -> tuple[str, str, str, float]:
    source = known[found.source][1]
    return (
        wanted.class_names[found.target],
        found.source,
        source.class_names[found.label],
        found.similarity,
    )
