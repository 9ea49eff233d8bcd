"""Intervals and pictures of results. Files are written whole or not at all."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from keras_transfer._files import whole_file
from keras_transfer._statistics import student, wilson

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def mean_interval(
    values: Sequence[float], confidence: float = 0.95
) -> tuple[float, float]:
    """Returns the mean of repeated measurements and its half-width.

    `mean -+ t(n - 1) * s / sqrt(n)`, Student's interval for the mean.

    Args:
        values: One number for each repetition, at least one.
        confidence: Probability in `(0, 1)`. Defaults to `0.95`.

    Returns:
        Tuple `(mean, half_width)`. One repetition does not say how far
        others would be: its half-width is NaN.

    Raises:
        ValueError: If there are no values, or `confidence` is no probability.

    Example:

    >>> mean, half_width = mean_interval([0.90, 0.92, 0.94])
    >>> round(mean, 2), round(half_width, 4)
    (0.92, 0.0497)
    """
    if not len(values):
        raise ValueError("`values` must hold a repetition. Received: none.")
    if len(values) == 1:
        return float(values[0]), math.nan
    return student(values, confidence)


def plot_search(
    rows: Sequence[Mapping[str, Any]], objective: str, path: str | Path
) -> None:
    """Draws the trials of a search: learning rate by lambda, for each depth.

    Args:
        rows: A mapping for each trial, with `objective`, and `learning_rate`,
            `lambda` and `depth` where these varied.
        objective: What colours the points.
        path: PNG file to write.

    Raises:
        ValueError: If no row has the objective.

    Example:

    >>> rows = [{"learning_rate": 1e-3, "lambda": 0, "accuracy": 0.9}]
    >>> plot_search(rows, "accuracy", folder / "search.png")
    """
    from matplotlib.figure import Figure

    found = [row for row in rows if row.get(objective) is not None]
    if not found:
        raise ValueError(
            f"`rows` must hold {objective!r}. Received: {len(rows)} rows "
            "without."
        )
    depths = sorted({row.get("depth") for row in found}, key=str)
    figure = Figure(figsize=(3.2 * len(depths) + 1, 3.4), layout="constrained")
    values = [float(row[objective]) for row in found]
    points: Any = None
    axes_of = figure.subplots(
        1, len(depths), squeeze=False, sharex=True, sharey=True
    )[0]
    low, high = min(values), max(values)
    if low == high:  # One colour, not the ends of the scale.
        low, high = low - 0.5, high + 0.5
    lambdas = [float(row.get("lambda") or 0) for row in found]
    least = min((value for value in lambdas if value > 0), default=1.0)
    for axes, depth in zip(axes_of, depths, strict=True):
        some = [row for row in found if row.get("depth") == depth]
        points = axes.scatter(
            [float(row.get("learning_rate") or 1) for row in some],
            [float(row.get("lambda") or 0) for row in some],
            c=[float(row[objective]) for row in some],
            vmin=low,
            vmax=high,
            edgecolors="black",
            linewidths=0.5,
        )
        axes.set_xscale("log")
        # Zero has a place below all others.
        axes.set_yscale("symlog", linthresh=least)
        axes.set_ylim(-0.5 * least, max(*lambdas, least) * 3)
        axes.set(
            xlabel="learning rate",
            title="" if depth is None else f"depth {depth}",
        )
        axes.grid(alpha=0.3)
    axes_of[0].set_ylabel("lambda")
    figure.colorbar(points, ax=axes_of, label=objective)
    _save(figure, Path(path))


def proportion_interval(
    successes: int, trials: int, confidence: float = 0.95
) -> tuple[float, float]:
    """Returns Wilson's interval for a proportion, such as an accuracy.

    Args:
        successes: Number of successes, in `[0, trials]`.
        trials: Number of trials, positive.
        confidence: Probability in `(0, 1)`. Defaults to `0.95`.

    Returns:
        Tuple `(low, high)`, both in `[0, 1]`.

    Raises:
        ValueError: If the counts or `confidence` are out of range.

    Example:

    >>> low, high = proportion_interval(90, 100)
    >>> round(low, 3), round(high, 3)
    (0.826, 0.945)

    Reference:
        - Wilson, 1927, https://doi.org/10.1080/01621459.1927.10502953
    """
    if trials < 1 or not 0 <= successes <= trials:
        raise ValueError(
            "`successes` must be in [0, trials] and `trials` positive. "
            f"Received: successes={successes}, trials={trials}"
        )
    return wilson(successes, trials, confidence)


def plot_learning_curves(
    curves: Mapping[str, Sequence[Sequence[float]]],
    path: str | Path,
    label: str = "accuracy",
) -> None:
    """Draws a metric over epochs: a line for each name, a band over runs.

    Args:
        curves: For each name, one sequence a run with one value an epoch; the
            runs of a name have equal length.
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
        array = np.asarray(runs, dtype="float64")
        epochs = np.arange(1, array.shape[1] + 1)
        (line,) = axes.plot(epochs, array.mean(0), label=name)
        axes.fill_between(
            epochs,
            array.min(0),
            array.max(0),
            color=line.get_color(),
            alpha=0.2,
        )
    axes.set(xlabel="epoch", ylabel=label)
    axes.set_title("mean over seeds; band: smallest to largest", fontsize=9)
    axes.grid(alpha=0.3)
    axes.legend()
    _save(figure, Path(path))


