"""The files of a shard: complete or absent, checksummed, memory-mapped."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from keras_transfer._utils.file_lock import lock_file, unlock_file
from keras_transfer._utils.files import atomic_write

PARTIAL = ".partial-"


# Bytes that are read per step of a checksum.
_BYTES_PER_READ = 2**22


# Error numbers that mean a damaged or missing file; others, such as too many
# open files, do not.
_DAMAGE = (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EIO)


def shard_names(folder: Path) -> list[str]:
    """Returns the names of the complete shards of an entry, oldest first."""
    try:
        names = [file.name for file in (folder / "shards").iterdir()]
    except (FileNotFoundError, NotADirectoryError):
        return []
    return sorted(name for name in names if not name.startswith("."))


def write_shard(
    folder: Path, name: str, digests: np.ndarray, arrays: Sequence[np.ndarray]
) -> None:
    """Writes a shard to a temporary folder, syncs it to disk and renames it.

    Args:
        folder: The folder `shards` of an entry.
        name: Name of the shard.
        digests: Digests of the examples, uint8 `(n, 16)`.
        arrays: Array `(n, ...)` of each tensor.

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
        Digests, uint8 `(n, 16)`, and the tensors, memory-mapped.

    Raises:
        ValueError: If a file is damaged or missing.
        OSError: If one cannot be read for another reason.
    """
    try:
        sums = dict(json.loads((shard / "checksums.json").read_text("utf-8")))
        tensors = [f"tensor_{i}.npy" for i in range(len(sums) - 1)]
        if set(sums) != {"digests.npy", *tensors}:
            raise ValueError("checksums.json names other files")
        if verify:
            for name, expected in sums.items():
                if checksum(shard / name) != expected:
                    raise ValueError(f"{name} differs from its checksum")
        digests = np.load(shard / "digests.npy", allow_pickle=False)
        arrays = [
            np.load(shard / name, mmap_mode="r", allow_pickle=False)
            for name in tensors
        ]
    except OSError as err:
        if err.errno not in _DAMAGE:
            raise
        raise ValueError(f"{err.strerror}: {err.filename}") from err
    except (EOFError, TypeError) as err:
        raise ValueError(str(err)) from err
    return digests, arrays


def rows_of(shard: Path) -> int:
    """Returns the number of examples in a shard, 0 where it is damaged."""
    try:
        return len(np.load(shard / "digests.npy", mmap_mode="r"))
    except (OSError, ValueError, EOFError):
        return 0


def checksum(path: Path) -> str:
    """Returns the CRC-32 of a file: it finds damage at the speed of a disk."""
    value = 0
    with open(path, "rb") as file:
        while piece := file.read(_BYTES_PER_READ):
            value = zlib.crc32(piece, value)
    return f"{value:08x}"


def write_json(path: Path, value: Any) -> None:
    """Writes a JSON file atomically."""
    with (
        atomic_write(path) as partial,
        open(partial, "w", encoding="utf-8") as f,
    ):
        json.dump(value, f, indent=1)
        f.flush()
        os.fsync(f.fileno())


@contextlib.contextmanager
def locked(path: Path, wait: bool) -> Iterator[None]:
    """Holds a lock that no other process holds at the same time.

    The operating system releases it when a process ends for any reason.

    Args:
        path: File to lock. It is created where it does not exist and never
            removed: all processes must wait for the same file.
        wait: Whether to wait for other processes.

    Yields:
        Nothing.

    Raises:
        BlockingIOError: If another one has it and `wait` is `False`.
        OSError: If the file cannot be made.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "ab") as file:
        lock_file(file, wait)
        try:
            yield
        finally:
            unlock_file(file)
