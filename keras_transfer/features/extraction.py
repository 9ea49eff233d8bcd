"""`extract_features`: features of frozen backbones, stored for later calls."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from keras_transfer._utils.checks import check_choice, check_integer, refuse
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
from keras_transfer.data.checks import check_split_names
from keras_transfer.data.examples import Examples, examples_of
from keras_transfer.data.images.pixels import check_pixels
from keras_transfer.data.labels import refuse_gaps
from keras_transfer.data.splitting import SPLITS
from keras_transfer.data.texts.texts import is_texts
from keras_transfer.distribute import (
    ProcessGroup,
    check_batch_size,
    choose_devices,
)
from keras_transfer.features.backbone_outputs import (
    BackboneLike,
    BackboneOutputs,
    check_layers,
    cut_at,
    load,
)
from keras_transfer.features.features import (
    BlockColumns,
    Features,
    FeatureSplit,
    unit_norm,
)

if TYPE_CHECKING:
    import tensorflow as tf


POOLINGS = ("avg", "max", None)

DTYPES = ("float32", "float16")

# Cubic interpolation may exceed 255.
_LARGEST_PIXEL = 300


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
    """Computes features with frozen backbones, or reads them from the store.

    An example passes a backbone once: features that are in the store already,
    from this or any other data set, are read from there. If there are several
    blocks or backbones, the features of each are scaled to unit Euclidean norm,
    example by example, and joined.

    Args:
        backbones: One or several backbones: names from `list_backbones()`,
            files, `Backbone`s from `load_backbone`, or models made by
            `build_classifier`.
        data: An `ImageData` or `TextData`, from `load_images` or `load_texts`;
            one of its splits; images `(n, height, width, channels)` in
            `[0, 255]`; a pair `(images, labels)`; or a dict of pairs with keys
            `"train"`, `"validation"` and `"test"`.
        layers: Names of the blocks whose outputs are the features, or patterns
            for them; `"*"` for all blocks; or a dict of these by name of the
            backbone. Defaults to `None`, the output of the backbone.
        pooling: Pooling over positions, `"avg"` or `"max"`, or `None` for
            feature maps. Defaults to `"avg"`.
        views: Number of views of each training image: the image itself, its
            mirror image, and augmented images. Defaults to `1`.
        augment: An `Augmentation` of the views. Defaults to `None`, which means
            mirroring and crops of at least three quarters of the side.
        dtype: Dtype of the stored features: `"float32"`, or `"float16"` for
            half the space and three decimal digits. Defaults to `"float32"`.
        store: A `FeatureStore`, the folder of one, or `None` for the user's:
            `$KERAS_TRANSFER_CACHE`, or else `~/.cache`. `"memory"` stores
            nothing for the next call; to share memory, pass the same
            `FeatureStore()` to each call. Defaults to `None`.
        batch_size: Number of images per batch. Defaults to `32`.
        engine: Engine that computes: `"tensorflow"`; `"openvino"`, on CPUs, or
            `"openvino-bfloat16"`, faster with two to three decimal digits
            (`pip install "keras_transfer[openvino]"`); `"auto"` times the first
            two if there are at least 5,000 images. `"tensorflow"` folds frozen
            weights, and equals the model to five digits. `fine_tune` reads
            these features if it trains only one linear layer. Defaults to
            `"tensorflow"`.
        devices: Devices that compute: `"auto"` for all GPUs of this machine; a
            number of GPUs (or, without any, of logical CPUs); a
            `tf.distribute.Strategy`; or the result of `connect_workers`: each
            process computes a shard of the examples, and all read the whole
            from the store, a folder that they share, or from memory. Defaults
            to `None`, one device.
        seed: Seed of the views. Defaults to `0`.
        verbose: `0` for silence, `1` for a progress bar. Defaults to `1`.

    Returns:
        `Features` with the splits of the data and, as `computed`, the number of
        examples that were not in the store (of all workers together); a
        `FeatureSplit` if `data` is one split, one pair or one array. `values`
        are the features of the first view, `all_views` of all views.

    Raises:
        ValueError: If an argument is out of range, a name matches no block, or
            the images do not fit a backbone.
        TypeError: If `data` is of another type.
        ImportError: If `engine` is not installed.
        OSError: If the store is not writable or full.
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
            "`views` must be above 1 if `augment` is given, because the first "
            "view is the unchanged image. Received: views=1."
        )
    strategy = choose_devices(devices)
    check_batch_size(batch_size, strategy)
    engine = _engine_for(engine, strategy)
    team = ProcessGroup(strategy)
    verbose = verbose if team.is_chief else 0
    feature_store = open_store(store)
    inputs = _inputs_of_splits(data)
    several = isinstance(backbones, Sequence) and not isinstance(backbones, str)
    listed = list(backbones) if several else [backbones]  # type: ignore[arg-type]
    if not listed:
        raise ValueError("`backbones` must hold at least one. Received: none.")
    shape = _common_shape(inputs)
    count = sum(len(split.examples) for split in inputs.values())
    loaded = [load(backbone, shape) for backbone in listed]
    check_layers(layers, [backbone.name for backbone in loaded])
    sources = [
        cut_at(backbone, layers, pooling, shape, engine, count, strategy)
        for backbone in loaded
    ]
    splits = {}
    computed = 0
    for name, split in inputs.items():
        # Only training images have several views.
        split_views = make_views(views if name == "train" else 1, augment, seed)
        # Entries of the store, by view and block.
        entries: list[list[Entry]] = [[] for _ in split_views]
        for source in sources:
            new, passes = _extract(
                source,
                split.examples,
                split_views,
                feature_store,
                dtype,
                batch_size,
                f"{name} image" if verbose else "",
                verbose,
                team,
            )
            computed += passes
            for row, more in zip(entries, new, strict=True):
                row += more
        splits[name] = _join_entries(entries, split, sources)
    if isinstance(data, LabelledData | Mapping):
        return Features(
            splits["train"],
            splits.get("validation"),
            splits.get("test"),
            class_names=getattr(data, "class_names", None),
            computed=computed,
        )
    return splits["train"]


