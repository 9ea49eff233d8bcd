"""The folder of a search: claimed, resumed, or temporary."""

from __future__ import annotations

import contextlib
import functools
import shutil
import tempfile
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from keras_transfer.training.run_directory import (
    check_directory,
    open_directory,
)
from keras_transfer.tuning.search_spec import SearchSpec
from keras_transfer.tuning.trial_store import TrialStore
from keras_transfer.tuning.workers import await_chief

# Folder of the files that Keras-Tuner writes itself.
PROJECT = "keras_tuner"


class SearchDirectory:
    """The folder that a search writes to, for as long as it runs.

    Args:
        spec: The search.
        manifest: Identity of the search, as plain values.

    Attributes:
        path: The folder.
    """

    path: Path

    def __init__(self, spec: SearchSpec, manifest: Mapping[str, Any]) -> None:
        self._spec = spec
        self._manifest = manifest
        self._temporary = contextlib.ExitStack()
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> SearchDirectory:
        if self._spec.directory is None:
            self.path = Path(tempfile.mkdtemp(prefix="keras_transfer_"))
            self._temporary.callback(
                shutil.rmtree, self.path, ignore_errors=True
            )
            return self
        self.path = self._spec.directory
        if self._spec.role == "worker":
            await_chief()
            check_directory(self.path, self._manifest)
            return self
        is_new = not (self.path / "run.json").exists()
        opened = open_directory(self.path, self._manifest)
        self._stack.enter_context(opened).claim()
        if is_new:
            self._stack.push(functools.partial(_give_up, self.path))
        return self

    def __exit__(self, *error: Any) -> None:
        try:
            self._stack.__exit__(*error)
        finally:
            self._temporary.close()

    def keep_for(self, result: object) -> None:
        """Keeps a temporary folder until a result that reads it is gone.

        Args:
            result: The result of the search.
        """
        if self._spec.directory is None:
            weakref.finalize(result, self._temporary.pop_all().close)


def _give_up(folder: Path, kind: Any, error: Any, _: Any) -> None:
    """Removes the files of a search that failed before a trial finished."""
    if isinstance(error, Exception) and not TrialStore(folder).names():
        for name in ("run.json", "journal.jsonl"):
            (folder / name).unlink(missing_ok=True)
        shutil.rmtree(folder / PROJECT, ignore_errors=True)
