"""`rank_sources`: ranks data sets to pretrain on, or to take labels from."""

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
        name: Name of the source.
        examples: Number of examples.
        domain: Accuracy of a classifier of source against target: 0.5 is near,
            1 is far. See `domain_accuracy`.
        reverse: Accuracy of labels carried to the target and back. See
            `reverse_validation`.
        transferred: Accuracy on the target of a probe of the source's labels;
            `None` unless the source has all classes of the target by name.
        classes: Number of target classes whose nearest class is one of the
            source.
    """

    name: str
    examples: int
    domain: ProbeScore
    reverse: ProbeScore
    transferred: ProbeScore | None
    classes: int


@dataclasses.dataclass(frozen=True)
class SourceRanking:
    """Result of `rank_sources`, nearest first.

    Attributes:
        rows: A `RankedSource` for each, sorted by the accuracy of the domain
            classifier, on equal numbers of images of each source.
        nearest: Tuples `(class, source, source class, similarity)`, one for
            each class of the target.
        backbone: Name of the backbone whose features were compared.
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
            f"{'source':<{width}}  images  domain (95 %)         "
            f"reverse validation    transferred           classes"
        ]
        for row in self.rows:
            cells = [
                f"{'-':>6}" if score is None else str(score)
                for score in (row.domain, row.reverse, row.transferred)
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
    """Ranks labelled data sets by their distance to yours.

    The distance is measured in the features of one backbone, through which
    each image passes once. A source that a classifier cannot distinguish from
    the target, and whose labels survive reverse validation, is worth
    pretraining on, or joining.

    Args:
        sources: Mapping from names to `ImageData`, or splits; only the
            training images are used.
        target: Your data, of the same image size.
        backbone: A name from `list_backbones()`, or a `Backbone`. Defaults to
            `"ResNet20"`, for small images; for photos choose one that was
            trained on photos.
        store: Feature store, as for `extract_features`. Defaults to `None`,
            the user's.
        seed: Seed of draws and folds. Defaults to `0`.
        verbose: `0` to write nothing, `1` for the progress of the extraction.
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
    >>> ranking = rank_sources({"itself": data.train}, data, verbose=0)
    >>> ranking.best
    'itself'

    Reference:
        - Ben-David et al., 2010, https://doi.org/10.1007/s10994-009-5152-4
          (domain classifier)
        - Zhong et al., 2010, https://doi.org/10.1007/978-3-642-15939-8_35
          (reverse validation)
    """
    splits, target_split = _check_sources(sources, target)
    if not isinstance(backbone, str | Path | Backbone):
        raise TypeError(
            "`backbone` must be a name or a `Backbone`, from `load_backbone`. "
            f"Received: {type(backbone).__name__}"
        )
    feature_store = open_store(store)

    def features_of(split: ImageSplit) -> np.ndarray:
        features = extract_features(
            backbone, split, store=feature_store, seed=seed, verbose=verbose
        )
        values: np.ndarray = features.values.astype(np.float64)
        return values

    features = {name: features_of(split) for name, split in splits.items()}
    target_features = features_of(target_split)
    nearest = nearest_classes(
        {name: (features[name], splits[name].labels) for name in splits},
        target_features,
        target_split.labels,
    )
    # From few images a classifier learns little, and a small source would seem
    # near.
    count = min(len(target_features), *map(len, splits.values()))
    rows = [
        RankedSource(
            name,
            len(split),
            domain_accuracy(
                features[name], target_features, count=count, seed=seed
            ),
            reverse_validation(
                features[name], split.labels, target_features, seed=seed
            ),
            _transferred(features[name], split, target_features, target_split),
            sum(match.source == name for match in nearest),
        )
        for name, split in splits.items()
    ]
    rows.sort(key=lambda row: row.domain.accuracy)
    return SourceRanking(
        tuple(rows),
        tuple(_named(match, splits, target_split) for match in nearest),
        backbone.name if isinstance(backbone, Backbone) else str(backbone),
    )


def _check_sources(
    sources: Any, target: Any
) -> tuple[dict[str, ImageSplit], ImageSplit]:
    """Returns the training images of sources and target, of one size."""
    if not isinstance(sources, Mapping) or not sources:
        raise ValueError(
            '`sources` must be data sets by name, such as {"photos": data}. '
            f"Received: {type(sources).__name__}"
            f"{'' if sources else ', empty'}"
        )
    splits = {
        name: _check(f"sources[{name!r}]", source)
        for name, source in sources.items()
    }
    target_split = _check("target", target)
    shapes = {
        name: (*split.common_size(), split.pixels.channels)
        for name, split in {**splits, "the target": target_split}.items()
    }
    if len(set(shapes.values())) > 1:
        raise ValueError(
            "`sources` and `target` must have images of one size, since sizes "
            f"alone would distinguish them. Received: {shapes}. Pass "
            "`image_size` and `channels` to `load_images`."
        )
    return splits, target_split


def _check(name: str, data: Any) -> ImageSplit:
    """Returns the training images of an argument; raises if they are few."""
    split = training_images(name, data)
    if name != "target":
        check_classes(split.labels, len(split))
    if len(split) < FOLDS:
        raise ValueError(
            f"`{name}` must hold at least five images. Received: {len(split)}."
        )
    return split


def _transferred(
    features: np.ndarray,
    source: ImageSplit,
    target_features: np.ndarray,
    target: ImageSplit,
) -> ProbeScore | None:
    """Returns the accuracy on the target of a probe of the source's labels."""
    names = list(source.class_names)
    used = [target.class_names[label] for label in np.unique(target.labels)]
    present = {names[label] for label in np.unique(source.labels)}
    if not present.issuperset(used) or len(present) < 2:
        return None
    probe = fit_logistic(features, np.asarray(source.labels), len(names))
    indices = (target_features @ probe.kernel + probe.bias).argmax(axis=1)
    correct = sum(
        names[index] == target.class_names[label]
        for index, label in zip(indices, target.labels, strict=True)
    )
    return ProbeScore.of(correct, len(target_features))


def _named(
    match: NearestClass, sources: Mapping[str, ImageSplit], target: ImageSplit
) -> tuple[str, str, str, float]:
    return (
        target.class_names[match.target],
        match.source,
        sources[match.source].class_names[match.label],
        match.similarity,
    )