class _SplitInputs(NamedTuple):
    examples: Examples
    labels: np.ndarray | None
    ids: tuple[str, ...] | None


def _inputs_of_splits(data: Any) -> dict[str, _SplitInputs]:
    if isinstance(data, LabelledData):
        splits = {name: getattr(data, name) for name in SPLITS}
        splits = {name: split for name, split in splits.items() if len(split)}
        if isinstance(data, ImageData):
            splits = {
                name: dataclasses.replace(split, image_size=data.image_size)
                for name, split in splits.items()
            }
        return {name: _inputs_of(split) for name, split in splits.items()}
    if isinstance(data, Mapping):
        check_split_names("data", data)
        return {name: _inputs_of(split) for name, split in data.items()}
    return {"train": _inputs_of(data)}


def _common_shape(inputs: Mapping[str, _SplitInputs]) -> tuple[int, ...]:
    shapes = {name: split.examples.shape for name, split in inputs.items()}
    if "train" not in shapes:
        raise ValueError(
            "`data` must hold training examples. Received: "
            f"{', '.join(shapes) or 'nothing'}."
        )
    if len(set(shapes.values())) > 1:
        raise ValueError(
            "`data` must have images of one size. Received: "
            + ", ".join(f"{name} {shape}" for name, shape in shapes.items())
            + ". Load them with `load_images(..., image_size=...)`."
        )
    return shapes["train"]


def _inputs_of(split: Any) -> _SplitInputs:
    if isinstance(split, ImageSplit | TextSplit):
        return _SplitInputs(examples_of(split), split.labels, split.ids)
    labels = None
    if isinstance(split, tuple | list) and len(split) == 2:
        split, labels = split
        labels = np.asarray(labels)
        refuse_gaps("data", labels, "labels")
    array = split if isinstance(split, np.ndarray) else None
    if array is not None and is_texts(array):
        array = array.astype(object)
    elif array is None or array.ndim < 2 or array.dtype.kind not in "uif":
        received = type(split).__name__
        if array is not None:
            received = f"an array of {array.dtype} of shape {array.shape}"
        raise TypeError(
            "`data` must be an `ImageData` or `TextData`, one of its splits, "
            "an array of images or of texts, a pair of these and labels or a "
            f"dict of pairs. Received: {received}."
        )
    if array.ndim == 4:
        check_pixels(array, "data", _LARGEST_PIXEL)
    if not len(array) or (labels is not None and len(labels) != len(array)):
        raise ValueError(
            "`data` must hold at least one example, and as many labels as "
            f"examples. Received: {len(array)} examples"
            + ("." if labels is None else f", {len(labels)} labels.")
        )
    if labels is not None and labels.ndim == 2 and _is_one_hot(labels):
        labels = labels.argmax(axis=1).astype(np.int32)
    return _SplitInputs(examples_of(array), labels, None)


