"""Features as a value: rows, subsets, shots, stacking."""

import numpy as np
import pytest

import keras_transfer as ktr
from keras_transfer.features import BlockColumns, Features, FeatureSplit


def make(width, count=12, seed=0, ids=True, name="n"):
    rows = np.random.default_rng(seed).normal(size=(count, width))
    return FeatureSplit(
        lambda i: rows[i][:, None].astype("f4"),
        count,
        (width,),
        labels=np.arange(count) % 3,
        ids=tuple(f"{i}.png" for i in range(count)) if ids else None,
        parts=(BlockColumns(name, "last", 0, width),),
    )


def test_subset_and_rows():
    split = make(4)
    some = split.subset([5, 2, 2])
    np.testing.assert_array_equal(some.values, split.values[[5, 2, 2]])
    assert some.ids == ("5.png", "2.png", "2.png")
    assert some.labels.tolist() == [2, 2, 2]
    np.testing.assert_array_equal(some[1], split.values[2])
    np.testing.assert_array_equal(some.subset([2]).values, split.values[[2]])
    for wrong in ([12], [-1], [0.5]):
        with pytest.raises(ValueError, match="`indices` must be integers"):
            split.subset(wrong)


def test_shots_are_those_of_the_images():
    images = np.random.default_rng(0).integers(0, 256, (30, 8, 8, 3), "uint8")
    data = ktr.load_images((images, np.arange(30) % 3))
    train = data.train
    split = FeatureSplit(
        lambda i: np.zeros((len(i), 1, 2), "f4"),
        len(train),
        (2,),
        labels=train.labels,
        ids=train.ids,
    )
    for seed in range(3):
        assert split.shots(3, seed).ids == train.shots(3, seed).ids
    with pytest.raises(ValueError, match=r"`k` must be an integer in \[1, "):
        split.shots(99)
    with pytest.raises(ValueError, match="one class per example"):
        make(2).subset([0]).__class__(
            split.gather, 2, (2,), labels=np.zeros((2, 3), "f4")
        ).shots(1)


def test_stacked_features_are_at_unit_norm():
    one, two = make(4, name="one"), make(3, seed=1, name="two")
    found = ktr.stack_features([Features(one), Features(two)])
    for part, split in zip(found.parts, (one, two), strict=True):
        block = found.train.values[:, part.start : part.stop]
        norm = np.linalg.norm(split.values, axis=1, keepdims=True)
        np.testing.assert_allclose(block, split.values / norm, rtol=1e-6)
    again = ktr.stack_features([found, Features(one)])
    assert [p.backbone for p in again.parts] == ["one", "two", "one"]
    assert again.parts[2][2:4] == (7, 11)
    np.testing.assert_allclose(
        again.train.values[:, :7], found.train.values, rtol=1e-6
    )


@pytest.mark.parametrize(
    ("others", "message"),
    [
        ([Features(make(4, count=9))], "vectors of the same examples"),
        ([Features(make(4, ids=False))], "with other ids"),
        ([Features(make(4), test=make(4))], "test examples in only some"),
        ([make(4)], "a sequence of `Features`"),
    ],
)
def test_other_examples_are_not_stacked(others, message):
    with pytest.raises((ValueError, TypeError), match=message):
        ktr.stack_features([Features(make(4)), *others])
