"""Intervals against closed forms, pictures as files."""

import numpy as np
import pytest
from PIL import Image

from keras_transfer.evaluation.intervals import (
    mean_interval,
    proportion_interval,
)
from keras_transfer.reports.curves import plot_learning_curves
from keras_transfer.reports.plots import plot_confusion_matrix
from keras_transfer.reports.tables import write_predictions


def test_mean_interval_is_students():
    # t(4, 97.5 %) = 2.776445; s of 1..5 is sqrt(2.5).
    mean, half_width = mean_interval([1, 2, 3, 4, 5])
    assert mean == 3
    assert half_width == pytest.approx(2.776445 * np.sqrt(2.5 / 5), rel=1e-6)


def test_mean_interval_of_one_is_unknown():
    mean, half_width = mean_interval([0.5])
    assert mean == 0.5
    assert np.isnan(half_width)
    with pytest.raises(ValueError, match="must hold a repetition"):
        mean_interval([])


def test_proportion_interval_is_wilsons():
    n, p, z = 50, 0.8, 1.959964
    centre = (p + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z * np.sqrt(p * (1 - p) / n + z**2 / (4 * n**2)) / (1 + z**2 / n)
    low, high = proportion_interval(40, 50)
    assert (low, high) == pytest.approx((centre - half, centre + half), 1e-5)


@pytest.mark.parametrize(("successes", "trials"), [(5, 4), (-1, 4), (0, 0)])
def test_proportion_out_of_range(successes, trials):
    with pytest.raises(ValueError, match="`successes` must be in"):
        proportion_interval(successes, trials)


def test_pictures_are_written(tmp_path):
    plot_learning_curves(
        {"probe": [[0.1, 0.5], [0.2, 0.6]], "scratch": [[0.1, 0.1]]},
        tmp_path / "curves.png",
    )
    plot_confusion_matrix([0, 1, 1], [0, 1, 0], ["a", "b"], tmp_path / "c.png")
    for name in ("curves.png", "c.png"):
        with Image.open(tmp_path / name) as image:
            assert image.format == "PNG"
            assert np.asarray(image.convert("L")).std() > 0
    assert sorted(p.name for p in tmp_path.iterdir()) == ["c.png", "curves.png"]


def test_a_failed_picture_leaves_the_old_one(tmp_path):
    path = tmp_path / "c.png"
    path.write_bytes(b"old")
    with pytest.raises(ValueError):
        plot_confusion_matrix([0, 1], [0], ["a", "b"], path)
    assert path.read_bytes() == b"old"


def test_predictions_are_a_row_each(tmp_path):
    path = tmp_path / "p.csv"
    probabilities = np.array([[0.9, 0.1], [0.75, 0.25]])
    write_predictions(path, ["a", "ü,b"], [0, 1], probabilities, ["x", "y"])
    assert path.read_text("utf-8").splitlines() == [
        "id,label,predicted,confidence,correct",
        "a,x,x,0.9000,1",
        '"ü,b",y,x,0.7500,0',
    ]
    with pytest.raises(ValueError, match="must have equal length"):
        write_predictions(path, ["a"], [0, 1], probabilities, ["x", "y"])
