"""`rank_backbones`: which pretrained network, before anything is trained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from keras_transfer._utils.checks import did_you_mean, is_integer
from keras_transfer.backbones import Backbone
from keras_transfer.caching.store.store import open_store
from keras_transfer.data import ImageData, ImageSplit
from keras_transfer.features.arrays import check_classes
from keras_transfer.features.probe_score import FOLDS
from keras_transfer.selection.inputs import training_images
from keras_transfer.selection.ranking import Ranking
from keras_transfer.selection.successive_halving import (
    SCORES,
    SOURCE_SCORES,
    Candidate,
    SuccessiveHalving,
)


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
                f"{name!r}.{did_you_mean(str(name), known)}"
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
    split = training_images("data", data)
    check_classes(split.labels, len(split))
    if len(split) < FOLDS:
        raise ValueError(
            f"`data` must hold {FOLDS} training images at least. Received: "
            f"{len(split)}."
        )
    size = split.common_size()
    shape = (*size, split.pixels.channels)
    opened = open_store(store)
    candidates: list[Candidate] = []
    given = backbones if isinstance(backbones, Mapping) else {}
    for name, backbone in given.items() or ((None, b) for b in backbones):
        candidate = Candidate(backbone, shape, opened, batch_size)
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
    race = SuccessiveHalving(
        split, candidates, tuple(scores), by, seed, verbose
    )
    race.run(budget, first)
    return race.ranking(candidates)
