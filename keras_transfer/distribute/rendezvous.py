"""The processes of a training find each other, or say why.

TensorFlow waits for a worker that never comes, without end and without a word.
So they meet before it starts: each connects to the first one, at the address
where TensorFlow will listen afterwards, and says what it was told. The first
one answers when all are there.

    worker 1 ... n     {"rank": 1, "facts": {"cluster": [...], ...}}
    worker 0           {"problem": ""} when all are there and agree
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

# A hello is a line of some hundred bytes; longer ones are no hello.
_LONGEST = 65_536


class Cluster(NamedTuple):
    """What `TF_CONFIG` says.

    Attributes:
        addresses: `host:port` of all processes, by rank.
        rank: That of this one.
    """

    addresses: list[str]
    rank: int


def cluster_of_environment() -> Cluster | None:
    """Returns what `TF_CONFIG` says, or `None` without it.

    Raises:
        ValueError: If it is not what TensorFlow takes.

    Example:

    >>> cluster_of_environment() is None
    True
    """
    text = os.environ.get("TF_CONFIG", "").strip()
    return read_cluster(text) if text else None


def read_cluster(text: str) -> Cluster:
    """Reads `TF_CONFIG`.

    Args:
        text: JSON.

    Returns:
        `Cluster`.

    Raises:
        ValueError: If it is not what TensorFlow takes.

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
        raise _unfit(
            "must be JSON with `cluster`, and with `task`, `type` and `index` "
            "in it",
            f"{text!r:.200} ({type(err).__name__}: {err})",
        ) from err
    unknown = sorted(set(cluster) - {"chief", "worker"})
    if unknown:
        raise _unfit(
            "must have workers alone, with or without a chief: all of them "
            "train on the same weights",
            f"a cluster with {', '.join(map(repr, unknown))}",
        )
    for name, addresses in cluster.items():
        if not isinstance(addresses, list) or not addresses:
            raise _unfit("must list addresses", f"{name!r}: {addresses!r:.100}")
        for address in addresses:
            host, _, port = str(address).rpartition(":")
            if not host or not port.isdigit() or not 0 < int(port) < 65536:
                raise _unfit(
                    'must have addresses "host:port"',
                    f"{address!r:.100} in {name!r}",
                )
    if len(cluster.get("chief", ())) > 1:
        raise _unfit("must have one chief at most", repr(cluster["chief"]))
    addresses = addresses_of(cluster)
    if len(set(addresses)) < len(addresses):
        raise _unfit(
            "must have another address for each worker", repr(addresses)
        )
    if isinstance(index, str) and index.isdigit():
        index = int(index)
    count = len(cluster.get(kind, ())) if isinstance(kind, str) else 0
    if not count:
        raise _unfit(
            "must have a `task` whose `type` is in the `cluster`",
            f"type {kind!r}, and {', '.join(cluster) or 'nothing'}",
        )
    if not is_integer(index) or not 0 <= index < count:
        raise _unfit(
            f"must have a `task` with an `index` from 0 to {count - 1}, since "
            f"there are {count} of type {kind!r}",
            f"index {index!r:.50}",
        )
    return Cluster(addresses, rank_of(cluster, kind, index))


def meet(cluster: Cluster, facts: Mapping[str, Any], timeout: float) -> None:
    """Returns when all processes are there.

    Args:
        cluster: Who they are.
        facts: What all must have in common: plain values by name.
        timeout: Seconds to wait.

    Raises:
        TimeoutError: If one does not come.
        ValueError: If they were told different things.
        OSError: If the port is taken.
    """
    ends = time.monotonic() + timeout
    hello = {
        "rank": cluster.rank,
        "facts": {"cluster": cluster.addresses, **facts},
    }
    if cluster.rank == 0:
        _receive(cluster, hello, ends, timeout)
    else:
        _listen(cluster).close()  # So that a taken port is said here.
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
            f"cannot be listened at: {err.strerror}. Choose a free one, stop "
            "what is left of an earlier run, or give each process an `index` "
            "of its own",
        ) from err


