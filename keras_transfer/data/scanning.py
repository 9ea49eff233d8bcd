"""Inspection of every example, in parallel: digests, sizes, unusable files."""

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

_EXAMPLES_PER_CHUNK = 4096

# Bits of a sensor whose images are stored in files of 16 bits.
_MOST_BITS = 14
_FILES_SAMPLED = 64


@dataclasses.dataclass(frozen=True)
class Scan:
    """Result of `scan`; each tuple has one entry per example.

    Args:
        digests: Digest of the content; `None` for an unusable example.
        sizes: Size `(height, width)`; `None` if unknown.
        reasons: Reason why the example is unusable; `None` if it is usable.
    """

    digests: tuple[bytes | None, ...]
    sizes: tuple[tuple[int, int] | None, ...]
    reasons: tuple[str | None, ...]


def scan(pixels: FilePixels | ArrayPixels, verify: bool) -> Scan:
    """Inspects every example; `verify` decodes each file once."""

    def inspect(index: int) -> tuple[Any, Any, str | None]:
        try:
            return *pixels.inspect(index, verify), None
        except Exception as err:
            return None, None, decoding.reason(err)

    with warnings.catch_warnings():
        # Warnings about unusual metadata would not name the file.
        warnings.simplefilter("ignore")
        results = list(parallel_map(inspect, range(len(pixels))))
    digests, sizes, reasons = (
        zip(*results, strict=True) if results else ((),) * 3
    )
    return Scan(digests, sizes, reasons)


def note_narrow_range(
    pixels: FilePixels | ArrayPixels, usable: Sequence[int]
) -> list[str]:
    """Warns of 16-bit files that all hold fewer bits, and returns that.

    Such images of 12 bits would become nearly black. A sample is read.
    """
    if not isinstance(pixels, FilePixels):
        return []
    sample = usable[:: max(1, len(usable) // _FILES_SAMPLED)]

    def peak(index: int) -> int:
        try:
            return pixels.peak(index) or 0
        except Exception:  # Pillow raises many types on damaged files.
            return 0

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        highest = max(parallel_map(peak, sample), default=0)
    bits = highest.bit_length()
    if not 8 <= bits <= _MOST_BITS:
        return []
    note = (
        f"The images of 16 bits hold values up to {highest}: they look like "
        f"{bits} bits, and become nearly black, since 65535 is read as white. "
        f"Multiply their values by {2 ** (16 - bits)} and save them again."
    )
    warnings.warn(note, UserWarning, stacklevel=3)
    return [note]


def parallel_map(
    function: Callable[[int], Any], indices: Sequence[int]
) -> Iterator[Any]:
    """Maps over indices in threads, in their order."""
    # In chunks, since `pool.map` submits all of its calls immediately.
    with ThreadPoolExecutor(cpu_count()) as pool:
        for start in range(0, len(indices), _EXAMPLES_PER_CHUNK):
            chunk = indices[start : start + _EXAMPLES_PER_CHUNK]
            yield from pool.map(function, chunk)


def cpu_count() -> int:
    """Returns the number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):  # On Linux only.
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def group_equal(keys: Sequence[Hashable]) -> list[list[int]]:
    """Groups the positions of equal keys, in order of appearance."""
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
    """Adds duplicates to the report, and warns of the harmful ones."""
    duplicates: dict[str, list[tuple[str, ...]]] = defaultdict(list)
    for group in groups:
        if len(group) < 2:
            continue
        names = tuple(sorted(ids[i] for i in group))
        leak = len({splits[i] for i in group}) > 1
        conflict = len({labels[i] for i in group}) > 1
        if leak:
            duplicates["leaks"].append(names)
        if conflict:
            duplicates["conflicts"].append(names)
        if not leak and not conflict:
            duplicates["copies"].append(names)
    report = dataclasses.replace(
        report,
        leaks=tuple(duplicates["leaks"]),
        conflicts=tuple(duplicates["conflicts"]),
        copies=tuple(duplicates["copies"]),
    )
    for harm, harmful in (
        ("are in different splits, so scores are too high", report.leaks),
        ("have different labels", report.conflicts),
    ):
        if harmful:
            warnings.warn(
                f"{len(harmful)} groups of identical {report.kind} {harm}. The "
                f"first is {', '.join(harmful[0][:4])}. `report.duplicates` "
                "lists all of them; remove the wrong ones.",
                UserWarning,
                stacklevel=3,
            )
    return report
