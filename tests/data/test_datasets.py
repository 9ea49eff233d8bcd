"""Data sets of tf.data, Keras and Hugging Face, and the advice of errors."""

import io
import itertools

import keras
import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import tensorflow as tf
from PIL import Image

from keras_transfer import load_images, load_texts
from keras_transfer.data import tfds
from keras_transfer.data.adapters.opening import open_data

ALL = (1.0, 0.0, 0.0)


def raises(message, error=ValueError):
    return pytest.raises(error, match=message)


def opened(data):
    return open_data(data, batch_size=8, seed=0, augment=None, cache=None)


@pytest.fixture
def dataset(arrays):
    return tf.data.Dataset.from_tensor_slices(arrays)


def steps_of(data):
    """Reads two epochs as `fine_tune` does, and returns their lengths."""
    read = opened(data)
    lengths = {sum(1 for _ in read.train(epoch)) for epoch in (0, 1)}
    assert lengths == {read.steps}
    return read.steps


# --- Lengths, batches and pairs ---


def test_infinite_datasets_and_the_advice(dataset):
    repeated = dataset.batch(8).repeat()
    with raises(r"Drop `.repeat\(\)`, or use `.take\(n\)`"):
        opened(repeated)
    assert steps_of(repeated.take(3)) == 3
    # What the advice used to be, and what Keras' fit does with 3 steps.
    stated = repeated.apply(tf.data.experimental.assert_cardinality(3))
    assert steps_of(stated) == 3
    with raises(r"`.take\(n\)`"):
        load_images(dataset.repeat())
    assert len(load_images(dataset.repeat().take(40), split=ALL).train) == 40


def test_unknown_lengths_and_the_advice(dataset):
    odd = dataset.filter(lambda x, y: y > 0).batch(8)
    with raises(r"assert_cardinality\(n\).* with n = `sum\(1 for _ in data"):
        opened(odd)
    count = sum(1 for _ in odd)
    odd = odd.apply(tf.data.experimental.assert_cardinality(count))
    assert steps_of(odd) == count == 4
    generated = tf.data.Dataset.from_generator(
        lambda: dataset.as_numpy_iterator(),
        output_signature=dataset.element_spec,
    )
    assert len(load_images(generated, split=ALL).train) == 40


def test_single_examples_and_the_advice(dataset, arrays):
    rows = tf.data.Dataset.from_tensor_slices((arrays[0], np.eye(4)[arrays[1]]))
    for single in (dataset, rows, dataset.map(lambda x, y: (x, y[None]))):
        with raises(r'`data\["train"\]` must be batches .* `.batch\(32\)`'):
            opened(single)
        assert steps_of(single.batch(32)) == 2
    assert steps_of(dataset.batch(8, drop_remainder=True)) == 5
    texts = tf.data.Dataset.from_tensor_slices((["a", "b"], [0, 1]))
    with raises(r"Add `.batch\(32\)`"):
        opened(texts)
    with raises(r'`data\["validation"\]` must be batches'):
        opened({"train": dataset.batch(8), "validation": dataset})


def test_empty_datasets_and_the_advice(dataset):
    empty = dataset.take(4).batch(8, drop_remainder=True)
    with raises("no example. .* drop_remainder=True: leave that out"):
        opened(empty)
    assert steps_of(dataset.take(4).batch(8)) == 1
    with raises("no example"):
        load_images(empty)
    with raises("no example"):
        load_images(dataset.filter(lambda x, y: y > 9))


def test_pairs_of_datasets_are_train_and_validation(dataset):
    pair = (dataset.take(30), dataset.skip(30))
    data = load_images(pair, split=ALL)
    assert [len(data.train), len(data.validation)] == [30, 10]
    read = opened(tuple(part.batch(8) for part in pair))
    assert read.steps == 4 and read.validation is not None


# --- Class names ---


@pytest.fixture
def folders(make_folder):
    """Returns a function that reads class folders as Keras does."""
    root = make_folder(
        {f"{split}/{name}": 4 for split in "tv" for name in ("b", "a", "c")}
    )

    def read(split, **options):
        return keras.utils.image_dataset_from_directory(
            root / split, image_size=(8, 8), verbose=False, **options
        )

    return read


@pytest.mark.parametrize("label_mode", ["int", "categorical"])
def test_class_names_of_datasets_are_kept(folders, label_mode):
    data = load_images(folders("t", label_mode=label_mode))
    assert data.class_names == ("a", "b", "c")
    two = load_images(
        folders("t", class_names=["c", "a"], label_mode="binary"), split=ALL
    )
    assert two.class_names == ("c", "a")
    assert np.bincount(two.train.labels).tolist() == [4, 4]
    both = folders("t", subset="both", validation_split=0.25, seed=1)
    data = load_images(both, split=ALL)
    assert data.class_names == ("a", "b", "c") and len(data.validation) == 3
    with raises("`class_names` must be those of the data set"):
        load_images(folders("t"), class_names=["c", "b", "a"])


