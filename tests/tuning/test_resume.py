"""A search that was killed ends with the table of one in peace."""

import json
import os
import subprocess
import sys
from pathlib import Path

import keras_tuner
import pytest

from keras_transfer.tuning.journal import Journal, replay, watch
from keras_transfer.tuning.workers import Leases


def kill_searches(tmp_path, kills, seed):
    result = subprocess.run(
        [
            sys.executable,
            *("-m", "tuning._killed"),
            *(str(tmp_path), str(kills), str(seed)),
        ],
        cwd=Path(__file__).parents[1],
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    return [json.loads(line) for line in result.stdout.splitlines()]


def check(found):
    for killed in found:
        assert killed["same_trials"], killed
        assert killed["difference"] <= 1e-5, killed
        # What was finished is not done again.
        left = killed["left"] * killed["epochs"] / 6
        assert killed["again"] <= killed["epochs"] - left + 3, killed


@pytest.mark.parametrize(
    "kills", [3, pytest.param(10, marks=pytest.mark.exhaustive)]
)
def test_killed_at_any_moment(tmp_path, kills):
    found = kill_searches(tmp_path, kills, seed=0)
    assert len(found) == kills
    assert len({killed["left"] for killed in found}) > 2
    check(found)


def make_oracle():
    hp = keras_tuner.HyperParameters()
    hp.Float("rate", 1e-4, 1.0, sampling="log")
    hp.Choice("depth", [0, 1, 2])
    return keras_tuner.oracles.BayesianOptimizationOracle(
        objective=keras_tuner.Objective("score", "max"),
        max_trials=9,
        hyperparameters=hp,
        seed=3,
    )


def placed(oracle, folder):
    oracle._set_project_dir(str(folder), "project")
    oracle.verbose = 0
    return oracle


def step(oracle, tuner="tuner0"):
    """Begins and ends a trial; returns its values."""
    trial = oracle.create_trial(tuner)
    if trial.status != "RUNNING":
        return None
    end(oracle, trial)
    return trial.trial_id, dict(trial.hyperparameters.values)


def end(oracle, trial):
    values = trial.hyperparameters.values
    score = values["depth"] - abs(values["rate"] - 0.1)
    oracle.update_trial(trial.trial_id, {"score": score})
    trial.status = "COMPLETED"
    oracle.end_trial(trial)


def watched(tmp_path, oracle=None):
    """An oracle that writes down what it hears, and its journal."""
    journal = Journal(tmp_path / "journal.jsonl")
    oracle = placed(oracle or make_oracle(), tmp_path / "a")
    watch(oracle, journal)
    return oracle, journal


def assert_replays(oracle, journal, again):
    """Another oracle comes to the same trials, in the same order."""
    replay(again, journal)
    assert again.end_order == oracle.end_order
    for name, trial in oracle.trials.items():
        values = again.trials[name].hyperparameters.values
        assert values == trial.hyperparameters.values


def steps(oracle):
    return list(iter(lambda: step(oracle), None))


def test_an_oracle_that_hears_the_same_asks_for_the_same(tmp_path):
    peace = steps(placed(make_oracle(), tmp_path / "peace"))
    assert len(peace) == 9
    found = []
    for number in range(4):  # Four processes, each of which dies in a trial.
        oracle = placed(make_oracle(), tmp_path / str(number))
        journal = Journal(tmp_path / "journal.jsonl")
        replay(oracle, journal)
        watch(oracle, journal)
        found += [step(oracle) for _ in range(2)]
        oracle.create_trial("tuner0")
    oracle = placed(make_oracle(), tmp_path / "last")
    replay(oracle, journal)
    watch(oracle, journal)
    found += steps(oracle)
    assert found == peace


def test_two_workers_and_a_restart(tmp_path):
    oracle, journal = watched(tmp_path)
    one, two = (oracle.create_trial(name) for name in ("one", "two"))
    end(oracle, two)
    three = oracle.create_trial("two")
    known = {t.trial_id: t.hyperparameters.values for t in (one, two, three)}

    again = placed(make_oracle(), tmp_path / "b")
    replay(again, journal)
    watch(again, journal)
    first, second = (again.create_trial(name) for name in ("two", "one"))
    assert [first.trial_id, second.trial_id] == [one.trial_id, three.trial_id]
    for trial in (first, second):
        assert trial.hyperparameters.values == known[trial.trial_id]
        end(again, trial)

    last = placed(make_oracle(), tmp_path / "c")
    replay(last, journal)
    assert len(last.trials) == 3
    assert not last.ongoing_trials
    assert all(t.status == "COMPLETED" for t in last.trials.values())


def test_a_line_cut_short_never_happened(tmp_path):
    journal = Journal(tmp_path / "journal.jsonl")
    journal.write({"event": "restart"})
    whole = (tmp_path / "journal.jsonl").read_bytes()
    with open(tmp_path / "journal.jsonl", "ab") as file:
        file.write(b'{"event": "be')
    assert list(journal.read()) == [{"event": "restart"}]
    assert (tmp_path / "journal.jsonl").read_bytes() == whole
    with open(tmp_path / "journal.jsonl", "ab") as file:
        file.write(b"nonsense\n")
    with pytest.raises(ValueError, match="line 2, which is not one"):
        list(journal.read())


def test_another_oracle_is_refused(tmp_path):
    oracle, journal = watched(tmp_path)
    step(oracle)
    hp = keras_tuner.HyperParameters()
    hp.Float("momentum", 0.0, 1.0)
    other = keras_tuner.oracles.RandomSearchOracle(
        objective=keras_tuner.Objective("score", "max"),
        max_trials=9,
        hyperparameters=hp,
        seed=9,
    )
    with pytest.raises(ValueError, match="a search with this oracle"):
        replay(placed(other, tmp_path / "b"), journal)


def test_fewer_trials_than_there_are_say_so(tmp_path):
    oracle, journal = watched(tmp_path)
    for _ in range(4):
        step(oracle)
    fewer = placed(make_oracle(), tmp_path / "b")
    fewer.max_trials = 3
    with pytest.raises(ValueError, match="must not be less than before"):
        replay(fewer, journal)


def test_values_that_the_oracle_would_not_choose_now_stand(tmp_path):
    """As when a Gaussian process is fitted by another library."""
    path = tmp_path / "journal.jsonl"
    oracle, journal = watched(tmp_path)
    while step(oracle):
        if len(oracle.trials) == 6:
            break
    lines = path.read_text().splitlines()
    for place, line in enumerate(lines):
        event = json.loads(line)
        if event["event"] == "begin" and event["trial"] == "5":
            event["values"]["rate"] *= 1 + 1e-9
            lines[place] = json.dumps(event)
            value = event["values"]["rate"]
    path.write_text("\n".join(lines) + "\n")
    again = placed(make_oracle(), tmp_path / "b")
    replay(again, journal)
    assert again.trials["5"].hyperparameters.values["rate"] == value
    assert step(again)


@pytest.mark.parametrize("kind", ["random", "hyperband"])
def test_who_asked_in_vain_is_remembered(tmp_path, kind):
    """An oracle draws from its seed also for those who get nothing."""

    def make():
        hp = keras_tuner.HyperParameters()
        hp.Choice("rate", list(range(14)))
        arguments = {
            "objective": keras_tuner.Objective("score", "max"),
            "hyperparameters": hp,
            "seed": 3,
        }
        if kind == "random":
            return keras_tuner.oracles.RandomSearchOracle(
                max_trials=30, **arguments
            )
        return keras_tuner.oracles.HyperbandOracle(
            max_epochs=4, factor=2, **arguments
        )

    oracle, journal = watched(tmp_path, make())
    Leases(oracle, journal)
    while True:
        mine = oracle.create_trial("one")
        other = oracle.create_trial("two")
        for trial in (other, mine):
            if trial.status == "RUNNING":
                oracle.update_trial(
                    trial.trial_id,
                    {"score": trial.hyperparameters.values["rate"]},
                )
                trial.status = "COMPLETED"
                oracle.end_trial(trial)
        if mine.status == "STOPPED":
            break
    assert len(oracle.end_order) > 8
    assert_replays(oracle, journal, placed(make(), tmp_path / "b"))


def test_what_a_function_says_later_is_remembered(tmp_path):
    """`for i in range(hp.Int("n", 1, 3)): hp.Choice(f"u{i}", ...)`."""

    def grow(trial):
        hp = trial.hyperparameters
        for number in range(hp.Int("n", 1, 3)):
            hp.Choice(f"units{number}", [4, 8])

    def make():
        hp = keras_tuner.HyperParameters()
        hp.Int("n", 1, 3)
        return keras_tuner.oracles.RandomSearchOracle(
            objective=keras_tuner.Objective("score", "max"),
            max_trials=8,
            hyperparameters=hp,
            seed=2,
        )

    oracle, journal = watched(tmp_path, make())
    while (trial := oracle.create_trial("tuner0")).status == "RUNNING":
        grow(trial)
        oracle.update_trial(trial.trial_id, {"score": 1.0})
        trial.status = "COMPLETED"
        oracle.end_trial(trial)
    assert len(oracle.get_space().space) == 4
    assert_replays(oracle, journal, placed(make(), tmp_path / "b"))
