"""Features of a data set: what frozen backbones say of each example."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np


class Part(NamedTuple):
    """Some columns of features: one block of one backbone.

    Attributes:
        backbone: Name of the backbone.
        block: Name of the block whose output it is.
        start: First column.
        stop: Column after the last.
        network: Digest of what computed it, pooling and weights included.
            Defaults to `""`, not known.

    Example:

    >>> Part("MobileNetV2", "block_16", 0, 1280).stop
    1280
    """

    backbone: str
    block: str
    start: int
    stop: int
    network: str = ""


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class FeatureSplit:
    """Features of some examples, in order; read when they are needed.

    Args:
        gather: Function from an int64 array of rows to `(rows, views, ...)`
            float32; rows may be read from a file that is larger than memory.
        num_rows: How many examples there are.
        shape: Shape of the features of one example, such as `(1280,)`.
        labels: int32 `(n,)`, float32 0/1 `(n, num_classes)` where an example
            may have several classes, floats `(n, outputs)` for regression, or
            `None`. Defaults to `None`.
        ids: Stable names of the examples, or `None`. Defaults to `None`.
        parts: What the columns are. Defaults to `()`.
        views: Views of each example. Defaults to `1`.

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
    parts: tuple[Part, ...] = ()
    views: int = 1

    def __len__(self) -> int:
        return self.num_rows

    def __getitem__(self, rows: Any) -> np.ndarray:
        """Returns features of rows, as NumPy would, of the first view."""
        chosen = np.arange(self.num_rows)[rows]
        found = self.gather(np.atleast_1d(chosen))[:, 0]
        return found if np.ndim(chosen) else found[0]

    @property
    def values(self) -> np.ndarray:
        """All features in memory, float32 `(n, ...)`, of the first view."""
        return self[:]

    @property
    def all_views(self) -> np.ndarray:
        """All features in memory, float32 `(n, views, ...)`."""
        return self.gather(np.arange(self.num_rows))

    def chunks(self, rows: int = 1024) -> Iterator[np.ndarray]:
        """Yields the features in pieces, for data larger than memory.

        Args:
            rows: Examples in a piece. Defaults to `1024`.

        Yields:
            float32 arrays `(rows, ...)`.
        """
        for start in range(0, self.num_rows, rows):
            yield self[start : start + rows]

    def __repr__(self) -> str:
        shape = " x ".join(map(str, self.shape))
        views = f", {self.views} views" if self.views > 1 else ""
        return f"<FeatureSplit: {self.num_rows} x {shape}{views}>"


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Features:
    """Features of the splits of a data set; what `extract_features` returns.

    Args:
        train: Those to train on.
        validation: Those to choose by, or `None`. Defaults to `None`.
        test: Those to measure on, or `None`. Defaults to `None`.
        class_names: Names of the classes, or `None`. Defaults to `None`.

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

    @property
    def parts(self) -> tuple[Part, ...]:
        """What the columns are, first to last."""
        return self.train.parts

    def __repr__(self) -> str:
        lines = [f"<Features: {self.train.shape[-1]} columns"]
        for part in self.parts:
            lines.append(
                f"  {part.start:>6} to {part.stop:<6} {part.backbone} "
                f"{part.block}"
            )
        for name in ("train", "validation", "test"):
            split = getattr(self, name)
            lines.append(f"  {name}: {len(split) if split else 0} examples")
        return "\n".join(lines) + ">"
