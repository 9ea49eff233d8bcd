"""The files of a shard: whole or not there, checksummed, memory-mapped."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from keras_transfer._files import whole_file

PARTIAL = ".partial-"
_AT_ONCE = 2**22


def shard_names(folder: Path) -> list[str]:
    """Returns the names of the whole shards of an entry, oldest first."""
    try:
        names = [file.name for file in (folder / "shards").iterdir()]
    except FileNotFoundError:
        return []
    return sorted(name for name in names if not name.startswith("."))


def write_shard(
    folder: Path, name: str, digests: np.ndarray, arrays: Sequence[np.ndarray]
) -> None:
    """Writes a shard beside its place, forces it to the disk and renames it.

    Args:
        folder: The folder `shards` of an entry.
        name: Of the shard.
        digests: uint8 `(n, 16)`.
        arrays: `(n, ...)` for each tensor.

    Raises:
        OSError: If it cannot be written; nothing is left of it then.
    """
    partial = folder / f"{PARTIAL}{name}"
    files = {"digests.npy": digests} | {
        f"tensor_{i}.npy": array for i, array in enumerate(arrays)
    }
    try:
        partial.mkdir()
        for file_name, array in files.items():
            with open(partial / file_name, "wb") as file:
                np.save(file, np.ascontiguousarray(array), allow_pickle=False)
                file.flush()
                os.fsync(file.fileno())
        sums = {file: checksum(partial / file) for file in files}
        write_json(partial / "checksums.json", sums)
        os.replace(partial, folder / name)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def read_shard(
    shard: Path, verify: bool = True
) -> tuple[np.ndarray, list[np.ndarray]]:
    """Opens a shard.

    Args:
        shard: Its folder.
        verify: Whether to compare its files with their checksums. Defaults to
            `True`.

    Returns:
        Digests uint8 `(n, 16)`, and the tensors, mapped into memory.

    Raises:
        OSError: If a file is missing.
        ValueError: If one is damaged.
    """
    sums = json.loads((shard / "checksums.json").read_text("utf-8"))
    if verify:
        for name, expected in sums.items():
            if checksum(shard / name) != expected:
                raise ValueError(f"{name} differs from its checksum")
    digests = np.load(shard / "digests.npy", allow_pickle=False)
    arrays = [
        np.load(shard / f"tensor_{i}.npy", mmap_mode="r", allow_pickle=False)
        for i in range(len(sums) - 1)
    ]
    return digests, arrays


def rows_of(shard: Path) -> int:
    """Returns the number of examples in a shard."""
    return len(np.load(shard / "digests.npy", mmap_mode="r"))


def checksum(path: Path) -> str:
    """CRC-32 finds damage, and reads as fast as disks do."""
    value = 0
    with open(path, "rb") as file:
        while piece := file.read(_AT_ONCE):
            value = zlib.crc32(piece, value)
    return f"{value:08x}"


def write_json(path: Path, value: Any) -> None:
    """Writes a JSON file, whole or not at all."""
    with whole_file(path) as partial, open(partial, "w", encoding="utf-8") as f:
        json.dump(value, f, indent=1)
        f.flush()
        os.fsync(f.fileno())


@contextlib.contextmanager
def locked(path: Path, wait: bool) -> Iterator[None]:
    """Holds a lock that no other process holds at the same time.

    Args:
        path: The file to lock; it is made where it does not exist.
        wait: Whether to wait for others.

    Yields:
        Nothing.

    Raises:
        BlockingIOError: If another one has it and `wait` is `False`.
        OSError: If the file cannot be made.
    """
    with open(path, "a") as file:
        try:
            import fcntl
        except ImportError:  # Windows: two processes may compute the same.
            yield
            return
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        yield


@contextlib.contextmanager
def entry_lock(folder: Path) -> Iterator[None]:
    """Waits for the lock of an entry, and makes the entry where it is gone.

    While this process waits another one may remove the folder, and the lock
    with it.
    """
    while True:
        (folder / "shards").mkdir(parents=True, exist_ok=True)
        with contextlib.ExitStack() as stack:
            stack.enter_context(locked(folder / "lock", wait=True))
            if (folder / "shards").is_dir() and (folder / "lock").exists():
                held = stack.pop_all()
                break
    with held:
        yield
