"""`rank_backbones`: scores pretrained networks before training."""

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
from keras_transfer.selection.candidate import Candidate
from keras_transfer.selection.inputs import training_images
from keras_transfer.selection.ranking import Ranking
from keras_transfer.selection.successive_halving import (
    SCORES,
    SOURCE_SCORES,
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
        raise ValueError(
            "`backbones` must not be empty. Received: backbones=[]"
        )
    for name in scores:
        known = [*SCORES, *SOURCE_SCORES]
        if name not in known:
            raise ValueError(
                f"`scores` must be among {', '.join(known)}. Received: "
                f"{name!r}.{did_you_mean(str(name), known)}"
            )
    if by not in ("probe", *SCORES, *SOURCE_SCORES):
        raise ValueError(
            '`by` must be "probe" or a score, one of '
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
                f"`{name}` must be an integer of at least {least}. Received: "
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

    Each image is decoded once, passes each network at most once, and is read
    from the store afterwards. With a `budget` in seconds, all networks start
    with `first` images (stratified by class); while the rest would take longer
    than the time left, the better half continues with twice as many. A round
    that has started is completed.

    Args:
        backbones: Names from `list_backbones()`, files, or `Backbone` objects
            from `load_backbone`; or a mapping from the names to show in the
            table to these. Of several with the same name, the second becomes
            `"name #2"`.
        data: An `ImageData`, from `load_images`, with `image_size`; or a split
            of one. Only the training images are used.
        scores: Scores besides the probe: `"logme"`, `"h_score"`, `"parc"` (on
            2,000 images), `"nleep"`; and, for backbones from a model that was
            loaded with its classifier, `"leep"` and `"nce"`. Defaults to
            `("logme", "h_score")`.
        by: Sort key, `"probe"` or a score; backbones without it come last.
            Defaults to `"probe"`.
        budget: Approximate number of seconds for the whole ranking. Defaults
            to `None`: all images.
        first: Number of images in the first round, with a budget. Defaults to
            `256`.
        store: Feature store, as for `extract_features`. Defaults to `None`,
            the user's.
        batch_size: Images in a batch. Defaults to `32`.
        seed: Seed of the order of the images, and of the folds. Defaults to
            `0`.
        verbose: `0` to write nothing, `1` for a line per backbone. Defaults to
            `1`.

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
            f"`data` must hold at least {FOLDS} training images. Received: "
            f"{len(split)}."
        )
    size = split.common_size()
    shape = (*size, split.pixels.channels)
    feature_store = open_store(store)
    candidates: list[Candidate] = []
    named = backbones if isinstance(backbones, Mapping) else {}
    for name, backbone in named.items() or ((None, b) for b in backbones):
        candidate = Candidate(backbone, shape, feature_store, batch_size)
        candidate.name = name or candidate.name
        names, number = {other.name for other in candidates}, 2
        plain = candidate.name
        while candidate.name in names:  # Another width, or other weights.
            candidate.name, number = f"{plain} #{number}", number + 1
        candidates.append(candidate)
    source_scores = sorted(SOURCE_SCORES.keys() & set(scores))
    if source_scores and not any(c.has_classifier for c in candidates):
        raise ValueError(
            "`scores` must be available for at least one backbone. Received: "
            f"{source_scores[0]!r}, which needs the backbone's own classifier: "
            "load a model with its softmax, `load_backbone(model, ...)`."
        )
    halving = SuccessiveHalving(
        split, candidates, tuple(scores), by, seed, verbose
    )
    halving.run(budget, first)
    return halving.ranking(candidates)
