"""The processes of a training, on one machine or on several.

Only the first process, the chief, reads and writes the folder of a run. It
shares the contents with the others.
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


# Every process receives a chunk of this size from each other one.
_BYTES_PER_CHUNK = 32 * 2**20


class ProcessGroup:
    """The processes that a strategy spans, often just this one.

    All processes must call the methods, in the same order.

    Args:
        strategy: The strategy, or `None`.

    Attributes:
        rank: Number of this process, from 0.
        size: Number of processes.

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
        """`True` in the process that writes files."""
        return self.rank == 0

    def part_of(self, replicas: int) -> tuple[int, int, int]:
        """Returns the shards of a batch that this process computes.

        Args:
            replicas: Number of shards, one for each replica.

        Returns:
            Tuple `(first, end, replicas)`: the index of the first shard, and
            that after the last one.
        """
        local = replicas // self.size
        return self.rank * local, (self.rank + 1) * local, replicas

    def gather(self, content: bytes) -> list[bytes]:
        """Returns the contents of all processes, by rank.

        Args:
            content: Content of this process.

        Returns:
            List of contents.

        Raises:
            RuntimeError: If another process has stopped.
        """
        if self.size == 1:
            return [content]
        length = np.array([len(content)], np.int64)
        lengths = np.frombuffer(self._exchange(length.tobytes()), np.int64)
        remaining = lengths.copy()
        chunks: list[list[bytes]] = [[] for _ in remaining]
        for start in range(0, int(remaining.max()), _BYTES_PER_CHUNK):
            chunk = content[start : start + _BYTES_PER_CHUNK]
            # Padded, since the exchange works in units of four bytes.
            joined = self._exchange(chunk + b"\0" * (-len(chunk) % 4))
            sizes = 4 * -(-remaining.clip(max=_BYTES_PER_CHUNK) // 4)
            stops = np.cumsum(sizes)
            for received, stop, size in zip(chunks, stops, sizes, strict=True):
                received.append(joined[stop - size : stop])
            remaining = (remaining - _BYTES_PER_CHUNK).clip(min=0)
        return [
            b"".join(received)[: int(length)]
            for received, length in zip(chunks, lengths, strict=True)
        ]

    def share(
        self, make: Callable[[], Mapping[str, np.ndarray] | None]
    ) -> dict[str, np.ndarray] | None:
        """Computes arrays in the chief, and returns them in all processes.

        Args:
            make: Function that returns arrays by name, or `None`. Only the
                chief calls it.

        Returns:
            The result of `make`.

        Raises:
            RuntimeError: If `make` failed; the chief raises the original error
                instead.
        """
        if self.size == 1:
            arrays = make()
            return None if arrays is None else dict(arrays)
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

    def check_same(self, values: Mapping[str, Any]) -> None:
        """Raises unless all processes call it with the same values.

        Args:
            values: Plain values by name.

        Raises:
            ValueError: If values differ; raised in all processes, with the
                differences.
        """
        if self.size == 1:
            return
        plain = json.loads(json.dumps(values, default=str))
        by_rank = [
            json.loads(content)
            for content in self.gather(json.dumps(plain).encode())
        ]
        for rank, other in enumerate(by_rank):
            lines = [
                text.replace(" there", f" on worker {rank}").replace(
                    " here", " on worker 0"
                )
                for text in differences("", other, by_rank[0])
            ]
            if lines:
                received = "\n  ".join(lines)
                raise ValueError(
                    "All workers must make the same calls with the same data "
                    "and arguments (hexadecimal digests stand for models and "
                    f"data). Received:\n  {received}"
                )

    def _exchange(self, content: bytes) -> bytes:
        """Joins contents by rank, each a multiple of four bytes long."""
        # As float32, which `gather` supports, and copies without arithmetic.
        array = np.frombuffer(content, np.float32)
        with together(self):
            return np.asarray(self._join(array)).tobytes()

    @functools.cached_property
    def _join(self) -> Callable[[np.ndarray], Any]:
        import tensorflow as tf

        strategy = self._strategy
        if strategy is None:
            return np.asarray
        local = strategy.num_replicas_in_sync // self.size

        @tf.function(
            input_signature=[tf.TensorSpec([None], tf.float32)],
            autograph=False,
        )
        def join(array: tf.Tensor) -> tf.Tensor:
            def contribute() -> tf.Tensor:
                # The array from the first replica of each process, an empty
                # one from the others.
                context = tf.distribute.get_replica_context()
                first = context.replica_id_in_sync_group % local == 0
                return array[: tf.size(array) * tf.cast(first, tf.int32)]

            return strategy.gather(strategy.run(contribute), axis=0)

        return join


@contextlib.contextmanager
def together(process_group: ProcessGroup) -> Iterator[None]:
    """Explains TensorFlow's errors if another process has stopped.

    Args:
        process_group: The processes.

    Yields:
        Nothing.

    Raises:
        RuntimeError: If TensorFlow cannot reach another process.

    Example:

    >>> with together(ProcessGroup(None)):
    ...     pass
    """
    if process_group.size == 1:
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
            raise  # The error does not involve another process.
        match = re.search(r"aborted by:[^\n]*|[^\n]*task:\d[^\n]*", text)
        reason = match.group() if match else text[:200]
        raise RuntimeError(
            "Another worker has stopped, cannot be reached, or does something "
            "else than this one; its first error message tells the cause. All "
            "workers must make the same calls, with the same `devices`. "
            "Restart all of them: a run with a `directory` resumes after its "
            f"last complete epoch. TensorFlow says: {reason:.300}"
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
