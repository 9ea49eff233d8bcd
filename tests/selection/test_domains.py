"""Near data sets are told from far ones."""

import dataclasses

import numpy as np
import pytest

import keras_transfer as ktr
from keras_transfer.selection import (
    domain_accuracy,
    nearest_classes,
    rank_sources,
    reverse_validation,
    source_ranking,
)

COLUMNS = 8


def make(count=120, classes=3, shift=0.0, seed=0, turned=0):
    """Groups around means that all sets share; `turned` renames them."""
    generator = np.random.default_rng(seed)
    labels = np.arange(count) % classes
    means = 5 * np.random.default_rng(99).normal(size=(classes, COLUMNS))
    noise = generator.normal(size=(count, COLUMNS))
    return means[(labels + turned) % classes] + noise + shift, labels


def test_one_distribution_is_not_told_apart():
    found = domain_accuracy(make(seed=1)[0], make(seed=2)[0])
    assert found.low < 0.5
    assert domain_accuracy(make()[0], make(shift=9.0)[0]).accuracy == 1


def test_the_larger_set_has_no_advantage():
    # Of 1,000 and 100, guessing the larger would be right in 91 %.
    found = domain_accuracy(make(1000, seed=1)[0], make(100, seed=2)[0])
    assert found.accuracy < 0.65


def test_as_many_as_asked_for():
    one, other = make(shift=0.4)[0], make(seed=2)[0]
    all_of_them = domain_accuracy(one, other)
    assert domain_accuracy(one, other, count=120) == all_of_them
    few = domain_accuracy(one, other, count=10)
    assert few.high - few.low > all_of_them.high - all_of_them.low


def test_labels_survive_where_groups_are_shared():
    source, labels = make(seed=1)
    near, far = make(seed=2)[0], np.random.default_rng(3).normal(size=(90, 8))
    assert reverse_validation(source, labels, near).accuracy > 0.95
    # One group alone: all labels come back as one class, or at random.
    lost = reverse_validation(source, labels, far)
    assert lost.accuracy < 0.9
    # The names of the classes do not matter, gaps neither.
    named = reverse_validation(source, 10 * labels + 3, near)
    assert named == reverse_validation(source, labels, near)


def test_a_target_that_all_looks_alike_gives_one_class():
    source, labels = make()
    found = reverse_validation(source, labels, source[:1].repeat(20, axis=0))
    assert found.accuracy == pytest.approx(1 / 3)


def test_classes_find_their_likes():
    source, labels = make(seed=1)
    target, wanted = make(seed=2, turned=1)
    other = make(seed=3, shift=7.0)
    found = nearest_classes(
        {"same": (source, labels), "other": other}, target, 10 * wanted
    )
    assert [row.target for row in found] == [0, 10, 20]
    assert [row.source for row in found] == ["same"] * 3
    assert [row.label for row in found] == [1, 2, 0]
    assert all(0.9 < row.similarity <= 1 for row in found)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: domain_accuracy(np.eye(6), np.eye(7)), "of one backbone"),
        (lambda: domain_accuracy(np.eye(9), np.eye(9)[:3]), "five examples"),
        (
            lambda: nearest_classes({}, np.eye(4), np.arange(4)),
            "must not be empty",
        ),
        (
            lambda: domain_accuracy(np.eye(9), np.eye(9), count=10),
            "from 5 to 9",
        ),
        (
            lambda: nearest_classes(
                {"": (np.eye(4), None)}, np.eye(4), [0] * 4
            ),
            r"`sources\[''\]` must have 4",
        ),
        (
            lambda: nearest_classes(
                {"a": (np.eye(4), np.arange(3))}, np.eye(4), np.arange(4)
            ),
            r"`sources\['a'\]` must have 4 integers",
        ),
    ],
    ids=["columns", "few", "none", "count", "nameless", "labels"],
)
def test_what_is_no_good_is_said(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def make_images(dark, classes=("a", "b"), seed=0):
    """A bright half says the class; `dark` turns black into white."""
    generator = np.random.default_rng(seed)
    images = generator.integers(0, 60, (40, 32, 32, 3)).astype("uint8")
    labels = np.arange(40) % 2
    images[labels == 0, :16] += 150
    images[labels == 1, :, :16] += 150
    names = {index: name for index, name in enumerate(classes)}
    return ktr.load_images(
        (
            images if dark else 255 - images,
            np.array([names[i] for i in labels]),
        ),
        split=(1.0, 0.0, 0.0),
    )


def test_the_nearest_source_comes_first(tmp_path):
    target = make_images(dark=True)
    known = {
        "far": make_images(dark=False, seed=1),
        "near": make_images(dark=True, seed=2),
        "others": make_images(dark=False, classes=("c", "d"), seed=3),
    }
    found = rank_sources(known, target, store=tmp_path, verbose=0)
    assert found.best == "near"
    rows = {row.name: row for row in found.rows}
    assert rows["near"].domain.accuracy < 0.75
    assert rows["far"].domain.accuracy > 0.9
    assert rows["near"].transferred.accuracy > 0.95
    assert rows["others"].transferred is None
    assert rows["near"].classes == 2
    assert [row[:3] for row in found.nearest] == [
        ("a", "near", "a"),
        ("b", "near", "b"),
    ]
    assert "nearest to a of near" in found.table()


def test_wrong_data_are_named():
    data = make_images(dark=True)
    with pytest.raises(
        TypeError, match=r"`sources\['x'\]` must be an `ImageData`"
    ):
        rank_sources({"x": 3}, data)
    with pytest.raises(TypeError, match="`target` must be an `ImageData`"):
        rank_sources({"x": data}, None)
    with pytest.raises(ValueError, match="data sets by name"):
        rank_sources({}, data)
    with pytest.raises(ValueError, match="five images"):
        rank_sources({"x": data.train.subset([0, 1])}, data)
    small = make_images(dark=True).train
    with pytest.raises(ValueError, match="images of one size"):
        rank_sources(
            {"x": dataclasses.replace(small, image_size=(16, 16))}, data
        )
    with pytest.raises(TypeError, match="`backbone` must be a name"):
        rank_sources({"x": data}, data, ["ResNet20"])
    one = small.subset(np.flatnonzero(small.labels == 0))
    with pytest.raises(ValueError, match="two classes"):
        rank_sources({"x": one}, data)


def test_all_sources_are_compared_by_as_many(monkeypatch, tmp_path):
    counts = []
    real = source_ranking.domain_accuracy

    def spy(*arguments, count, seed):
        counts.append(count)
        return real(*arguments, count=count, seed=seed)

    monkeypatch.setattr(source_ranking, "domain_accuracy", spy)
    some = make_images(dark=True, seed=1).train.subset(range(12))
    rank_sources(
        {"few": some, "many": make_images(dark=False, seed=2)},
        make_images(dark=True), store=tmp_path, verbose=0,
    )  # fmt: skip
    assert counts == [12, 12]