def _receive(
    cluster: Cluster, hello: Mapping[str, Any], ends: float, timeout: float
) -> None:
    """Worker 0: waits for all, and answers them."""
    others = range(1, len(cluster.addresses))
    guests: dict[int, socket.socket] = {}
    told: dict[socket.socket, bytes] = {}
    problem = ""
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(_listen(cluster))
        selector = stack.enter_context(selectors.DefaultSelector())
        selector.register(server, selectors.EVENT_READ)
        while len(guests) < len(others) and not problem:
            missing = [
                f"{rank} ({cluster.addresses[rank]})"
                for rank in others
                if rank not in guests
            ]
            left = ends - time.monotonic()
            if left <= 0:
                problem = _nobody(f"worker {', '.join(missing)}", timeout)
                break
            for key, _ in selector.select(left):
                if key.fileobj is server:
                    guest, _ = server.accept()
                    guest.setblocking(False)
                    stack.callback(guest.close)
                    selector.register(guest, selectors.EVENT_READ)
                    told[guest] = b""
                    continue
                guest = cast(socket.socket, key.fileobj)
                here = {g: rank for rank, g in guests.items()}
                if guest in here:
                    # It says nothing more: it gave up, and comes again.
                    selector.unregister(guest)
                    del guests[here[guest]]
                    continue
                if not _listened(guest, told):
                    continue
                found = _hello(told.pop(guest), others)
                if found is None:
                    selector.unregister(guest)  # A scanner, a probe.
                    guest.close()
                    continue
                guests[found["rank"]] = guest
                problem = _difference(hello["facts"], found)
        for guest in guests.values():
            guest.setblocking(True)
            _send(guest, json.dumps({"problem": problem}))
    _raise(problem)


def _listened(guest: socket.socket, told: dict[socket.socket, bytes]) -> bool:
    """Takes what a guest says; whether that is all."""
    try:
        some = guest.recv(4096)
    except OSError:
        some = b""
    told[guest] += some
    return not some or b"\n" in some or len(told[guest]) > _LONGEST


def _hello(line: bytes, others: range) -> dict[str, Any] | None:
    """What a worker said; `None` of anybody else."""
    try:
        found = json.loads(line)
        known = found["rank"] in others and "cluster" in found["facts"]
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    return found if known else None


def _visit(
    cluster: Cluster, hello: Mapping[str, Any], ends: float, timeout: float
) -> None:
    """Another worker: says hello to worker 0 and waits for its answer."""
    host, _, port = cluster.addresses[0].rpartition(":")
    chief, reason = f"worker 0 ({cluster.addresses[0]})", ""
    while True:
        left = ends - time.monotonic()
        if left <= 0:
            raise TimeoutError(_nobody(chief, timeout) + reason)
        try:
            with socket.create_connection(
                (host.strip("[]"), int(port)), timeout=min(left, 10.0)
            ) as connection:
                _send(connection, json.dumps(hello))
                answer = _read(connection, max(ends - time.monotonic(), 0.1))
        except OSError as err:
            answer, reason = None, f" (The last try: {err}.)"
        if answer is not None:
            _raise(str(answer.get("problem", "")))
            return
        time.sleep(0.2)  # It is not there yet, or was started again.


def _read(connection: socket.socket, seconds: float) -> dict[str, Any] | None:
    """Reads a line of JSON; `None` if none comes."""
    ends = time.monotonic() + seconds
    content = b""
    try:
        while not content.endswith(b"\n") and len(content) < _LONGEST:
            connection.settimeout(max(ends - time.monotonic(), 0.001))
            some = connection.recv(4096)
            if not some:
                return None
            content += some
        told = json.loads(content)
    except (OSError, ValueError):
        return None
    return told if isinstance(told, dict) else None


def _send(connection: socket.socket, line: str) -> None:
    try:
        connection.sendall(line.encode() + b"\n")
    except OSError:
        return  # Whoever is gone is missed by the one who waits for it.


def _difference(ours: Mapping[str, Any], found: Mapping[str, Any]) -> str:
    theirs = found["facts"]
    names = [name for name in ours if theirs.get(name) != ours[name]]
    if not names:
        return ""
    return (
        "All workers must have the same "
        f"{', '.join(names)}. Received: {theirs.get(names[0])!r:.200} by "
        f"worker {found['rank']}, {ours[names[0]]!r:.200} by worker 0."
    )


def _nobody(who: str, timeout: float) -> str:
    return (
        f"{who} did not come within {timeout:g} s. Is it started, with the "
        "same `cluster` in its `TF_CONFIG`, and is its port open to the other "
        "machines?"
    )


def _raise(problem: str) -> None:
    if problem:
        late = " did not come within " in problem
        raise (TimeoutError if late else ValueError)(problem)


def _unfit(wanted: str, received: str) -> ValueError:
    return ValueError(f"`TF_CONFIG` {wanted}. Received: {received}")


def addresses_of(cluster: Mapping[str, Sequence[str]]) -> list[str]:
    """Returns the addresses of a cluster by rank: a chief comes first.

    Args:
        cluster: Addresses by kind of task.

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
        cluster: Addresses by kind of task.
        kind: `"chief"` or `"worker"`.
        index: Its number among those of its kind.

    Example:

    >>> rank_of({"worker": ["a:1", "b:1"], "chief": ["c:1"]}, "worker", 1)
    2
    """
    before = len(cluster.get("chief", ())) if kind == "worker" else 0
    return before + index
