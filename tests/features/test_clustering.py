"""Clusters against scikit-learn, and what they refuse."""

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import normalized_mutual_info_score, silhouette_score

from keras_transfer.features.clustering import cluster
from keras_transfer.features.features import (
    BlockColumns,
    Features,
    FeatureSplit,
)


def blobs(count=60, classes=3, width=40, noise=0.1, seed=0):
    generator = np.random.default_rng(seed)
    centers = np.random.default_rng(5).normal(size=(classes, width))
    labels = (np.arange(count) % classes).astype("int32")
    values = centers[labels] + noise * generator.normal(size=(count, width))
    return values.astype("float32"), labels


def make_split(values, labels=None, parts=()):
    return FeatureSplit(
        lambda rows: values[rows][:, None],
        len(values),
        values.shape[1:],
        labels,
        tuple(f"{i}.png" for i in range(len(values))),
        parts,
    )


def test_planted_clusters_are_found():
    values, labels = blobs()
    features = Features(make_split(values, labels), class_names=("a", "b", "c"))
    found = cluster(features)
    assert len(found) == 3
    assert found.nmi == pytest.approx(1.0)
    assert found.silhouette > 0.8
    assert found.sizes.tolist() == [20, 20, 20]
    assert found.ids[3] == "3.png"
    assert "20 examples: 20 " in str(found)


def test_scores_are_scikit_learns():
    values, labels = blobs(noise=2.0)
    found = cluster(make_split(values, labels))
    expected = silhouette_score(found.points, found.labels)
    assert found.silhouette == pytest.approx(expected)
    expected = normalized_mutual_info_score(labels, found.labels)
    assert found.nmi == pytest.approx(expected)


def test_the_silhouette_chooses_where_labels_are_unknown():
    values, _ = blobs(80, classes=4)
    found = cluster(make_split(values[:30]))
    assert len(found) == 4
    assert found.nmi is None
    assert set(found.silhouettes) == set(range(2, 21))
    assert found.silhouette == max(found.silhouettes.values())


def test_numbers_are_no_classes():
    values, _ = blobs()
    numbers = make_split(values, values[:, 0].astype("float64"))
    assert cluster(numbers, 3).nmi is None


def test_one_seed_is_one_result():
    values, labels = blobs(noise=3.0)
    one, same = (cluster(values, 5, seed=3) for _ in range(2))
    np.testing.assert_array_equal(one.labels, same.labels)


def test_others_are_assigned_and_typical_ones_found():
    values, labels = blobs()
    found = cluster(values, 3)
    np.testing.assert_array_equal(found.assign(values), found.labels)
    np.testing.assert_array_equal(
        found.assign(make_split(2 * values)), found.labels
    )
    rows = found.typical(1, count=4)
    assert len(rows) == 4
    assert (found.labels[rows] == 1).all()
    distances = np.linalg.norm(found.points - found.centers[1], axis=1)
    assert distances[rows[0]] == distances[found.labels == 1].min()


def test_a_part_of_large_numbers_drowns_no_other():
    values, labels = blobs()
    noise = 1000 * np.random.default_rng(1).normal(size=(60, 3))
    joined = np.concatenate([values, noise.astype("float32")], axis=1)
    parts = (BlockColumns("x", "b", 0, 40), BlockColumns("y", "b", 40, 43))
    apart = cluster(make_split(joined, labels, parts))
    together = cluster(make_split(joined, labels))
    assert apart.nmi > together.nmi + 0.3


def test_few_of_many_rows_are_enough_for_the_silhouette(monkeypatch):
    monkeypatch.setattr(
        "keras_transfer.features.clustering._SILHOUETTE_ROWS", 200
    )
    values, labels = blobs(600)
    found = cluster(make_split(values, labels))
    assert found.silhouette > 0.8
    # An outlier that is not drawn leaves one cluster to measure.
    values = np.random.default_rng(0).normal(size=(3000, 2)) * 0.01 + 1
    values[0] = -1
    assert cluster(values, 2).silhouette == 0.0


@pytest.mark.parametrize("known", [True, False])
def test_a_picture_is_drawn(tmp_path, known):
    values, labels = blobs(90, classes=12)
    found = cluster(make_split(values, labels if known else None), 12)
    found.plot(tmp_path / "clusters.png")
    with Image.open(tmp_path / "clusters.png") as image:
        assert image.width == (1680 if known else 840)
        assert np.asarray(image.convert("L")).std() > 0


def test_one_column_can_be_drawn(tmp_path):
    values = np.array([[1.0], [-1.0], [0.0], [2.0]])
    cluster(values, 2).plot(tmp_path / "line.png")
    assert (tmp_path / "line.png").exists()


def test_bad_arguments_are_refused():
    values, labels = blobs()
    for number in (1, 60, 2.5, True):
        with pytest.raises(ValueError, match=r"integer in \[2, 59\]"):
            cluster(values, number)
    with pytest.raises(ValueError, match="`seed` must be an integer"):
        cluster(values, seed=-1)
    with pytest.raises(ValueError, match="three examples.*9, 1 of them"):
        cluster(np.ones((9, 4)))
    with pytest.raises(ValueError, match='vectors.*`pooling="avg"`'):
        cluster(np.ones((9, 4, 4, 3)))
    with pytest.raises(TypeError, match="from `extract_features`"):
        cluster([[1.0, 2.0]])
    found = cluster(values, 3)
    with pytest.raises(ValueError, match="must have 40 columns.*another"):
        found.assign(values[:, :7])
    with pytest.raises(ValueError, match=r"`number` must be an.*\[0, 3\)"):
        found.typical(3)
    with pytest.raises(ValueError, match="`count` must be an integer of"):
        found.typical(0, count=0)
    values[2, 2] = np.nan
    with pytest.raises(ValueError, match="must be finite. Received: NaN"):
        cluster(values)
