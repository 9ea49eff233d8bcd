"""Reads a folder or a CSV manifest into plain records: nothing is decoded."""

from __future__ import annotations

import csv
import dataclasses
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from keras_transfer.data.images import arrays, decoding
from keras_transfer.data.images.pixels import ArrayPixels, FilePixels
from keras_transfer.data.report import list_problems, printable

SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "validation": "validation",
    "val": "validation",
    "valid": "validation",
    "dev": "validation",
    "test": "test",
    "testing": "test",
}


_JUNK_FOLDERS = ("__MACOSX", "@eaDir", "$RECYCLE.BIN")


_PATH_COLUMNS = ("path", "filename", "file", "image")


@dataclasses.dataclass
class Records:
    """What a source holds, one entry per example unless said otherwise.

    Args:
        ids: Stable ids.
        pixels: Where the images come from.
        labels: The names of the classes of each example; exactly one unless
            multi-label.
        splits: The split each example was given, or `None`.
        class_names: The classes that the source declares in its order, or
            `None` where they are those of the labels. Defaults to `None`.
        keep_classes: Whether a class without examples is kept, because the
            source numbers its classes. Defaults to `False`.
        bad: `(id, reason)` of what was seen to be unusable. Defaults to `[]`.
        ignored: Names of what is no candidate. Defaults to `[]`.
    """

    ids: list[str]
    pixels: FilePixels | ArrayPixels
    labels: list[tuple[str, ...]]
    splits: list[str | None]
    class_names: tuple[str, ...] | None = None
    keep_classes: bool = False
    bad: list[tuple[str, str]] = dataclasses.field(default_factory=list)
    ignored: list[str] = dataclasses.field(default_factory=list)


def read_source(
    source: Any,
    *,
    channels: int,
    max_pixels: int,
    image_size: tuple[int, int] | None,
    class_names: tuple[str, ...] | None,
    multi_label: bool,
) -> Records:
    """Reads any of the sources that `load_images` takes."""
    if isinstance(source, str) and source.startswith("tfds:"):
        if multi_label:
            raise ValueError(
                "`multi_label` must be False for a TFDS source, which has one "
                f"ClassLabel. Received: source={source!r}, multi_label=True."
            )
        return Records(**arrays.read_tfds(source, image_size, class_names))
    if isinstance(source, str | os.PathLike):
        path = Path(source).expanduser()
        if not path.exists():
            raise ValueError(
                "`source` must be a folder of images or a .csv file. "
                f"Received: source={str(source)!r}, which does not exist "
                f"(looked in {Path.cwd()})."
            )
        if path.is_dir():
            if multi_label:
                raise ValueError(
                    "`multi_label` must be False for a folder, where an image "
                    "stands in one class folder. Received: "
                    f"source={str(source)!r}, multi_label=True. Write a CSV "
                    'manifest with labels like "cat;dog".'
                )
            records, paths = _read_folder(path)
        elif path.suffix.lower() == ".csv":
            records, paths = _read_csv(path, class_names, multi_label)
        else:
            raise ValueError(
                "`source` must be a folder of images or a .csv file. "
                f"Received: source={str(source)!r}, a file ending in "
                f'"{path.suffix}".'
            )
        records.pixels = FilePixels(paths, channels, max_pixels)
        return records
    return Records(
        **arrays.read_in_memory(source, image_size, class_names, multi_label)
    )


# --- folders ------------------------------------------------------------------


def _read_folder(root: Path) -> tuple[Records, list[str]]:
    records = Records([], ArrayPixels([]), [], [])
    paths: list[str] = []
    classes: set[str] = set()
    for split, folder in _split_folders(root, records):
        found, stray = _class_folders(folder)
        prefix = "" if split is None else f"{folder.name}/"
        if not found:
            _raise_no_classes(folder, stray)
        for name in stray:
            known = _is_image(name)
            reason = "it stands outside every class folder"
            if known:
                records.bad.append((prefix + name, reason))
            else:
                records.ignored.append(prefix + name)
        for name in found:
            for relative in _walk(folder / name, records, f"{prefix}{name}"):
                records.ids.append(f"{prefix}{name}/{relative}")
                records.labels.append((name,))
                records.splits.append(split)
                paths.append(os.path.join(folder, name, relative))
        classes.update(found)
    records.class_names = tuple(sorted(classes))
    if not paths and not records.bad:
        raise ValueError(
            f"`source` must hold images. Received: source={str(root)!r}, whose "
            f"class folders {list(records.class_names)[:10]} hold no file "
            f"ending in {_extensions()}."
        )
    return records, paths


