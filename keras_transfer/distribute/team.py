"""The processes that train together, on one machine or on several.

They form a team: the first one, the chief, alone reads and writes the folder of
a run, and tells the others what it holds.
"""

from __future__ import annotations

import contextlib
import functools
import io
import json
import re
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from keras_transfer._utils.diff import differences
from keras_transfer.distribute.rendezvous import addresses_of, rank_of

if TYPE_CHECKING:
    import tensorflow as tf


# Bytes that travel at once: every process holds as many of each other one.
_AT_ONCE = 32 * 2**20


class ProcessGroup:
    """The processes that a strategy spans; of one, where it spans no other.

    Everything but `is_chief` is to be called by all of them, in the same
    order.

    Args:
        strategy: The strategy, or `None`.

    Attributes:
        rank: The number of this process, from 0.
        size: How many there are.

    Example:

    >>> group = ProcessGroup(None)
    >>> group.rank, group.size
    (0, 1)
    """

    def __init__(self, strategy: tf.distribute.Strategy | None) -> None:
        self.rank, self.size = 0, 1
        self._strategy = strategy
        if strategy is None:
            return
        import tensorflow as tf

        if isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
            resolver = strategy.cluster_resolver
            workers = addresses_of(resolver.cluster_spec().as_dict())
            if workers:
                self.size = len(workers)
                self.rank = rank_of(
                    resolver.cluster_spec().as_dict(),
                    resolver.task_type,
                    resolver.task_id,
                )

    @property
    def is_chief(self) -> bool:
        """Whether this is the process that writes."""
        return self.rank == 0

    def part_of(self, replicas: int) -> tuple[int, int, int]:
        """Returns which parts of a batch are for this process.

        Args:
            replicas: How many parts there are.

        Returns:
            The first part, the one after the last, and `replicas`.
        """
        here = replicas // self.size
        return self.rank * here, (self.rank + 1) * here, replicas

    def gather(self, content: bytes) -> list[bytes]:
        """Returns what each process gave, by rank.

        Args:
            content: What this one gives.

        Returns:
            The contents of all.

        Raises:
            RuntimeError: If another process is gone.
        """
        if self.size == 1:
            return [content]
        length = np.array([len(content)], np.int64)
        lengths = np.frombuffer(self._exchange(length.tobytes()), np.int64)
        left = lengths.copy()
        parts: list[list[bytes]] = [[] for _ in left]
        for start in range(0, int(left.max()), _AT_ONCE):
            some = content[start : start + _AT_ONCE]
            joined = self._exchange(some + b"\0" * (-len(some) % 4))
            sizes = 4 * -(-left.clip(max=_AT_ONCE) // 4)
            stops = np.cumsum(sizes)
            for part, stop, size in zip(parts, stops, sizes, strict=True):
                part.append(joined[stop - size : stop])
            left = (left - _AT_ONCE).clip(min=0)
        return [
            b"".join(part)[: int(length)]
            for part, length in zip(parts, lengths, strict=True)
        ]

    def share(
        self, make: Callable[[], Mapping[str, np.ndarray] | None]
    ) -> dict[str, np.ndarray] | None:
        """Returns in all processes what the chief makes.

        Args:
            make: Makes arrays by name, or `None`; called by the chief.

        Returns:
            What `make` returned.

        Raises:
            RuntimeError: If `make` failed, in the others; the chief raises
                what it raised.
        """
        if self.size == 1:
            made = make()
            return None if made is None else dict(made)
        content, error = b"", None
        if self.is_chief:
            try:
                content = _encode(make())
            except Exception as err:
                error = err
                content = b"!" + f"{type(err).__name__}: {err}".encode()
        received = self.gather(content)[0]
        if error is not None:
            raise error
        if received.startswith(b"!"):
            raise RuntimeError(
                f"worker 0, the chief, stopped: {received[1:].decode()}"
            )
        return _decode(received)

    def check_same(self, what: Mapping[str, Any]) -> None:
        """Raises unless all processes were given the same.

        Args:
            what: Plain values by name.

        Raises:
            ValueError: In all of them, if they were not; it names what
                differs, and where.
        """
        if self.size == 1:
            return
        plain = json.loads(json.dumps(what, default=str))
        found = [
            json.loads(content)
            for content in self.gather(json.dumps(plain).encode())
        ]
        for rank, other in enumerate(found):
            different = list(differences("", other, found[0]))
            if different:
                places = "\n  ".join(
                    text.replace(" there", f" on worker {rank}").replace(
                        " here", " on worker 0"
                    )
                    for text in different
                )
                raise ValueError(
                    "All workers must make the same calls with the same data "
                    "and arguments (hexadecimal digests stand for models and "
                    f"data). Received:\n  {places}"
                )

    def _exchange(self, content: bytes) -> bytes:
        """Joins contents by rank, each of a multiple of four bytes."""
        # Numbers that nothing computes with on the way.
        array = np.frombuffer(content, np.float32)
        with together(self):
            return np.asarray(self._join(array)).tobytes()

    @functools.cached_property
    def _join(self) -> Callable[[np.ndarray], Any]:
        import tensorflow as tf

        strategy = self._strategy
        if strategy is None:
            return np.asarray
        here = strategy.num_replicas_in_sync // self.size

        @tf.function(
            input_signature=[tf.TensorSpec([None], tf.float32)],
            autograph=False,
        )
        def join(array: tf.Tensor) -> tf.Tensor:
            def give() -> tf.Tensor:
                # The first replica of each process has something to give.
                context = tf.distribute.get_replica_context()
                first = context.replica_id_in_sync_group % here == 0
                return array[: tf.size(array) * tf.cast(first, tf.int32)]

            return strategy.gather(strategy.run(give), axis=0)

        return join


@contextlib.contextmanager
def together(team: ProcessGroup) -> Iterator[None]:
    """Says in plain words when another process of a team is gone.

    Args:
        team: The processes.

    Yields:
        Nothing.

    Raises:
        RuntimeError: If TensorFlow cannot reach another process.

    Example:

    >>> with together(ProcessGroup(None)):
    ...     pass
    """
    if team.size == 1:
        yield
        return
    import tensorflow as tf

    errors = tf.errors
    try:
        yield
    except (
        errors.UnavailableError,
        errors.AbortedError,
        errors.CancelledError,
        errors.DeadlineExceededError,
        errors.InternalError,
        errors.InvalidArgumentError,
    ) as err:
        text = re.sub(r"\{\{.*?\}\}\s*", "", str(err))
        if isinstance(
            err, errors.InvalidArgumentError | errors.InternalError
        ) and not re.search("collective|task:", text, re.IGNORECASE):
            raise  # Nothing that another process has a part in.
        told = re.search(r"aborted by:[^\n]*|[^\n]*task:\d[^\n]*", text)
        reason = told.group() if told else text[:200]
        raise RuntimeError(
            "Another worker stopped, cannot be reached any more, or does "
            "something else than this one. What it wrote first says why. All "
            "must make the same calls, with the same `devices`; start all of "
            "them again, and a run with a `directory` goes on after its last "
            f"whole epoch. TensorFlow says: {reason:.300}"
        ) from err


def _encode(arrays: Mapping[str, np.ndarray] | None) -> bytes:
    if arrays is None:
        return b"-"
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)  # type: ignore[arg-type]
    return b"+" + buffer.getvalue()


def _decode(content: bytes) -> dict[str, np.ndarray] | None:
    if content == b"-":
        return None
    with np.load(io.BytesIO(content[1:]), allow_pickle=False) as file:
        return dict(file)
