import os
import re
import sys
import unicodedata
import warnings

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from keras_transfer.data import load_images


def raises(message):
    return pytest.raises(ValueError, match=message)


# --- folders ------------------------------------------------------------------


def test_flat_folder(make_folder):
    root = make_folder({"rose": 20, "aster": 20})
    data = load_images(root)
    assert data.class_names == ("aster", "rose")
    assert [len(data.train), len(data.validation), len(data.test)] == [32, 4, 4]
    assert data.image_size == (10, 8)
    assert data.train.ids == tuple(sorted(data.train.ids))
    for id_, label in zip(data.train.ids, data.train.labels, strict=True):
        assert id_.split("/")[0] == data.class_names[label]
    index = data.train.ids.index(data.train.ids[3])
    with Image.open(root / data.train.ids[3]) as image:
        np.testing.assert_array_equal(data.train.image(index), image)
    assert str(data.report) == "Nothing to report."


def test_split_folders_are_used_as_given(make_folder):
    counts = {"a": 4, "b": 4}
    for part in ("train", "val", "test"):
        root = make_folder({f"{part}/{k}": n for k, n in counts.items()})
    data = load_images(root)
    assert [len(data.train), len(data.validation), len(data.test)] == [8, 8, 8]
    assert data.validation.ids[0] == "val/a/000.png"


def test_missing_validation_is_split_off_train(make_folder):
    root = make_folder({"train/a": 45, "train/b": 45, "test/a": 5, "test/b": 5})
    data = load_images(root)
    assert [len(data.train), len(data.validation), len(data.test)] == [
        80,
        10,
        10,
    ]
    assert np.bincount(data.validation.labels).tolist() == [5, 5]
    assert all(id_.startswith("train/") for id_ in data.validation.ids)
    none = load_images(root, split=(1.0, 0.0, 0.0))
    assert [len(none.train), len(none.validation), len(none.test)] == [
        90,
        0,
        10,
    ]


def test_trains_are_a_class_when_the_folder_holds_images(make_folder):
    data = load_images(make_folder({"train": 5, "plane": 5}))
    assert data.class_names == ("plane", "train")


def test_class_names_state_the_order(make_folder):
    root = make_folder({"a": 10, "b": 10})
    data = load_images(root, class_names=["b", "a"])
    assert data.class_names == ("b", "a")
    for id_, label in zip(data.train.ids, data.train.labels, strict=True):
        assert label == "ba".index(id_[0])
    with raises(r"\['b'\] outside the classes \('a', 'c'\)"):
        load_images(root, class_names=["a", "c"])


def test_nested_hidden_and_foreign_files(make_folder, make_image):
    root = make_folder({"a": 5, "b/deep/er": 5})
    (root / ".hidden").mkdir()
    (root / "a" / ".DS_Store").write_bytes(b"x")
    (root / "a" / "Thumbs.db").write_bytes(b"x")
    (root / "a" / "notes.txt").write_text("x")
    (root / "README.md").write_text("x")
    data = load_images(root)
    assert data.class_names == ("a", "b")
    assert data.report.ignored == ("README.md", "a/Thumbs.db", "a/notes.txt")
    assert "3 ignored" in str(data.report)
    assert any(id_.startswith("b/deep/er/") for id_ in data.train.ids)


def test_folders_beside_the_splits_are_reported(make_folder):
    root = make_folder({"train/a": 5, "train/b": 5, "docs": 1})
    data = load_images(root)
    assert data.class_names == ("a", "b")
    assert data.report.ignored == ("docs/",)


def test_unicode_and_very_long_names(make_folder, make_image):
    root = make_folder({"a": 4, "花": 4})
    names = ["é" * 100 + ".png", "x" * 251 + ".png", "with space, comma;.png"]
    if sys.platform == "linux":
        names.append(os.fsdecode(b"not utf-8 \xff.png"))
    for i, name in enumerate(names):
        make_image(1000 + i).save(root / "花" / name, "PNG")
    data = load_images(root, split=(1, 0, 0))
    assert len(data.train) == 8 + len(names)
    assert {f"花/{name}" for name in names} <= set(data.train.ids)
    images, _ = next(iter(data.train.batches(100)))
    assert images.shape[0] == len(data.train)
    (root / "花" / names[-1]).write_bytes(b"broken")
    with raises("花/.*its content is not in an image format"):
        load_images(root)


