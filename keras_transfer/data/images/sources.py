"""Any source of images as records, not decoded."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from keras_transfer.data.checks import check_split_names
from keras_transfer.data.datasets import is_hugging_face
from keras_transfer.data.images import arrays
from keras_transfer.data.images.folders import read_folder
from keras_transfer.data.images.manifests import read_manifest
from keras_transfer.data.images.reading import Reading
from keras_transfer.data.images.records import ImageRecords
from keras_transfer.data.labels import sorted_names
from keras_transfer.data.splitting import SPLITS
from keras_transfer.data.tables.reading import ENDINGS, is_frame, is_table


def read_source(source: Any, how: Reading) -> ImageRecords:
    """Reads any source that `load_images` supports.

    Args:
        source: The source.
        how: The arguments of the reading.

    Returns:
        `ImageRecords`.

    Raises:
        ValueError: If the source cannot be used.
        TypeError: If it is of another type.
    """
    if isinstance(source, str) and source.startswith("tfds:"):
        if how.multi_label:
            raise ValueError(
                "`multi_label` must be False for a TFDS source, which has one "
                f"ClassLabel. Received: source={source!r}, multi_label=True."
            )
        return ImageRecords(**arrays.read_tfds(source, how))
    if isinstance(source, Mapping) and any(map(_is_filed, source.values())):
        check_split_names("source", source)
        parts = {name: source[name] for name in SPLITS if name in source}
        records = _read_parts(parts, how)
    elif isinstance(source, list | tuple) and _are_tables(source):
        records = _read_parts(dict(enumerate(source)), how)
    elif _is_filed(source):
        records, paths = _read_files(source, how)
        records.pixels = how.files(paths)
    else:
        return ImageRecords(**arrays.read_in_memory(source, how))
    records.found.check()
    return records


def _is_filed(source: Any) -> bool:
    """Tells whether a source is a path, or a data frame of paths."""
    if isinstance(source, str | os.PathLike):
        return True
    return is_frame(source) and not is_hugging_face(source)


def _are_tables(source: list[Any] | tuple[Any, ...]) -> bool:
    return bool(source) and all(
        isinstance(item, str | os.PathLike) and is_table(Path(item))
        for item in source
    )


def _read_files(
    source: Any, how: Reading
) -> tuple[ImageRecords, Sequence[str | bytes]]:
    if is_frame(source):
        return read_manifest(source, how)
    path = Path(source).expanduser()
    rule = f"`source` must be a folder of images or a {ENDINGS} file."
    if not path.exists():
        raise ValueError(
            f"{rule} Received: source={str(source)!r}, which does not exist "
            f"(looked in {Path.cwd()})."
        )
    if not path.is_dir():
        if is_table(path):
            return read_manifest(path, how)
        raise ValueError(
            f"{rule} Received: source={str(source)!r}, a file ending in "
            f'"{path.suffix}".'
        )
    if how.multi_label:
        raise ValueError(
            "`multi_label` must be False for a folder, because an image is in "
            f"one class folder. Received: source={str(source)!r}, "
            'multi_label=True. Write a CSV manifest with labels like "cat;dog".'
        )
    return read_folder(path)


def _read_parts(parts: Mapping[Any, Any], how: Reading) -> ImageRecords:
    """Joins sources of files: the splits of a dict, or several tables."""
    joined = how.files([])
    records = ImageRecords([], joined, [], [])
    paths: list[str | bytes] = []
    declared = []
    for name, part in parts.items():
        if not _is_filed(part):
            raise TypeError(
                f"`source[{name!r}]` must be a folder, a table or a data frame "
                "like the other splits. Received: "
                f"{type(part).__name__}."
            )
        read, more = _read_files(part, how)
        split = name if isinstance(name, str) else None
        if split and set(read.splits) - {None}:
            raise ValueError(
                f"`source[{name!r}]` must be one split. Received: {part!r:.100}"
                f", which has splits {sorted(filter(None, set(read.splits)))}."
            )
        before = f"{split}/" if split else ""
        count = len(records.ids)
        records.problems |= {count + i: x for i, x in read.problems.items()}
        records.ids += [before + example for example in read.ids]
        records.labels += read.labels
        records.groups += read.groups
        records.splits += [split or given for given in read.splits]
        records.unusable += [(before + x, why) for x, why in read.unusable]
        records.ignored += [before + x for x in read.ignored]
        records.notes += [n for n in read.notes if n not in records.notes]
        records.found.add(read.found.names, read.found.column)
        paths += more
        declared.append(read.class_names)
    if None not in declared:
        orders = set(declared)
        records.class_names = (
            orders.pop()
            if len(orders) == 1
            else sorted_names({x for names in declared for x in names or ()})
        )
    records.pixels = how.files(paths)
    return records
