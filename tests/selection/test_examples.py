"""Wrong labels, copies and strangers that were planted are found."""

import numpy as np
import pytest

from keras_transfer.selection import (
    find_duplicates,
    find_label_errors,
    outlier_scores,
    select_representative,
    select_uncertain,
)


def make(count=400, classes=4, apart=4.0):
    generator = np.random.default_rng(0)
    labels = np.arange(count) % classes
    means = apart * generator.normal(size=(classes, 16)) / 2
    return means[labels] + generator.normal(size=(count, 16)), labels


def test_planted_label_errors_are_found():
    features, labels = make(apart=6.0)
    generator = np.random.default_rng(1)
    planted = generator.choice(len(labels), 20, replace=False)  # 5 %
    noisy = labels.copy()
    noisy[planted] = (labels[planted] + generator.integers(1, 4, 20)) % 4
    found = find_label_errors(features, 10 * noisy)  # Names with gaps.
    rows = {error.row for error in found}
    hits = rows & set(planted.tolist())
    assert len(hits) / 20 >= 0.8  # recall
    assert len(hits) / len(rows) >= 0.9  # precision
    for error in found:
        assert error.label == 10 * noisy[error.row]
        if error.row in hits:
            assert error.suggested == 10 * labels[error.row]
    margins = [error.margin for error in found]
    assert margins == sorted(margins, reverse=True)


def test_clean_labels_are_left_alone():
    features, labels = make(apart=8.0)
    assert find_label_errors(features, labels) == ()
    assert find_label_errors(features, np.eye(4)[labels]) == ()


def test_copies_are_found():
    features, _ = make(2500, apart=0.0)  # In several pieces.
    features[2000] = features[3] + 1e-6
    features[40] = features[3]
    pairs = {(p.first, p.second) for p in find_duplicates(features)}
    assert pairs == {(3, 40), (3, 2000), (40, 2000)}
    assert all(0.98 <= p.similarity <= 1 for p in find_duplicates(features))
    with pytest.raises(ValueError, match="a cosine in"):
        find_duplicates(features, threshold=0)


def test_strangers_are_far():
    features, _ = make()
    features[17] = 30 * np.random.default_rng(5).normal(size=16)
    scores = outlier_scores(features)
    assert scores.argmax() == 17
    assert scores.shape == (400,)
    with pytest.raises(ValueError, match="`neighbours` must be"):
        outlier_scores(features, neighbours=400)


def test_representatives_cover():
    features, labels = make(apart=12.0)
    chosen = select_representative(features, 4)
    assert sorted(labels[chosen]) == [0, 1, 2, 3]
    more = select_representative(features, 3, labelled=chosen[:1])
    assert sorted(labels[[chosen[0], *more]]) == [0, 1, 2, 3]
    everything = select_representative(features[:9], 9)
    assert sorted(everything) == list(range(9))
    # Against the best of many draws: at most twice as far.
    generator = np.random.default_rng(0)

    def radius(rows):
        apart = np.linalg.norm(features[:, None] - features[rows], axis=2)
        return apart.min(axis=1).max()

    draws = [radius(generator.choice(400, 12)) for _ in range(300)]
    assert radius(select_representative(features, 12)) <= 2 * min(draws)


def test_the_undecided_come_first():
    odds = np.array([[0.4, 0.35, 0.25], [1, 0, 0], [0.5, 0.0, 0.5]])
    assert select_uncertain(odds, 3).tolist() == [2, 0, 1]


@pytest.mark.parametrize("count", [0, 10, 1.5], ids=str)
def test_counts_out_of_range(count):
    features, _ = make(9)
    with pytest.raises(ValueError, match="`count` must be an integer from 1"):
        select_representative(features, count)
    with pytest.raises(ValueError, match="`count` must be an integer from 1"):
        select_uncertain(np.full((9, 2), 0.5), count)


def test_rows_that_are_none():
    with pytest.raises(ValueError, match="`labelled` must be rows"):
        select_representative(make(9)[0], 2, labelled=[12])
