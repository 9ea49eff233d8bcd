"""Several processes: what is lost when one dies, and what is done twice."""

import json
import random
import time

import numpy as np
import pytest

from ._starting import (
    PATIENCE,
    Workers,
    config_of,
    free_ports,
    run_python,
    wait_until,
)

LOST = "Another worker has stopped, cannot be reached"


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """What two workers come to when nobody disturbs them."""
    folder = tmp_path_factory.mktemp("undisturbed")
    start(folder).succeed()
    return weights_of(folder, 0)


def start(folder):
    outs = [folder / "0.npz", folder / "1.npz"]
    return Workers(folder, "distribute._worker", [folder / "run", outs])


def weights_of(folder, rank):
    with np.load(folder / f"{rank}.npz") as file:
        return list(file.values())


def assert_same(ones, others, atol):
    for one, other in zip(ones, others, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=atol)


@pytest.mark.slow
def test_workers_come_to_the_same_weights(undisturbed, tmp_path):
    alone = tmp_path / "alone.npz"
    run_python("distribute._worker", tmp_path / "run", alone)
    with np.load(alone) as file:
        assert_same(undisturbed, file.values(), 1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("victim", "moment"),
    [(0, 0), pytest.param(1, 1, marks=pytest.mark.exhaustive)],
    ids=["chief", "worker"],
)
def test_killed_at_any_moment(undisturbed, tmp_path, victim, moment):
    generator = random.Random(f"{victim} {moment}")
    workers = start(tmp_path)
    wait_until(lambda: "begins" in workers.log(0), workers.processes[victim])
    time.sleep(generator.uniform(0, 8))
    workers.kill(victim)
    started = time.monotonic()
    codes = workers.wait()
    assert time.monotonic() - started < PATIENCE / 2
    if codes[1 - victim]:  # It was not at its end already.
        assert LOST in workers.log(1 - victim)
    start(tmp_path).succeed()
    for rank in (0, 1):
        assert_same(weights_of(tmp_path, rank), undisturbed, 1e-6)


@pytest.mark.slow
def test_another_number_of_workers_goes_on(undisturbed, tmp_path):
    workers = start(tmp_path)
    state = tmp_path / "run" / "state.npz"
    wait_until(state.exists, workers.processes[1])
    workers.kill(1)
    started = time.monotonic()
    codes = workers.wait()
    assert time.monotonic() - started < PATIENCE / 2
    if codes[0]:
        assert LOST in workers.log(0)
    out = tmp_path / "alone.npz"
    log = run_python("distribute._worker", tmp_path / "run", out)
    assert "Resuming after phase" in log
    with np.load(out) as file:
        assert_same(undisturbed, file.values(), 1e-5)


@pytest.fixture(scope="module")
def together(tmp_path_factory):
    """What two workers extracted, to a folder and to memory."""
    folder = tmp_path_factory.mktemp("together")
    Workers(folder, "distribute._together", [folder]).succeed()
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("place", ["folder", "memory"])
def test_two_workers_compute_each_example_once(together, place):
    first, second = (
        json.loads((together / f"{place}-{rank}.json").read_text())
        for rank in (0, 1)
    )
    assert first[0] + second[0] == 41
    assert abs(first[0] - second[0]) <= 1
    # And none when they are there.
    assert (first[1], second[1]) == (first[0], second[0])
    ours, theirs = (
        np.load(together / f"{place}-{rank}.npy") for rank in (0, 1)
    )
    np.testing.assert_array_equal(ours, theirs)


MESSAGES = {
    "arguments": [
        # What each worker refuses, and goes on.
        "fails with several workers",
        "`batch_size` must be at least the number of replicas",
        "first batches: ",
        # What ends it.
        "\n  data: ",
        "phases[1].epochs: 2 on worker 1, 1 on worker 0",
        "store: True on worker 1, 'FeatureStore' on worker 0",
        "callbacks: [] on worker 1, ['ModelCheckpoint'] on",
    ],
    "raises": ["its first error message tells the cause"],
}


@pytest.mark.slow
@pytest.mark.parametrize("what", MESSAGES)
def test_what_does_not_fit_ends_in_bounded_time(tmp_path, what):
    workers = Workers(tmp_path, "distribute._unfit", [what, tmp_path])
    started = time.monotonic()
    codes = workers.wait()
    assert time.monotonic() - started < PATIENCE / 2
    assert 0 not in codes
    log = workers.logs[0].read_text()
    for message in MESSAGES[what]:
        assert message in log
    if what == "arguments":  # Before that, all saved in between.
        assert (tmp_path / "0.keras").exists()
        assert (tmp_path / "1.keras").exists()


@pytest.mark.slow
def test_who_waits_for_a_worker_that_lives_gives_up(tmp_path):
    workers = Workers(tmp_path, "distribute._unfit", ["caught"])
    assert workers.processes[1].wait(PATIENCE) != 0
    assert "does something else than this one" in workers.log(1)
    assert workers.processes[0].poll() is None
    workers.kill(0)


def test_a_peer_that_does_not_come_ends_in_bounded_time(tmp_path, monkeypatch):
    monkeypatch.setenv("TF_CONFIG", config_of(1, free_ports(2)))
    with pytest.raises(AssertionError, match=r"worker 0 .* did not connect"):
        run_python("distribute._unfit", "peer")


def test_too_late_is_said(monkeypatch):
    monkeypatch.setenv("TF_CONFIG", config_of(1, free_ports(2)))
    with pytest.raises(AssertionError, match="must come before anything"):
        run_python("distribute._unfit", "late")
