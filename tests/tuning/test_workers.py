"""Several processes search together; one that dies loses nothing."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from training._tiny import make_model

from keras_transfer.tuning import search
from keras_transfer.tuning.journal import replay
from keras_transfer.tuning.workers import Leases, await_chief, role

from .test_resume import end, make_oracle, placed, watched

NAMES = ("TUNER_ID", "ORACLE_IP", "ORACLE_PORT")


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def start(folder, name, port):
    values = (name, "127.0.0.1", str(port))
    variables = {
        f"KERASTUNER_{k}": v for k, v in zip(NAMES, values, strict=True)
    }
    return subprocess.Popen(
        [sys.executable, "-m", "tuning._workers", str(folder)],
        cwd=Path(__file__).parents[1],
        env={
            **os.environ,
            **(variables if port else {}),
            "TF_CPP_MIN_LOG_LEVEL": "3",
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def answer(process):
    out, error = process.communicate(timeout=400)
    assert process.returncode == 0, error[-3000:]
    return json.loads(out.splitlines()[-1])


@pytest.mark.slow
def test_a_chief_and_two_workers_one_of_which_dies(tmp_path):
    (tmp_path / "alone").mkdir()
    (tmp_path / "three").mkdir()
    alone = answer(start(tmp_path / "alone", "alone", None))

    folder, port = tmp_path / "three", free_port()
    chief, one, two = (
        start(folder, name, port) for name in ("chief", "one", "two")
    )
    end_time = time.monotonic() + 300
    log = folder / "one.log"
    while not log.exists() or not log.read_text():
        assert time.monotonic() < end_time, two.stderr.read()[-3000:]
        assert chief.poll() is None, chief.stderr.read()[-3000:]
        time.sleep(0.01)
    one.send_signal(signal.SIGKILL)
    found = answer(two)
    assert answer(chief) == found == alone
    assert found["rows"] == 12
    assert found["status"] == ["completed"]
    one.communicate()

    lines = (folder / "search" / "journal.jsonl").read_text().splitlines()
    events = [json.loads(line) for line in lines]
    assert any(event["event"] == "lost" for event in events)
    ended = [e["trial"] for e in events if e["event"] == "end"]
    assert len(ended) == len(set(ended)) == 12


def test_a_trial_goes_from_the_dead_to_the_living(tmp_path):
    oracle, journal = watched(tmp_path)
    oracle.max_trials = 2
    Leases(oracle, journal, lost=0.2)
    dead, mine = (oracle.create_trial(name) for name in ("dead", "mine"))
    end(oracle, mine)
    # Nobody may leave as long as another one can die.
    assert oracle.create_trial("mine").status == "IDLE"
    time.sleep(0.3)
    taken = oracle.create_trial("mine")
    assert taken.trial_id == dead.trial_id
    end(oracle, taken)
    end(oracle, dead)  # It lived after all: its news come too late.
    assert oracle.create_trial("mine").status == "STOPPED"
    assert len(oracle.end_order) == 2

    again = placed(make_oracle(), tmp_path / "b")
    again.max_trials = 2
    replay(again, journal)
    assert again.end_order == oracle.end_order
    assert not again.ongoing_trials
    assert not again._retry_queue


def test_a_worker_that_was_only_slow_ends_its_trial_once(tmp_path):
    oracle, journal = watched(tmp_path)
    leases = Leases(oracle, journal, lost=0.1)
    slow = oracle.create_trial("slow")
    time.sleep(0.2)
    leases.expire()
    assert oracle._retry_queue == [slow.trial_id]
    end(oracle, slow)
    assert oracle._retry_queue == []
    assert oracle.end_order == [slow.trial_id]

    again = placed(make_oracle(), tmp_path / "b")
    replay(again, journal)
    assert again._retry_queue == []
    assert again.end_order == [slow.trial_id]


def test_who_asks_for_its_trial_keeps_it(tmp_path):
    oracle, journal = watched(tmp_path)
    leases = Leases(oracle, journal, lost=0.4)
    trial = oracle.create_trial("one")
    for _ in range(4):
        time.sleep(0.2)
        oracle.get_trial(trial.trial_id)
        leases.expire()
    assert list(oracle.ongoing_trials) == ["one"]
    time.sleep(0.5)
    leases.expire()
    assert not oracle.ongoing_trials


def test_a_trial_that_kills_its_workers_fails(tmp_path):
    oracle, journal = watched(tmp_path)
    leases = Leases(oracle, journal, lost=0.05)
    first = oracle.create_trial("worker0")
    for number in (1, 2):
        time.sleep(0.1)
        leases.expire()
        again = oracle.create_trial(f"worker{number}")
        assert again.trial_id == first.trial_id
    time.sleep(0.1)
    leases.expire()
    assert oracle.end_order == [first.trial_id]
    assert oracle.trials[first.trial_id].status == "FAILED"
    assert "3 workers died" in oracle.trials[first.trial_id].message
    assert oracle.create_trial("worker3").trial_id != first.trial_id

    again = placed(make_oracle(), tmp_path / "b")
    replay(again, journal)
    assert again.end_order == [first.trial_id]


def test_roles(monkeypatch):
    for name in NAMES:
        monkeypatch.delenv(f"KERASTUNER_{name}", raising=False)
    assert role() == ""
    monkeypatch.setenv("KERASTUNER_TUNER_ID", "worker1")
    with pytest.raises(ValueError, match="no KERASTUNER_ORACLE_IP"):
        role()
    monkeypatch.setenv("KERASTUNER_ORACLE_IP", "127.0.0.1")
    monkeypatch.setenv("KERASTUNER_ORACLE_PORT", "8000")
    assert role() == "worker"
    with pytest.raises(ValueError, match="must be a folder that all"):
        search(make_model(), None)
    monkeypatch.setenv("KERASTUNER_TUNER_ID", "chief")
    assert role() == "chief"


def test_a_chief_that_is_not_there_is_not_waited_for_for_ever(monkeypatch):
    for name, value in zip(
        NAMES, ("one", "127.0.0.1", str(free_port())), strict=True
    ):
        monkeypatch.setenv(f"KERASTUNER_{name}", value)
    with pytest.raises(ConnectionError, match="KERASTUNER_TUNER_ID=chief"):
        await_chief(0.1)


def test_a_worker_waits_for_a_chief_that_is_late(monkeypatch):
    port = free_port()
    for name, value in zip(NAMES, ("one", "127.0.0.1", str(port)), strict=True):
        monkeypatch.setenv(f"KERASTUNER_{name}", value)
    with socket.socket() as late:
        timer = threading.Timer(
            0.7, lambda: (late.bind(("127.0.0.1", port)), late.listen())
        )
        timer.start()
        started = time.monotonic()
        await_chief(60)
        timer.join()
    assert time.monotonic() - started > 0.5