def _is_one_hot(labels: np.ndarray) -> bool:
    binary = bool(((labels == 0) | (labels == 1)).all())
    return labels.shape[1] > 1 and binary and bool((labels.sum(1) == 1).all())


def _check(pooling: str | None, dtype: str, batch_size: int) -> None:
    if pooling not in POOLINGS:
        refuse("pooling", '"avg", "max" or None', pooling)
    check_choice("dtype", dtype, DTYPES)
    check_integer("batch_size", batch_size, 1)


def _engine_for(engine: str, strategy: tf.distribute.Strategy | None) -> str:
    """Returns an engine that all devices and workers have."""
    if strategy is None or engine == "tensorflow":
        return engine
    if (
        engine != "auto"
        and strategy.num_replicas_in_sync > ProcessGroup(strategy).size
    ):
        raise ValueError(
            '`engine` must be "tensorflow" if a process has several devices. '
            f"Received: engine={engine!r}."
        )
    return "tensorflow" if engine == "auto" else engine


def _extract(
    source: BackboneOutputs,
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


def _join_entries(
    entries: list[list[Entry]],
    split: _SplitInputs,
    sources: Sequence[BackboneOutputs],
) -> FeatureSplit:
    """Joins the columns of all blocks and backbones."""
    digests = split.examples.digests
    positions = [[entry.find(digests) for entry in row] for row in entries]
    names = [(s.name, block) for s in sources for block in s.blocks]
    shapes = [entry.tensors[0].shape for entry in entries[0]]
    if len(shapes) > 1 and any(len(shape) != 1 for shape in shapes):
        raise ValueError(
            '`pooling` must be "avg" or "max" if several blocks or backbones '
            f"are joined. Received: features of shapes {shapes}."
        )
    widths = [shape[-1] for shape in shapes]
    stops = np.cumsum(widths).tolist()
    parts = tuple(
        BlockColumns(
            name, block, stop - width, stop, _network_id(entry, split.examples)
        )
        for (name, block), stop, width, entry in zip(
            names, stops, widths, entries[0], strict=True
        )
    )
    gather: Callable[[np.ndarray], np.ndarray] = functools.partial(
        _gather, entries, positions, len(shapes) > 1
    )
    shape = shapes[0] if len(shapes) == 1 else (stops[-1],)
    return FeatureSplit(
        gather,
        len(split.examples),
        shape,
        split.labels,
        split.ids,
        parts,
        len(entries),
    )


def _network_id(entry: Entry, examples: Examples) -> str:
    """Identifies a network by its digest and the shape of its inputs."""
    size = "x".join(map(str, examples.shape))
    return f"{entry.description['network']} {size}"


def _gather(
    entries: list[list[Entry]],
    positions: list[list[np.ndarray]],
    normalize: bool,
    rows: np.ndarray,
) -> np.ndarray:
    """Reads rows of all blocks in all views, `(rows, views, ...)`."""
    views = []
    for view_entries, view_positions in zip(entries, positions, strict=True):
        # One array per block: `position[rows]` are the rows in its entry.
        columns = [
            entry.gather(position[rows])[0].astype(np.float32, copy=False)
            for entry, position in zip(
                view_entries, view_positions, strict=True
            )
        ]
        if normalize:
            columns = [unit_norm(column) for column in columns]
        single = len(columns) == 1
        views.append(columns[0] if single else np.concatenate(columns, axis=-1))
    return np.stack(views, axis=1)