def test_linked_folders_are_followed_but_not_in_circles(make_folder):
    root = make_folder({"a": 4, "b": 4})
    other = make_folder({"c": 4}, name="elsewhere")
    (root / "c").symlink_to(other / "c")
    assert load_images(root).class_names == ("a", "b", "c")
    (root / "b" / "up").symlink_to(root / "b")
    with raises("b/up/: it links to itself"):
        load_images(root)


@pytest.fixture
def messy(make_folder):
    """A folder with one of each thing that cannot be an example."""
    root = make_folder({"a": 10, "b": 10})
    Image.effect_noise((64, 64), 50).save(root / "a" / "cut.jpg")
    whole = (root / "a" / "cut.jpg").read_bytes()
    (root / "a" / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (root / "a" / "zero.png").touch()
    (root / "a" / "text.jpg").write_text("hello")
    (root / "b" / "folder.jpg").mkdir()
    (root / "b" / "link.png").symlink_to(root / "gone.png")
    (root / "empty").mkdir()
    Image.new("1", (3000, 1000)).save(root / "b" / "large.png")
    Image.new("L", (9, 9)).save(root / "stray.png")
    return root


BAD = {
    "a/cut.jpg": "truncated",
    "a/zero.png": r"empty \(0 bytes\)",
    "a/text.jpg": "not in an image format that Pillow reads",
    "b/folder.jpg": "it is a folder",
    "b/link.png": "broken symbolic link",
    "b/large.png": "3000x1000 pixels are more than `max_pixels`=1000000",
    'class "empty"': "it has no training image",
    "stray.png": "it is outside of all class folders",
}


def test_one_error_lists_all_bad_files(messy):
    with raises(r"`source` must hold images that can be used.*8 that") as info:
        load_images(messy, max_pixels=1_000_000)
    for name, reason in BAD.items():
        assert re.search(f"{name}: .*{reason}", str(info.value))
    assert 'on_error="skip"' in str(info.value)


def test_skip_lists_each_once_in_the_report(messy):
    data = load_images(messy, max_pixels=1_000_000, on_error="skip")
    assert data.class_names == ("a", "b")
    assert len(data.train) + len(data.validation) + len(data.test) == 20
    skipped = dict(data.report.skipped)
    assert len(skipped) == len(data.report.skipped) == len(BAD)
    for name, reason in BAD.items():
        assert re.search(reason, skipped[name])
        assert name in str(data.report)


def test_the_error_shows_ten_and_counts_the_rest(make_folder):
    root = make_folder({"a": 3, "b": 3})
    for i in range(25):
        (root / "a" / f"zero{i}.png").touch()
    with raises(r"25 that cannot:\n(  .*\n){10}  ... and 15 more"):
        load_images(root)


def test_without_verify_what_reading_shows_is_still_found(messy):
    data = load_images(messy, verify=False, on_error="skip")
    assert set(dict(data.report.skipped)) == set(BAD) - {
        "a/cut.jpg",
        "a/text.jpg",
        "b/large.png",
    }


def test_a_class_whose_images_are_all_bad_goes(make_folder):
    root = make_folder({"a": 5, "b": 5, "c": 0})
    (root / "c" / "zero.png").touch()
    data = load_images(root, on_error="skip")
    assert data.class_names == ("a", "b")
    assert [name for name, _ in data.report.skipped] == [
        "c/zero.png",
        'class "c"',
    ]


def test_a_class_only_in_test_goes(make_folder):
    root = make_folder(
        {"train/a": 4, "train/b": 4, "test/a": 2, "test/b": 2, "test/c": 1}
    )
    with raises('class "c": it has no training image'):
        load_images(root)
    data = load_images(root, on_error="skip")
    assert len(data.test) == 4
    assert ("test/c/000.png", "its class has no training image") in (
        data.report.skipped
    )


def test_odd_metadata_gives_no_warning(make_folder):
    root = make_folder({"a": 4, "b": 4})
    Image.new("RGB", (8, 8)).save(
        root / "a" / "x.jpg", exif=b"Exif\0\0MM\0*nonsense"
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(load_images(root, split=(1, 0, 0)).train) == 9


def test_unreadable_class_folder(make_folder, monkeypatch):
    root = make_folder({"a": 4, "b": 4})
    scandir = os.scandir

    def refuse(path):
        if str(path).rstrip("/").endswith("/b"):
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with raises("b/: permission denied"):
        load_images(root)
    with raises("permission denied"):
        load_images(root / "b")


def test_wrong_folders(make_folder, tmp_path):
    with raises(r"`source` must be a folder .* does not exist \(looked in "):
        load_images("flowers_that_are_not/")
    (tmp_path / "empty").mkdir()
    with raises("holds no folder and no file ending in"):
        load_images(tmp_path / "empty")
    (tmp_path / "empty" / "class").mkdir()
    with raises("hold no file ending in"):
        load_images(tmp_path / "empty")
    with raises("at least two classes. .* only class \"?'?one"):
        load_images(make_folder({"one": 3}, name="single"))
    flat = make_folder({".": 3}, name="straight")
    with raises(r"3 images \(the first is \"000.png\"\) are not in a class"):
        load_images(flat)
    flat = make_folder({"train": 3, "test": 3}, name="straight_splits")
    with raises("straight_splits/test', where 3 images .* are not in a"):
        load_images(flat)
    odd = make_folder({"val/a": 3, "test/a": 3}, name="no_train")
    with raises(r"must hold a train/ folder .* \['test', 'val'\]"):
        load_images(odd)
    two = {"train/a": 3, "val/a": 3, "valid/a": 3}
    with raises('one validation folder. .* "val" and "valid"'):
        load_images(make_folder(two, name="two_validations"))
    (tmp_path / "data.xlsx").write_text("{}")
    with raises('a file ending in ".xlsx"'):
        load_images(tmp_path / "data.xlsx")
    with raises("`multi_label` must be False for a folder"):
        load_images(make_folder({"a": 3, "b": 3}, name="c"), multi_label=True)


# --- arguments ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("argument", "value", "message"),
    [
        ("on_error", "ignore", '`on_error` must be "raise" or "skip"'),
        ("channels", 2, "`channels` must be 1, 3 or 4"),
        ("seed", -1, "`seed` must be an integer of at least 0"),
        ("max_pixels", 0, "`max_pixels` must be an integer of at least 1"),
        ("image_size", (32,), r"`image_size` must be \(height, width\)"),
        ("image_size", (0, 5), r"`image_size` must be \(height, width\)"),
        ("image_size", 1.5, r"`image_size` must be \(height, width\)"),
        ("class_names", "ab", "`class_names` must be different, non-empty"),
        ("class_names", ["a", "a"], "`class_names` must be different, non-em"),
    ],
)
def test_wrong_arguments(arrays, argument, value, message):
    with raises(message + ".* Received: "):
        load_images(arrays, **{argument: value})


# --- CSV ----------------------------------------------------------------------


@pytest.fixture
def manifest(make_folder, tmp_path):
    """Returns a function that writes a CSV beside ten images a/, b/."""
    make_folder({"a": 5, "b": 5})

    def write(text, encoding="utf-8"):
        path = tmp_path / "labels.csv"
        path.write_text(text, encoding=encoding)
        return path

    return write


ROWS = [f"images/{c}/{i:03d}.png,{c}" for c in "ab" for i in range(5)]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("column", ["path", "filename", "file", "Image"])
def test_csv(manifest, column, encoding):
    path = manifest("\n".join([f"{column}, Label", *ROWS]), encoding)
    data = load_images(path, split=(0.8, 0.0, 0.2))
    assert data.class_names == ("a", "b")
    assert [len(data.train), len(data.validation), len(data.test)] == [8, 0, 2]
    assert set(data.train.ids + data.test.ids) == {
        r.split(",")[0] for r in ROWS
    }
    assert data.train.image(0).shape == (10, 8, 3)


def test_csv_with_splits(manifest):
    parts = ["train", "train", "train", "val", "Test"] * 2
    rows = [f"{row},{part}" for row, part in zip(ROWS, parts, strict=True)]
    data = load_images(manifest("\n".join(["path,label,split", *rows])))
    assert [len(data.train), len(data.validation), len(data.test)] == [6, 2, 2]
    assert data.test.ids == ("images/a/004.png", "images/b/004.png")


def test_csv_multi_label(manifest):
    labels = ["cat;dog", "dog", "", "cat ; dog", "cat"] * 2
    rows = [
        f"{row.split(',')[0]},{names}"
        for row, names in zip(ROWS, labels, strict=True)
    ]
    path = manifest("\n".join(["path,label", *rows]))
    data = load_images(path, multi_label=True, split=(1, 0, 0))
    assert data.class_names == ("cat", "dog")
    expected = np.array([[1, 1], [0, 1], [0, 0], [1, 1], [1, 0]] * 2)
    np.testing.assert_array_equal(data.train.labels, expected)
    assert data.train.labels.dtype == np.float32


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path,name\nx.png,a", 'columns .*, without "label"'),
        ("url,label\nx.png,a", 'columns .*, without "path"'),
        ("path;name\nx.png;a", "separated by semicolons"),
        ("path,label", "a header and at least one row"),
        ("path,label\nx.png,", "row 2: it has no label"),
        ("path,label\n,a", "row 2: it has no path"),
        ("path,label\nx.png", "row 2: it has 1 columns, and the first row 2"),
        ("path,label\nx.png,c", "row 2: label 'c' is outside the classes"),
        ("path,label,split\nx.png,a,exam", "split 'exam' is not train, val"),
        ("path,label,split\nx.png,a,", "split '' is not train, validation"),
        ("path,label\nx.png,a", "x.png: no such file"),
        (f"path,label\n{ROWS[0]}\n{ROWS[0]}\n{ROWS[9]}", "again after row 2"),
        (f"path,label,split\n{ROWS[0]},test\n{ROWS[9]},val", "in split .train"),
        (f"path,label\n{ROWS[0]}\n{ROWS[1]}", "at least two classes"),
    ],
)
def test_wrong_csv(manifest, text, message):
    path = manifest(text)
    with raises(message):
        names = ["a", "b"] if "outside" in message else None
        load_images(path, class_names=names)