def _split_folders(
    root: Path, records: Records
) -> list[tuple[str | None, Path]]:
    """Finds train/, validation/ and test/, or takes the folder as a whole."""
    folders, _ = _class_folders(root)
    splits = [name for name in folders if name.lower() in SPLIT_NAMES]
    train = [n for n in splits if SPLIT_NAMES[n.lower()] == "train"]
    others = [name for name in folders if name not in splits]
    # Without class folders in it, "train" is a class: pictures of trains.
    if not train or (others and not _class_folders(root / train[0])[0]):
        if splits and not others and not train:
            raise ValueError(
                "`source` must hold a train/ folder beside its other splits. "
                f"Received: source={str(root)!r}, which holds {splits}."
            )
        _refuse_unknown_splits(root, folders)
        return [(None, root)]
    records.ignored += [f"{name}/" for name in others]
    used: dict[str, Path] = {}
    for name in splits:
        split = SPLIT_NAMES[name.lower()]
        if split in used:
            raise ValueError(
                f"`source` must hold one {split} folder. Received: "
                f'source={str(root)!r}, which holds "{used[split].name}" and '
                f'"{name}".'
            )
        used[split] = root / name
    return [(split, used[split]) for split in used]


def _refuse_unknown_splits(root: Path, folders: Sequence[str]) -> None:
    """Raises where what looks like classes is splits of other names."""
    inside = [_class_folders(root / name) for name in folders]
    if len(inside) < 2 or any(
        _is_image(name) for _, files in inside for name in files
    ):
        return
    shared = set.intersection(*(set(classes) for classes, _ in inside))
    if len(shared) > 1:
        raise ValueError(
            "`source` must hold class folders, or train/, validation/ and "
            f"test/ with the same ones. Received: source={str(root)!r}, where "
            f"{folders[:3]} all hold folders {sorted(shared)[:3]}. If these "
            "are splits, rename them."
        )


def _class_folders(folder: Path) -> tuple[list[str], list[str]]:
    """Returns the names of the folders and of the files inside, sorted."""
    try:
        names = sorted(os.listdir(folder))
    except OSError as err:
        raise ValueError(
            "`source` must be a folder that can be read. Received: "
            f"{str(folder)!r}: {decoding.reason(err)}."
        ) from err
    names = [n for n in names if not n.startswith(".")]
    folders = [n for n in names if (folder / n).is_dir()]
    files = [n for n in names if n not in set(folders)]
    return [n for n in folders if n not in _JUNK_FOLDERS], files


def _raise_no_classes(folder: Path, files: Sequence[str]) -> None:
    images = [name for name in files if _is_image(name)]
    if images:
        raise ValueError(
            "`source` must hold one folder per class. Received: "
            f"{str(folder)!r}, where {len(images)} images (the first is "
            f'"{printable(images[0])}") stand straight in the folder. Move '
            "them into class folders, or list paths and labels in a CSV "
            "manifest."
        )
    raise ValueError(
        "`source` must hold one folder of images per class. Received: "
        f"{str(folder)!r}, which holds no folder and no file ending in "
        f"{_extensions()}."
    )


def _walk(folder: Path, records: Records, name: str) -> Iterator[str]:
    """Yields the images below a class folder, relative to it, sorted.

    Notes the rest in `records`. Symbolic links to folders are followed, but
    no folder is entered twice from above itself.
    """
    pending: list[tuple[str, frozenset[tuple[int, int]]]] = [("", frozenset())]
    found = []
    while pending:
        relative, above = pending.pop()
        try:
            status = os.stat(folder / relative)
            entries = list(os.scandir(folder / relative))
        except OSError as err:
            place = f"{name}/{relative}"
            records.bad.append((place, decoding.reason(err)))
            continue
        identity = (status.st_dev, status.st_ino)
        if identity in above:
            records.bad.append((f"{name}/{relative}", "it links to itself"))
            continue
        for entry in entries:
            inside = f"{relative}{entry.name}"
            if entry.name.startswith("."):
                continue
            if entry.is_dir() and not _is_image(entry.name):
                if entry.name not in _JUNK_FOLDERS:
                    pending.append((f"{inside}/", above | {identity}))
            elif _is_image(entry.name):
                found.append(inside)
            else:
                records.ignored.append(f"{name}/{inside}")
    yield from sorted(found)


