"""A search by several processes: Keras-Tuner's chief and workers.

Keras-Tuner reads three environment variables:

    KERASTUNER_TUNER_ID     "chief", or a name for each worker
    KERASTUNER_ORACLE_IP    address of the chief
    KERASTUNER_ORACLE_PORT  port of the chief

The chief hands out trials and trains nothing. Keras-Tuner waits forever for a
dead worker; here a worker that is silent for a minute loses its trial to the
next one that asks.
"""

from __future__ import annotations

import collections
import contextlib
import functools
import os
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

from keras_transfer.tuning.journal import Journal, forget_retry, take_back

# Seconds between heartbeats, and of silence after which a worker is dead.
_BEAT_SECONDS, _LOST_SECONDS = 5.0, 60.0


# Seconds that a worker waits for the chief to start or restart.
_PATIENCE_SECONDS = 600.0


# Workers that may die in one trial before it counts as failed.
_MAX_DEATHS = 3


_VARIABLES = (
    "KERASTUNER_TUNER_ID",
    "KERASTUNER_ORACLE_IP",
    "KERASTUNER_ORACLE_PORT",
)


def role() -> str:
    """Returns `"chief"`, `"worker"`, or `""` for a single process.

    Raises:
        ValueError: If only some of the three variables are set.
    """
    missing = [name for name in _VARIABLES if not os.environ.get(name)]
    if len(missing) == len(_VARIABLES):
        return ""
    if missing:
        raise ValueError(
            f"The environment must have all of {', '.join(_VARIABLES)} for a "
            "search by several processes, or none. Received: no "
            f"{', '.join(missing)}."
        )
    # The rule of Keras-Tuner.
    return "chief" if "chief" in os.environ[_VARIABLES[0]] else "worker"


def await_chief(seconds: float | None = None) -> None:
    """Waits until the chief listens, and so holds the directory.

    Args:
        seconds: Longest wait. Defaults to `None`, ten minutes.

    Raises:
        ConnectionError: If the chief does not listen by then.
    """
    seconds = _PATIENCE_SECONDS if seconds is None else seconds
    host, port = (os.environ[name] for name in _VARIABLES[1:])
    until = time.monotonic() + seconds
    while True:
        try:
            socket.create_connection((host, int(port)), timeout=5.0).close()
        except OSError as err:
            if time.monotonic() > until:
                raise ConnectionError(
                    f"The chief must listen at {host}:{port} (KERASTUNER_"
                    f"ORACLE_IP and _PORT). Received: {err}, for "
                    f"{seconds:.0f} s. Start the same search with "
                    "KERASTUNER_TUNER_ID=chief there; it resumes."
                ) from err
            time.sleep(0.5)
        else:
            return