def test_csv_in_another_encoding(manifest):
    with raises("`encoding` must be the encoding of .*line 2"):
        load_images(manifest("path,label\nx.png,größe", "latin-1"))


def test_csv_missing_files_can_be_skipped(manifest):
    path = manifest("\n".join(["path,label", *ROWS, "images/gone.png,a"]))
    data = load_images(path, on_error="skip")
    assert data.report.skipped == (("images/gone.png", "no such file"),)


# --- arrays -------------------------------------------------------------------


def test_arrays(arrays):
    data = load_images(arrays)
    assert data.class_names == ("0", "1", "2", "3")
    assert [len(data.train), len(data.validation), len(data.test)] == [32, 4, 4]
    assert data.train.labels.dtype == np.int32
    assert data.train.ids[0].startswith("all/0000")
    for i, id_ in enumerate(data.train.ids):
        place = int(id_.split("/")[1])
        np.testing.assert_array_equal(data.train.image(i), arrays[0][place])
        assert data.train.labels[i] == arrays[1][place]


def test_dict_of_arrays(arrays):
    images, labels = arrays
    data = load_images(
        {
            "train": (images[:30], labels[:30]),
            "test": (images[30:], labels[30:]),
        },
        class_names=list("wxyz"),
        split=(0.9, 0.1, 0.0),
    )
    assert [len(data.train), len(data.validation), len(data.test)] == [
        27,
        3,
        10,
    ]
    assert data.test.ids[0] == "test/000000"
    assert data.class_names == ("w", "x", "y", "z")
    np.testing.assert_array_equal(data.test.image(0), images[30])


