"""`extract_features`: what frozen backbones say of each example, kept."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from keras_transfer._utils.checks import is_integer
from keras_transfer.caching.engines import check_engine
from keras_transfer.caching.feeds import feed_inputs
from keras_transfer.caching.filling import fill, open_entries
from keras_transfer.caching.store.entry import Entry
from keras_transfer.caching.store.store import (
    FeatureStore,
    StoreLike,
    open_store,
)
from keras_transfer.caching.views import View, make_views
from keras_transfer.data import (
    Augmentation,
    ImageData,
    ImageSplit,
    LabelledData,
    TextSplit,
)
from keras_transfer.data.examples import Examples, examples_of
from keras_transfer.data.texts.texts import is_texts
from keras_transfer.distribute import (
    ProcessGroup,
    check_batch_size,
    choose_devices,
)
from keras_transfer.features.backbone_outputs import (
    BackboneLike,
    Outputs,
    check_layers,
    cut_at,
    load,
)
from keras_transfer.features.features import (
    Features,
    FeatureSplit,
    Part,
    unit_norm,
)

if TYPE_CHECKING:
    import tensorflow as tf


POOLINGS = ("avg", "max", None)


DTYPES = ("float32", "float16")


def extract_features(
    backbones: BackboneLike | Sequence[BackboneLike],
    data: Any,
    *,
    layers: str | Sequence[str] | Mapping[str, Sequence[str]] | None = None,
    pooling: str | None = "avg",
    views: int = 1,
    augment: Augmentation | None = None,
    dtype: str = "float32",
    store: StoreLike = None,
    batch_size: int = 32,
    engine: str = "tensorflow",
    devices: Any = None,
    seed: int = 0,
    verbose: int = 1,
) -> Any:
    """Computes features with frozen backbones, or finds them in the store.

    An example passes a backbone once: what is in the store already, of this
    data set or of any other, is read from there. Of several blocks or
    backbones each is scaled to unit Euclidean norm, example by example, and
    they are joined.

    Args:
        backbones: One or several: names out of `list_backbones()`, files, what
            `load_backbone` returned, or models made by `build_classifier`.
        data: What `load_images` returned; an `ImageSplit`; images
            `(n, height, width, channels)` in `[0, 255]`; a pair `(images,
            labels)`; or a dict of pairs with keys `"train"`, `"validation"`
            and `"test"`.
        layers: Names of blocks, or patterns for them, whose outputs are
            wanted; `"*"` for all; a dict of these by the name of the backbone.
            Defaults to `None`, the output of the backbone.
        pooling: `"avg"` or `"max"` over positions, or `None` to keep feature
            maps. Defaults to `"avg"`.
        views: Views of each training image: the image itself, its mirror
            image, and changed ones. Defaults to `1`.
        augment: What changes in them. Defaults to `None`: mirrored, and
            crops of three quarters of the side or more.
        dtype: `"float32"`, or `"float16"` for half the room and three decimal
            digits. Defaults to `"float32"`.
        store: A `FeatureStore`, the folder of one, or `None` for the user's:
            `$KERAS_TRANSFER_CACHE`, else `~/.cache`. `"memory"` keeps nothing
            for the next call; to share memory give the same `FeatureStore()`
            to each. Defaults to `None`.
        batch_size: Images that are computed at once. Defaults to `32`.
        engine: What computes them: `"tensorflow"`; `"openvino"`, on CPUs, or
            `"openvino-bfloat16"`, faster with two to three decimal digits
            (`pip install "keras_transfer[openvino]"`); `"auto"` times the
            first two where there are 5,000 images or more. `"tensorflow"`
            folds frozen weights: the numbers of the model to five digits.
            `fine_tune` finds them where it trains one linear layer alone.
            Defaults to `"tensorflow"`.
        devices: `"auto"` for all GPUs of this machine, how many of them
            (of logical CPUs where there is none), a
            `tf.distribute.Strategy`, or what `connect_workers` returned: each
            process computes its part of the examples, and all find all of them
            in the store, a folder that they share, or in memory. Defaults to
            `None`: one device.
        seed: Of the views. Defaults to `0`.
        verbose: `0` for silence, `1` for a progress bar. Defaults to `1`.

    Returns:
        `Features` with the splits of the data and, as `computed`, the number
        of examples that were not found (by all workers together); a
        `FeatureSplit` for one split, one
        pair or one array. `values` are those of the first view, `all_views` of
        all.

    Raises:
        ValueError: If an argument is out of range, a name matches no block, or
            the images do not fit a backbone.
        TypeError: If `data` is something else.
        ImportError: If `engine` is not installed.
        OSError: If the store cannot be written to, or has no room.
        RuntimeError: If another worker failed or is gone.

    Example:

    >>> data = load_images((arrays, labels))
    >>> features = extract_features("ResNet20", data, verbose=0)
    >>> features.train.values.shape[1]
    64

    Reference:
        - Sharif Razavian et al., 2014, https://arxiv.org/abs/1403.6382
    """
    _check(pooling, dtype, batch_size)
    check_engine(engine)
    if augment is not None and views == 1:
        raise ValueError(
            "`views` must be above 1 where `augment` is given: the first view "
            "is the image as it is. Received: views=1"
        )
    strategy = choose_devices(devices)
    check_batch_size(batch_size, strategy)
    engine = _engine_for(engine, strategy)
    team = ProcessGroup(strategy)
    verbose = verbose if team.is_chief else 0
    opened = open_store(store)
    parts = _splits(data)
    several = isinstance(backbones, Sequence) and not isinstance(backbones, str)
    wanted = list(backbones) if several else [backbones]  # type: ignore[arg-type]
    if not wanted:
        raise ValueError("`backbones` must hold at least one. Received: none.")
    shape = _common_shape(parts)
    count = sum(len(part.examples) for part in parts.values())
    loaded = [load(backbone, shape) for backbone in wanted]
    check_layers(layers, [backbone.name for backbone in loaded])
    sources = [
        cut_at(backbone, layers, pooling, shape, engine, count, strategy)
        for backbone in loaded
    ]
    found = {}
    computed = 0
    for name, part in parts.items():
        # Only training images are looked at in several ways.
        looks = make_views(views if name == "train" else 1, augment, seed)
        entries: list[list[Entry]] = [[] for _ in looks]
        for source in sources:
            new, passes = _extract(
                source,
                part.examples,
                looks,
                opened,
                dtype,
                batch_size,
                f"{name} image" if verbose else "",
                verbose,
                team,
            )
            computed += passes
            for row, more in zip(entries, new, strict=True):
                row += more
        found[name] = _collect(entries, part, sources)
    if isinstance(data, LabelledData | Mapping):
        return Features(
            found["train"],
            found.get("validation"),
            found.get("test"),
            class_names=getattr(data, "class_names", None),
            computed=computed,
        )
    return found["train"]


class _Split(NamedTuple):
    examples: Examples
    labels: np.ndarray | None
    ids: tuple[str, ...] | None


def _splits(data: Any) -> dict[str, _Split]:
    if isinstance(data, LabelledData):
        names = ("train", "validation", "test")
        parts = {name: getattr(data, name) for name in names}
        parts = {name: part for name, part in parts.items() if len(part)}
        if isinstance(data, ImageData):
            parts = {
                name: dataclasses.replace(part, image_size=data.image_size)
                for name, part in parts.items()
            }
        return {name: _split(part) for name, part in parts.items()}
    if isinstance(data, Mapping):
        unknown = sorted(set(data) - {"train", "validation", "test"})
        if unknown or "train" not in data:
            raise ValueError(
                '`data` must have the keys "train" and, where there are any, '
                f'"validation" and "test". Received: keys {sorted(data)}.'
            )
        return {name: _split(part) for name, part in data.items()}
    return {"train": _split(data)}


def _common_shape(parts: Mapping[str, _Split]) -> tuple[int, ...]:
    shapes = {name: part.examples.shape for name, part in parts.items()}
    if "train" not in shapes:
        raise ValueError(
            "`data` must hold examples to train on. Received: "
            f"{', '.join(shapes) or 'nothing'}."
        )
    if len(set(shapes.values())) > 1:
        raise ValueError(
            "`data` must have images of one size. Received: "
            + ", ".join(f"{name} {shape}" for name, shape in shapes.items())
            + ". Load them with `load_images(..., image_size=...)`."
        )
    return shapes["train"]


def _split(part: Any) -> _Split:
    if isinstance(part, ImageSplit | TextSplit):
        return _Split(examples_of(part), part.labels, part.ids)
    labels = None
    if isinstance(part, tuple | list) and len(part) == 2:
        part, labels = part
        labels = np.asarray(labels)
    images = part if isinstance(part, np.ndarray) else None
    texts = images is not None and is_texts(images)
    if images is not None and texts:
        images = images.astype(object)
    elif images is None or images.ndim < 2 or images.dtype.kind not in "uif":
        what = type(part).__name__
        if images is not None:
            what = f"an array of {images.dtype} of shape {images.shape}"
        raise TypeError(
            "`data` must be what `load_images` or `load_texts` returned, one "
            "of its splits, an array of images or of texts, a pair of these "
            f"and labels or a dict of pairs. Received: {what}"
        )
    if not len(images) or (labels is not None and len(labels) != len(images)):
        raise ValueError(
            "`data` must hold at least one example, and as many labels as "
            f"examples. Received: {len(images)} examples"
            + ("" if labels is None else f", {len(labels)} labels")
        )
    if labels is not None and labels.ndim == 2 and _one_hot(labels):
        labels = labels.argmax(axis=1).astype(np.int32)
    return _Split(examples_of(images), labels, None)


def _one_hot(labels: np.ndarray) -> bool:
    binary = bool(((labels == 0) | (labels == 1)).all())
    return labels.shape[1] > 1 and binary and bool((labels.sum(1) == 1).all())


def _check(pooling: str | None, dtype: str, batch_size: int) -> None:
    if pooling not in POOLINGS:
        raise ValueError(
            '`pooling` must be "avg", "max" or None. Received: pooling='
            f"{pooling!r}"
        )
    if dtype not in DTYPES:
        raise ValueError(
            f'`dtype` must be "float32" or "float16". Received: dtype={dtype!r}'
        )
    if not is_integer(batch_size) or batch_size < 1:
        raise ValueError(
            "`batch_size` must be an integer above 0. Received: batch_size="
            f"{batch_size!r}"
        )


def _engine_for(engine: str, strategy: tf.distribute.Strategy | None) -> str:
    """The engine that all devices, and all workers, have."""
    if strategy is None or engine == "tensorflow":
        return engine
    if (
        engine != "auto"
        and strategy.num_replicas_in_sync > ProcessGroup(strategy).size
    ):
        raise ValueError(
            '`engine` must be "tensorflow" where a process has several '
            f"devices. Received: engine={engine!r}"
        )
    return "tensorflow" if engine == "auto" else engine


def _extract(
    source: Outputs,
    examples: Examples,
    views: Sequence[View],
    store: FeatureStore,
    dtype: str,
    batch_size: int,
    title: str,
    verbose: int,
    team: ProcessGroup,
) -> tuple[list[list[Entry]], int]:
    entries = open_entries(
        store, source.targets, examples, views, dtype, source.engine
    )
    feed = feed_inputs(
        examples,
        source.compute,
        [1] * len(source.targets),
        views,
        batch_size,
    )
    team.check_same(
        {
            "data": hashlib.sha256(examples.digests.tobytes()).hexdigest(),
            "backbones": [[entry.key for entry in row] for row in entries],
        }
    )
    tally = fill(store, entries, examples.digests, feed, title, verbose, team)
    return entries, tally.passes


def _collect(
    entries: list[list[Entry]], part: _Split, sources: Sequence[Outputs]
) -> FeatureSplit:
    """Joins the columns of all blocks and backbones."""
    digests = part.examples.digests
    places = [[entry.find(digests) for entry in row] for row in entries]
    names = [(s.name, block) for s in sources for block in s.blocks]
    shapes = [entry.tensors[0].shape for entry in entries[0]]
    if len(shapes) > 1 and any(len(shape) != 1 for shape in shapes):
        raise ValueError(
            "`pooling` must be given where several blocks or backbones are "
            f"joined. Received: features of shapes {shapes}."
        )
    widths = [shape[-1] for shape in shapes]
    stops = np.cumsum(widths).tolist()
    parts = tuple(
        Part(name, block, stop - width, stop, _known_as(entry, part.examples))
        for (name, block), stop, width, entry in zip(
            names, stops, widths, entries[0], strict=True
        )
    )
    gather: Callable[[np.ndarray], np.ndarray] = functools.partial(
        _gather, entries, places, len(shapes) > 1
    )
    shape = shapes[0] if len(shapes) == 1 else (stops[-1],)
    return FeatureSplit(
        gather,
        len(part.examples),
        shape,
        part.labels,
        part.ids,
        parts,
        len(entries),
    )


def _known_as(entry: Entry, examples: Examples) -> str:
    """What computed features: the network, and the size of its inputs."""
    size = "x".join(map(str, examples.shape))
    return f"{entry.description['network']} {size}"


def _gather(
    entries: list[list[Entry]],
    places: list[list[np.ndarray]],
    normalize: bool,
    rows: np.ndarray,
) -> np.ndarray:
    looks = []
    for some, where in zip(entries, places, strict=True):
        columns = [
            entry.gather(place[rows])[0].astype(np.float32, copy=False)
            for entry, place in zip(some, where, strict=True)
        ]
        if normalize:
            columns = [unit_norm(column) for column in columns]
        whole = len(columns) == 1
        looks.append(columns[0] if whole else np.concatenate(columns, axis=-1))
    return np.stack(looks, axis=1)
