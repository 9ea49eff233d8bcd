"""What happened in a search, line by line, so that it can happen again.

    run.json        what was asked for; another search is refused
    journal.jsonl   each trial that began or ended, in order

An oracle of Keras-Tuner writes its own files one after the other, and a process
that dies between them leaves a search that lost a trial. The journal is the
truth: a line is there or not, and an oracle that starts anew with the same seed
and hears the same news comes to the same state. Where it would now choose other
values (a Gaussian process does on another kind of processor), those of the
journal count.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

Event = dict[str, Any]


class Journal:
    """A file of events, one line of JSON each.

    Args:
        path: The file; it is made with the first event.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def write(self, event: Event) -> None:
        """Adds an event, on the disk when this returns.

        Args:
            event: Plain values.
        """
        line = json.dumps(event, sort_keys=True) + "\n"
        with open(self._path, "a", encoding="utf-8") as file:
            file.write(line)
            file.flush()
            os.fsync(file.fileno())

    def read(self) -> Iterator[Event]:
        """Yields the events; a line cut short is removed, with what follows.

        Raises:
            ValueError: If a whole line is no event.
        """
        if not self._path.exists():
            return
        content = self._path.read_bytes()
        whole, _, rest = content.rpartition(b"\n")
        if rest:
            with open(self._path, "r+b") as file:
                file.truncate(len(content) - len(rest))
        for number, line in enumerate(whole.splitlines()):
            try:
                event = json.loads(line)
            except ValueError as err:
                raise ValueError(
                    f"{self._path} must hold the events of a search. Received: "
                    f"line {number + 1} that is none. Choose another "
                    "`directory`."
                ) from err
            yield event


def watch(oracle: Any, journal: Journal) -> None:
    """Lets an oracle write down what it hears, whoever tells it.

    Its methods are replaced on the object: a user's own oracle may be of any
    class, and the server of a chief calls them, too.

    Args:
        oracle: A `keras_tuner.Oracle`, with the state that `replay` gave it.
        journal: Where to.
    """
    create, update, end = (
        oracle.create_trial,
        oracle.update_trial,
        oracle.end_trial,
    )
    reports: dict[str, list[list[Any]]] = {}
    # Who asked in vain since the last event: that too changes what an oracle
    # chooses next.
    polls: list[list[Any]] = []

    def write(event: Event) -> None:
        if polls:
            journal.write({"event": "polls", "polls": polls})
            polls.clear()
        journal.write(event)

    def create_trial(tuner_id: str) -> Any:
        known = oracle.ongoing_trials.get(tuner_id)
        trial = create(tuner_id)
        if trial.status != "RUNNING":
            if polls and polls[-1][0] == tuner_id:
                polls[-1][1] += 1
            else:
                polls.append([tuner_id, 1])
        elif known is None:
            write(
                {
                    "event": "begin",
                    "tuner": tuner_id,
                    "trial": trial.trial_id,
                    "values": trial.hyperparameters.values,
                }
            )
        return trial

    def update_trial(
        trial_id: str, metrics: Mapping[str, float], step: int = 0
    ) -> Any:
        trial = update(trial_id, metrics, step=step)
        numbers = {name: float(value) for name, value in metrics.items()}
        reports.setdefault(trial_id, []).append([numbers, step])
        return trial

    def end_trial(trial: Any) -> None:
        event = {
            "event": "end",
            "trial": trial.trial_id,
            "status": str(trial.status),
            "message": trial.message,
            # With the end: a trial that died in between reports anew.
            "reports": reports.pop(trial.trial_id, []),
        }
        space = trial.hyperparameters.get_config()
        if len(space["space"]) > len(oracle.get_space().space):
            event["space"] = space  # A function of the user's said more.
        try:
            end(trial)
        finally:
            # Too many failures raise after they are counted.
            write(event)

    oracle.create_trial = create_trial
    oracle.update_trial = update_trial
    oracle.end_trial = end_trial


def replay(oracle: Any, journal: Journal) -> None:
    """Tells a new oracle what happened before.

    Trials that began and did not end are tried again.

    Args:
        oracle: A `keras_tuner.Oracle`, new.
        journal: What happened.

    Raises:
        ValueError: If the oracle asks for other trials than it did.
    """
    for event in journal.read():
        if event["event"] == "begin":
            _begin(oracle, event)
        elif event["event"] == "polls":
            for tuner, times in event["polls"]:
                for _ in range(times):
                    oracle.create_trial(tuner)
        elif event["event"] == "end":
            trial = oracle.trials[event["trial"]]
            forget_retry(oracle, trial.trial_id)
            for metrics, step in event["reports"]:
                oracle.update_trial(trial.trial_id, metrics, step=step)
            if "space" in event:
                kind = type(trial.hyperparameters)
                trial.hyperparameters = kind.from_config(event["space"])
            trial.status, trial.message = event["status"], event["message"]
            oracle.end_trial(trial)
        elif event["event"] == "lost":
            take_back(oracle, event["tuner"])
        else:
            _try_again(oracle)
    if oracle.ongoing_trials:
        journal.write({"event": "restart"})
        _try_again(oracle)


def take_back(oracle: Any, tuner_id: str) -> None:
    """Lets another worker have the trial of one that died.

    Args:
        oracle: The oracle.
        tuner_id: The worker.
    """
    trial = oracle.ongoing_trials.pop(tuner_id)
    oracle._retry_queue.append(trial.trial_id)


def forget_retry(oracle: Any, trial_id: str) -> None:
    """Lets no other worker have a trial that ended after all.

    Args:
        oracle: The oracle.
        trial_id: The trial, which may have been taken back.
    """
    if trial_id in oracle._retry_queue:
        oracle._retry_queue.remove(trial_id)


def _begin(oracle: Any, event: Event) -> None:
    """Begins a trial that began before, with the values that it had."""
    before = event["trial"]
    if oracle.max_trials and before.isdigit():
        if int(before) >= oracle.max_trials:
            raise ValueError(
                "`trials` must not be less than before. Received: "
                f"trials={oracle.max_trials}, where `directory` holds trial "
                f"{before}."
            )
        if len(before) != len(str(oracle.max_trials)):
            raise ValueError(
                "`max_trials` must have as many digits as before, since trials are "
                f"numbered by it. Received: trials={oracle.max_trials}, where "
                f"`directory` holds trial {before!r}."
            )
    trial = oracle.create_trial(event["tuner"])
    values = trial.hyperparameters.values
    if trial.trial_id != before or values.keys() != event["values"].keys():
        raise ValueError(
            "`directory` must hold a search with this oracle. Received: one "
            f"whose trial {before} was {event['values']}, where this one asks "
            f"for trial {trial.trial_id} with {values}. Choose another "
            "directory."
        )
    if values != event["values"]:
        trial.hyperparameters.values = dict(event["values"])
        oracle._record_values(trial)


def _try_again(oracle: Any) -> None:
    """Puts what began and did not end back, as Keras-Tuner does."""
    lost = [trial.trial_id for trial in oracle.ongoing_trials.values()]
    oracle.ongoing_trials.clear()
    # The queue is a stack; the first one to begin shall be the first again.
    oracle._retry_queue.extend(reversed(lost))