@pytest.mark.parametrize(
    "change",
    [
        lambda y: y[:, None],
        lambda y: y.astype(float),
        lambda y: np.eye(4)[y],
        lambda y: np.eye(4, dtype=bool)[y],
        lambda y: y.astype(np.uint8),
        lambda y: y.tolist(),
        lambda y: np.array(["0", "1", "2", "3"])[y],
        lambda y: np.array(["0", "1", "2", "3"], object)[y],
    ],
)
def test_kinds_of_labels(arrays, change):
    data = load_images((arrays[0], change(arrays[1])), split=(1, 0, 0))
    np.testing.assert_array_equal(data.train.labels, arrays[1])
    assert data.class_names == ("0", "1", "2", "3")


def test_multi_label_arrays(arrays):
    labels = np.random.default_rng(0).integers(0, 2, (40, 3))
    data = load_images((arrays[0], labels), multi_label=True, split=(1, 0, 0))
    np.testing.assert_array_equal(data.train.labels, labels)
    with raises("`class_weights` needs one class per example"):
        data.class_weights()


def test_a_numbered_class_without_examples_is_kept(arrays):
    labels = np.where(arrays[1] == 2, 1, arrays[1])
    data = load_images((arrays[0], labels), class_names=list("abcde"))
    assert data.num_classes == 5
    assert set(data.class_weights()) == {0, 1, 3}


