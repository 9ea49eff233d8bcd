"""Folders whose top level is splits, or one folder too many."""

import pytest

from keras_transfer import load_images, load_texts

CLASSES = {"a": 4, "b": 4}


def raises(message):
    return pytest.raises(ValueError, match=message)


def below(*folders):
    return {f"{f}/{name}": n for f in folders for name, n in CLASSES.items()}


@pytest.fixture(params=["images", "texts"])
def load(request, make_folder, tmp_path):
    """Returns a function that loads folders of images or of texts."""

    def load_folder(counts, **options):
        if request.param == "images":
            return load_images(make_folder(counts), **options)
        for folder, count in counts.items():
            (tmp_path / "texts" / folder).mkdir(parents=True)
            for i in range(count):
                file = tmp_path / "texts" / folder / f"{i}.txt"
                file.write_text(f"{folder} {i}")
        return load_texts(tmp_path / "texts", **options)

    return load_folder


@pytest.mark.parametrize(
    ("train", "test"),
    [
        ("training_set", "test_set"),
        ("seg_train/seg_train", "seg_test/seg_test"),
        ("Training Data", "Testing Data"),
        ("trainset", "testset"),
        ("train2017", "test2017"),
        ("train/images", "test/images"),
    ],
)
def test_splits_of_other_names(load, train, test):
    data = load({**below(train, test), "single_prediction": 3})
    assert data.class_names == ("a", "b")
    assert len(data.test) == 8 and len(data.train) + len(data.validation) == 8
    assert data.test.ids[0].startswith(f"{test}/a/")
    assert "single_prediction/" in data.report.ignored


@pytest.mark.parametrize("path", ["zip", "zip/flowers", "flowers/flowers"])
def test_a_folder_that_was_unpacked_twice(load, path):
    data = load(below(path), split=(1, 0, 0))
    assert data.class_names == ("a", "b") and len(data.train) == 8
    assert data.train.ids[0].startswith(f"{path}/a/")


def test_splits_in_one_folder(load):
    data = load(below("set/train", "set/val", "set/test"))
    assert data.class_names == ("a", "b")
    assert [len(data.train), len(data.validation), len(data.test)] == [8] * 3


def test_unlabelled_test(load):
    counts = {**below("train"), "test": 3}
    data = load(counts, on_error="skip")
    assert data.class_names == ("a", "b") and len(data.test)
    ((name, why),) = data.report.skipped
    assert name == "test/" and "3 unlabelled examples" in why


def test_unlabelled_test_raises(make_folder):
    for name, folder in (("flat", "test"), ("doubled", "test/test")):
        root = make_folder({**below("train"), folder: 3}, name=name)
        with raises("test/: it holds 3 unlabelled examples .* leave it out"):
            load_images(root)


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        (below("day 1", "day 2"), "'a', 'b'.*rename them to train"),
        ({**below("one", "two"), "x": 3}, "'one', 'two'. all hold folders"),
        (below("one/one", "two/two"), "all hold folders .'a', 'b'."),
        (
            {f"{c}/{s}": 3 for c in "ab" for s in ("train", "test")},
            "move them to the top: test/a/ in place of a/test/",
        ),
        (below("train", "holdout"), "'holdout' holds the class folders"),
        (below("test", "val"), "must hold a train/ folder"),
    ],
    ids=[
        "unknown",
        "flat beside",
        "doubled",
        "splits in classes",
        "further",
        "no train",
    ],
)
def test_other_layouts_are_refused(load, counts, message):
    with raises(message):
        load(counts)


def test_classes_with_folders_inside_stay_classes(load):
    counts = {"a/deep/er": 4, "b/left": 3, "b/right": 3, "train": 2}
    data = load(counts, split=(1, 0, 0))
    assert data.class_names == ("a", "b", "train") and len(data.train) == 12


def test_folders_by_split(make_folder, tmp_path):
    root = make_folder(below("tr", "va"))
    parts = {"train": root / "tr", "validation": str(root / "va")}
    data = load_images(parts, split=(1, 0, 0))
    assert len(data.train) == len(data.validation) == 8
    assert data.validation.ids[0] == "validation/a/000.png"
    with raises("must be one split"):
        load_images({"train": make_folder(below("x/train"), name="n") / "x"})
    with pytest.raises(TypeError, match="a folder, a table or a data frame"):
        load_images({"train": root / "tr", "test": 3})