def plot_accuracy_by_labels(
    labels: Sequence[float],
    curves: Mapping[str, Sequence[tuple[float, float]]],
    path: str | Path,
) -> None:
    """Draws accuracy over labels for each class, with intervals.

    Args:
        labels: Numbers of labels.
        curves: For each name mean and half-width at each of them, in `[0, 1]`.
        path: PNG file to write.

    Example:

    >>> curves = {"fine-tune": [(0.7, 0.04), (0.9, 0.02)]}
    >>> plot_accuracy_by_labels([5, 20], curves, folder / "curve.png")
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4.0), layout="constrained")
    axes = figure.add_subplot()
    order = np.argsort(labels)
    places = np.asarray(labels, dtype="float64")[order]
    for name, points in curves.items():
        means, halves = 100 * np.array(points, dtype="float64")[order].T
        axes.errorbar(places, means, halves, marker="o", capsize=3, label=name)
    axes.set(
        xscale="log",
        xlabel="labelled examples of each class",
        ylabel="accuracy, percent",
        ylim=(0, 102),
    )
    axes.set_xticks(places, [f"{place:.0f}" for place in places])
    axes.minorticks_off()
    axes.set_title("mean over folds, 95 % intervals", fontsize=9)
    axes.grid(alpha=0.3)
    axes.legend()
    _save(figure, Path(path))


def plot_confusion_matrix(
    labels: Sequence[int] | np.ndarray,
    predictions: Sequence[int] | np.ndarray,
    class_names: Sequence[str],
    path: str | Path,
) -> None:
    """Draws how often each class was taken for each other.

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
    _save(figure, Path(path))


def write_predictions(
    path: str | Path,
    ids: Sequence[str],
    labels: Sequence[int] | np.ndarray,
    probabilities: np.ndarray,
    class_names: Sequence[str],
) -> None:
    """Writes what was predicted for each example, a row each, as CSV.

    Columns `id`, `label`, `predicted`, `confidence` (the probability of the
    predicted class, in `[0, 1]`) and `correct` (1 or 0).

    Args:
        path: CSV file to write, in UTF-8.
        ids: The examples' ids, `n` of them.
        labels: True class indices, `(n,)`.
        probabilities: Predicted probabilities, `(n, num_classes)`.
        class_names: Names of the classes.

    Raises:
        ValueError: If the lengths differ.

    Example:

    >>> path = folder / "predictions.csv"
    >>> write_predictions(path, ["a.jpg"], [1], [[0.2, 0.8]], ["cat", "dog"])
    """
    probabilities = np.asarray(probabilities)
    if not len(ids) == len(labels) == len(probabilities):
        raise ValueError(
            "`ids`, `labels` and `probabilities` must have equal length. "
            f"Received: {len(ids)}, {len(labels)} and {len(probabilities)}"
        )
    rows = [["id", "label", "predicted", "confidence", "correct"]]
    for name, label, row in zip(ids, labels, probabilities, strict=True):
        guess = int(row.argmax())
        known = class_names[label], class_names[guess]
        rows.append(
            [name, *known, f"{row[guess]:.4f}", str(int(guess == label))]
        )
    with (
        whole_file(Path(path)) as partial,
        open(partial, "w", newline="", encoding="utf-8") as file,
    ):
        csv.writer(file).writerows(rows)


def _save(figure: Figure, path: Path) -> None:
    with whole_file(path) as partial:
        figure.savefig(partial, format="png", dpi=150)