@pytest.mark.parametrize("channels", [1, 2, 4, 7])
def test_arrays_have_any_number_of_channels(channels):
    images = np.random.default_rng(0).integers(0, 256, (9, 6, 5, channels))
    data = load_images((images, np.arange(9) % 2), split=(1, 0, 0))
    assert data.channels == channels
    assert data.train.arrays(image_size=4)[0].shape == (9, 4, 4, channels)


def test_floats_are_rounded():
    images = np.random.default_rng(0).uniform(0, 255, (9, 4, 4, 3))
    data = load_images((images, np.arange(9) % 2), split=(1, 0, 0))
    np.testing.assert_array_equal(data.train.arrays()[0], np.rint(images))


def floats(*values):
    images = np.random.default_rng(0).uniform(0, 1, (4, 4, 4, 3))
    images.flat[: len(values)] = values
    return images


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (floats(), [0, 1, 0, 1], r"look like \[0, 1\]. Multiply them by 255"),
        (floats(-1), [0, 1, 0, 1], r"must be in \[0, 255\]. .* from -1 to"),
        (floats(np.nan), [0, 1, 0, 1], r"must be in \[0, 255\]. .* NaN"),
        (floats(np.inf), [0, 1, 0, 1], r"must be in \[0, 255\]. .* to inf"),
        (floats(2) * 200, [0, 1, 0, 1], r"from .* to 400. Undo the scaling"),
        (floats() * 255, [0, 1, 0], "4 images and 3 labels"),
        (floats()[0] * 255, [0, 1, 0, 1], r"Add the axis: images\[..., None\]"),
        (floats()[0, 0] * 255, [0, 1], r"Received: shape=\(4, 3\)"),
        (floats()[:0], [], "must hold images. Received: none"),
        (floats() * 255, [0, 1, 0, -1], "must be integers of at least 0"),
        (floats() * 255, [0, 1, 0, 0.5], "must be integers of at least 0"),
        (floats() * 255, np.full((4, 3), 0.3), "must be one-hot"),
        (floats() * 255, [[1, 1], [0, 1]] * 2, "Pass multi_label=True"),
        (floats() * 255, [0, 0, 0, 0], "at least two classes"),
    ],
)
def test_wrong_arrays(images, labels, message):
    with raises(message):
        load_images((images, np.asarray(labels)))


