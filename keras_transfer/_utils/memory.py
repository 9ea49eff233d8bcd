"""Free memory, and sizes as text."""

from __future__ import annotations

import contextlib
import math
import os
from pathlib import Path


def free_memory() -> int:
    """Returns the number of bytes of memory that are available.

    Example:

    >>> free_memory() > 0
    True
    """
    free_bytes = []
    with contextlib.suppress(OSError, ValueError):
        for line in Path("/proc/meminfo").read_text("ascii").splitlines():
            if line.startswith("MemAvailable:"):
                free_bytes.append(1024 * int(line.split()[1]))
    # A container may have less than the machine: cgroup version 2, then 1.
    for limit, used in (
        ("memory.max", "memory.current"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
    ):
        groups = Path("/sys/fs/cgroup")
        with contextlib.suppress(OSError, ValueError):
            limit_bytes = int((groups / limit).read_text("ascii"))
            used_bytes = int((groups / used).read_text("ascii"))
            free_bytes.append(limit_bytes - used_bytes)
    if free_bytes:
        return max(min(free_bytes), 0)
    # Without /proc (macOS), half of the physical memory is a guess.
    with contextlib.suppress(OSError, ValueError, AttributeError):
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    return 4 * 2**30


def format_bytes(num_bytes: float) -> str:
    """Returns a number of bytes with a binary unit.

    Example:

    >>> format_bytes(3 * 2**19)
    '1.5 MiB'
    """
    units = ["B", "KiB", "MiB", "GiB", "TiB"]
    power = min(int(math.log(max(num_bytes, 1), 1024)), len(units) - 1)
    return f"{num_bytes / 1024**power:.3g} {units[power]}"
