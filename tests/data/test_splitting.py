import collections
import random

import pytest

from keras_transfer.data import load_images
from keras_transfer.data.splitting import (
    check_fractions,
    missing_fractions,
    split_examples,
)

SHARES = {"train": 0.8, "validation": 0.1, "test": 0.1}


def examples(counts):
    labels = [(name,) for name, n in counts.items() for _ in range(n)]
    ids = [f"{name}/{i}" for i, (name,) in enumerate(labels)]
    return ids, labels, [[i] for i in range(len(ids))]


def count(labels, splits):
    pairs = zip(labels, splits, strict=True)
    return collections.Counter((name, split) for (name,), split in pairs)


@pytest.mark.parametrize("seed", range(5))
def test_every_class_has_its_share(seed):
    counts = {"a": 100, "b": 50, "c": 33, "d": 10, "e": 10}
    ids, labels, groups = examples(counts)
    splits = split_examples(ids, labels, groups, SHARES, seed)
    found = count(labels, splits)
    for name, total in counts.items():
        for split, share in SHARES.items():
            assert abs(found[name, split] - total * share) < 2
    totals = collections.Counter(splits)
    assert totals == {"train": 163, "validation": 20, "test": 20}


def test_the_order_of_the_files_does_not_matter():
    ids, labels, _ = examples({"a": 30, "b": 20})
    splits = split_examples(ids, labels, [[i] for i in range(50)], SHARES, 7)
    expected = dict(zip(ids, splits, strict=True))
    order = list(range(50))
    random.Random(1).shuffle(order)
    mixed = split_examples(
        [ids[i] for i in order],
        [labels[i] for i in order],
        [[i] for i in range(50)],
        SHARES,
        7,
    )
    found = dict(zip([ids[i] for i in order], mixed, strict=True))
    assert found == expected


def test_the_seed_decides_and_this_split_is_for_ever():
    ids, labels, groups = examples({"a": 10, "b": 10})
    first = split_examples(ids, labels, groups, SHARES, 0)
    assert first == split_examples(ids, labels, groups, SHARES, 0)
    assert first != split_examples(ids, labels, groups, SHARES, 1)
    # Another version of a library must not move an image to the test set.
    held_out = [id_ for id_, s in zip(ids, first, strict=True) if s == "test"]
    assert held_out == HELD_OUT


HELD_OUT = ["a/6", "b/15"]


@pytest.mark.parametrize("counts", [{"a": 1, "b": 1}, {"a": 2, "b": 1, "c": 9}])
@pytest.mark.parametrize("seed", range(5))
def test_train_has_every_class_however_few_examples(counts, seed):
    ids, labels, groups = examples(counts)
    shares = {"train": 0.2, "validation": 0.4, "test": 0.4}
    splits = split_examples(ids, labels, groups, shares, seed)
    found = count(labels, splits)
    assert all(found[name, "train"] >= 1 for name in counts)


def test_groups_stay_together():
    ids, labels, _ = examples({"a": 40, "b": 40})
    groups = [[i, 79 - i] for i in range(40)]
    splits = split_examples(ids, labels, groups, SHARES, 3)
    assert all(splits[i] == splits[79 - i] for i in range(40))
    assert set(splits) == set(SHARES)


def test_multi_label_keeps_the_share_of_each_label():
    labels = [
        tuple(sorted({"ab"[i % 2], *(["rare"] if i % 10 == 0 else [])}))
        for i in range(200)
    ]
    ids = [str(i) for i in range(200)]
    splits = split_examples(ids, labels, [[i] for i in range(200)], SHARES, 0)
    rare = collections.Counter(
        s for s, names in zip(splits, labels, strict=True) if "rare" in names
    )
    assert rare == {"train": 16, "validation": 2, "test": 2}


def test_a_share_of_zero_gets_nothing():
    ids, labels, groups = examples({"a": 30, "b": 30})
    shares = {"train": 0.5, "validation": 0.0, "test": 0.5}
    splits = split_examples(ids, labels, groups, shares, 0)
    assert collections.Counter(splits) == {"train": 30, "test": 30}


def test_missing_parts_keep_their_proportion_to_train():
    split = (0.8, 0.1, 0.1)
    assert missing_fractions([], split) == dict(SHARES)
    found = missing_fractions(["train", "test"], split)
    assert found == pytest.approx({"train": 8 / 9, "validation": 1 / 9})
    assert missing_fractions(["train", "validation", "test"], split) == {
        "train": 1.0
    }


@pytest.mark.parametrize(
    "split",
    [(0.8, 0.2), (0.9, 0.9, 0.1), (1.2, -0.1, -0.1), (0, 0.5, 0.5), 0.8, "abc"],
)
def test_invalid_fractions(split, arrays):
    with pytest.raises(
        ValueError, match="`split` must be three fractions .* Received: split="
    ):
        check_fractions(split)
    with pytest.raises(ValueError, match="`split` must be three fractions"):
        load_images(arrays, split=split)
