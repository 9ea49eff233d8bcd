"""Layouts of folders: classes, splits above them, folders unpacked twice."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from keras_transfer.data.images import decoding
from keras_transfer.data.report import printable
from keras_transfer.data.splitting import split_of

# Folders that operating systems and storage devices create.
JUNK_FOLDERS = ("__MACOSX", "@eaDir", "$RECYCLE.BIN")

IsExample = Callable[[str], bool]


class ClassRoot(NamedTuple):
    """A folder of class folders.

    Attributes:
        split: The split that it is, or `None` for all.
        folder: The folder.
        prefix: Its path in the source with a slash, or `""`.
    """

    split: str | None
    folder: Path
    prefix: str


def find_class_roots(
    root: Path,
    is_example: IsExample,
    *,
    ignored: list[str],
    unusable: list[tuple[str, str]],
) -> list[ClassRoot]:
    """Finds the folders above class folders: the splits, or the whole source.

    Args:
        root: The source.
        is_example: Function that tells examples by the names of files.
        ignored: Names of folders beside the splits are added here.
        unusable: Pairs `(folder, reason)` of unlabelled splits are added here.

    Returns:
        One `ClassRoot` for each split, or one for all.

    Raises:
        ValueError: If splits seem to have other names, or lie within classes.
    """
    root, prefix = _unwrap(root, is_example, "", to_split=True)
    folders, _ = list_folder(root)
    splits = {name: split_of(name) for name in folders if split_of(name)}
    train = [name for name, split in splits.items() if split == "train"]
    others = [name for name in folders if name not in splits]
    # Without class folders in it, "train" is a class: images of trains.
    if not train or (others and not list_folder(root / train[0])[0]):
        if splits and not others:
            raise ValueError(
                "`source` must hold a train/ folder next to its other splits. "
                f"Received: source={str(root)!r}, which holds {list(splits)}."
            )
        _check_not_splits(root, folders, is_example)
        return [ClassRoot(None, root, prefix)]
    _check_no_further_split(root, train[0], others, is_example)
    ignored += [f"{prefix}{name}/" for name in others]
    used: dict[str, ClassRoot] = {}
    for name, split in splits.items():
        split = split or ""
        if split in used:
            raise ValueError(
                f"`source` must hold one {split} folder. Received: "
                f"source={str(root)!r}, which holds "
                f'"{used[split].prefix.split("/")[0]}" and "{name}".'
            )
        inner = _unwrap(root / name, is_example, f"{prefix}{name}/")
        count = _unlabelled(inner[0], is_example)
        if split == "test" and count and list_folder(root / train[0])[0]:
            unusable.append(
                (
                    f"{prefix}{name}/",
                    f"it holds {count} unlabelled examples and no class "
                    "folders; predict them with the model, or leave it out",
                )
            )
        else:
            used[split] = ClassRoot(split, *inner)
    return list(used.values())


def _check_no_further_split(
    root: Path, train: str, others: Sequence[str], is_example: IsExample
) -> None:
    """Raises if a folder beside the splits has the same class folders."""
    folder, _ = _unwrap(root / train, is_example, "")
    classes = set(_peek(folder)[0])
    for name in others:
        folder, _ = _unwrap(root / name, is_example, "")
        shared = sorted(classes & set(_peek(folder)[0]))
        if len(shared) > 1:
            raise ValueError(
                "`source` must name its splits train, validation and test. "
                f"Received: source={str(root)!r}, where {name!r} holds the "
                f"class folders {shared[:3]} of {train!r}. Rename it or move "
                "it away."
            )


def _unwrap(
    folder: Path, is_example: IsExample, prefix: str, *, to_split: bool = False
) -> tuple[Path, str]:
    """Descends through folders that hold one folder alone, to the classes.

    Args:
        folder: The first folder.
        is_example: Function that tells examples by the names of files.
        prefix: Path of the folder in the source, with a slash.
        to_split: Whether to stop above a folder that is named like a split.
            Defaults to `False`.

    Returns:
        Tuple of the folder above the class folders, or the first one if there
        are none, and its path in the source.
    """
    inner, path = folder, prefix
    while True:
        folders, files = _peek(inner)
        if any(map(is_example, files)):
            return folder, prefix
        if len(folders) != 1 or (to_split and split_of(folders[0])):
            break
        inner, path = inner / folders[0], f"{path}{folders[0]}/"
    if any(_holds(inner / name, is_example) for name in folders):
        return inner, path
    return folder, prefix


def _holds(folder: Path, is_example: IsExample) -> bool:
    """Tells whether a folder, or one within it, holds an example."""
    return any(any(map(is_example, files)) for _, _, files in os.walk(folder))


def _unlabelled(folder: Path, is_example: IsExample) -> int:
    """Returns the number of examples in a folder without class folders."""
    folders, files = _peek(folder)
    if len(folders) == 1 and not any(map(is_example, files)):
        inner, stray = _peek(folder / folders[0])
        # test/test/*.jpg, or test/images/*.jpg without other classes.
        if not inner and folders[0].lower() in (folder.name.lower(), "images"):
            folders, files = inner, stray
    return 0 if folders else sum(map(is_example, files))


def _check_not_splits(
    root: Path, folders: Sequence[str], is_example: IsExample
) -> None:
    """Raises if folders are splits of unknown names instead of classes."""
    inside = {}
    for name in folders:
        folder, _ = _unwrap(root / name, is_example, "")
        classes, files = _peek(folder)
        if not any(map(is_example, files)):
            inside[name] = set(classes)
    counts = Counter(name for classes in inside.values() for name in classes)
    shared = {name for name, count in counts.items() if count > 1}
    alike = [
        name for name, classes in inside.items() if len(classes & shared) > 1
    ]
    if len(alike) < 2:
        return
    if all(map(split_of, shared)):
        first = sorted(shared)[0]
        fix = (
            f"If these are splits, move them to the top: {first}/{alike[0]}/ "
            f"in place of {alike[0]}/{first}/."
        )
    else:
        fix = (
            "If these are splits, rename them to train, validation and test. "
            "If they are classes, put their examples directly into them."
        )
    raise ValueError(
        "`source` must hold class folders, or train/, validation/ and "
        f"test/ with the same ones. Received: source={str(root)!r}, where "
        f"{alike[:3]} all hold folders {sorted(shared)[:3]}. {fix}"
    )


def _peek(folder: Path) -> tuple[list[str], list[str]]:
    """Lists a folder to find the layout: one that cannot be read is empty.

    Whoever reads its examples reports it.
    """
    try:
        return list_folder(folder)
    except ValueError:
        return [], []


def list_folder(folder: Path) -> tuple[list[str], list[str]]:
    """Returns the names of the folders and of the files inside, sorted."""
    try:
        # The entries know what they are: no file is looked up for it.
        with os.scandir(folder) as entries:
            found = sorted((entry.name, entry.is_dir()) for entry in entries)
    except OSError as err:
        raise ValueError(
            "`source` must be a folder that can be read. Received: "
            f"{printable(repr(str(folder)))}: {decoding.reason(err)}."
        ) from err
    shown = [(name, is_dir) for name, is_dir in found if name[:1] != "."]
    folders = [x for x, is_dir in shown if is_dir and x not in JUNK_FOLDERS]
    return folders, [name for name, is_dir in shown if not is_dir]
