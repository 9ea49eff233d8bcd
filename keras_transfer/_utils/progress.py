"""Progress lines on standard output."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any


class Progress:
    """Writer of progress lines on standard output.

    Args:
        verbose: Verbosity; `0` writes nothing.
    """

    def __init__(self, verbose: int) -> None:
        self.verbose = verbose

    def say(self, text: str) -> None:
        """Writes a line, unless silent or empty."""
        if text and self.verbose:
            sys.stdout.write(text + "\n")
            sys.stdout.flush()

    def epoch(
        self, row: Mapping[str, Any], total: int, seconds: float, best: bool
    ) -> None:
        """Writes the line of an epoch.

        Args:
            row: The epoch's row of the history.
            total: Number of epochs in the phase.
            seconds: Expected time of the rest of the run, in seconds.
            best: Whether this epoch is the best so far.
        """
        skipped = ("phase", "name", "epoch", "depth", "learning_rate")
        numbers = "  ".join(
            f"{name} {value:.4f}"
            for name, value in row.items()
            if name not in (*skipped, "seconds") and value is not None
        )
        self.say(
            f"  epoch {row['epoch']}/{total}  {numbers}  "
            f"{row['seconds']:.1f} s, {seconds:.0f} s to go"
            f"{'  (best)' if best else ''}"
        )