def plot_history(
    history: Mapping[str, Sequence[float | None]], path: str | Path
) -> None:
    """Draws the table of a run: the loss and the metric over all phases.

    Args:
        history: Columns of equal length: `phase`, `loss`, perhaps a metric
            (`accuracy` or `mae`), and both with `val_` before the name. `None`
            stands for no value.
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
    changes = [
        epoch - 0.5
        for epoch, one, other in zip(
            epochs[1:], phases, phases[1:], strict=False
        )
        if one != other
    ]
    for place, name in enumerate(names, start=1):
        axes = figure.add_subplot(1, len(names), place)
        for column, label in ((name, "train"), (f"val_{name}", "validation")):
            if column in history:
                values = np.array(history[column], dtype="float64")
                axes.plot(epochs, values, marker=".", label=label)
        for change in changes:
            axes.axvline(change, color="gray", linestyle=":")
        axes.set(xlabel="epoch over all phases", ylabel=name)
        axes.grid(alpha=0.3)
        axes.legend()
    _save(figure, Path(path))


def plot_learning_rates(
    rates: Sequence[float],
    losses: Sequence[float],
    smoothed: Sequence[float],
    path: str | Path,
    marks: Mapping[str, float] | None = None,
) -> None:
    """Draws losses over learning rates, on a logarithmic axis.

    Args:
        rates: Learning rates, ascending.
        losses: The loss at each of them.
        smoothed: Moving average of the losses; the axis shows where it falls,
            and cuts off a loss that explodes.
        path: PNG file to write.
        marks: Rates to mark, by name. Defaults to `None`.

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
    highest = max(smoothed[: int(np.argmin(smoothed)) + 1])
    margin = (highest - min(losses)) / 4
    if margin > 0:
        axes.set_ylim(min(losses) - margin, highest + 2 * margin)
    axes.set(xscale="log", xlabel="learning rate", ylabel="loss")
    axes.grid(alpha=0.3)
    axes.legend()
    _save(figure, Path(path))


def plot_clusters(
    points: np.ndarray,
    labels: Sequence[int] | np.ndarray,
    path: str | Path,
    *,
    classes: Sequence[int] | np.ndarray | None = None,
    class_names: Sequence[str] | None = None,
) -> None:
    """Draws points in the plane by cluster, beside it by class.

    Args:
        points: `(n, 2)`.
        labels: The cluster of each point, `(n,)`.
        path: PNG file to write.
        classes: The class of each point, or `None` for clusters alone.
            Defaults to `None`.
        class_names: Names of the classes. Defaults to `None`: their numbers.

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
    for place, title in enumerate(panels, start=1):
        values, names = panels[title]
        axes = figure.add_subplot(1, len(panels), place)
        present = np.unique(values)
        colors = colormaps["tab20" if len(present) > 10 else "tab10"]
        for number, value in enumerate(present):
            chosen = points[values == value]
            axes.scatter(
                chosen[:, 0],
                chosen[:, 1],
                s=12,
                color=colors(number % colors.N),
                # Twenty colours are all that can be told apart.
                marker="o^sDvPX*"[number // colors.N % 8],
                label=str(value if names is None else names[value]),
            )
        axes.set(xlabel="component 1", ylabel="component 2", title=title)
        if len(present) <= 30:
            axes.legend(fontsize=6, loc="center left", bbox_to_anchor=(1, 0.5))
    _save(figure, Path(path))


def plot_images(
    images: Sequence[np.ndarray], captions: Sequence[str], path: str | Path
) -> None:
    """Draws a sheet of images, eight in a row, with a caption above each.

    Args:
        images: uint8 arrays `(height, width, channels)`; of more than three
            channels the first is drawn.
        captions: One for each.
        path: PNG file to write.

    Example:

    >>> plot_images(list(arrays[:3]), ["a", "b", "c"], folder / "sheet.png")
    """
    from matplotlib.figure import Figure

    columns = min(8, len(images))
    rows = math.ceil(len(images) / columns)
    figure = Figure(figsize=(1.6 * columns, 1.9 * rows), layout="constrained")
    every = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in every:
        axes.axis("off")
    for axes, image, caption in zip(every, images, captions, strict=False):
        grey = image.shape[-1] not in (3, 4)
        axes.imshow(
            image[..., 0] if grey else image[..., :3],
            cmap="gray" if grey else None,
            vmin=0,
            vmax=255,
        )
        axes.set_title(caption, fontsize=6, parse_math=False)
    _save(figure, Path(path))


def plot_costs(
    costs: Mapping[str, float],
    accuracies: Mapping[str, tuple[float, float, float]],
    front: Sequence[str],
    path: str | Path,
) -> None:
    """Draws accuracy against cost, and the front that nothing beats in both.

    Args:
        costs: Operations of a forward pass, by name.
        accuracies: Accuracy and the ends of its interval, by name.
        front: Names on the front.
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
        middle, low, high = accuracies[name]
        axes.errorbar(
            cost / 1e9,
            middle,
            yerr=[[middle - low], [high - middle]],
            fmt="o",
            color="C0" if name in front else "gray",
            capsize=3,
        )
        axes.annotate(
            name,
            (cost / 1e9, middle),
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
        label="nothing is better in both",
    )
    axes.margins(x=0.2)  # The names stand to the right of the points.
    axes.set(
        xscale="log",
        xlabel="billion operations for an image",
        ylabel="accuracy of the linear probe",
    )
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.margins(x=0.2)
    axes.grid(alpha=0.3)
    axes.legend()
    _save(figure, Path(path))
