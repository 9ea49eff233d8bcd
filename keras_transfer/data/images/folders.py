"""Records of the images in class folders."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

from keras_transfer.data.images import decoding
from keras_transfer.data.images.pixels import ArrayPixels
from keras_transfer.data.images.records import ImageRecords
from keras_transfer.data.labels import sorted_names
from keras_transfer.data.layout import (
    JUNK_FOLDERS,
    find_class_roots,
    list_folder,
)
from keras_transfer.data.report import printable


def read_folder(root: Path) -> tuple[ImageRecords, list[str]]:
    """Reads a folder of class folders, or of splits of them.

    Args:
        root: The folder.

    Returns:
        Tuple of the records, without pixels, and the path of each example.

    Raises:
        ValueError: If the layout cannot be used.
    """
    records = ImageRecords([], ArrayPixels([]), [], [])
    paths: list[str] = []
    classes: set[str] = set()
    for split, folder, prefix in find_class_roots(
        root,
        is_image,
        ignored=records.ignored,
        unusable=records.unusable,
    ):
        class_folders, stray = list_folder(folder)
        if not class_folders:
            _raise_no_classes(folder, stray)
        for name in stray:
            if is_image(name):
                reason = "it is outside of all class folders"
                records.unusable.append((prefix + name, reason))
            else:
                records.ignored.append(prefix + name)
        for name in class_folders:
            for relative in _walk(folder / name, records, f"{prefix}{name}"):
                records.ids.append(f"{prefix}{name}/{relative}")
                records.labels.append((name,))
                records.splits.append(split)
                paths.append(os.path.join(folder, name, relative))
        classes.update(class_folders)
    records.class_names = sorted_names(classes)
    _warn_of_no_ending(records)
    if not paths and not records.unusable:
        raise ValueError(
            f"`source` must hold images. Received: source={str(root)!r}, whose "
            f"class folders {list(records.class_names)[:10]} hold no file "
            f"ending in {_extensions()}."
        )
    return records, paths


def _warn_of_no_ending(records: ImageRecords) -> None:
    names = [x for x in records.ignored if not os.path.splitext(x)[1]]
    names = sorted(name for name in names if not name.endswith("/"))
    if names:
        warnings.warn(
            f"{len(names)} files have no ending and are ignored, such as "
            f"{printable(names[0])}. If they are images, give them an ending "
            "(any of these: the content decides), or list them in a table.",
            UserWarning,
            stacklevel=5,
        )


def _raise_no_classes(folder: Path, files: Sequence[str]) -> None:
    images = [name for name in files if is_image(name)]
    if images:
        raise ValueError(
            "`source` must hold one folder per class. Received: "
            f"{str(folder)!r}, where {len(images)} images (the first is "
            f'"{printable(images[0])}") are not in a class folder. Move them '
            "into class folders, or list paths and labels in a table (.csv "
            "with columns path, label)."
        )
    raise ValueError(
        "`source` must hold one folder of images per class. Received: "
        f"{str(folder)!r}, which holds no folder and no file ending in "
        f"{_extensions()}."
    )


def _walk(folder: Path, records: ImageRecords, name: str) -> Iterator[str]:
    """Yields the paths of images below a class folder, sorted.

    Paths are relative to the folder. All other files are noted in `records`.
    Symbolic links to folders are followed, unless they lead back to a folder
    that contains them.
    """
    pending: list[tuple[str, frozenset[tuple[int, int]]]] = [("", frozenset())]
    images = []
    while pending:
        relative, parents = pending.pop()
        full_name = f"{name}/{relative}"
        try:
            status = os.stat(folder / relative)
            entries = list(os.scandir(folder / relative))
        except OSError as err:
            records.unusable.append((full_name, decoding.reason(err)))
            continue
        identity = (status.st_dev, status.st_ino)
        if identity in parents:
            records.unusable.append((full_name, "it links to itself"))
            continue
        for entry in entries:
            path = f"{relative}{entry.name}"
            if entry.name.startswith("."):
                continue
            if entry.is_dir() and not is_image(entry.name):
                if entry.name not in JUNK_FOLDERS:
                    pending.append((f"{path}/", parents | {identity}))
            elif is_image(entry.name):
                images.append(path)
            else:
                records.ignored.append(f"{name}/{path}")
    yield from sorted(images)


def is_image(name: str) -> bool:
    """Tells whether the ending of a file is that of an image."""
    return os.path.splitext(name)[1].lower() in decoding.EXTENSIONS


def _extensions() -> str:
    return ", ".join(sorted(decoding.EXTENSIONS))
