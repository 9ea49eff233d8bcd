"""The directory of a run: its manifest, last state and best weights.

    run.json     the manifest; a different run raises
    start.npz    the weights at the start
    state.npz    the last complete epoch: weights, optimizer, table
    best-N.npz   the weights of the best epoch so far
    run.lock     held while a process trains

Each file is written under a temporary name, synced to disk and renamed.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from keras_transfer._utils.diff import differences
from keras_transfer._utils.file_lock import lock_file
from keras_transfer._utils.files import atomic_write

_FORMAT = 1


_LOCK = "run.lock"


@dataclasses.dataclass
class State:
    """The state of a run after an epoch.

    Attributes:
        phase: Index of the phase that the arrays belong to.
        finished: Whether that phase has ended.
        rows: The table so far, a dict for each epoch.
        best: Index of the best row, or `None`.
        steps: Step counts of the optimizer, from its config.
        variables: Arrays of the model's variables.
        optimizer: Arrays of the optimizer's variables.
    """

    phase: int
    finished: bool
    rows: list[dict[str, Any]]
    best: int | None
    steps: list[dict[str, Any]]
    variables: list[np.ndarray]
    optimizer: list[np.ndarray]


@dataclasses.dataclass
class Begun:
    """The point from which a run starts or resumes.

    Attributes:
        start: The weights at its start.
        state: Its last complete state, or `None` in its first epoch.
        best: The weights of the best epoch, or `None` before there is one.
        is_new: Whether there was nothing to resume from. Defaults to `False`.
    """

    start: list[np.ndarray]
    state: State | None
    best: list[np.ndarray] | None
    is_new: bool = False

    def pack(self) -> dict[str, np.ndarray]:
        """Returns arrays by name, for another process to `unpack`."""
        packed = _numbered("start", self.start)
        if self.state is not None:
            packed |= {
                "table": _as_array(self.state),
                **_numbered("variable", self.state.variables),
                **_numbered("optimizer", self.state.optimizer),
            }
        packed["is_new"] = np.array(self.is_new)
        return packed | _numbered("best", self.best or [])

    @classmethod
    def unpack(cls, arrays: Mapping[str, np.ndarray]) -> Begun:
        """Returns the object that was packed.

        Args:
            arrays: Arrays by name.
        """
        state = None
        if "table" in arrays:
            state = State(
                **_as_table(arrays["table"]),
                variables=_listed(arrays, "variable"),
                optimizer=_listed(arrays, "optimizer"),
            )
        start = _listed(arrays, "start")
        best = _listed(arrays, "best") or None
        return cls(start, state, best, bool(arrays.get("is_new", False)))


class Unsaved:
    """Stands for the directory of a run that is not saved.

    Attributes:
        path: `None`.
    """

    path = None

    def load(self) -> None:
        """Returns `None`: there is nothing to resume from."""

    def claim(self, start: Sequence[np.ndarray] = ()) -> None:
        """Does nothing."""

    def save_best(self, row: int, variables: Sequence[np.ndarray]) -> None:
        """Does nothing."""

    def save_state(self, make: Callable[[], State]) -> None:
        """Does nothing."""


class RunDirectory:
    """Reads and writes the directory of a run; made by `open_directory`.

    Args:
        path: The directory.
        identity: Identity of the run, plain values by name.
    """

    def __init__(self, path: Path, identity: Mapping[str, Any]) -> None:
        self.path = path
        self._manifest = {"format": _FORMAT, **identity}
        self._start: list[np.ndarray] | None = None

    def claim(self, start: Sequence[np.ndarray] = ()) -> None:
        """Writes the manifest, if there is none yet.

        Called when there is something to save, so that a call that fails
        early can be repeated with other arguments.

        Args:
            start: The weights at the start. Defaults to `()`, which omits them.
        """
        manifest = self.path / "run.json"
        if not manifest.exists():
            with atomic_write(manifest) as partial:
                text = json.dumps(self._manifest, indent=2)
                partial.write_text(text + "\n", encoding="utf-8")
        if start and not (self.path / "start.npz").exists():
            self._write("start.npz", _numbered("variable", start))

    def load_start(self) -> list[np.ndarray] | None:
        """Returns the weights at the start, or `None` in a new run."""
        if self._start is None:
            arrays = self._read("start.npz")
            if arrays is not None:
                self._start = _listed(arrays, "variable")
        return self._start

    def load(self) -> Begun | None:
        """Returns the point from which the run resumes, or `None` if new."""
        start = self.load_start()
        if start is None:
            return None
        state = self.load_state()
        has_best = state is not None and state.best is not None
        best = self.load_best(state.best) if has_best else None  # type: ignore
        return Begun(start, state, best)

    def load_state(self) -> State | None:
        """Returns the last complete state, or `None` in a new run."""
        arrays = self._read("state.npz")
        if arrays is None:
            return None
        return State(
            **_as_table(arrays["table"]),
            variables=self._whole(arrays),
            optimizer=_listed(arrays, "optimizer"),
        )

    def save_state(self, make: Callable[[], State]) -> None:
        """Writes a state; the previous one stays until this one is complete.

        Args:
            make: Function that makes the state.
        """
        state = make()
        self._write(
            "state.npz",
            {
                "table": _as_array(state),
                **self._changed(state.variables),
                **_numbered("optimizer", state.optimizer),
            },
        )
        for file in self.path.glob("best-*.npz"):
            if file.name != f"best-{state.best}.npz":
                file.unlink(missing_ok=True)

    def load_best(self, row: int) -> list[np.ndarray]:
        """Returns the weights of the best epoch."""
        arrays = self._read(f"best-{row}.npz")
        if arrays is None:
            raise ValueError(
                f"`directory` must hold best-{row}.npz, the weights of its "
                f"best epoch. Received: {str(self.path)!r} without it. Choose "
                "another directory to start a new run."
            )
        return self._whole(arrays)

    def save_best(self, row: int, variables: Sequence[np.ndarray]) -> None:
        """Writes the weights of the best epoch, before the state names it."""
        self._write(f"best-{row}.npz", self._changed(variables))

    def _changed(
        self, variables: Sequence[np.ndarray]
    ) -> dict[str, np.ndarray]:
        """Returns the arrays that differ from the start."""
        start = _numbered("variable", self.load_start() or [])
        return {
            name: array
            for name, array in _numbered("variable", variables).items()
            if name not in start or not np.array_equal(array, start[name])
        }

    def _whole(self, arrays: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        """Returns all variables, unchanged ones from the start."""
        start = _numbered("variable", self.load_start() or [])
        changed = {k: v for k, v in arrays.items() if k.startswith("variable_")}
        return _listed(start | changed, "variable")

    def _read(self, name: str) -> dict[str, np.ndarray] | None:
        path = self.path / name
        if not path.exists():
            return None
        try:
            # Opened here since NumPy does not close a damaged file.
            with (
                open(path, "rb") as opened,
                np.load(opened, allow_pickle=False) as file,
            ):
                return dict(file)
        except (OSError, ValueError, EOFError, zipfile.BadZipFile) as err:
            raise ValueError(
                f"`directory` must hold complete files. Received: "
                f"{str(path)!r}, which cannot be read ({err}). It was changed "
                "after it was written; choose another directory for a new run."
            ) from err

    def _write(self, name: str, arrays: dict[str, np.ndarray]) -> None:
        path = self.path / name
        try:
            with atomic_write(path) as partial, open(partial, "wb") as file:
                np.savez(file, **arrays)  # type: ignore[arg-type]
                file.flush()
                os.fsync(file.fileno())
        except OSError as err:
            raise OSError(
                err.errno,
                f"could not write {str(path)!r}: {err.strerror}. The last "
                "complete state is safe: make room and start again, and the "
                "run resumes from it",
            ) from err


@contextlib.contextmanager
def open_directory(
    path: str | os.PathLike[str], identity: Mapping[str, Any]
) -> Iterator[RunDirectory]:
    """Opens the directory of a run, new or existing, for this process alone.

    Args:
        path: The directory; it is created where it does not exist.
        identity: Identity of the run, plain values by name.

    Yields:
        A `RunDirectory`.

    Raises:
        ValueError: If the directory belongs to another run, holds other files,
            or is in use.
        OSError: If it cannot be written to.
    """
    folder = Path(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = open(folder / _LOCK, "w")  # noqa: SIM115
    except OSError as err:
        raise OSError(
            f"`directory` must be a folder to write to. Received: "
            f"{str(folder)!r} ({err.strerror})."
        ) from err
    with lock:
        try:
            lock_file(lock, wait=False)
        except BlockingIOError as err:
            raise ValueError(
                f"`directory` must belong to one process. Received: "
                f"{str(folder)!r}, which another process is using."
            ) from err
        except OSError as err:
            raise OSError(
                "`directory` must be on a file system with locks, so that no "
                "other process writes to it. Received: "
                f"{str(folder)!r} ({err.strerror})."
            ) from err
        for partial in folder.glob(".*.partial"):
            partial.unlink(missing_ok=True)
        plain = check_directory(folder, identity)
        yield RunDirectory(folder, plain)


def check_directory(folder: Path, identity: Mapping[str, Any]) -> Any:
    """Raises unless a directory is new, or belongs to a run.

    Args:
        folder: The directory.
        identity: Identity of the run.

    Returns:
        The identity as it is written to the manifest.

    Raises:
        ValueError: If the directory belongs to another run.
    """
    plain = json.loads(json.dumps(identity))
    _check_identity(folder, plain)
    return plain


def _check_identity(folder: Path, identity: dict[str, Any]) -> None:
    manifest = folder / "run.json"
    if not manifest.exists():
        others = [file.name for file in folder.iterdir() if file.name != _LOCK]
        if others:
            raise ValueError(
                "`directory` must be new, empty or that of this run. Received: "
                f"{str(folder)!r}, which holds {', '.join(sorted(others)[:5])}."
            )
        return
    try:
        content = json.loads(manifest.read_text("utf-8"))
    except ValueError as err:
        raise ValueError(
            f"`directory` must hold the manifest of a run. Received: "
            f"{str(manifest)!r}, which is not valid JSON ({err})."
        ) from err
    requested = {"format": _FORMAT, **identity}
    existing = {name: content.get(name) for name in requested}
    different = list(differences("", existing, requested))
    if different:
        raise ValueError(
            "`directory` must be new or belong to this run. Received: "
            f"{str(folder)!r}, which belongs to another one:\n  "
            + "\n  ".join(different)
            + "\nChoose another directory, or pass the same arguments."
        )


def _numbered(name: str, arrays: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
    return {f"{name}_{i:06d}": array for i, array in enumerate(arrays)}


def _as_array(state: State) -> np.ndarray:
    """Encodes a state without its arrays as JSON."""
    table = {
        "phase": state.phase,
        "finished": state.finished,
        "rows": state.rows,
        "best": state.best,
        "steps": state.steps,
    }
    return np.frombuffer(json.dumps(table).encode(), np.uint8)


def _as_table(array: np.ndarray) -> dict[str, Any]:
    table: dict[str, Any] = json.loads(bytes(array).decode())
    return table


def _listed(arrays: Mapping[str, np.ndarray], name: str) -> list[np.ndarray]:
    return [arrays[key] for key in sorted(arrays) if key.startswith(f"{name}_")]
