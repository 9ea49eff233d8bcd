"""Journal of a search: events in order, replayed to resume it.

    run.json        the manifest; a different search raises
    journal.jsonl   each trial that started or ended, in order

An oracle of Keras-Tuner writes several files one after the other, and a process
that is killed between them loses a trial. The journal is authoritative: a line
is complete or absent, and a new oracle with the same seed that receives the
same events reaches the same state. Where it would now choose other values (a
Gaussian process may on another kind of processor), those of the journal are
used.
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
        path: File of the journal; it is created with the first event.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def write(self, event: Event) -> None:
        """Appends an event; it is on disk when this returns.

        Args:
            event: Plain values.
        """
        line = json.dumps(event, sort_keys=True) + "\n"
        with open(self._path, "a", encoding="utf-8") as file:
            file.write(line)
            file.flush()
            os.fsync(file.fileno())

    def read(self) -> Iterator[Event]:
        """Yields the events; an incomplete last line is removed.

        Raises:
            ValueError: If a complete line is not an event.
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
                    f"line {number + 1}, which is not one. Choose another "
                    "`directory`."
                ) from err
            yield event


def watch(oracle: Any, journal: Journal) -> None:
    """Makes an oracle record its events in a journal.

    Its methods are replaced on the object: a user's oracle may be of any class,
    and the server of a chief calls them, too.

    Args:
        oracle: A `keras_tuner.Oracle`, with the state that `replay` gave it.
        journal: Journal to write to.
    """
    create, update, end = (
        oracle.create_trial,
        oracle.update_trial,
        oracle.end_trial,
    )
    reports: dict[str, list[list[Any]]] = {}
    # Tuners that asked and got no trial since the last event: that also changes
    # the next choice of an oracle.
    polls: list[list[Any]] = []

    def write(event: Event) -> None:
        if polls:
            journal.write({"event": "polls", "polls": polls})
            polls.clear()
        journal.write(event)

    def create_trial(tuner_id: str) -> Any:
        ongoing = oracle.ongoing_trials.get(tuner_id)
        trial = create(tuner_id)
        if trial.status != "RUNNING":
            if polls and polls[-1][0] == tuner_id:
                polls[-1][1] += 1
            else:
                polls.append([tuner_id, 1])
        elif ongoing is None:
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
            # Written with the end: an interrupted trial reports again.
            "reports": reports.pop(trial.trial_id, []),
        }
        space = trial.hyperparameters.get_config()
        if len(space["space"]) > len(oracle.get_space().space):
            event["space"] = space  # The user's function declared more.
        try:
            end(trial)
        finally:
            # `end` raises after too many failures, once they are counted.
            write(event)

    oracle.create_trial = create_trial
    oracle.update_trial = update_trial
    oracle.end_trial = end_trial


def replay(oracle: Any, journal: Journal) -> None:
    """Replays the events of a journal to a new oracle.

    Trials that started and did not end are run again.

    Args:
        oracle: A `keras_tuner.Oracle`, new.
        journal: Journal of the search.

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
    """Queues the trial of a dead worker for another one.

    Args:
        oracle: The oracle.
        tuner_id: The worker.
    """
    trial = oracle.ongoing_trials.pop(tuner_id)
    oracle._retry_queue.append(trial.trial_id)


def forget_retry(oracle: Any, trial_id: str) -> None:
    """Removes a trial that ended after all from the queue of retries.

    Args:
        oracle: The oracle.
        trial_id: The trial, which may have been taken back.
    """
    if trial_id in oracle._retry_queue:
        oracle._retry_queue.remove(trial_id)


def _begin(oracle: Any, event: Event) -> None:
    """Starts a trial again, with its earlier values."""
    before = event["trial"]
    if oracle.max_trials and before.isdigit():
        if int(before) >= oracle.max_trials:
            raise ValueError(
                "`max_trials` must not be less than before. Received: "
                f"max_trials={oracle.max_trials}, where `directory` holds "
                f"trial {before}."
            )
        if len(before) != len(str(oracle.max_trials)):
            raise ValueError(
                "`max_trials` must have as many digits as before, since trials "
                "are numbered by it. Received: max_trials="
                f"{oracle.max_trials}, where "
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
    """Queues unfinished trials again, as Keras-Tuner does."""
    lost = [trial.trial_id for trial in oracle.ongoing_trials.values()]
    oracle.ongoing_trials.clear()
    # The queue is a stack, and the first trial should come first again.
    oracle._retry_queue.extend(reversed(lost))
