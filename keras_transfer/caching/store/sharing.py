"""Shares the work of filling entries between the processes of a group."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator, Sequence

import numpy as np

from keras_transfer.caching.store.entry import Entry
from keras_transfer.distribute import ProcessGroup

# Bytes of activations that are sent in one message.
_BYTES_PER_MESSAGE = 64 * 2**20


def missing_anywhere(missing: np.ndarray, group: ProcessGroup) -> np.ndarray:
    """Returns a mask of examples that any process lacks in its memory.

    Args:
        missing: Mask of examples that this process lacks, bool.
        group: The processes.
    """
    anywhere = np.zeros_like(missing)
    for content in group.gather(missing.tobytes()):
        anywhere |= np.frombuffer(content, bool).reshape(missing.shape)
    return anywhere


def share_of(missing: np.ndarray, group: ProcessGroup) -> np.ndarray:
    """Returns the shard of the missing examples that this process computes.

    Args:
        missing: Mask of missing examples, bool `(views, examples)`.
        group: The processes.

    Returns:
        The mask of the shard of this process.
    """
    rows = np.flatnonzero(missing.any(axis=0))
    part = np.zeros_like(missing)
    own_rows = rows[group.rank :: group.size]
    part[:, own_rows] = missing[:, own_rows]
    return part


def check_folder(entries: Sequence[Entry]) -> None:
    """Raises where the folder created by the first process is not visible.

    Args:
        entries: Entries in a folder, or in memory.

    Raises:
        ValueError: If the folder is not visible.
    """
    for entry in entries:
        if entry.folder is not None and not (entry.folder / "shards").is_dir():
            raise ValueError(
                "`store` must be a folder that all workers see, or "
                f'"memory". Received: {str(entry.folder.parent)!r}, which is '
                "not that of worker 0."
            )


@contextlib.contextmanager
def failing_together(group: ProcessGroup) -> Iterator[None]:
    """Raises an error of one process in all, so that none waits forever.

    Args:
        group: The processes.

    Yields:
        Nothing.

    Raises:
        RuntimeError: If another process failed.
    """
    error = None
    try:
        yield
    except Exception as err:
        error = err
    message = "" if error is None else f"{type(error).__name__}: {error}"
    answers = group.gather(message.encode())
    if error is not None:
        raise error
    for rank, answer in enumerate(answers):
        if answer:
            raise RuntimeError(f"worker {rank} failed: {answer.decode()}")


def refresh(entries: Sequence[Entry], group: ProcessGroup) -> None:
    """Reads what other processes wrote before.

    Args:
        entries: Entries in a folder, or in memory, where there is nothing to
            read.
        group: The processes.
    """
    if group.size > 1:
        for entry in entries:
            entry.refresh()


def exchange(
    entries: Sequence[Entry],
    digests: np.ndarray,
    part: np.ndarray,
    group: ProcessGroup,
) -> None:
    """Gives each process the rows that the others computed.

    Args:
        entries: Entries that hold the rows of this process.
        digests: Digests of all examples, uint8 `(n, 16)`.
        part: Mask of what this process computed, bool `(views, n)`.
        group: The processes.

    Raises:
        ValueError: If the processes do not see the same folder.
    """
    if group.size == 1:
        return
    own_digests = digests[part.any(axis=0)]
    for entry in entries:
        if entry.folder is None:
            _send(entry, own_digests, group)
    refresh(entries, group)
    seen = all(
        (entry.find(digests)[:, 0] >= 0).all()
        for entry in entries
        if entry.folder is not None
    )
    blind = [
        rank
        for rank, answer in enumerate(group.gather(b"%d" % seen))
        if answer != b"1"
    ]
    if blind:
        folder = next(e.folder for e in entries if e.folder is not None)
        raise ValueError(
            "`store` must be a folder that all workers see, or memory. "
            f"Received: {str(folder.parent)!r}, in which worker "
            f"{', '.join(map(str, blind))} does not find what the others wrote."
        )


def _send(entry: Entry, own_digests: np.ndarray, group: ProcessGroup) -> None:
    """Exchanges rows in memory between all processes."""
    rows = max(1, _BYTES_PER_MESSAGE // entry.row_bytes)
    counts = [int(count) for count in group.gather(b"%d" % len(own_digests))]
    for start in range(0, max(counts), rows):
        batch = own_digests[start : start + rows]
        # `mine` covers all views; this entry may lack some of its rows.
        batch = batch[entry.find(batch)[:, 0] >= 0]
        buffer = io.BytesIO()
        arrays = entry.gather(entry.find(batch))
        np.savez(buffer, batch, *arrays)
        for rank, content in enumerate(group.gather(buffer.getvalue())):
            if rank == group.rank:
                continue
            with np.load(io.BytesIO(content), allow_pickle=False) as file:
                theirs = [file[name] for name in file.files]
            new = entry.find(theirs[0])[:, 0] < 0
            entry.append(theirs[0][new], [a[new] for a in theirs[1:]])