def test_other_classes_in_another_split_are_refused(folders):
    parts = {
        "train": folders("t"),
        "validation": folders("v", class_names=["b", "c"]),
    }
    for read in (load_images, opened):
        with raises("the same classes in every split.*'a', 'b', 'c'"):
            read(parts)
    parts["validation"] = folders("v")
    assert load_images(parts).class_names == ("a", "b", "c")
    # After `prefetch` there are no names to compare.
    parts["validation"] = folders("v").prefetch(1)
    assert load_images(parts).class_names == ("a", "b", "c")
    assert opened(parts).validation is not None


def test_datasets_of_texts(tmp_path):
    for name in ("neg", "pos"):
        (tmp_path / name).mkdir()
        for i in range(4):
            (tmp_path / name / f"{i}.txt").write_text(f"{name} é {i}")
    for mode in ("int", "binary", "categorical"):
        source = keras.utils.text_dataset_from_directory(
            tmp_path, label_mode=mode, shuffle=False, verbose=False
        )
        data = load_texts(source, split=ALL)
        assert data.class_names == ("neg", "pos")
        assert data.train.texts[7] == "pos é 3"
        assert data.train.labels.tolist() == [0] * 4 + [1] * 4
    single = tf.data.Dataset.from_tensor_slices((["a", "b", ""], [0, 1, 1]))
    with raises("all/000002: the text is empty"):
        load_texts(single)


# --- Elements of other shapes ---


def test_elements_that_are_dicts_or_have_weights(dataset):
    named = dataset.map(lambda x, y: {"id": y, "image": x, "label": y})
    assert len(load_images(named, split=ALL).train) == 40
    odd = dataset.map(lambda x, y: {"x": x, "y": y})
    with raises(r"Make pairs: `.map\(lambda x: \(x\[INPUT\], x\[LABEL\]\)\)`"):
        load_images(odd)
    assert load_images(odd.map(lambda x: (x["x"], x["y"]))).num_classes == 4
    weighted = dataset.map(lambda x, y: (x, y, 1.0))
    with raises(r"`.map\(lambda x, y, weight: \(x, y\)\)`"):
        load_images(weighted)
    pairs = weighted.map(lambda x, y, weight: (x, y))
    assert load_images(pairs).num_classes == 4


class Batches(keras.utils.PyDataset):
    class_indices = {"w": 0, "z": 3, "x": 1, "y": 2}

    def __init__(self, arrays):
        super().__init__()
        self.arrays = arrays

    def __len__(self):
        return 5

    def __getitem__(self, index):
        rows = slice(8 * index, 8 * index + 8)
        return self.arrays[0][rows], self.arrays[1][rows]


def test_a_py_dataset(arrays):
    data = load_images(Batches(arrays), split=ALL)
    assert data.class_names == tuple("wxyz") and len(data.train) == 40
    with raises("Read it into memory first: `load_images", TypeError):
        opened(Batches(arrays))
    assert steps_of(data) == 5


def test_generators_and_the_advice(arrays):
    def batches():
        while True:
            yield arrays[0][:8], arrays[1][:8]

    for read in (load_images, load_texts, opened):
        with raises("zip.*itertools.islice.batches, n", TypeError):
            read(batches())
    islice = itertools.islice
    pair = tuple(map(np.concatenate, zip(*islice(batches(), 5), strict=True)))
    assert len(load_images(pair, split=ALL).train) == 40
    assert steps_of(pair) == 5


# --- Hugging Face ---


class Value:
    pass


class ClassLabel:
    names = ["cat", "dog"]


ImageFeature = type("Image", (), {})


class Rows(list):
    """Behaves as `datasets.Dataset` does."""

    def __init__(self, rows, **features):
        super().__init__(rows)
        self.features, self.column_names = features, list(features)


def test_hugging_face_images(make_image):
    rows = [
        {"id": i, "image": make_image(i, mode=mode), "label": i % 2}
        for i, mode in enumerate(["RGB", "L", "RGBA", "RGB"] * 2)
    ]
    features = {"id": Value(), "image": ImageFeature(), "label": ClassLabel()}
    source = Rows(rows, **features)
    data = load_images(source, split=ALL)
    assert data.class_names == ("cat", "dog") and data.channels == 3
    np.testing.assert_array_equal(data.train.image(0), rows[0]["image"])
    parts = {"train": Rows(rows[:6], **features)}
    parts["test"] = Rows(rows[6:], **features)
    assert len(load_images(parts).test) == 2
    with raises("one image feature and one ClassLabel. Received: .'id': 'Va"):
        load_images(Rows(rows, id=Value()))
    with raises("`load_images", TypeError):
        opened(source)


