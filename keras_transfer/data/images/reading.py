"""`Reading`: the arguments of `load_images` that say how a source is read."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from keras_transfer.data.images.pixels import FilePixels
from keras_transfer.data.tables.columns import Column


@dataclasses.dataclass(frozen=True)
class Reading:
    """Arguments of `load_images` that say how a source is read.

    Args:
        image_size: Size `(height, width)`, or `None`.
        resize: A name in `decoding.RESIZES`.
        channels: Number of channels that files are decoded to.
        max_pixels: Largest number of pixels of a file.
        class_names: The declared classes, or `None`.
        multi_label: Whether an image may have several classes.
        path_column: Name or number of the column with the paths, or `None`.
        label_column: Name or number of the column with the labels, or `None`.
        label_columns: Names of columns of 0 and 1, one for each class, or
            `None`.
        group_column: Name of the column with the groups, or `None`.
        separator: Text between several labels in a cell, or `None`.
        encoding: Encoding of text files.
        header: Whether the first row of a table names its columns, or `None` to
            detect that.
    """

    image_size: tuple[int, int] | None
    resize: str
    channels: int
    max_pixels: int
    class_names: tuple[str, ...] | None
    multi_label: bool
    path_column: Column
    label_column: Column
    label_columns: Sequence[str] | None
    group_column: str | None
    separator: str | None
    encoding: str
    header: bool | None

    @property
    def known(self) -> tuple[str, ...]:
        """The declared classes, `()` without any."""
        return self.class_names or ()

    def files(self, paths: Sequence[str | bytes]) -> FilePixels:
        """Makes the pixels of files."""
        return FilePixels(paths, self.channels, self.max_pixels, self.resize)
