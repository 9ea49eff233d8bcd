"""`Features`: outputs of frozen backbones for the splits of a data set."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from keras_transfer._utils.checks import is_integer, refuse
from keras_transfer.data import splitting
from keras_transfer.data.checks import check_indices
from keras_transfer.features.class_columns import flat_classes


class BlockColumns(NamedTuple):
    """Columns of features that one block of one backbone computed.

    Attributes:
        backbone: Name of the backbone.
        block: Name of the block.
        start: First column.
        stop: Column after the last.
        network: Digest of the network that computed the columns, including
            weights and pooling. Defaults to `""`, unknown.

    Example:

    >>> BlockColumns("MobileNetV2", "block_16", 0, 1280).stop
    1280
    """

    backbone: str
    block: str
    start: int
    stop: int
    network: str = ""


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class FeatureSplit:
    """Features of the examples of a split, in order, read on demand.

    Args:
        gather: Function from an int64 array of rows to float32
            `(rows, views, ...)`, which may read from a file larger than memory.
        num_rows: Number of examples.
        shape: Shape of the features of one example, such as `(1280,)`.
        labels: int32 `(n,)`, also given as `(n, 1)`; float32 0/1
            `(n, num_classes)` if an example may have several classes; floats
            `(n, outputs)` for regression; or `None`. Defaults to `None`.
        ids: Stable ids of the examples, or `None`. Defaults to `None`.
        parts: The columns of each block, first to last. Defaults to `()`.
        views: Number of views of each example. Defaults to `1`.

    Example:

    >>> rows = np.eye(3, dtype=np.float32)
    >>> split = FeatureSplit(lambda i: rows[i][:, None], 3, (3,))
    >>> split.values.shape
    (3, 3)
    """

    gather: Callable[[np.ndarray], np.ndarray]
    num_rows: int
    shape: tuple[int, ...]
    labels: np.ndarray | None = None
    ids: tuple[str, ...] | None = None
    parts: tuple[BlockColumns, ...] = ()
    views: int = 1

    def __post_init__(self) -> None:
        if self.labels is not None:
            labels = flat_classes(np.asarray(self.labels))
            object.__setattr__(self, "labels", labels)

    def __len__(self) -> int:
        return self.num_rows

    def __getitem__(self, rows: Any) -> np.ndarray:
        """Returns features of the first view, indexed like a NumPy array."""
        chosen = np.arange(self.num_rows)[rows]
        features = self.gather(np.atleast_1d(chosen))[:, 0]
        return features if np.ndim(chosen) else features[0]

    @property
    def values(self) -> np.ndarray:
        """All features in memory, float32 `(n, ...)`, of the first view."""
        return self[:]

    @property
    def all_views(self) -> np.ndarray:
        """All features in memory, float32 `(n, views, ...)`."""
        return self.gather(np.arange(self.num_rows))

    def chunks(self, rows: int = 1024) -> Iterator[np.ndarray]:
        """Yields the features in chunks, for data larger than memory.

        Args:
            rows: Number of examples per chunk. Defaults to `1024`.

        Yields:
            float32 arrays `(rows, ...)`.
        """
        for start in range(0, self.num_rows, rows):
            yield self[start : start + rows]

    def subset(self, indices: Sequence[int] | np.ndarray) -> FeatureSplit:
        """Returns the examples at `indices`, in that order; reads nothing.

        Args:
            indices: Integers in `[0, n)`.

        Returns:
            A `FeatureSplit`.

        Raises:
            ValueError: If an index is out of range or not an integer.
        """
        chosen = check_indices(indices, len(self))
        gather = self.gather
        return dataclasses.replace(
            self,
            gather=lambda rows: gather(chosen[rows]),
            num_rows=len(chosen),
            labels=None if self.labels is None else self.labels[chosen],
            ids=None
            if self.ids is None
            else tuple(self.ids[i] for i in chosen),
        )

    def shots(self, k: int, seed: int = 0) -> FeatureSplit:
        """Returns `k` examples per class, the same as `shots` of the images.

        Args:
            k: Number of examples per class.
            seed: Seed of the draw. Defaults to `0`.

        Returns:
            A `FeatureSplit` of `k * num_classes` examples.

        Raises:
            ValueError: If a class has fewer than `k` examples, or examples do
                not have exactly one class.
        """
        labels = self.labels
        if labels is None or labels.ndim != 1 or labels.dtype.kind not in "iu":
            raise ValueError(
                "`shots` needs one class per example. Received: features "
                "without classes, or with several. Use `subset(indices)`."
            )
        smallest = np.bincount(labels).min()
        if not is_integer(k) or not 1 <= k <= smallest:
            refuse(
                "k",
                f"an integer in [1, {smallest}], the number of examples of the "
                "smallest class",
                k,
            )
        ids = self.ids or tuple(f"{i:09d}" for i in range(len(self)))
        return self.subset(splitting.draw_shots(ids, labels, k, seed))

    def __repr__(self) -> str:
        shape = " x ".join(map(str, self.shape))
        views = f", {self.views} views" if self.views > 1 else ""
        return f"<FeatureSplit: {self.num_rows} x {shape}{views}>"


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Features:
    """Features of the splits of a data set; result of `extract_features`.

    Args:
        train: Features of the training examples.
        validation: Features of the validation examples, or `None`. Defaults to
            `None`.
        test: Features of the test examples, or `None`. Defaults to `None`.
        class_names: Names of the classes, or `None`. Defaults to `None`.
        computed: Number of passes of single examples through backbones; all
            other features were read from the store. Defaults to `0`.

    Example:

    >>> data = load_images((arrays, labels))
    >>> features = extract_features("ResNet20", data, verbose=0)
    >>> features.train.values.shape[1]
    64
    """

    train: FeatureSplit
    validation: FeatureSplit | None = None
    test: FeatureSplit | None = None
    class_names: tuple[str, ...] | None = None
    computed: int = 0

    @property
    def parts(self) -> tuple[BlockColumns, ...]:
        """The columns of each block, first to last."""
        return self.train.parts

    def __repr__(self) -> str:
        lines = [f"<Features: {self.train.shape[-1]} columns"]
        for part in self.parts:
            lines.append(
                f"  {part.start:>6} to {part.stop:<6} {part.backbone} "
                f"{part.block}"
            )
        for name in splitting.SPLITS:
            split = getattr(self, name)
            lines.append(f"  {name}: {len(split) if split else 0} examples")
        return "\n".join(lines) + ">"


def stack_features(features: Sequence[Features]) -> Features:
    """Joins the columns of several features, such as of several image sizes.

    The features of each backbone or block are scaled to unit Euclidean norm,
    example by example, as in `extract_features`.

    Args:
        features: Two or more `Features` of the same examples, in the same
            order.

    Returns:
        `Features` with the columns of all.

    Raises:
        ValueError: If the examples are not the same.
        TypeError: If `features` is not a sequence of `Features`.

    Example:

    >>> data = load_images((arrays, labels))
    >>> one = extract_features(backbone, data, verbose=0)
    >>> stack_features([one, one]).train.values.shape[1]
    16
    """
    if isinstance(features, Features) or not all(
        isinstance(one, Features) for one in features
    ):
        raise TypeError(
            "`features` must be a sequence of `Features`, from "
            f"`extract_features`. Received: {type(features).__name__}."
        )
    splits: dict[str, FeatureSplit | None] = {}
    for name in splitting.SPLITS:
        same_name = [getattr(one, name) for one in features]
        if any(split is None for split in same_name):
            splits[name] = None
            if any(split is not None for split in same_name):
                raise ValueError(
                    "`features` must have the same splits. Received: "
                    f"{name} examples in only some of them."
                )
            continue
        splits[name] = _stack(name, same_name)
    train = splits.pop("train")
    if train is None:
        raise ValueError("`features` must hold at least one. Received: none.")
    return Features(
        train,
        **splits,
        class_names=features[0].class_names,
        computed=sum(one.computed for one in features),
    )


def unit_norm(features: np.ndarray) -> np.ndarray:
    """Scales the last axis to unit Euclidean norm; zero vectors stay zero.

    Example:

    >>> unit_norm(np.array([[3.0, 4.0]]))
    array([[0.6, 0.8]])
    """
    norm = np.linalg.norm(features, axis=-1, keepdims=True)
    return features / np.maximum(norm, 1e-12)


def _stack(name: str, splits: Sequence[FeatureSplit]) -> FeatureSplit:
    first = splits[0]
    for split in splits:
        same = split.ids == first.ids and len(split) == len(first)
        if not same or split.views != first.views or len(split.shape) != 1:
            raise ValueError(
                "`features` must be vectors of the same examples, in the same "
                f"order and views. Received: {name} {first!r} and {split!r}"
                + ("." if same else ", with other ids.")
            )
    parts, start = [], 0
    for split in splits:
        for part in split.parts:
            parts.append(
                part._replace(start=start + part.start, stop=start + part.stop)
            )
        start += split.shape[0]

    def gather(rows: np.ndarray) -> np.ndarray:
        columns = []
        for split in splits:
            values = split.gather(rows)  # [rows, views, columns]
            # Joined parts were scaled to unit norm when they were joined.
            joined = len(split.parts) > 1
            columns.append(values if joined else unit_norm(values))
        return np.concatenate(columns, axis=-1)

    return dataclasses.replace(
        first, gather=gather, shape=(start,), parts=tuple(parts)
    )
