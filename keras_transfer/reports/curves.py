"""Plots of training: histories, learning rates, learning curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from keras_transfer.reports.figure import save_figure


def plot_learning_curves(
    curves: Mapping[str, Sequence[Sequence[float]]],
    path: str | Path,
    label: str = "accuracy",
) -> None:
    """Plots a metric over epochs: a line per name, and a band over runs.

    Args:
        curves: The runs of each name, each a sequence with a value per epoch;
            the runs of a name have equal length.
        path: PNG file to write.
        label: Name of the metric. Defaults to `"accuracy"`.

    Example:

    >>> curves = {"probe": [[0.5, 0.8], [0.6, 0.9]]}
    >>> plot_learning_curves(curves, folder / "curves.png")
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4.0), layout="constrained")
    axes = figure.add_subplot()
    for name, runs in curves.items():
        values = np.asarray(runs, dtype="float64")  # [runs, epochs]
        epochs = np.arange(1, values.shape[1] + 1)
        (line,) = axes.plot(epochs, values.mean(0), label=name)
        axes.fill_between(
            epochs,
            values.min(0),
            values.max(0),
            color=line.get_color(),
            alpha=0.2,
        )
    axes.set(xlabel="epoch", ylabel=label)
    axes.set_title("mean over seeds; band: smallest to largest", fontsize=9)
    axes.grid(alpha=0.3)
    axes.legend()
    save_figure(figure, Path(path))


def plot_accuracy_by_labels(
    labels: Sequence[float],
    curves: Mapping[str, Sequence[tuple[float, float]]],
    path: str | Path,
) -> None:
    """Plots accuracy over the number of labels per class, with intervals.

    Args:
        labels: Numbers of labelled examples per class.
        curves: Mean and half-width, in `[0, 1]`, at each of these numbers, by
            name.
        path: PNG file to write.

    Example:

    >>> curves = {"fine-tune": [(0.7, 0.04), (0.9, 0.02)]}
    >>> plot_accuracy_by_labels([5, 20], curves, folder / "curve.png")
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4.0), layout="constrained")
    axes = figure.add_subplot()
    order = np.argsort(labels)
    shots = np.asarray(labels, dtype="float64")[order]
    for name, points in curves.items():
        means, half_widths = 100 * np.array(points, dtype="float64")[order].T
        axes.errorbar(
            shots, means, half_widths, marker="o", capsize=3, label=name
        )
    axes.set(
        xscale="log",
        xlabel="labelled examples per class",
        ylabel="accuracy, percent",
        ylim=(0, 102),
    )
    axes.set_xticks(shots, [f"{number:.0f}" for number in shots])
    axes.minorticks_off()
    axes.set_title("mean over folds, 95 % intervals", fontsize=9)
    axes.grid(alpha=0.3)
    axes.legend()
    save_figure(figure, Path(path))


def plot_history(
    history: Mapping[str, Sequence[float | None]], path: str | Path
) -> None:
    """Plots the history of a run: loss and metric over all phases.

    Args:
        history: Columns of equal length: `phase`, `loss`, optionally a metric
            (`accuracy` or `mae`), and both with the prefix `val_`. `None`
            stands for a missing value.
        path: PNG file to write.

    Example:

    >>> columns = {"phase": [0, 1], "loss": [1.0, 0.5]}
    >>> plot_history(columns, folder / "history.png")
    """
    from matplotlib.figure import Figure

    names = [
        name
        for name in ("loss", "accuracy", "mae")
        if name in history or f"val_{name}" in history
    ]
    figure = Figure(figsize=(5.0 * len(names), 3.6), layout="constrained")
    epochs = range(1, len(history["phase"]) + 1)
    phases = history["phase"]
    phase_starts = [
        epoch - 0.5
        for epoch, before, after in zip(
            epochs[1:], phases, phases[1:], strict=False
        )
        if before != after
    ]
    for position, name in enumerate(names, start=1):
        axes = figure.add_subplot(1, len(names), position)
        for column, label in ((name, "train"), (f"val_{name}", "validation")):
            if column in history:
                values = np.array(history[column], dtype="float64")
                axes.plot(epochs, values, marker=".", label=label)
        for start in phase_starts:
            axes.axvline(start, color="gray", linestyle=":")
        axes.set(xlabel="epoch over all phases", ylabel=name)
        axes.grid(alpha=0.3)
        axes.legend()
    save_figure(figure, Path(path))


def plot_learning_rates(
    rates: Sequence[float],
    losses: Sequence[float],
    smoothed: Sequence[float],
    path: str | Path,
    marks: Mapping[str, float] | None = None,
) -> None:
    """Plots losses over learning rates, on a logarithmic axis.

    Args:
        rates: Learning rates, ascending.
        losses: The loss at each learning rate.
        smoothed: Moving average of the losses; it sets the range of the axis,
            so that a diverging loss is cut off.
        path: PNG file to write.
        marks: Learning rates to mark, by name. Defaults to `None`.

    Example:

    >>> losses = [3.0, 2.0, 5.0]
    >>> path = folder / "rates.png"
    >>> plot_learning_rates([0.01, 0.1, 1.0], losses, losses, path)
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4.0), layout="constrained")
    axes = figure.add_subplot()
    axes.plot(rates, losses, color="gray", alpha=0.5, label="each batch")
    axes.plot(rates, smoothed, label="smoothed")
    for number, (name, rate) in enumerate((marks or {}).items(), start=1):
        axes.axvline(
            rate, color=f"C{number}", linestyle=":", label=f"{name} {rate:.2g}"
        )
    # The range up to the minimum; beyond it the loss diverges.
    highest = max(smoothed[: int(np.argmin(smoothed)) + 1])
    margin = (highest - min(losses)) / 4
    if margin > 0:
        axes.set_ylim(min(losses) - margin, highest + 2 * margin)
    axes.set(xscale="log", xlabel="learning rate", ylabel="loss")
    axes.grid(alpha=0.3)
    axes.legend()
    save_figure(figure, Path(path))
