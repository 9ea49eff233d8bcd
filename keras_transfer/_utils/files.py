"""Files that are written whole or not at all."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Gives a path to write to, which takes the place of `path` at the end."""
    if not path.parent.is_dir():
        raise FileNotFoundError(
            "`path` must be in a folder that exists. Received: "
            f"{str(path)!r}. Make {str(path.parent)!r} first."
        )
    # Two processes may write the same file; the last one stands.
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        yield partial
        os.replace(partial, path)
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
