"""`ImageRecords`: contents of a source of images, not decoded."""

from __future__ import annotations

import dataclasses
from typing import Any

from keras_transfer.data.images.pixels import ArrayPixels, FilePixels
from keras_transfer.data.labels import FoundNames


@dataclasses.dataclass
class ImageRecords:
    """Contents of a source of images, one entry per example in most fields.

    Args:
        ids: Stable ids of the examples.
        pixels: Source of the pixels.
        labels: Class names of each example; exactly one unless multi-label.
        splits: The split of each example in the source, or `None`.
        class_names: The classes that the source declares, in its order, or
            `None` if it declares none. Defaults to `None`.
        keep_classes: Whether classes without examples remain, because the
            source numbers its classes. Defaults to `False`.
        unusable: Pairs `(id, reason)` of unusable files and rows. Defaults to
            `[]`.
        problems: The reason why an example in `ids` cannot be used, by its
            index. Defaults to `{}`.
        groups: Cells of the column of groups, one for each example; empty
            without such a column. Defaults to `[]`.
        notes: Sentences about the reading. Defaults to `[]`.
        ignored: Names of ignored files and folders. Defaults to `[]`.
        found: Names of classes to check together. Defaults to
            `FoundNames()`.
    """

    ids: list[str]
    pixels: FilePixels | ArrayPixels
    labels: list[tuple[str, ...]]
    splits: list[str | None]
    class_names: tuple[str, ...] | None = None
    keep_classes: bool = False
    unusable: list[tuple[str, str]] = dataclasses.field(default_factory=list)
    problems: dict[int, str] = dataclasses.field(default_factory=dict)
    groups: list[Any] = dataclasses.field(default_factory=list)
    notes: list[str] = dataclasses.field(default_factory=list)
    ignored: list[str] = dataclasses.field(default_factory=list)
    found: FoundNames = dataclasses.field(default_factory=FoundNames)
