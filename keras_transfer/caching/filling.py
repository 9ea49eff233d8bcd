"""Fills entries of a store with what is missing, each example once."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import keras
import numpy as np

from keras_transfer.caching.feeds import Computed, Feed
from keras_transfer.caching.fingerprints import (
    describe_software,
    digest_network,
    make_key,
)
from keras_transfer.caching.store.entry import Entry, Tensor
from keras_transfer.caching.store.sharing import (
    check_folder,
    exchange,
    failing_together,
    missing_anywhere,
    refresh,
    share_of,
)
from keras_transfer.caching.store.store import FeatureStore
from keras_transfer.caching.views import View
from keras_transfer.data.examples import Examples
from keras_transfer.distribute import ProcessGroup

if TYPE_CHECKING:
    pass


# A shard is closed at whichever comes first, so that little is lost when an
# extraction stops, and little waits in memory.
_SHARD_BYTES = 64 * 2**20


_SHARD_SECONDS = 10.0


# What may wait for all entries together.
_WAITING_BYTES = 256 * 2**20


class Tally(NamedTuple):
    """What an extraction did.

    Attributes:
        passes: Times that an example passed the network.
        seconds: How long it took.
    """

    passes: int
    seconds: float


def open_entries(
    store: FeatureStore,
    networks: Sequence[keras.Model],
    examples: Examples,
    views: Sequence[View],
    dtype: str = "float32",
    engine: str = "tensorflow",
) -> list[list[Entry]]:
    """Opens the entry of each view of each network.

    Args:
        store: Where they are.
        networks: From inputs to the tensors that are kept.
        examples: The inputs.
        views: How to look at them.
        dtype: What floating-point numbers are kept in. Defaults to
            `"float32"`.
        engine: What computes the networks. Defaults to `"tensorflow"`.

    Returns:
        Entries by view and network.
    """
    software = describe_software()
    known: dict[int, bytes] = {}
    entries: list[list[Entry]] = [[] for _ in views]
    for network in networks:
        shared = {
            "network": digest_network(network, known),
            "name": network.name,
            "input": dict(examples.reading),
            "dtype": dtype,
            "engine": engine,
            "software": software,
        }
        tensors = [
            Tensor(tuple(t.shape[1:]), _kept(t.dtype, dtype))
            for t in keras.tree.flatten(
                network.compute_output_spec(
                    keras.KerasTensor((None, *examples.shape), examples.dtype)
                )
            )
        ]
        for view, opened in zip(views, entries, strict=True):
            description = {**shared, "view": view.describe()}
            key = make_key(
                {k: v for k, v in description.items() if k != "name"}
            )
            opened.append(store.open(key, description, tensors))
    return entries


def _kept(computed: str, dtype: str) -> str:
    return dtype if "float" in computed else computed


def fill(
    store: FeatureStore,
    entries: Sequence[Sequence[Entry]],
    digests: np.ndarray,
    feed: Feed,
    title: str = "",
    verbose: int = 0,
    team: ProcessGroup | None = None,
) -> Tally:
    """Computes what is missing in entries, and keeps it.

    Other processes that want the same wait, and then find it there.

    Args:
        store: Where the entries are.
        entries: By view and network; a pass through the network gives those of
            all networks.
        digests: uint8 `(n, 16)`, of the examples.
        feed: Computes.
        title: What to say while doing so. Defaults to `""`.
        verbose: `0` for silence, `1` for a progress bar. Defaults to `0`.
        team: The processes that do it together, each its part of the examples.
            Defaults to `None`: this one.

    Returns:
        A `Tally`; of several processes that of all.

    Raises:
        RuntimeError: If another process of the team failed.
        OSError: If there is no room, or the folder cannot be written to; what
            was written stays.
        ValueError: If a number is too large for float16.
    """
    started = time.monotonic()
    _, first = np.unique(digests, axis=0, return_index=True)
    once = np.zeros(len(digests), bool)
    once[first] = True
    team = team or ProcessGroup(None)
    flat = {entry.key: entry for row in entries for entry in row}
    with contextlib.ExitStack() as stack:

        def find_missing() -> dict[str, np.ndarray]:
            missing = _missing(entries, digests, once)
            if missing.any():
                # In one order, so that two cannot wait for each other.
                for key in sorted(flat):
                    stack.enter_context(flat[key].writing())
                # Another process may have done it meanwhile.
                missing = _missing(entries, digests, once)
                absent = {
                    key: int((entry.find(digests)[once, 0] < 0).sum())
                    for key, entry in flat.items()
                }
                store.reserve(
                    sum(n * flat[key].row_bytes for key, n in absent.items()),
                    keep=flat,
                )
            return {"missing": missing}

        missing = (team.share(find_missing) or {})["missing"]
        if (
            team.size > 1 and store.directory is None
        ):  # Each process has a memory of its own.
            missing = missing_anywhere(_missing(entries, digests, once), team)
        if missing.any():
            part = share_of(missing, team)
            bar = None
            if verbose:
                count = int(part.sum())
                bar = keras.utils.Progbar(count, unit_name=title or "example")
            with failing_together(team):
                check_folder(list(flat.values()))
                _keep(feed(part), entries, digests, bar)
            exchange(list(flat.values()), digests, part, team)
        else:
            refresh(list(flat.values()), team)
    return Tally(int(missing.sum()), time.monotonic() - started)


def _keep(
    computed: Iterator[Computed],
    entries: Sequence[Sequence[Entry]],
    digests: np.ndarray,
    bar: Any,
) -> None:
    """Writes what comes, also what came before an error or an interrupt."""
    flat = {entry.key: entry for row in entries for entry in row}
    limit = min(_SHARD_BYTES, _WAITING_BYTES // len(flat))
    writers = {key: _Writer(entry, limit) for key, entry in flat.items()}
    with contextlib.ExitStack() as stack:
        for writer in writers.values():
            stack.callback(writer.close)
        for view, rows, outputs in computed:
            for entry, arrays in zip(entries[view], outputs, strict=True):
                writers[entry.key].add(digests[rows], arrays)
            if bar is not None:
                bar.add(len(rows))


def _missing(
    entries: Sequence[Sequence[Entry]], digests: np.ndarray, once: np.ndarray
) -> np.ndarray:
    """Which examples some network has not seen yet, by view."""
    return np.stack(
        [
            np.any([e.find(digests)[:, 0] < 0 for e in row], axis=0) & once
            for row in entries
        ]
    )


class _Writer:
    """Gathers batches into shards."""

    def __init__(self, entry: Entry, limit: int) -> None:
        self._entry = entry
        self._limit = limit
        # One list, so that an interrupt cannot part rows from their digests.
        self._waiting: list[tuple[np.ndarray, list[np.ndarray]]] = []
        self._bytes = 0
        self._since = time.monotonic()

    def add(self, digests: np.ndarray, arrays: list[np.ndarray]) -> None:
        new = self._entry.find(digests)[:, 0] < 0
        if not new.any():
            return
        kept = [
            _as_dtype(array[new], tensor.dtype)
            for array, tensor in zip(arrays, self._entry.tensors, strict=True)
        ]
        self._waiting.append((digests[new], kept))
        self._bytes += sum(array.nbytes for array in kept)
        late = time.monotonic() - self._since > _SHARD_SECONDS
        if self._bytes >= self._limit or late:
            self.close()

    def close(self) -> None:
        waiting, self._waiting = self._waiting, []
        if waiting:
            digests, arrays = zip(*waiting, strict=True)
            self._entry.append(
                np.concatenate(digests),
                [np.concatenate(some) for some in zip(*arrays, strict=True)],
            )
        self._bytes = 0
        self._since = time.monotonic()


def _as_dtype(array: np.ndarray, dtype: str) -> np.ndarray:
    with np.errstate(over="ignore"):
        kept = array.astype(dtype, copy=False)
    if dtype == "float16" and np.isinf(kept).any() and np.isfinite(array).all():
        raise ValueError(
            '`dtype` must be "float32" because the network gives numbers up to '
            f"{np.abs(array).max():.3g}, and float16 ends at 65504. Received: "
            'dtype="float16"'
        )
    return kept
