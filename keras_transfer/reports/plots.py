"""Plots of results: searches, confusion matrices, clusters, images, costs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from keras_transfer.reports.figure import save_figure


def plot_search(
    rows: Sequence[Mapping[str, Any]], objective: str, path: str | Path
) -> None:
    """Plots the trials of a search: learning rate by lambda, for each depth.

    Args:
        rows: A mapping per trial, with `objective`, and with `learning_rate`,
            `lambda` and `depth` if these varied.
        objective: Name of the metric that colours the points.
        path: PNG file to write.

    Raises:
        ValueError: If no row has the objective.

    Example:

    >>> rows = [{"learning_rate": 1e-3, "lambda": 0, "accuracy": 0.9}]
    >>> plot_search(rows, "accuracy", folder / "search.png")
    """
    from matplotlib.figure import Figure

    measured = [row for row in rows if row.get(objective) is not None]
    if not measured:
        raise ValueError(
            f"`rows` must hold {objective!r}. Received: {len(rows)} rows "
            "without it."
        )
    depths = sorted({row.get("depth") for row in measured}, key=str)
    figure = Figure(figsize=(3.2 * len(depths) + 1, 3.4), layout="constrained")
    values = [float(row[objective]) for row in measured]
    points: Any = None
    axes_of = figure.subplots(
        1, len(depths), squeeze=False, sharex=True, sharey=True
    )[0]
    low, high = min(values), max(values)
    if low == high:  # One colour, not the ends of the scale.
        low, high = low - 0.5, high + 0.5
    lambdas = [float(row.get("lambda") or 0) for row in measured]
    smallest = min((value for value in lambdas if value > 0), default=1.0)
    for axes, depth in zip(axes_of, depths, strict=True):
        trials = [row for row in measured if row.get("depth") == depth]
        points = axes.scatter(
            [float(row.get("learning_rate") or 1) for row in trials],
            [float(row.get("lambda") or 0) for row in trials],
            c=[float(row[objective]) for row in trials],
            vmin=low,
            vmax=high,
            edgecolors="black",
            linewidths=0.5,
        )
        axes.set_xscale("log")
        # Unlike a logarithmic axis, this one also shows lambda = 0.
        axes.set_yscale("symlog", linthresh=smallest)
        axes.set_ylim(-0.5 * smallest, max(*lambdas, smallest) * 3)
        axes.set(
            xlabel="learning rate",
            title="" if depth is None else f"depth {depth}",
        )
        axes.grid(alpha=0.3)
    axes_of[0].set_ylabel("lambda")
    figure.colorbar(points, ax=axes_of, label=objective)
    save_figure(figure, Path(path))


def plot_confusion_matrix(
    labels: Sequence[int] | np.ndarray,
    predictions: Sequence[int] | np.ndarray,
    class_names: Sequence[str],
    path: str | Path,
) -> None:
    """Plots the confusion matrix: true classes by predicted classes.

    Args:
        labels: True class indices, `(n,)`.
        predictions: Predicted class indices, `(n,)`.
        class_names: Names of the classes.
        path: PNG file to write.

    Example:

    >>> path = folder / "confusion.png"
    >>> plot_confusion_matrix([0, 1, 1], [0, 1, 0], ["cat", "dog"], path)
    """
    from matplotlib.figure import Figure
    from sklearn.metrics import confusion_matrix

    size = len(class_names)
    counts = confusion_matrix(labels, predictions, labels=range(size))
    inches = min(16.0, 2.5 + 0.45 * size)
    figure = Figure(figsize=(inches, inches), layout="constrained")
    axes = figure.add_subplot()
    axes.imshow(counts, cmap="Blues")
    ticks = range(size)
    axes.set_xticks(ticks, class_names, rotation=90)
    axes.set_yticks(ticks, class_names)
    axes.set(xlabel="predicted", ylabel="true")
    if size <= 30:
        dark = counts.max() / 2
        for row, column in np.ndindex(counts.shape):
            if counts[row, column]:
                axes.text(
                    column,
                    row,
                    str(counts[row, column]),
                    ha="center",
                    va="center",
                    color="white" if counts[row, column] > dark else "black",
                )
    save_figure(figure, Path(path))


def plot_clusters(
    points: np.ndarray,
    labels: Sequence[int] | np.ndarray,
    path: str | Path,
    *,
    classes: Sequence[int] | np.ndarray | None = None,
    class_names: Sequence[str] | None = None,
) -> None:
    """Plots points in the plane, coloured by cluster and by class.

    Args:
        points: Array `(n, 2)`.
        labels: The cluster of each point, `(n,)`.
        path: PNG file to write.
        classes: The class of each point, or `None` for a single plot by
            cluster. Defaults to `None`.
        class_names: Names of the classes. Defaults to `None`, their numbers.

    Example:

    >>> path = folder / "clusters.png"
    >>> plot_clusters(np.eye(2), [0, 1], path, classes=[1, 0])
    """
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    panels: dict[str, tuple[np.ndarray, Sequence[str] | None]]
    panels = {"cluster": (np.asarray(labels), None)}
    if classes is not None:
        panels["class"] = np.asarray(classes), class_names
    figure = Figure(figsize=(5.6 * len(panels), 4.6), layout="constrained")
    for position, title in enumerate(panels, start=1):
        values, names = panels[title]
        axes = figure.add_subplot(1, len(panels), position)
        present = np.unique(values)
        colors = colormaps["tab20" if len(present) > 10 else "tab10"]
        for number, value in enumerate(present):
            members = points[values == value]
            axes.scatter(
                members[:, 0],
                members[:, 1],
                s=12,
                color=colors(number % colors.N),
                # More than twenty colours cannot be distinguished.
                marker="o^sDvPX*"[number // colors.N % 8],
                label=str(value if names is None else names[value]),
            )
        axes.set(xlabel="component 1", ylabel="component 2", title=title)
        if len(present) <= 30:
            axes.legend(fontsize=6, loc="center left", bbox_to_anchor=(1, 0.5))
    save_figure(figure, Path(path))


def plot_images(
    images: Sequence[np.ndarray], captions: Sequence[str], path: str | Path
) -> None:
    """Plots a sheet of images, eight per row, with a caption above each.

    Args:
        images: uint8 arrays `(height, width, channels)`; three or four channels
            are drawn in colour, of any other number the first one in grey.
        captions: A caption per image.
        path: PNG file to write.

    Example:

    >>> plot_images(list(arrays[:3]), ["a", "b", "c"], folder / "sheet.png")
    """
    from matplotlib.figure import Figure

    columns = min(8, len(images))
    rows = math.ceil(len(images) / columns)
    figure = Figure(figsize=(1.6 * columns, 1.9 * rows), layout="constrained")
    all_axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in all_axes:
        axes.axis("off")
    for axes, image, caption in zip(all_axes, images, captions, strict=False):
        grey = image.shape[-1] not in (3, 4)
        axes.imshow(
            image[..., 0] if grey else image[..., :3],
            cmap="gray" if grey else None,
            vmin=0,
            vmax=255,
        )
        axes.set_title(caption, fontsize=6, parse_math=False)
    save_figure(figure, Path(path))


def plot_costs(
    costs: Mapping[str, float],
    accuracies: Mapping[str, tuple[float, float, float]],
    front: Sequence[str],
    path: str | Path,
) -> None:
    """Plots accuracy against cost, and the Pareto front.

    Args:
        costs: Number of operations of a forward pass, by name.
        accuracies: Accuracy and the ends of its interval, by name.
        front: Names on the Pareto front.
        path: PNG file to write.

    Example:

    >>> plot_costs(
    ...     {"a": 1e9, "b": 2e9},
    ...     {"a": (0.8, 0.7, 0.9), "b": (0.9, 0.8, 0.95)},
    ...     ["a", "b"],
    ...     folder / "costs.png",
    ... )
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    figure = Figure(figsize=(6.4, 4.4), layout="constrained")
    axes = figure.add_subplot()
    for name, cost in costs.items():
        accuracy, low, high = accuracies[name]
        axes.errorbar(
            cost / 1e9,
            accuracy,
            yerr=[[accuracy - low], [high - accuracy]],
            fmt="o",
            color="C0" if name in front else "gray",
            capsize=3,
        )
        axes.annotate(
            name,
            (cost / 1e9, accuracy),
            xytext=(4, 4),
            textcoords="offset points",
            fontsize=8,
        )
    best = sorted(front, key=lambda name: costs[name])
    axes.plot(
        [costs[name] / 1e9 for name in best],
        [accuracies[name][0] for name in best],
        color="C0",
        linestyle=":",
        label="Pareto front",
    )
    axes.margins(x=0.2)  # Room for the names to the right of the points.
    axes.set(
        xscale="log",
        xlabel="billion operations per image",
        ylabel="accuracy of the linear probe",
    )
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.grid(alpha=0.3)
    axes.legend()
    save_figure(figure, Path(path))
