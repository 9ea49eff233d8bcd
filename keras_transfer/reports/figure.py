"""Saving of figures."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from keras_transfer._utils.files import atomic_write

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def save_figure(figure: Figure, path: Path) -> None:
    """Writes a figure as PNG, atomically."""
    with atomic_write(path) as partial:
        figure.savefig(partial, format="png", dpi=150)
