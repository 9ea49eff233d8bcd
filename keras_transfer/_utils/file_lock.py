"""Exclusive locks of open files, on every platform.

A process that dies releases its locks.
"""

from __future__ import annotations

import sys
import time
from typing import IO, Any

if sys.platform == "win32":
    import msvcrt

    def lock_file(file: IO[Any], wait: bool) -> None:
        """Locks a file; raises BlockingIOError if another process has it."""
        while True:
            file.seek(0)
            try:
                msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
                return
            except OSError as err:
                if not wait:
                    raise BlockingIOError(*err.args) from err
            time.sleep(0.1)

    def unlock_file(file: IO[Any]) -> None:
        """Releases the lock of a file."""
        file.seek(0)
        msvcrt.locking(file.fileno(), msvcrt.LK_UNLCK, 1)

else:
    import fcntl

    def lock_file(file: IO[Any], wait: bool) -> None:
        """Locks a file; raises BlockingIOError if another process has it."""
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))

    def unlock_file(file: IO[Any]) -> None:
        """Releases the lock of a file."""
        # Not left to `close`: a process forked meanwhile has the file open too.
        fcntl.flock(file, fcntl.LOCK_UN)
