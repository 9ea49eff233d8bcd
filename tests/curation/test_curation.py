"""Wrong labels, copies and strangers that were planted are found."""

import numpy as np
import pytest
from PIL import Image

import keras_transfer as ktr
from keras_transfer.curation import (
    Duplicate,
    contact_sheet,
    find_duplicates,
    find_label_errors,
    find_outliers,
    outlier_scores,
    plot_examples,
    select_representative,
    select_uncertain,
)
from keras_transfer.reports.plots import plot_images


def make(count=400, classes=4, apart=4.0):
    generator = np.random.default_rng(0)
    labels = np.arange(count) % classes
    means = apart * generator.normal(size=(classes, 16)) / 2
    return means[labels] + generator.normal(size=(count, 16)), labels


def rows_of(found):
    return [example.row for example in found]


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
    given = [error.probability for error in found]
    assert given == sorted(given)
    assert all(0 <= error.probability < 0.5 for error in found)


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


def test_rows_that_do_not_vary_are_copies():
    pairs = find_duplicates(np.ones((3, 4)))
    assert [(p.first, p.second) for p in pairs] == [(0, 1), (0, 2), (1, 2)]
    nearly = np.ones((2, 4)) + [[0], [1e-7]]
    assert len(find_duplicates(nearly)) == 1


def test_rare_labels_are_not_suspected():
    features, labels = make(apart=8.0)
    labels[:2] = 9  # A class of two, among others.
    assert {error.label for error in find_label_errors(features, labels)} <= {
        0, 1, 2, 3,
    }  # fmt: skip


def test_strangers_are_far():
    features, _ = make()
    features[17] = 30 * np.random.default_rng(5).normal(size=16)
    scores = outlier_scores(features)
    assert scores.argmax() == 17
    assert scores.shape == (400,)
    found = find_outliers(features, 3)
    assert found[0].row == 17
    assert [example.score for example in found] == sorted(scores)[:-4:-1]
    with pytest.raises(ValueError, match="`count` must be"):
        find_outliers(features, 0)
    with pytest.raises(ValueError, match="`neighbours` must be"):
        outlier_scores(features, neighbours=400)


def test_representatives_cover():
    features, labels = make(apart=12.0)
    found = select_representative(features, 4)
    chosen = rows_of(found)
    assert sorted(labels[chosen]) == [0, 1, 2, 3]
    again = np.linalg.norm(features[chosen[2]] - features[chosen[:2]], axis=1)
    assert found[2].score == pytest.approx(again.min())
    more = rows_of(select_representative(features, 3, labelled=chosen[:1]))
    assert more == chosen[1:]
    everything = select_representative(features[:9], 9)
    assert sorted(rows_of(everything)) == list(range(9))
    # Against the best of many draws: at most twice as far.
    generator = np.random.default_rng(0)

    def radius(rows):
        apart = np.linalg.norm(features[:, None] - features[rows], axis=2)
        return apart.min(axis=1).max()

    draws = [radius(generator.choice(400, 12)) for _ in range(300)]
    found = rows_of(select_representative(features, 12))
    assert radius(found) <= 2 * min(draws)


def test_the_undecided_come_first():
    odds = np.array([[0.4, 0.35, 0.25], [1, 0, 0], [0.5, 0.0, 0.5]])
    found = select_uncertain(odds, 3, ids=["a", "b", "c"])
    assert rows_of(found) == [2, 0, 1]
    assert [example.id for example in found] == ["c", "a", "b"]
    np.testing.assert_allclose([e.score for e in found], [0, 0.05, 1])
    assert rows_of(select_uncertain(odds[:1], 1)) == [0]
    with pytest.raises(ValueError, match="`probabilities` must be finite"):
        select_uncertain([[np.nan, 1.0], [0.5, 0.5]], 1)
    with pytest.raises(ValueError, match="`ids` must be 3"):
        select_uncertain(odds, 2, ids=["a"])


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
    mask = np.arange(9) < 4
    for rows in (mask, [1.7]):
        with pytest.raises(ValueError, match="`labelled` must be rows"):
            select_representative(make(9)[0], 2, labelled=rows)


@pytest.fixture
def images(tmp_path):
    """Two of three colours, one of them under a wrong name, one twice."""
    generator = np.random.default_rng(0)
    for index in range(30):
        pixels = generator.integers(0, 40, (32, 32, 3)).astype("uint8")
        pixels[..., index % 2] += 180
        if index == 8:
            first = pixels
        label = "red" if (index % 2 == 0) ^ (index == 4) else "green"
        path = tmp_path / "images" / label / f"{index:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = first + (index == 10) if index in (8, 10) else pixels
        Image.fromarray(pixels.astype("uint8")).save(path)
    return ktr.load_images(tmp_path / "images", split=(1.0, 0.0, 0.0)).train


def test_what_is_found_has_names_and_a_sheet(images, tmp_path):
    features = ktr.extract_features("ResNet20", images, verbose=0)
    errors = find_label_errors(features)
    assert [error.id for error in errors] == ["green/04.png"]
    assert images.class_names[errors[0].suggested] == "red"
    pairs = find_duplicates(features, threshold=0.999)
    assert (pairs[0].first_id, pairs[0].second_id) == (
        "red/08.png",
        "red/10.png",
    )
    spread = select_representative(features, 5)
    assert [e.id for e in spread] == [images.ids[e.row] for e in spread]
    for number, found in enumerate(
        (errors, pairs, spread, find_outliers(features, 10))
    ):
        path = tmp_path / f"{number}.png"
        plot_examples(found, images, path)
        with Image.open(path) as sheet:
            columns = round(sheet.width / (1.6 * 150))
            rows = round(sheet.height / (1.9 * 150))
        shown = len(found) * (2 if found is pairs else 1)
        assert columns == min(8, shown)
        assert rows == -(-min(shown, 48) // 8)


def test_pairs_stay_together_and_names_stay_text(images, tmp_path, monkeypatch):
    shown = []
    monkeypatch.setattr(
        contact_sheet,
        "plot_images",
        lambda found, names, path: shown.append(names),
    )
    pairs = [Duplicate(0, 1, *images.ids[:2], 0.99)] * 3
    plot_examples(pairs, images, tmp_path / "sheet.png", most=5)
    assert len(shown[0]) == 4
    plot_images([np.zeros((4, 4, 3), "uint8")], ["a$b_{$"], tmp_path / "a.png")
    assert (tmp_path / "a.png").exists()


def test_what_is_no_array_is_said(images):
    everything = ktr.extract_features("ResNet20", {"train": images}, verbose=0)
    with pytest.raises(TypeError, match="such as `features.train`"):
        find_label_errors(everything)
    with pytest.raises(ValueError, match="`labels` must be given"):
        find_label_errors(everything.train.values)


def test_sheets_of_other_images_are_refused(images, tmp_path):
    features = ktr.extract_features("ResNet20", images, verbose=0)
    found = select_representative(features, 3)
    some = images.subset(range(5, 30))
    with pytest.raises(ValueError, match="of the images of `split`"):
        plot_examples(found, some, tmp_path / "sheet.png")
    with pytest.raises(ValueError, match="must hold an example"):
        plot_examples([], images, tmp_path / "sheet.png")
    with pytest.raises(
        TypeError, match="a result of a function in this package"
    ):
        plot_examples([3], images, tmp_path / "sheet.png")
    assert not (tmp_path / "sheet.png").exists()
