"""Workers find each other, or say who is missing and what is wrong."""

import json
import socket
import threading
import time

import pytest

from keras_transfer.distribute import rendezvous
from keras_transfer.distribute.rendezvous import Cluster, meet, read_cluster

from ._starting import config_of, free_ports


def config(cluster=None, task=None, **others):
    return json.dumps(
        {
            "cluster": cluster or {"worker": ["a:1", "b:2"]},
            "task": task or {"type": "worker", "index": 0},
            **others,
        }
    )


def test_ranks_are_those_of_tensorflow():
    assert read_cluster(config_of(1, [5, 6])) == (
        ["127.0.0.1:5", "127.0.0.1:6"], 1,
    )  # fmt: skip
    chief = {"worker": ["a:1", "b:2"], "chief": ["c:3"]}
    with_chief = config(chief, {"type": "worker", "index": "1"})
    assert read_cluster(with_chief) == (["c:3", "a:1", "b:2"], 2)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "must be JSON"),
        ("[]", "must be JSON"),
        ('{"cluster": {"worker": ["a:1"]}}', "must be JSON with `cluster`"),
        (config({"worker": ["a:1"], "ps": ["b:2"]}), "only workers"),
        (config({"worker": "a:1"}), "must list addresses"),
        (config({"worker": []}), "must list addresses"),
        (config({"worker": ["a", "b:1"]}), 'addresses "host:port"'),
        (config({"worker": ["a:1", "b:99999"]}), 'addresses "host:port"'),
        (config({"worker": ["a:1", "a:1"]}), "different address for each"),
        (config({"chief": ["a:1", "b:1"]}), "at most one chief"),
        (config(task={"type": "chief", "index": 0}), "is in the `cluster`"),
        (config(task={"type": "worker", "index": 2}), "from 0 to 1"),
        (config(task={"type": "worker", "index": None}), "from 0 to 1"),
    ],
)
def test_a_wrong_tf_config_says_what_is_wrong(text, message):
    with pytest.raises(ValueError, match="`TF_CONFIG`") as caught:
        read_cluster(text)
    assert message in str(caught.value)


def meet_all(facts, timeout=60.0):
    """What `meet` raises for each of some workers."""
    addresses = [f"127.0.0.1:{port}" for port in free_ports(len(facts))]
    found = {}

    def run(rank):
        try:
            meet(Cluster(addresses, rank), facts[rank], timeout)
            found[rank] = None
        except Exception as err:
            found[rank] = err

    threads = [threading.Thread(target=run, args=(rank,)) for rank in facts]
    for thread in reversed(threads):
        thread.start()
        time.sleep(0.3)  # The first one comes last.
    for thread in threads:
        thread.join(90)
    return [found[rank] for rank in facts]


def test_workers_meet_in_any_order():
    assert meet_all({0: {"a": 1}, 1: {"a": 1}, 2: {"a": 1}}) == [None] * 3


def test_workers_that_were_told_different_things_all_say_so():
    for error in meet_all({0: {"TensorFlow": "1"}, 1: {"TensorFlow": "2"}}):
        assert isinstance(error, ValueError)
        assert "the same TensorFlow. Received: '2' by worker 1" in str(error)


@pytest.mark.parametrize("rank", [0, 1])
def test_a_worker_that_does_not_come_is_named(rank):
    addresses = [f"127.0.0.1:{port}" for port in free_ports(2)]
    started = time.monotonic()
    with pytest.raises(TimeoutError) as caught:
        meet(Cluster(addresses, rank), {}, 1.0)
    assert f"worker {1 - rank} ({addresses[1 - rank]})" in str(caught.value)
    assert "did not connect within 1 s" in str(caught.value)
    assert time.monotonic() - started < 60


def test_a_third_worker_that_is_missing_is_missed_by_all():
    addresses = [f"127.0.0.1:{port}" for port in free_ports(3)]
    found = {}

    def run(rank):
        try:
            # The first one gives up before the others do.
            meet(Cluster(addresses, rank), {}, 60.0 if rank else 2.0)
        except TimeoutError as err:
            found[rank] = str(err)

    threads = [threading.Thread(target=run, args=(r,)) for r in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(90)
    assert f"worker 2 ({addresses[2]})" in found[0]
    assert set(found) == {0, 1}


def test_strangers_are_not_taken_for_workers():
    addresses = [f"127.0.0.1:{port}" for port in free_ports(2)]
    errors = []

    def chief():
        try:
            meet(Cluster(addresses, 0), {}, 20.0)
        except Exception as err:
            errors.append(err)

    thread = threading.Thread(target=chief)
    thread.start()
    host, port = addresses[0].split(":")
    for words in (b"GET / HTTP/1.1\r\n\r\n\n", b'{"rank": 7}\n', b"[1]\n", b""):
        for _ in range(50):
            try:
                with socket.create_connection((host, int(port))) as stranger:
                    stranger.sendall(words)
                break
            except OSError:
                time.sleep(0.1)
    meet(Cluster(addresses, 1), {}, 20.0)
    thread.join(90)
    assert not errors


def test_a_taken_port_is_named():
    with socket.create_server(("", 0)) as taken:
        port = taken.getsockname()[1]
        cluster = Cluster([f"127.0.0.1:{port}", "127.0.0.1:1"], 0)
        with pytest.raises(OSError, match=f"port {port}.*worker 0"):
            rendezvous.meet(cluster, {}, 1.0)