def _is_image(name: str) -> bool:
    return os.path.splitext(name)[1].lower() in decoding.EXTENSIONS


def _extensions() -> str:
    return ", ".join(sorted(decoding.EXTENSIONS))


# --- CSV manifests ------------------------------------------------------------


def _read_csv(
    path: Path, class_names: tuple[str, ...] | None, multi_label: bool
) -> tuple[Records, list[str]]:
    columns, rows = _csv_rows(path)
    where = _csv_columns(path, columns)
    records = Records([], ArrayPixels([]), [], [])
    paths: list[str] = []
    problems: list[tuple[str, str]] = []
    first_row: dict[str, int] = {}
    for number, row in rows:
        row = row + [""] * (len(columns) - len(row))
        name, label = row[where["path"]].strip(), row[where["label"]].strip()
        split = row[where["split"]].strip() if "split" in where else None
        labels = _csv_labels(label, multi_label)
        unknown = [n for n in labels if class_names and n not in class_names]
        problem = None
        if not name:
            problem = "it has no path"
        elif not labels and not multi_label:
            problem = "it has no label"
        elif unknown:
            problem = f"label {unknown[0]!r} is outside the classes"
        elif split is not None and split.lower() not in SPLIT_NAMES:
            problem = f"split {split!r} is not train, validation or test"
        if problem:
            problems.append((f"row {number}", problem))
        elif name in first_row:
            again = f"row {number} lists it again after row {first_row[name]}"
            records.bad.append((name, again))
        else:
            first_row[name] = number
            records.ids.append(name)
            records.labels.append(labels)
            records.splits.append(split and SPLIT_NAMES[split.lower()])
            paths.append(str(path.parent / name))
    if problems:
        classes = (
            f" The classes are {list(class_names)}." if class_names else ""
        )
        raise ValueError(
            f"`source` must be a CSV file whose rows all have a path, a label "
            f"and, where there is such a column, a split. Received: {path}\n"
            f"{list_problems(problems)}{classes}"
        )
    given = set(records.splits)
    if given.isdisjoint((None, "train")):
        raise ValueError(
            '`source` must have images in split "train". Received: '
            f"{path} with only {sorted(filter(None, given))}."
        )
    return records, paths


def _csv_rows(path: Path) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """Returns the header and the rows with their line numbers."""
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file)
            rows = [(reader.line_num, row) for row in reader if any(row)]
    except (UnicodeDecodeError, csv.Error, OSError) as err:
        raise ValueError(
            f"`source` must be a CSV file in UTF-8. Received: {path}, which "
            f"cannot be read: {decoding.reason(err)}."
        ) from err
    if len(rows) < 2:
        raise ValueError(
            "`source` must be a CSV file with a header and at least one row. "
            f"Received: {path} with {len(rows)} lines."
        )
    return [name.strip().lower() for name in rows[0][1]], rows[1:]


def _csv_columns(path: Path, columns: list[str]) -> dict[str, int]:
    where = {}
    named = [name for name in _PATH_COLUMNS if name in columns]
    if named:
        where["path"] = columns.index(named[0])
    for name in ("label", "split"):
        if name in columns:
            where[name] = columns.index(name)
    if "path" not in where or "label" not in where:
        missing = "label" if "path" in where else "path"
        raise ValueError(
            '`source` must be a CSV file with the columns "path" and "label", '
            'optionally "split", separated by commas. '
            f'Received: {path} with columns {columns}, without "{missing}".'
        )
    return where


def _csv_labels(label: str, multi_label: bool) -> tuple[str, ...]:
    if not multi_label:
        return (label,) if label else ()
    names = {name.strip() for name in label.split(";")}
    return tuple(sorted(names - {""}))
