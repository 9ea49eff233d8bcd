"""Fills entries of a store: each missing example is computed once."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

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

# A shard is closed at whichever comes first, so that an interrupted extraction
# loses little, and little waits in memory.
_SHARD_BYTES = 64 * 2**20


_SHARD_SECONDS = 10.0


# Bytes that may wait in memory, over all entries.
_WAITING_BYTES = 256 * 2**20


class Tally(NamedTuple):
    """Counts of an extraction.

    Attributes:
        passes: Number of forward passes of single examples.
        seconds: Duration in seconds.
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
        store: Store of the entries.
        networks: Models from inputs to the tensors that are cached.
        examples: The inputs.
        views: Views of each input.
        dtype: Dtype of cached floating-point numbers. Defaults to `"float32"`.
        engine: Name of the engine that computes the networks. Defaults to
            `"tensorflow"`.

    Returns:
        List of entries by view and network.
    """
    software = describe_software()
    layer_digests: dict[int, bytes] = {}
    entries: list[list[Entry]] = [[] for _ in views]
    for network in networks:
        shared = {
            "network": digest_network(network, layer_digests),
            "name": network.name,
            "input": dict(examples.reading),
            "dtype": dtype,
            "engine": engine,
            "software": software,
        }
        tensors = [
            Tensor(tuple(t.shape[1:]), _stored_dtype(t.dtype, dtype))
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


def _stored_dtype(computed: str, dtype: str) -> str:
    return dtype if "float" in computed else computed


def fill(
    store: FeatureStore,
    entries: Sequence[Sequence[Entry]],
    digests: np.ndarray,
    feed: Feed,
    title: str = "",
    verbose: int = 0,
    group: ProcessGroup | None = None,
) -> Tally:
    """Computes the examples that are missing in entries, and stores them.

    Other processes that need the same wait, and then read the result.

    Args:
        store: Store of the entries.
        entries: Entries by view and network; one pass of an example computes
            those of all networks.
        digests: Digests of the examples, uint8 `(n, 16)`.
        feed: Feed that computes them.
        title: Unit shown by the progress bar. Defaults to `""`.
        verbose: `0` for silence, `1` for a progress bar. Defaults to `0`.
        group: Processes that share the work, each on its shard of the examples.
            Defaults to `None`: this one.

    Returns:
        A `Tally`, summed over all processes.

    Raises:
        RuntimeError: If another process of the group failed.
        OSError: If there is no room, or the folder cannot be written to;
            complete shards stay.
        ValueError: If a number is too large for float16.
    """
    started = time.monotonic()
    _, first = np.unique(digests, axis=0, return_index=True)
    once = np.zeros(len(digests), bool)
    once[first] = True
    group = group or ProcessGroup(None)
    flat = {entry.key: entry for row in entries for entry in row}
    with contextlib.ExitStack() as stack:

        def find_missing() -> dict[str, np.ndarray]:
            missing = _missing(entries, digests, once)
            if missing.any():
                # Locks are taken in one order, so that two processes cannot
                # deadlock.
                for key in sorted(flat):
                    stack.enter_context(flat[key].writing())
                # Another process may have computed some of them meanwhile.
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

        missing = (group.share(find_missing) or {})["missing"]
        # In memory, each process misses other examples.
        if group.size > 1 and store.directory is None:
            missing = missing_anywhere(_missing(entries, digests, once), group)
        if missing.any():
            part = share_of(missing, group)
            bar = None
            if verbose:
                count = int(part.sum())
                bar = keras.utils.Progbar(count, unit_name=title or "example")
            with failing_together(group):
                check_folder(list(flat.values()))
                _write(feed(part), entries, digests, bar)
            exchange(list(flat.values()), digests, part, group)
        else:
            refresh(list(flat.values()), group)
    return Tally(int(missing.sum()), time.monotonic() - started)


def _write(
    computed: Iterator[Computed],
    entries: Sequence[Sequence[Entry]],
    digests: np.ndarray,
    bar: Any,
) -> None:
    """Writes outputs as they come, also those before an error or interrupt."""
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
    """Returns a mask of examples that some entry lacks, bool [views, n]."""
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
        # One list, so that an interrupt cannot separate rows and digests.
        self._waiting: list[tuple[np.ndarray, list[np.ndarray]]] = []
        self._bytes = 0
        self._since = time.monotonic()

    def add(self, digests: np.ndarray, arrays: list[np.ndarray]) -> None:
        new = self._entry.find(digests)[:, 0] < 0
        if not new.any():
            return
        converted = [
            _as_dtype(array[new], tensor.dtype)
            for array, tensor in zip(arrays, self._entry.tensors, strict=True)
        ]
        self._waiting.append((digests[new], converted))
        self._bytes += sum(array.nbytes for array in converted)
        late = time.monotonic() - self._since > _SHARD_SECONDS
        if self._bytes >= self._limit or late:
            self.close()

    def close(self) -> None:
        waiting, self._waiting = self._waiting, []
        if waiting:
            digests, arrays = zip(*waiting, strict=True)
            self._entry.append(
                np.concatenate(digests),
                [np.concatenate(parts) for parts in zip(*arrays, strict=True)],
            )
        self._bytes = 0
        self._since = time.monotonic()


def _as_dtype(array: np.ndarray, dtype: str) -> np.ndarray:
    with np.errstate(over="ignore"):
        converted = array.astype(dtype, copy=False)
    if (
        dtype == "float16"
        and np.isinf(converted).any()
        and np.isfinite(array).all()
    ):
        raise ValueError(
            '`dtype` must be "float32" because the network outputs values up '
            f"to {np.abs(array).max():.3g}, and float16 ends at 65504. "
            'Received: dtype="float16"'
        )
    return converted
