"""What the processes of a team do together when entries are filled."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator, Sequence

import numpy as np

from keras_transfer.caching.store.entry import Entry
from keras_transfer.distribute import ProcessGroup

# Bytes of activations that travel at once.
_AT_ONCE = 64 * 2**20


def missing_anywhere(missing: np.ndarray, team: ProcessGroup) -> np.ndarray:
    """Returns what is missing in the memory of any process.

    Args:
        missing: bool, what is missing here.
        team: The processes.
    """
    found = np.zeros_like(missing)
    for content in team.gather(missing.tobytes()):
        found |= np.frombuffer(content, bool).reshape(missing.shape)
    return found


def share_of(missing: np.ndarray, team: ProcessGroup) -> np.ndarray:
    """Returns what this process computes of what is missing.

    Args:
        missing: bool `(views, examples)`.
        team: The processes.

    Returns:
        The same, with its part of the examples alone.
    """
    rows = np.flatnonzero(missing.any(axis=0))
    part = np.zeros_like(missing)
    mine = rows[team.rank :: team.size]
    part[:, mine] = missing[:, mine]
    return part


def check_folder(entries: Sequence[Entry]) -> None:
    """Raises where the folder that the first process made is not seen.

    Args:
        entries: In a folder, or in memory.

    Raises:
        ValueError: If it is not.
    """
    for entry in entries:
        if entry.folder is not None and not (entry.folder / "shards").is_dir():
            raise ValueError(
                "`store` must be a folder that all workers see, or "
                f'"memory". Received: {str(entry.folder.parent)!r}, which is '
                "not that of worker 0."
            )


@contextlib.contextmanager
def failing_together(team: ProcessGroup) -> Iterator[None]:
    """Makes an error of one process one of all: nobody waits for it.

    Args:
        team: The processes.

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
    told = "" if error is None else f"{type(error).__name__}: {error}"
    answers = team.gather(told.encode())
    if error is not None:
        raise error
    for rank, answer in enumerate(answers):
        if answer:
            raise RuntimeError(f"worker {rank} failed: {answer.decode()}")


def refresh(entries: Sequence[Entry], team: ProcessGroup) -> None:
    """Reads what other processes wrote before.

    Args:
        entries: In a folder, or in memory, where there is nothing to read.
        team: The processes.
    """
    if team.size > 1:
        for entry in entries:
            entry.refresh()


def exchange(
    entries: Sequence[Entry],
    digests: np.ndarray,
    part: np.ndarray,
    team: ProcessGroup,
) -> None:
    """Gives each process what the others computed.

    Args:
        entries: With what this one computed.
        digests: uint8 `(n, 16)`, of all examples.
        part: bool `(views, n)`: what this one computed.
        team: The processes.

    Raises:
        ValueError: If they do not see the same folder.
    """
    if team.size == 1:
        return
    mine = digests[part.any(axis=0)]
    for entry in entries:
        if entry.folder is None:
            _send(entry, mine, team)
    refresh(entries, team)
    seen = all(
        (entry.find(digests)[:, 0] >= 0).all()
        for entry in entries
        if entry.folder is not None
    )
    blind = [
        rank
        for rank, answer in enumerate(team.gather(b"%d" % seen))
        if answer != b"1"
    ]
    if blind:
        folder = next(e.folder for e in entries if e.folder is not None)
        raise ValueError(
            "`store` must be a folder that all workers see, or memory. "
            f"Received: {str(folder.parent)!r}, in which worker "
            f"{', '.join(map(str, blind))} does not find what the others wrote."
        )


def _send(entry: Entry, mine: np.ndarray, team: ProcessGroup) -> None:
    """Sends rows in memory to all, and takes theirs."""
    rows = max(1, _AT_ONCE // entry.row_bytes)
    counts = [int(count) for count in team.gather(b"%d" % len(mine))]
    for start in range(0, max(counts), rows):
        some = mine[start : start + rows]
        # Of a view, this process may have computed others.
        some = some[entry.find(some)[:, 0] >= 0]
        buffer = io.BytesIO()
        arrays = entry.gather(entry.find(some))
        np.savez(buffer, some, *arrays)
        for rank, content in enumerate(team.gather(buffer.getvalue())):
            if rank == team.rank:
                continue
            with np.load(io.BytesIO(content), allow_pickle=False) as file:
                theirs = [file[name] for name in file.files]
            new = entry.find(theirs[0])[:, 0] < 0
            entry.append(theirs[0][new], [a[new] for a in theirs[1:]])