def test_hugging_face_texts():
    rows = [{"text": f"t{i}", "label": i % 2} for i in range(8)]
    source = Rows(rows, text=Value(), label=ClassLabel())
    data = load_texts(source, split=ALL)
    assert data.class_names == ("cat", "dog")
    assert data.train.texts.tolist() == [row["text"] for row in rows]


def test_hidden_labels_are_no_class(make_image):
    """GLUE on Hugging Face marks the labels of its test split by -1."""
    features = {"label": ClassLabel()}
    kinds = (
        (load_texts, {"text": Value()}, str),
        (load_images, {"image": ImageFeature()}, make_image),
    )
    for load, feature, make in kinds:
        key = next(iter(feature))
        rows = [{key: make(i), "label": i % 2} for i in range(8)]
        train = Rows(rows, **feature, **features)
        for wrong in (-1, 2, 0.5):
            odd = [{key: make(i), "label": wrong} for i in (8, 9)]
            test = Rows(odd + rows[:1], **feature, **features)
            with raises(
                f"2 of 3 test labels .* such as label {wrong}, outside"
            ):
                load({"train": train, "test": test})
        assert len(load({"train": train}, split=ALL).train) == 8
        gap = Rows([*rows, {key: make(8), "label": None}], **train.features)
        with raises("all/000008: it has no label"):
            load(gap)


def test_hidden_labels_of_tfds_are_no_class(monkeypatch):
    part = tf.data.Dataset.from_tensor_slices((["a", "b"], [0, -1]))
    opened = ({"train": part}, ("no", "yes"))
    monkeypatch.setattr(tfds, "open_splits", lambda source, kind: opened)
    with raises("1 of 2 train labels .* such as label -1, outside"):
        load_texts("tfds:any")


def test_labels_of_texts_in_rows():
    texts = [f"t{i}" for i in range(6)]

    def read(labels, **options):
        source = tf.data.Dataset.from_tensor_slices((texts, labels))
        return load_texts(source.batch(4), split=ALL, **options)

    one_hot = np.eye(3)[[0, 1, 2] * 2]
    assert read(one_hot).train.labels.tolist() == [0, 1, 2] * 2
    for odd in ([1, 1, 0], [0, 0, 0], [0.2, 0.8, 0]):
        wrong = one_hot.copy()
        wrong[4] = odd
        with raises("one class for each text.*row 4.*argmax"):
            read(wrong)
    assert read(one_hot.argmax(1)[:, None]).num_classes == 3
    with raises("integers or names"):
        read([0.5, 1.5] * 3)
    names = ["NA", "EU"] * 3
    with raises("all/000000: it has no label"):
        read(names)
    assert read(names, class_names=["EU", "NA"]).num_classes == 2


def test_tables_with_the_bytes_of_images(make_image, tmp_path):
    """As Hugging Face writes them to Parquet."""
    cells = []
    for i in range(6):
        file = io.BytesIO()
        make_image(i).save(file, "PNG")
        cells.append({"bytes": file.getvalue(), "path": f"{i}.png"})
    cells[5]["path"] = None
    table = pyarrow.table({"image": cells, "label": [0, 1] * 3})
    pyarrow.parquet.write_table(table, tmp_path / "x.parquet")
    data = load_images(tmp_path / "x.parquet", split=ALL)
    assert data.train.ids[:1] + data.train.ids[5:] == ("0.png", "row 5")
    np.testing.assert_array_equal(data.train.image(3), make_image(3))
    cells[2]["bytes"] = b"nonsense"
    with raises("2.png: its content is not in an image format"):
        load_images(pyarrow.table({"image": cells, "label": [0, 1] * 3}))


def test_lists_of_images(make_image, arrays):
    labels = ["a", "b"] * 3
    images = [make_image(i, size=(8 + i, 9)) for i in range(6)]
    for source in (images, [np.asarray(image) for image in images]):
        data = load_images((source, labels), split=ALL)
        assert data.image_size is None
        np.testing.assert_array_equal(data.train.image(5), images[5])
    palette = [image.convert("P") for image in images]
    data = load_images((palette, labels), split=ALL)
    expected = np.asarray(palette[0].convert("RGB"))
    np.testing.assert_array_equal(data.train.image(0), expected)
    mixed = [np.asarray(image) for image in images]
    mixed[1] = mixed[1][..., 0]
    with raises(r"with the same channels. .* image.convert\(\"RGB\"\)"):
        load_images((mixed, labels))
    with raises("row 1 of type NoneType", TypeError):
        load_images(([mixed[0], None], ["a", "b"]))
    gap = Image.new("RGB", (8, 8))
    assert len(load_images(([gap] + images[1:], labels), split=ALL).train) == 6
