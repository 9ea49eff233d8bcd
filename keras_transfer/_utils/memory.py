"""Free memory, and sizes in words."""

from __future__ import annotations

import contextlib
import math
import os
from pathlib import Path


def free_memory() -> int:
    """Returns the bytes of memory that are free to use.

    Example:

    >>> free_memory() > 0
    True
    """
    found = []
    with contextlib.suppress(OSError, ValueError):
        for line in Path("/proc/meminfo").read_text("ascii").splitlines():
            if line.startswith("MemAvailable:"):
                found.append(1024 * int(line.split()[1]))
    # A container may have less than the machine.
    for limit, used in (
        ("memory.max", "memory.current"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
    ):
        groups = Path("/sys/fs/cgroup")
        with contextlib.suppress(OSError, ValueError):
            most = int((groups / limit).read_text("ascii"))
            found.append(most - int((groups / used).read_text("ascii")))
    if found:
        return max(min(found), 0)
    with contextlib.suppress(OSError, ValueError, AttributeError):
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    return 4 * 2**30


def format_bytes(num_bytes: float) -> str:
    """Returns a number of bytes as a person writes it.

    Example:

    >>> format_bytes(3 * 2**19)
    '1.5 MiB'
    """
    units = ["B", "KiB", "MiB", "GiB", "TiB"]
    power = min(int(math.log(max(num_bytes, 1), 1024)), len(units) - 1)
    return f"{num_bytes / 1024**power:.3g} {units[power]}"
