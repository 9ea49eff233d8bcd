"""Records of the images in a folder or a CSV manifest, not decoded."""

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

# Folders that operating systems and storage devices create.
_JUNK_FOLDERS = ("__MACOSX", "@eaDir", "$RECYCLE.BIN")

_PATH_COLUMNS = ("path", "filename", "file", "image")


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
        unusable: Pairs `(id, reason)` of unusable files. Defaults to `[]`.
        ignored: Names of ignored files and folders. Defaults to `[]`.
    """

    ids: list[str]
    pixels: FilePixels | ArrayPixels
    labels: list[tuple[str, ...]]
    splits: list[str | None]
    class_names: tuple[str, ...] | None = None
    keep_classes: bool = False
    unusable: list[tuple[str, str]] = dataclasses.field(default_factory=list)
    ignored: list[str] = dataclasses.field(default_factory=list)


def read_source(
    source: Any,
    *,
    channels: int,
    max_pixels: int,
    image_size: tuple[int, int] | None,
    class_names: tuple[str, ...] | None,
    multi_label: bool,
) -> ImageRecords:
    """Reads any source that `load_images` supports."""
    if isinstance(source, str) and source.startswith("tfds:"):
        if multi_label:
            raise ValueError(
                "`multi_label` must be False for a TFDS source, which has one "
                f"ClassLabel. Received: source={source!r}, multi_label=True."
            )
        return ImageRecords(**arrays.read_tfds(source, image_size, class_names))
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
                    "`multi_label` must be False for a folder, because an "
                    "image is in one class folder. Received: "
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
    return ImageRecords(
        **arrays.read_in_memory(source, image_size, class_names, multi_label)
    )


# --- folders ------------------------------------------------------------------


def _read_folder(root: Path) -> tuple[ImageRecords, list[str]]:
    records = ImageRecords([], ArrayPixels([]), [], [])
    paths: list[str] = []
    classes: set[str] = set()
    for split, folder in _split_folders(root, records):
        class_folders, stray = _class_folders(folder)
        prefix = "" if split is None else f"{folder.name}/"
        if not class_folders:
            _raise_no_classes(folder, stray)
        for name in stray:
            if _is_image(name):
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
    records.class_names = tuple(sorted(classes))
    if not paths and not records.unusable:
        raise ValueError(
            f"`source` must hold images. Received: source={str(root)!r}, whose "
            f"class folders {list(records.class_names)[:10]} hold no file "
            f"ending in {_extensions()}."
        )
    return records, paths


def _split_folders(
    root: Path, records: ImageRecords
) -> list[tuple[str | None, Path]]:
    """Finds train/, validation/ and test/, or else returns the whole folder."""
    folders, _ = _class_folders(root)
    splits = [name for name in folders if name.lower() in SPLIT_NAMES]
    train = [n for n in splits if SPLIT_NAMES[n.lower()] == "train"]
    others = [name for name in folders if name not in splits]
    # Without class folders in it, "train" is a class: images of trains.
    if not train or (others and not _class_folders(root / train[0])[0]):
        if splits and not others and not train:
            raise ValueError(
                "`source` must hold a train/ folder next to its other splits. "
                f"Received: source={str(root)!r}, which holds {splits}."
            )
        _check_not_splits(root, folders)
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


def _check_not_splits(root: Path, folders: Sequence[str]) -> None:
    """Raises if folders are splits of unknown names instead of classes."""
    contents = [_class_folders(root / name) for name in folders]
    if len(contents) < 2 or any(
        _is_image(name) for _, files in contents for name in files
    ):
        return
    shared = set.intersection(*(set(classes) for classes, _ in contents))
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
            f'"{printable(images[0])}") are not in a class folder. Move them '
            "into class folders, or list paths and labels in a CSV manifest."
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
            if entry.is_dir() and not _is_image(entry.name):
                if entry.name not in _JUNK_FOLDERS:
                    pending.append((f"{path}/", parents | {identity}))
            elif _is_image(entry.name):
                images.append(path)
            else:
                records.ignored.append(f"{name}/{path}")
    yield from sorted(images)


def _is_image(name: str) -> bool:
    return os.path.splitext(name)[1].lower() in decoding.EXTENSIONS


def _extensions() -> str:
    return ", ".join(sorted(decoding.EXTENSIONS))


# --- CSV manifests ------------------------------------------------------------


def _read_csv(
    path: Path, class_names: tuple[str, ...] | None, multi_label: bool
) -> tuple[ImageRecords, list[str]]:
    columns, rows = _csv_rows(path)
    index = _csv_columns(path, columns)
    records = ImageRecords([], ArrayPixels([]), [], [])
    paths: list[str] = []
    problems: list[tuple[str, str]] = []
    first_row: dict[str, int] = {}
    for number, row in rows:
        row = row + [""] * (len(columns) - len(row))
        name, label = row[index["path"]].strip(), row[index["label"]].strip()
        split = row[index["split"]].strip() if "split" in index else None
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
            reason = f"row {number} lists it again after row {first_row[name]}"
            records.unusable.append((name, reason))
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
            f"and, if there is such a column, a split. Received: {path}\n"
            f"{list_problems(problems)}{classes}"
        )
    splits = set(records.splits)
    if splits.isdisjoint((None, "train")):
        raise ValueError(
            '`source` must have images in split "train". Received: '
            f"{path} with only {sorted(filter(None, splits))}."
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
    index = {}
    path_columns = [name for name in _PATH_COLUMNS if name in columns]
    if path_columns:
        index["path"] = columns.index(path_columns[0])
    for name in ("label", "split"):
        if name in columns:
            index[name] = columns.index(name)
    if "path" not in index or "label" not in index:
        missing = "label" if "path" in index else "path"
        raise ValueError(
            '`source` must be a CSV file with the columns "path" and "label", '
            'optionally "split", separated by commas. '
            f'Received: {path} with columns {columns}, without "{missing}".'
        )
    return index


def _csv_labels(label: str, multi_label: bool) -> tuple[str, ...]:
    if not multi_label:
        return (label,) if label else ()
    names = {name.strip() for name in label.split(";")}
    return tuple(sorted(names - {""}))
