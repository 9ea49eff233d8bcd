"""Looks at every example once, in parallel: is it good, what is in it?"""

from __future__ import annotations

import dataclasses
import os
import warnings
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from keras_transfer.data.images import decoding
from keras_transfer.data.images.pixels import ArrayPixels, FilePixels
from keras_transfer.data.report import DataReport

_CHUNK = 4096


@dataclasses.dataclass(frozen=True)
class Scan:
    """What was seen; each tuple has one entry per example.

    Args:
        digests: Identifies the content; `None` where the example is bad.
        sizes: `(height, width)`; `None` where it is not known.
        reasons: Why the example is bad; `None` where it is good.
    """

    digests: tuple[bytes | None, ...]
    sizes: tuple[tuple[int, int] | None, ...]
    reasons: tuple[str | None, ...]


def scan(pixels: FilePixels | ArrayPixels, verify: bool) -> Scan:
    """Inspects every example; with `verify` each file is decoded once."""

    def inspect(index: int) -> tuple[Any, Any, str | None]:
        try:
            return *pixels.inspect(index, verify), None
        except Exception as err:
            return None, None, decoding.reason(err)

    with warnings.catch_warnings():
        # Remarks about odd metadata, which would not name the file.
        warnings.simplefilter("ignore")
        seen = list(parallel_map(inspect, range(len(pixels))))
    digests, sizes, reasons = zip(*seen, strict=True) if seen else ((),) * 3
    return Scan(digests, sizes, reasons)


def parallel_map(
    function: Callable[[int], Any], indices: Sequence[int]
) -> Iterator[Any]:
    """Maps over indices in threads, keeping the order."""
    with ThreadPoolExecutor(cpu_count()) as pool:
        for start in range(0, len(indices), _CHUNK):
            yield from pool.map(function, indices[start : start + _CHUNK])


def cpu_count() -> int:
    """Returns the number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):  # Not on every system.
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def group_equal(keys: Sequence[Hashable]) -> list[list[int]]:
    """Groups the positions that hold equal keys, in order of appearance."""
    groups: dict[Hashable, list[int]] = defaultdict(list)
    for position, key in enumerate(keys):
        groups[key].append(position)
    return list(groups.values())


def report_duplicates(
    report: DataReport,
    groups: Sequence[Sequence[int]],
    ids: Sequence[str],
    labels: Sequence[Hashable],
    splits: Sequence[str],
) -> DataReport:
    """Adds groups of identical examples to the report, and warns of harm."""
    found: dict[str, list[tuple[str, ...]]] = defaultdict(list)
    for group in groups:
        if len(group) < 2:
            continue
        names = tuple(sorted(ids[i] for i in group))
        leak = len({splits[i] for i in group}) > 1
        conflict = len({labels[i] for i in group}) > 1
        if leak:
            found["leaks"].append(names)
        if conflict:
            found["conflicts"].append(names)
        if not leak and not conflict:
            found["copies"].append(names)
    report = dataclasses.replace(
        report,
        leaks=tuple(found["leaks"]),
        conflicts=tuple(found["conflicts"]),
        copies=tuple(found["copies"]),
    )
    for harm, groups_ in (
        ("stand in different splits, so scores are too good", report.leaks),
        ("have different labels", report.conflicts),
    ):
        if groups_:
            warnings.warn(
                f"{len(groups_)} groups of identical {report.kind} {harm}, the "
                f"first being {', '.join(groups_[0][:4])}. "
                "`report.duplicates` lists them all; remove the wrong copies.",
                UserWarning,
                stacklevel=3,
            )
    return report