class Leases:
    """Takes trials back from dead workers; used by the chief.

    Args:
        oracle: The oracle, whose methods are replaced on the object.
        journal: Journal of the search.
        lost: Seconds of silence after which a worker is dead. Defaults to
            `None`, a minute.
    """

    def __init__(
        self, oracle: Any, journal: Journal, lost: float | None = None
    ) -> None:
        self._oracle = oracle
        self._journal = journal
        self._lost = _LOST_SECONDS if lost is None else lost
        self._seen: dict[str, float] = {}
        self._lock = threading.RLock()
        self._died: Counter[str] = collections.Counter()
        self._create, self._end = oracle.create_trial, oracle.end_trial
        self._get = oracle.get_trial
        oracle.create_trial, oracle.end_trial = (
            self.create_trial,
            self.end_trial,
        )
        oracle.get_trial = self.get_trial
        # An error raised in a call of the server would leave the oracle locked.
        oracle.max_consecutive_failed_trials = None

    def create_trial(self, tuner_id: str) -> Any:
        """Gives a worker its current trial, or a new one.

        Args:
            tuner_id: The worker.
        """
        with self._lock:
            self._seen[tuner_id] = time.monotonic()
            self.expire()
            trial = self._create(tuner_id)
            if trial.status == "STOPPED" and self._oracle.ongoing_trials:
                # Another worker may still die and leave a trial to this one.
                trial.status = "IDLE"
                self._oracle.tuner_ids.add(tuner_id)
            return trial

    def get_trial(self, trial_id: str) -> Any:
        """Returns a trial; a worker that asks for its own trial is alive.

        Args:
            trial_id: Its id.
        """
        with self._lock:
            for tuner, trial in self._oracle.ongoing_trials.items():
                if trial.trial_id == trial_id:
                    self._seen[tuner] = time.monotonic()
            return self._get(trial_id)

    def end_trial(self, trial: Any) -> None:
        """Ends a trial, unless another worker took it over and ended it.

        Args:
            trial: The trial.
        """
        with self._lock:
            if trial.trial_id in self._oracle.end_order:
                return
            forget_retry(self._oracle, trial.trial_id)
            self._end(trial)

    def expire(self) -> None:
        """Takes trials back from silent workers."""
        with self._lock:
            now = time.monotonic()
            for tuner in list(self._oracle.tuner_ids):
                seen = self._seen.setdefault(tuner, now)
                if now - seen <= self._lost:
                    continue
                self._oracle.tuner_ids.discard(tuner)
                trial = self._oracle.ongoing_trials.get(tuner)
                if trial is None:
                    continue
                self._died[trial.trial_id] += 1
                if self._died[trial.trial_id] < _MAX_DEATHS:
                    take_back(self._oracle, tuner)
                    self._journal.write({"event": "lost", "tuner": tuner})
                    continue
                trial.status = "FAILED"
                trial.message = f"{_MAX_DEATHS} workers died in this trial"
                self._end(trial)

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Checks for dead workers even if no other worker asks."""
        with _every(min(_BEAT_SECONDS, self._lost), self.expire):
            yield


@contextlib.contextmanager
def alive(oracle: Any, trial_id: str) -> Iterator[None]:
    """Sends heartbeats to the chief while a trial runs.

    Args:
        oracle: The worker's view of the oracle.
        trial_id: The trial that it runs.

    Yields:
        Nothing.
    """
    import grpc

    def beat() -> None:
        # The chief may be restarting.
        with contextlib.suppress(grpc.RpcError):
            oracle.get_trial(trial_id)

    with _every(_BEAT_SECONDS, beat):
        yield


@contextlib.contextmanager
def _every(seconds: float, do: Any) -> Iterator[None]:
    stop = threading.Event()

    def run() -> None:
        while not stop.wait(seconds):
            do()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        # A call to a dead chief can block for up to an hour.
        thread.join(timeout=_BEAT_SECONDS)


def work(trials: Any, searching: Any) -> None:
    """Makes a tuner a worker that waits for the chief and sends heartbeats.

    Args:
        trials: Runner of the trials of this process.
        searching: The tuner, whose oracle is the chief's.
    """
    oracle = searching.oracle
    create = oracle.create_trial

    def create_trial(tuner_id: str) -> Any:
        trial = create(tuner_id)
        if trial.status == "IDLE":
            time.sleep(0.2)  # Keras-Tuner asks again immediately.
        return trial

    oracle.create_trial = create_trial
    for name in ("create_trial", "update_trial", "end_trial", "get_space"):
        setattr(oracle, name, _patient(getattr(oracle, name)))
    trials.alive = functools.partial(alive, oracle)


def _patient(call: Callable[..., Any]) -> Callable[..., Any]:
    """Repeats a call once after a restart of the chief.

    Keras-Tuner would wait silently for an hour, or fail immediately.
    """
    import grpc

    @functools.wraps(call)
    def calling(*args: Any, **kwargs: Any) -> Any:
        await_chief()
        try:
            return call(*args, **kwargs)
        except grpc.RpcError:
            await_chief()
            return call(*args, **kwargs)

    return calling
