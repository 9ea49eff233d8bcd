"""The feature store: activations on disk or in memory, found by content.

    DIRECTORY/
      store.json                     format of this folder
      .locks/KEY                     held while a process computes
      KEY/                           one network, one input, one dtype, one view
        entry.json                   description of the key, for people
        shards/NAME/                 some examples, complete or absent
          digests.npy                (n, 16) uint8, digest of each example
          tensor_0.npy, ...          (n, ...) outputs of the network
          checksums.json             written last

An example is found by what it holds, not by its name or place, so that every
subset, fold and order of a data set reads the same shards.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import time
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from keras_transfer._utils.checks import is_integer
from keras_transfer._utils.memory import format_bytes, free_memory
from keras_transfer.caching.store.entry import (
    FORMAT,
    LOCKS,
    Entry,
    EntryInfo,
    Tensor,
    damaged_shards,
)
from keras_transfer.caching.store.shards import locked, rows_of, shard_names

# Bytes that a store on disk may hold.
DEFAULT_LIMIT = 20 * 2**30


# Bytes left free on a disk, whatever the limit.
_SPARE_BYTES = 256 * 2**20


_TRASH = ".trash-"


def default_directory() -> Path:
    """Returns the folder of the store where none is named.

    `$KERAS_TRANSFER_CACHE`, else `keras_transfer/features` in
    `$XDG_CACHE_HOME` or `~/.cache`.

    Returns:
        Path of the folder, which is not created.

    Example:

    >>> default_directory().name
    'features'
    """
    named = os.environ.get("KERAS_TRANSFER_CACHE")
    if named:
        return Path(named) / "features"
    caches = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(caches) / "keras_transfer" / "features"


class FeatureStore:
    """A store of activations of frozen networks.

    Args:
        directory: Folder of the store; it is created when something is written
            to it. `None` keeps everything in memory, for as long as the object
            lives. Defaults to `None`.
        limit: Largest size in bytes. Where there is no room, the least recently
            used entries are removed. Defaults to `None`: 20 GiB on disk, half
            of the free memory in memory.

    Raises:
        ValueError: If the folder holds something else, or the store of a newer
            version.

    Example:

    >>> store = FeatureStore()
    >>> entry = store.open("key", {"network": "n"}, [Tensor((2,), "float32")])
    >>> digests = np.zeros((1, 16), np.uint8)
    >>> entry.append(digests, [np.ones((1, 2), np.float32)])
    >>> entry.gather(entry.find(digests))[0]
    array([[1., 1.]], dtype=float32)
    """

    def __init__(
        self,
        directory: str | os.PathLike[str] | None = None,
        *,
        limit: int | None = None,
    ) -> None:
        self.directory = None if directory is None else Path(directory)
        if self.directory is not None:
            _check_folder(self.directory)
        if limit is None:
            limit = DEFAULT_LIMIT if self.directory else free_memory() // 2
        if not is_integer(limit) or limit <= 0:
            raise ValueError(
                "`limit` must be an integer above 0, in bytes. Received: "
                f"limit={limit!r:.100}"
            )
        self.limit = int(limit)
        self._entries: dict[str, Entry] = {}

    def open(
        self,
        key: str,
        description: Mapping[str, Any],
        tensors: Sequence[Tensor],
    ) -> Entry:
        """Returns an entry, new or existing.

        Args:
            key: Digest of everything that determines the outputs, in
                hexadecimal.
            description: The same for people.
            tensors: Shapes and dtypes of the tensors of an example.

        Returns:
            An `Entry`.
        """
        if key not in self._entries:
            folder = None if self.directory is None else self.directory / key
            self._entries[key] = Entry(key, description, tensors, folder)
        entry = self._entries[key]
        entry.refresh()
        return entry

    def reserve(self, num_bytes: int, keep: Collection[str] = ()) -> None:
        """Makes room by removing the least recently used entries.

        Args:
            num_bytes: Number of bytes that will be written.
            keep: Keys that stay. Defaults to `()`.

        Raises:
            OSError: If there is not enough room even so; nothing is removed
                then.
        """
        self._sweep()
        infos = self.ls()
        held = sum(info.num_bytes for info in infos)
        removable = [info for info in infos if info.key not in keep]
        missing = num_bytes + held - self.limit
        size, where = format_bytes(num_bytes), "memory"
        if self.directory is not None:
            where = str(self.directory)
            free = shutil.disk_usage(_existing(self.directory)).free
            missing = max(missing, num_bytes + _SPARE_BYTES - free)
        if missing > sum(info.num_bytes for info in removable):
            raise OSError(
                f"no room for {size} of features in {where}: "
                f"the store may hold {format_bytes(self.limit)} and must keep "
                f"{format_bytes(held - sum(i.num_bytes for i in removable))}. "
                "Give it a larger `limit`, another `directory`, or store "
                "float16"
            )
        for info in sorted(removable, key=lambda info: info.used):
            if missing <= 0:
                break
            if self._remove(info.key):
                missing -= info.num_bytes
        if missing > 0:
            raise OSError(
                f"no room for {size} of features in {where}: "
                "other processes use what could be removed"
            )

    def ls(self) -> list[EntryInfo]:
        """Returns a summary of each entry, the most recently used first."""
        if self.directory is None:
            infos = [entry.info() for entry in self._entries.values()]
        elif not self.directory.is_dir():
            infos = []
        else:
            infos = [
                info
                for folder in self.directory.iterdir()
                if not folder.name.startswith(".")
                and (info := _read_info(folder)) is not None
            ]
        return sorted(infos, key=lambda info: -info.used)

    def size(self) -> int:
        """Returns the size of all entries in bytes."""
        return sum(info.num_bytes for info in self.ls())

    def clear(self, key: str | None = None) -> int:
        """Removes one entry, or all.

        Args:
            key: Its key, or the beginning of it. Defaults to `None`, all.

        Returns:
            Number of bytes freed.

        Raises:
            ValueError: If `key` matches no entry or several, or another process
                is writing to an entry to be removed.
            OSError: If the folder cannot be written to.
        """
        self._sweep()
        infos = self.ls()
        chosen = infos
        if key is not None:
            chosen = [info for info in infos if info.key.startswith(key)]
            if len(chosen) != 1:
                raise ValueError(
                    "`key` must be that of one entry, or its beginning. "
                    f"Received: key={key!r}, which {len(chosen)} have."
                )
        freed = 0
        for info in chosen:
            if not self._remove(info.key):
                raise ValueError(
                    "`clear` must wait until no process writes. Received: "
                    f"entry {info.key}, which another process is writing."
                )
            freed += info.num_bytes
        return freed

    def verify(self, key: str | None = None) -> list[str]:
        """Compares all files with their checksums.

        Args:
            key: Prefix of the keys to check. Defaults to `None`, all.

        Returns:
            Names of the damaged shards, `"KEY/NAME"`. They are removed where
            the folder is writable, and computed again when needed.
        """
        if self.directory is None:
            return []
        return [
            f"{info.key}/{name}"
            for info in self.ls()
            if info.key.startswith(key or "")
            for name in damaged_shards(self.directory / info.key)
        ]

    def _remove(self, key: str) -> bool:
        """Removes an entry, unless another process is writing to it."""
        if self.directory is None:
            self._entries.pop(key, None)
            return True
        # Renamed first, so that a half-removed entry is never read.
        trash = self.directory / f"{_TRASH}{key}-{time.time_ns():x}"
        try:
            with locked(self.directory / LOCKS / key, wait=False):
                os.replace(self.directory / key, trash)
        except BlockingIOError:
            return False
        except FileNotFoundError:
            pass  # Another process removed it first.
        except OSError as err:
            raise OSError(
                err.errno,
                f"could not remove {key} from the feature store "
                f"{str(self.directory)!r}: {err.strerror}",
            ) from err
        shutil.rmtree(trash, ignore_errors=True)
        self._entries.pop(key, None)
        return True

    def _sweep(self) -> None:
        """Removes the remains of entries whose removal was interrupted."""
        if self.directory is not None:
            for trash in self.directory.glob(f"{_TRASH}*"):
                shutil.rmtree(trash, ignore_errors=True)


class Choice:
    """Remembers the store that the first of several runs chose.

    Args:
        store: The store, once it is chosen. Defaults to `None`.

    Example:

    >>> Choice().store is None
    True
    """

    def __init__(self, store: FeatureStore | None = None) -> None:
        self.store = store


def _check_folder(folder: Path) -> None:
    if not folder.exists():
        return
    if not folder.is_dir():
        raise ValueError(
            f"`directory` must be a folder. Received: {str(folder)!r}, a file."
        )
    manifest = folder / "store.json"
    if not manifest.exists():
        names = sorted(file.name for file in folder.iterdir())
        # A process may have been killed while it wrote the manifest.
        others = [n for n in names if not n.startswith(".store.json.")]
        if others:
            raise ValueError(
                "`directory` must be new, empty or a feature store. Received: "
                f"{str(folder)!r}, which holds {', '.join(others[:5])}."
            )
        return
    try:
        version = json.loads(manifest.read_text("utf-8"))["format"]
    except (OSError, ValueError, KeyError, TypeError) as err:
        raise ValueError(
            "`directory` must hold the manifest of a feature store. Received: "
            f"{str(manifest)!r}, which cannot be read ({err})."
        ) from err
    if version != FORMAT:
        raise ValueError(
            f"`directory` must be a feature store of format {FORMAT}. "
            f"Received: {str(folder)!r} of format {version!r}, written by "
            "another version of keras_transfer. Use that one, or another "
            "directory."
        )


def _existing(folder: Path) -> Path:
    while not folder.exists():
        folder = folder.parent
    return folder


def _read_info(folder: Path) -> EntryInfo | None:
    """Reads the summary of an entry; `None` for any other folder."""
    if not (folder / "shards").is_dir():
        return None
    description: dict[str, Any] = {}
    used = 0.0
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        used = (folder / "entry.json").stat().st_mtime
        card = json.loads((folder / "entry.json").read_text("utf-8"))
        description = dict(card["description"])
    num_bytes = 0
    for path, _, files in os.walk(folder):
        for file in files:
            # Another process may remove it meanwhile.
            with contextlib.suppress(OSError):
                num_bytes += os.stat(os.path.join(path, file)).st_size
    shards = [folder / "shards" / name for name in shard_names(folder)]
    rows = sum(map(rows_of, shards))
    return EntryInfo(folder.name, description, rows, num_bytes, used)


StoreLike: TypeAlias = FeatureStore | str | os.PathLike[str] | None


def open_store(store: StoreLike) -> FeatureStore:
    """Returns the store that an argument names.

    Args:
        store: A `FeatureStore`, a folder, `"memory"`, or `None` for the user's.

    Returns:
        A `FeatureStore`.

    Raises:
        TypeError: If it is something else.
        ValueError: If the folder holds something else, or is not named.

    Example:

    >>> open_store("memory").directory is None
    True
    """
    if isinstance(store, FeatureStore):
        return store
    if store is None:
        return FeatureStore(default_directory())
    if store == "memory":
        return FeatureStore()
    if store == "disk":
        raise ValueError(
            '`store` must name a folder, or be "memory", or None for the '
            'user\'s folder. Received: store="disk"; for a folder of this name '
            'give "./disk"'
        )
    if isinstance(store, str | os.PathLike):
        return FeatureStore(store)
    raise TypeError(
        '`store` must be a FeatureStore, a folder, "memory" or None. Received: '
        f"store={store!r:.100}"
    )
