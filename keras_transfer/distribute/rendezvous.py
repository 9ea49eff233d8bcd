"""Rendezvous of the processes of a training, with errors if one is missing.

TensorFlow waits forever, without a message, for a worker that never starts. So
the workers meet first: each connects to worker 0, at the address where
TensorFlow will listen afterwards, and sends its settings. Worker 0 answers when
all have connected.

    worker 1 ... n     {"rank": 1, "facts": {"cluster": [...], ...}}
    worker 0           {"problem": ""} if the settings agree
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import socket
import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, cast

from keras_transfer._utils.checks import is_integer

# A hello takes some hundred bytes. Longer messages come from other programs.
_MAX_BYTES = 65_536


class Cluster(NamedTuple):
    """Contents of `TF_CONFIG`.

    Attributes:
        addresses: Addresses `host:port` of all processes, by rank.
        rank: Rank of this process.
    """

    addresses: list[str]
    rank: int


def cluster_of_environment() -> Cluster | None:
    """Returns the contents of `TF_CONFIG`, or `None` if it is not set.

    Raises:
        ValueError: If it is invalid.

    Example:

    >>> cluster_of_environment() is None
    True
    """
    text = os.environ.get("TF_CONFIG", "").strip()
    return read_cluster(text) if text else None


def read_cluster(text: str) -> Cluster:
    """Parses `TF_CONFIG`.

    Args:
        text: Value of the variable, as JSON.

    Returns:
        A `Cluster`.

    Raises:
        ValueError: If it is invalid.

    Example:

    >>> read_cluster(
    ...     '{"cluster": {"worker": ["a:1", "b:1"]},'
    ...     ' "task": {"type": "worker", "index": 1}}'
    ... ).rank
    1
    """
    try:
        config = json.loads(text)
        cluster, task = dict(config["cluster"]), dict(config["task"])
        kind, index = task["type"], task["index"]
    except (ValueError, TypeError, KeyError) as err:
        raise _invalid(
            "must be JSON with `cluster`, and with `task` that has `type` and "
            "`index`",
            f"{text!r:.200} ({type(err).__name__}: {err})",
        ) from err
    unknown = sorted(set(cluster) - {"chief", "worker"})
    if unknown:
        raise _invalid(
            "must have only workers, with or without a chief, since all "
            "processes train the same weights",
            f"a cluster with {', '.join(map(repr, unknown))}",
        )
    for name, addresses in cluster.items():
        if not isinstance(addresses, list) or not addresses:
            raise _invalid(
                "must list addresses", f"{name!r}: {addresses!r:.100}"
            )
        for address in addresses:
            host, _, port = str(address).rpartition(":")
            if not host or not port.isdigit() or not 0 < int(port) < 65536:
                raise _invalid(
                    'must have addresses "host:port"',
                    f"{address!r:.100} in {name!r}",
                )
    if len(cluster.get("chief", ())) > 1:
        raise _invalid("must have at most one chief", repr(cluster["chief"]))
    addresses = addresses_of(cluster)
    if len(set(addresses)) < len(addresses):
        raise _invalid(
            "must have a different address for each worker", repr(addresses)
        )
    if isinstance(index, str) and index.isdigit():
        index = int(index)
    count = len(cluster.get(kind, ())) if isinstance(kind, str) else 0
    if not count:
        raise _invalid(
            "must have a `task` whose `type` is in the `cluster`",
            f"type {kind!r}, and {', '.join(cluster) or 'nothing'}",
        )
    if not is_integer(index) or not 0 <= index < count:
        raise _invalid(
            f"must have a `task` with an `index` from 0 to {count - 1}, since "
            f"there are {count} of type {kind!r}",
            f"index {index!r:.50}",
        )
    return Cluster(addresses, rank_of(cluster, kind, index))


def meet(cluster: Cluster, facts: Mapping[str, Any], timeout: float) -> None:
    """Waits until all processes have connected.

    Args:
        cluster: The processes.
        facts: Settings that must be the same in all: plain values by name.
        timeout: Seconds to wait.

    Raises:
        TimeoutError: If a process is missing.
        ValueError: If settings differ.
        OSError: If the port is in use.
    """
    ends = time.monotonic() + timeout
    hello = {
        "rank": cluster.rank,
        "facts": {"cluster": cluster.addresses, **facts},
    }
    if cluster.rank == 0:
        _receive(cluster, hello, ends, timeout)
    else:
        _listen(cluster).close()  # Raises here if the port is in use.
        _visit(cluster, hello, ends, timeout)


def _listen(cluster: Cluster) -> socket.socket:
    port = int(cluster.addresses[cluster.rank].rpartition(":")[2])
    family = socket.AF_INET6 if socket.has_dualstack_ipv6() else socket.AF_INET
    try:
        return socket.create_server(
            ("", port),
            family=family,
            dualstack_ipv6=family == socket.AF_INET6,
        )
    except OSError as err:
        raise OSError(
            err.errno,
            f"port {port}, which `TF_CONFIG` gives worker {cluster.rank}, "
            f"is not available: {err.strerror}. Choose a free one, stop the "
            "processes of an earlier run, or give each process an `index` of "
            "its own",
        ) from err


def _receive(
    cluster: Cluster, hello: Mapping[str, Any], ends: float, timeout: float
) -> None:
    """Waits, in worker 0, for the hellos of all others, and answers them."""
    others = range(1, len(cluster.addresses))
    workers: dict[int, socket.socket] = {}
    received: dict[socket.socket, bytes] = {}
    problem = ""
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(_listen(cluster))
        selector = stack.enter_context(selectors.DefaultSelector())
        selector.register(server, selectors.EVENT_READ)
        while len(workers) < len(others) and not problem:
            missing = [
                f"{rank} ({cluster.addresses[rank]})"
                for rank in others
                if rank not in workers
            ]
            remaining = ends - time.monotonic()
            if remaining <= 0:
                problem = _missing(f"worker {', '.join(missing)}", timeout)
                break
            for key, _ in selector.select(remaining):
                if key.fileobj is server:
                    connection, _ = server.accept()
                    connection.setblocking(False)
                    stack.callback(connection.close)
                    selector.register(connection, selectors.EVENT_READ)
                    received[connection] = b""
                    continue
                connection = cast(socket.socket, key.fileobj)
                ranks = {worker: rank for rank, worker in workers.items()}
                if connection in ranks:
                    # The worker closed the connection, and will try again.
                    selector.unregister(connection)
                    del workers[ranks[connection]]
                    continue
                if not _receive_bytes(connection, received):
                    continue
                other = _parse_hello(received.pop(connection), others)
                if other is None:
                    # Another program, such as a port scanner.
                    selector.unregister(connection)
                    connection.close()
                    continue
                workers[other["rank"]] = connection
                problem = _difference(hello["facts"], other)
        for connection in workers.values():
            connection.setblocking(True)
            _send(connection, json.dumps({"problem": problem}))
    _raise(problem)


def _receive_bytes(
    connection: socket.socket, received: dict[socket.socket, bytes]
) -> bool:
    """Receives more of a message; returns `True` at its end."""
    try:
        chunk = connection.recv(4096)
    except OSError:
        chunk = b""
    received[connection] += chunk
    return not chunk or b"\n" in chunk or len(received[connection]) > _MAX_BYTES


def _parse_hello(line: bytes, others: range) -> dict[str, Any] | None:
    """Returns the hello of a worker, `None` for any other message."""
    try:
        hello = json.loads(line)
        valid = hello["rank"] in others and "cluster" in hello["facts"]
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    return hello if valid else None


def _visit(
    cluster: Cluster, hello: Mapping[str, Any], ends: float, timeout: float
) -> None:
    """Sends, in any other worker, a hello to worker 0, and waits for answer."""
    host, _, port = cluster.addresses[0].rpartition(":")
    chief, reason = f"worker 0 ({cluster.addresses[0]})", ""
    while True:
        remaining = ends - time.monotonic()
        if remaining <= 0:
            raise TimeoutError(_missing(chief, timeout) + reason)
        try:
            with socket.create_connection(
                (host.strip("[]"), int(port)), timeout=min(remaining, 10.0)
            ) as connection:
                _send(connection, json.dumps(hello))
                answer = _read(connection, max(ends - time.monotonic(), 0.1))
        except OSError as err:
            answer, reason = None, f" (Last error: {err}.)"
        if answer is not None:
            _raise(str(answer.get("problem", "")))
            return
        time.sleep(0.2)  # Worker 0 has not started yet, or was restarted.


def _read(connection: socket.socket, seconds: float) -> dict[str, Any] | None:
    """Returns a line of JSON, `None` if there is none in time."""
    ends = time.monotonic() + seconds
    content = b""
    try:
        while not content.endswith(b"\n") and len(content) < _MAX_BYTES:
            connection.settimeout(max(ends - time.monotonic(), 0.001))
            chunk = connection.recv(4096)
            if not chunk:
                return None
            content += chunk
        answer = json.loads(content)
    except (OSError, ValueError):
        return None
    return answer if isinstance(answer, dict) else None


def _send(connection: socket.socket, line: str) -> None:
    try:
        connection.sendall(line.encode() + b"\n")
    except OSError:
        return  # The side that waits for the other one reports the failure.


def _difference(facts: Mapping[str, Any], hello: Mapping[str, Any]) -> str:
    """Returns a message on facts that differ, `""` if there are none."""
    others = hello["facts"]
    names = [name for name in facts if others.get(name) != facts[name]]
    if not names:
        return ""
    return (
        "All workers must have the same "
        f"{', '.join(names)}. Received: {others.get(names[0])!r:.200} by "
        f"worker {hello['rank']}, {facts[names[0]]!r:.200} by worker 0."
    )


def _missing(worker: str, timeout: float) -> str:
    return (
        f"{worker} did not connect within {timeout:g} s. Start it with the "
        "same `cluster` in its `TF_CONFIG`, and open its port to the other "
        "machines."
    )


def _raise(problem: str) -> None:
    if problem:
        late = " did not connect within " in problem
        raise (TimeoutError if late else ValueError)(problem)


def _invalid(rule: str, received: str) -> ValueError:
    return ValueError(f"`TF_CONFIG` {rule}. Received: {received}")


def addresses_of(cluster: Mapping[str, Sequence[str]]) -> list[str]:
    """Returns the addresses of a cluster by rank, a chief first.

    Args:
        cluster: Addresses by type of task.

    Returns:
        Addresses `host:port`.

    Example:

    >>> addresses_of({"worker": ["a:1", "b:1"], "chief": ["c:1"]})
    ['c:1', 'a:1', 'b:1']
    """
    return [*cluster.get("chief", ()), *cluster.get("worker", ())]


def rank_of(cluster: Mapping[str, Sequence[str]], kind: str, index: int) -> int:
    """Returns the rank of a task.

    Args:
        cluster: Addresses by type of task.
        kind: `"chief"` or `"worker"`.
        index: Index of the task among those of its kind.

    Example:

    >>> rank_of({"worker": ["a:1", "b:1"], "chief": ["c:1"]}, "worker", 1)
    2
    """
    before = len(cluster.get("chief", ())) if kind == "worker" else 0
    return before + index