def test_more_wrong_arrays(arrays):
    images, labels = arrays
    with raises(
        r"20 of 40 labels .* label 2, outside the 2 classes \['a', 'b'\]"
    ):
        load_images(arrays, class_names=["a", "b"])
    with raises("4 columns, outside the 5 classes"):
        load_images((images, np.eye(4)[labels]), class_names=list("abcde"))
    with raises(r"\['ant'\] outside the classes \('bee', 'cat'\)"):
        load_images(
            (images, np.array(["ant", "bee"] * 20)), class_names=["bee", "cat"]
        )
    with raises(r'the key "train" and, .* Received: keys \[\'x\'\]'):
        load_images({"x": arrays})
    with raises(r"same number of channels in every split. .* \[1, 3\]"):
        load_images({"train": arrays, "test": (images[..., :1], labels)})
    with raises("same kind of labels in every split"):
        load_images({"train": arrays, "test": (images, np.eye(4)[labels])})
    with raises("`multi_label` needs labels of shape"):
        load_images(arrays, multi_label=True)
    with pytest.raises(
        TypeError, match="`source` must be a folder, .* type int"
    ):
        load_images(3)
    with pytest.raises(TypeError, match="must have images of numbers"):
        load_images((images.astype(str), labels))


# --- tf.data ------------------------------------------------------------------


def test_tf_data_batched_or_not(arrays):
    whole = tf.data.Dataset.from_tensor_slices(arrays)
    for dataset in (whole, whole.batch(7)):
        data = load_images(dataset, split=(1, 0, 0))
        np.testing.assert_array_equal(data.train.arrays()[0], arrays[0])
        np.testing.assert_array_equal(data.train.labels, arrays[1])


def test_tf_data_of_different_sizes(arrays):
    def pairs():
        for i in range(12):
            yield arrays[0][i, : 4 + i % 3], i % 2

    spec = (
        tf.TensorSpec((None, None, 3), tf.uint8),
        tf.TensorSpec((), tf.int64),
    )
    dataset = tf.data.Dataset.from_generator(pairs, output_signature=spec)
    data = load_images(dataset, split=(1, 0, 0))
    assert data.image_size is None
    np.testing.assert_array_equal(data.train.image(2), arrays[0][2, :6])
    data = load_images(dataset, image_size=(5, 6), split=(1, 0, 0))
    assert data.train.image(2).shape == (5, 6, 3)
    float_data = dataset.map(lambda x, y: (tf.cast(x, tf.float32), y))
    data = load_images(float_data, split=(1, 0, 0))
    np.testing.assert_array_equal(data.train.image(2), arrays[0][2, :6])


def test_wrong_tf_data(arrays):
    dataset = tf.data.Dataset.from_tensor_slices(arrays)
    with raises("finite tf.data.Dataset. .*Drop `.repeat"):
        load_images(dataset.repeat())
    with raises(r"pairs \(image, label\)"):
        load_images(dataset.map(lambda x, y: x))
    with raises(r"shape \(height, width, channels\). .*\(8, 8\)"):
        load_images(dataset.map(lambda x, y: (x[..., 0], y)))
    with raises("look like"):
        load_images(dataset.map(lambda x, y: (tf.cast(x, tf.float32) / 255, y)))
    with raises("with no example"):
        load_images(dataset.take(0))


def test_names_are_compared_as_they_are(make_folder):
    # The same letter composed in two ways names two files.
    composed, split_up = "é", unicodedata.normalize("NFD", "é")
    root = make_folder({composed: 4, split_up: 4})
    assert len(load_images(root).class_names) == 2


def test_training_and_testing_are_splits(tmp_path):
    _write_tree(tmp_path, ("training", "testing"))
    data = load_images(tmp_path, split=(1.0, 0.0, 0.0))
    assert data.class_names == ("cat", "dog")
    assert (len(data.train), len(data.test)) == (4, 4)


def test_splits_of_unknown_names_are_refused(tmp_path):
    _write_tree(tmp_path, ("learn", "exam"))
    with pytest.raises(ValueError, match="all hold folders .*cat.*rename them"):
        load_images(tmp_path)


def _write_tree(folder, splits):
    rng = np.random.default_rng(0)
    for split in splits:
        for name in ("cat", "dog"):
            (folder / split / name).mkdir(parents=True)
            for i in range(2):
                pixels = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / split / name / f"{i}.png")
