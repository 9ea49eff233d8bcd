"""Atomic writes: a file is complete or does not exist."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yields a temporary path, which is renamed to `path` at the end."""
    if not path.parent.is_dir():
        raise FileNotFoundError(
            "`path` must be in a folder that exists. Received: "
            f"{str(path)!r}. Make {str(path.parent)!r} first."
        )
    # Two processes may write the same file; the last to finish wins.
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        yield partial
        os.replace(partial, path)
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
