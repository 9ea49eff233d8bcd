"""An entry of the feature store: outputs of one network for many examples."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import math
import os
import shutil
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from keras_transfer._utils.digest import DIGEST_BYTES
from keras_transfer.caching.store.shards import (
    PARTIAL,
    locked,
    read_shard,
    shard_names,
    write_json,
    write_shard,
)

FORMAT = 1


# Beside the entries: a lock must outlive the folder that it guards.
LOCKS = ".locks"


class Tensor(NamedTuple):
    """Shape and dtype of a tensor stored for each example.

    Attributes:
        shape: Shape without the batch.
        dtype: Name of the dtype, `"float32"` or `"float16"`.
    """

    shape: tuple[int, ...]
    dtype: str

    @property
    def num_bytes(self) -> int:
        """Bytes of one example."""
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize


@dataclasses.dataclass(frozen=True)
class EntryInfo:
    """Summary of an entry, as listed by `FeatureStore.ls`.

    Attributes:
        key: Its name.
        description: Content of which the key is the digest.
        rows: Number of examples.
        num_bytes: Size in bytes.
        used: Time of the last read or write, in seconds since 1970.
    """

    key: str
    description: Mapping[str, Any]
    rows: int
    num_bytes: int
    used: float


class _Index(NamedTuple):
    digests: np.ndarray  # sorted, as strings of 16 bytes
    places: np.ndarray  # (n, 2): shard, row


class _Shard(NamedTuple):
    digests: np.ndarray
    arrays: list[np.ndarray]


class Entry:
    """Outputs of one network for many examples; made by `FeatureStore.open`.

    Args:
        key: Its name.
        description: Content of which the key is the digest.
        tensors: Shapes and dtypes of the tensors of an example.
        folder: Folder of the entry, or `None` for memory.
    """

    def __init__(
        self,
        key: str,
        description: Mapping[str, Any],
        tensors: Sequence[Tensor],
        folder: Path | None,
    ) -> None:
        self.key = key
        self.description = dict(description)
        self.tensors = tuple(tensors)
        self.folder = folder
        # By number. Shards are never removed, so that places stay valid: one
        # that another process deleted leaves the index, but stays mapped for
        # readers.
        self._shards: list[_Shard] = []
        self._numbers: dict[str, int] = {}
        self._index: _Index | None = None
        self._used = time.time()

    def __len__(self) -> int:
        return len(self._sorted().digests)

    @property
    def row_bytes(self) -> int:
        """Bytes of one example."""
        return DIGEST_BYTES + sum(t.num_bytes for t in self.tensors)

    def info(self) -> EntryInfo:
        """Returns a summary of the entry."""
        rows = sum(len(shard.digests) for shard in self._shards)
        return EntryInfo(
            self.key, self.description, rows, rows * self.row_bytes, self._used
        )

    def refresh(self) -> None:
        """Reads shards of other processes, and skips damaged ones.

        Raises:
            OSError: If a shard cannot be read, though it is not damaged.
        """
        self._used = time.time()
        if self.folder is None:
            return
        with contextlib.suppress(OSError):
            os.utime(self.folder / "entry.json")
        present = shard_names(self.folder)
        for name in set(self._numbers).difference(present):
            del self._numbers[name]
            self._index = None
        for name in present:
            if name in self._numbers:
                continue
            try:
                digests, arrays = read_shard(self.folder / "shards" / name)
                self._check(digests, arrays)
            except ValueError as err:
                self._discard(self.folder / "shards" / name, err)
                continue
            self._add(name, digests, arrays)

    def find(self, digests: np.ndarray) -> np.ndarray:
        """Returns the places of examples.

        Args:
            digests: Digests of the examples, uint8 `(n, 16)`.

        Returns:
            int64 `(n, 2)`: shard and row; -1 where an example is missing.
        """
        index = self._sorted()
        sought = _as_strings(digests)
        places = np.full((len(sought), 2), -1, np.int64)
        if len(index.digests):
            at = np.searchsorted(index.digests, sought)
            at = at.clip(max=len(index.digests) - 1)
            matches = index.digests[at] == sought
            places[matches] = index.places[at[matches]]
        return places

    def gather(self, places: np.ndarray) -> list[np.ndarray]:
        """Reads examples.

        Args:
            places: Places of the examples from `find`, int64 `(n, 2)`, none
                missing.

        Returns:
            An array `(n, ...)` for each tensor.

        Raises:
            ValueError: If an example is missing.
        """
        if (places < 0).any():
            raise ValueError(
                "`places` must be those of examples that the entry holds. "
                f"Received: {int((places[:, 0] < 0).sum())} that are missing."
            )
        result = [
            np.empty((len(places), *shape), dtype)
            for shape, dtype in self.tensors
        ]
        for shard in np.unique(places[:, 0]):
            chosen = places[:, 0] == shard
            rows = places[chosen, 1]
            arrays = self._shards[shard].arrays
            for out, array in zip(result, arrays, strict=True):
                out[chosen] = array[rows]
        return result

    def append(self, digests: np.ndarray, arrays: Sequence[np.ndarray]) -> None:
        """Adds examples, all or none.

        Args:
            digests: Digests of the examples, uint8 `(n, 16)`.
            arrays: Array `(n, ...)` of each tensor.

        Raises:
            OSError: If they cannot be written; earlier shards stay.
            ValueError: If shapes or dtypes are not those of the entry.
        """
        self._check(digests, arrays)
        if not len(digests):
            return
        if self.folder is None:
            name = str(len(self._shards))
            self._add(name, digests, [np.ascontiguousarray(a) for a in arrays])
            return
        name = f"{time.time_ns():x}-{os.getpid()}"
        try:
            write_shard(self.folder / "shards", name, digests, arrays)
        except OSError as err:
            # NumPy reports a short write without an error number.
            number = err.errno or errno.ENOSPC
            full = number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
            raise OSError(
                number,
                f"could not write features to {str(self.folder)!r}: "
                f"{os.strerror(number)}. Complete shards are safe: "
                f"{'make room and ' * full}start again, and the extraction "
                "resumes from them",
            ) from err
        _, mapped = read_shard(self.folder / "shards" / name, verify=False)
        self._add(name, digests, mapped)

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """Holds the entry for this process alone, waiting for others.

        Yields:
            Nothing; shards that others wrote meanwhile are loaded.

        Raises:
            OSError: If the folder cannot be written to.
        """
        if self.folder is None:
            yield
            return
        store = self.folder.parent
        with contextlib.ExitStack() as stack:
            try:
                store.mkdir(parents=True, exist_ok=True)
                if not (store / "store.json").exists():
                    write_json(store / "store.json", {"format": FORMAT})
                stack.enter_context(locked(store / LOCKS / self.key, wait=True))
                self._prepare(self.folder)
            except OSError as err:
                raise OSError(
                    err.errno,
                    f"the feature store {str(store)!r} must be a folder that "
                    f"can be written to: {err.strerror}",
                ) from err
            self.refresh()
            yield

    def _prepare(self, folder: Path) -> None:
        (folder / "shards").mkdir(parents=True, exist_ok=True)
        # The previous holder of the lock has ended: its unfinished shard is
        # garbage.
        for partial in (folder / "shards").glob(f"{PARTIAL}*"):
            shutil.rmtree(partial, ignore_errors=True)
        if not (folder / "entry.json").exists():
            manifest = {
                "description": self.description,
                "tensors": self.tensors,
            }
            write_json(folder / "entry.json", manifest)

    def _add(
        self, name: str, digests: np.ndarray, arrays: list[np.ndarray]
    ) -> None:
        self._numbers[name] = len(self._shards)
        self._shards.append(_Shard(digests, arrays))
        self._index = None

    def _sorted(self) -> _Index:
        if self._index is None:
            numbers = list(self._numbers.values())
            by_shard = [self._shards[number].digests for number in numbers]
            places = [
                np.stack([np.full(len(d), number), np.arange(len(d))], axis=1)
                for number, d in zip(numbers, by_shard, strict=True)
            ]
            none = np.empty((0, DIGEST_BYTES), np.uint8)
            digests = _as_strings(np.concatenate([none, *by_shard]))
            digests, first = np.unique(digests, return_index=True)
            stacked = np.concatenate([np.empty((0, 2), np.int64), *places])
            self._index = _Index(digests, stacked[first])
        return self._index

    def _check(self, digests: np.ndarray, arrays: Sequence[np.ndarray]) -> None:
        received = [(a.shape[1:], a.dtype.name) for a in arrays]
        expected = [(tuple(shape), dtype) for shape, dtype in self.tensors]
        if received != expected:
            raise ValueError(
                f"an entry of {expected} must hold these. Received: {received}"
            )
        rows = [len(a) for a in arrays]
        if rows != [len(digests)] * len(arrays):
            raise ValueError(
                f"{len(digests)} examples must have as many rows. Received: "
                f"{rows}"
            )

    @staticmethod
    def _discard(shard: Path, err: Exception) -> None:
        if not shard.is_dir():
            return  # Not damaged: another process removed it.
        warnings.warn(
            f"Shard {shard.name} of the feature store entry "
            f"{str(shard.parents[1])!r} is damaged ({err}). It is not read; "
            "its examples are computed again.",
            stacklevel=2,
        )
        shutil.rmtree(shard, ignore_errors=True)


def damaged_shards(folder: Path) -> list[str]:
    """Reads all shards of an entry, removes the damaged ones and names them.

    Args:
        folder: Folder of the entry.

    Returns:
        List of names of shards.
    """
    damaged = []
    for name in shard_names(folder):
        shard = folder / "shards" / name
        try:
            read_shard(shard)
        except ValueError:
            if shard.is_dir():
                damaged.append(name)
                shutil.rmtree(shard, ignore_errors=True)
    return damaged


def _as_strings(digests: np.ndarray) -> np.ndarray:
    """Views digests as byte strings of one length, which NumPy can sort."""
    contiguous = np.ascontiguousarray(digests, np.uint8)
    return contiguous.view(f"S{DIGEST_BYTES}").reshape(-1)
