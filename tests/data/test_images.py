import itertools
import pathlib
import shutil
import subprocess
import sys
import time

import numpy as np
import pytest
import tensorflow as tf
from sklearn.utils.class_weight import compute_class_weight

from keras_transfer.data import Augmentation, load_images


def epoch(dataset):
    pairs = [(x.numpy(), y.numpy()) for x, y in dataset]
    return tuple(np.concatenate(parts) for parts in zip(*pairs, strict=True))


@pytest.fixture
def data(arrays):
    return load_images(arrays, split=(0.7, 0.2, 0.1))


# --- splits -------------------------------------------------------------------


def test_splits_do_not_overlap_and_miss_nothing(data):
    parts = [set(p.ids) for p in (data.train, data.validation, data.test)]
    assert sum(map(len, parts)) == len(set.union(*parts)) == 40


def test_ids_and_splits_are_stable(make_folder):
    root = make_folder({"a": 20, "b": 20})
    first = load_images(root, seed=3)
    moved = root.parent / "moved"
    shutil.copytree(root, moved)
    second = load_images(moved, seed=3)
    assert first.train.ids == second.train.ids
    assert first.test.ids == second.test.ids
    assert first.test.ids != load_images(root, seed=4).test.ids


def test_repr(data):
    assert repr(data) == (
        "<ImageData: 4 classes, 28 train, 8 validation, 4 test images, 8x8, "
        "3 channels>"
    )
    assert repr(data.test) == '<ImageSplit "test": 4 images, 4 classes>'


def test_subset(data):
    part = data.train.subset([5, 2])
    assert part.ids == (data.train.ids[5], data.train.ids[2])
    np.testing.assert_array_equal(part.image(1), data.train.image(2))
    assert part.labels.tolist() == data.train.labels[[5, 2]].tolist()
    assert len(data.train.subset([])) == 0
    for bad in ([28], [-1], [0.5], [[1]]):
        with pytest.raises(
            ValueError, match=r"integers in \[0, 28\). Received"
        ):
            data.train.subset(bad)


def test_shots(data):
    few = data.train.shots(3, seed=0)
    assert np.bincount(few.labels).tolist() == [3, 3, 3, 3]
    assert few.ids == data.train.shots(3, seed=0).ids
    assert few.ids != data.train.shots(3, seed=1).ids
    assert set(data.train.shots(2, seed=0).ids) < set(few.ids)
    with pytest.raises(ValueError, match='`k` must be at most 7, .*class "0"'):
        data.train.shots(8)
    with pytest.raises(
        ValueError, match="`k` must be an integer of at least 1"
    ):
        data.train.shots(0)


def test_class_weights_equal_sklearns(arrays):
    labels = np.repeat([0, 1, 2], [20, 15, 5])
    data = load_images((arrays[0], labels))
    found = data.train.labels
    expected = compute_class_weight(
        "balanced", classes=np.unique(found), y=found
    )
    assert list(data.class_weights().values()) == pytest.approx(expected)
    assert list(data.class_weights()) == [0, 1, 2]


def test_a_class_with_one_example_warns(arrays):
    labels = np.array([0] * 20 + [1] * 19 + [2])
    with pytest.warns(UserWarning, match='Class "2" has 1 example: it is in'):
        data = load_images((arrays[0], labels))
    assert 2 in data.train.labels
    assert 'Class "2" has 1 example' in str(data.report)


def test_too_few_for_a_split_is_noted(arrays):
    data = load_images((arrays[0][:4], np.array([0, 1, 0, 1])))
    assert 'Split "test" is empty' in str(data.report)
    with pytest.raises(ValueError, match='Split "test" must hold images'):
        data.test.batches()


# --- duplicates ---------------------------------------------------------------


def test_our_split_never_separates_duplicates(arrays):
    images, labels = arrays
    twice = np.concatenate([images, images])
    for seed in range(5):
        data = load_images((twice, np.tile(labels, 2)), seed=seed)
        assert data.report.duplicates == ()
        assert len(data.report.copies) == 40
        for part in (data.train, data.validation, data.test):
            places = [int(id_.split("/")[1]) % 40 for id_ in part.ids]
            assert all(places.count(place) == 2 for place in places)


def test_leaks_between_given_splits_are_reported(make_folder):
    root = make_folder({"train/a": 5, "train/b": 5, "test/a": 5, "test/b": 5})
    shutil.copy(root / "train/a/000.png", root / "test/a/copy.png")
    with pytest.warns(UserWarning, match="1 groups of .* in different splits"):
        data = load_images(root, split=(1, 0, 0))
    group = ("test/a/copy.png", "train/a/000.png")
    assert data.report.duplicates == data.report.leaks == (group,)
    assert "test/a/copy.png, train/a/000.png" in str(data.report)
    assert group[0] in data.test.ids  # Reported, not dropped.


@pytest.mark.parametrize("verify", [True, False])
def test_conflicting_labels_are_reported(make_folder, verify):
    root = make_folder({"a": 9, "b": 9})
    shutil.copy(root / "a/000.png", root / "b/copy.png")
    with pytest.warns(UserWarning, match="1 groups of .* different labels"):
        data = load_images(root, verify=verify)
    assert data.report.conflicts == (("a/000.png", "b/copy.png"),)
    assert data.report.duplicates == data.report.conflicts


def test_duplicates_are_found_by_pixels_not_by_bytes(make_folder, make_image):
    root = make_folder({"a": 9, "b": 9})
    make_image(0).save(root / "a" / "same.bmp")  # As a/000.png.
    data = load_images(root)
    assert data.report.copies == (("a/000.png", "a/same.bmp"),)
    assert load_images(root, verify=False).report.copies == ()


# --- batches ------------------------------------------------------------------


def test_batches(data):
    batches = data.train.batches(8)
    assert batches.cardinality() == len(batches) == 4
    images, labels = epoch(batches)
    assert images.dtype == np.float32
    np.testing.assert_array_equal(images, data.train.arrays()[0])
    np.testing.assert_array_equal(labels, data.train.arrays()[1])
    np.testing.assert_array_equal(labels.argmax(axis=1), data.train.labels)
    _, labels = epoch(data.train.batches(8, label_mode="int"))
    np.testing.assert_array_equal(labels, data.train.labels)
    assert labels.dtype == np.int32


def test_drop_remainder(data):
    batches = data.train.batches(8, drop_remainder=True)
    assert batches.cardinality() == 3
    assert batches.element_spec[0].shape == (8, 8, 8, 3)
    assert epoch(batches)[0].shape[0] == 24


def test_shuffle_is_seeded_and_differs_by_epoch(data):
    def order(dataset):
        return [image.tobytes() for image in epoch(dataset)[0]]

    shuffled = data.train.batches(8, shuffle=True, seed=1)
    first, second = order(shuffled), order(shuffled)
    assert first != second
    assert (
        sorted(first) == sorted(second) == sorted(order(data.train.batches()))
    )
    tf.random.set_seed(99)  # Not TensorFlow's seed decides.
    again = data.train.batches(8, shuffle=True, seed=1)
    assert [order(again), order(again)] == [first, second]
    assert order(data.train.batches(8, shuffle=True, seed=2)) != first
    later = data.train.batches(8, shuffle=True, seed=1, initial_epoch=1)
    assert order(later) == second


def test_labels_follow_their_images_through_the_shuffle(data):
    images, labels = epoch(data.train.batches(5, shuffle=True))
    known = {
        data.train.image(i).tobytes(): label
        for i, label in enumerate(data.train.labels)
    }
    for image, label in zip(images, labels, strict=True):
        assert known[image.astype(np.uint8).tobytes()] == label.argmax()


def test_cache_freezes_neither_shuffle_nor_augmentation(data):
    augment = Augmentation(rotation=45.0)
    cached = data.train.batches(
        8, shuffle=True, augment=augment, cache=True, seed=1
    )
    plain = data.train.batches(8, shuffle=True, augment=augment, seed=1)
    epochs = [epoch(cached)[0] for _ in range(3)]
    for one, other in itertools.combinations(epochs, 2):
        assert not np.array_equal(one, other)
    for images in epochs:
        np.testing.assert_array_equal(images, epoch(plain)[0])


def test_cache_decodes_each_file_once(make_folder, monkeypatch):
    data = load_images(make_folder({"a": 8, "b": 8}), split=(1, 0, 0))
    from keras_transfer.data.images import decoding

    decoded = []
    decode = decoding.decode
    monkeypatch.setattr(
        decoding, "decode", lambda *a, **k: decoded.append(1) or decode(*a, **k)
    )
    batches = data.train.batches(4, cache=True, shuffle=True)
    first = epoch(batches)[0]
    second = epoch(batches)[0]
    assert len(decoded) == 16
    assert sorted(x.tobytes() for x in first) == sorted(
        x.tobytes() for x in second
    )


def test_sizes(make_folder, make_image):
    root = make_folder({"a": 4, "b": 4})
    make_image(99, size=(30, 20)).save(root / "a" / "large.png")
    for verify in (True, False):
        data = load_images(root, split=(1, 0, 0), verify=verify)
        assert data.image_size is None
        with pytest.raises(
            ValueError,
            match=r"`image_size` must be given because .* 2 sizes \(height x "
            r"width\), such as 10x8, 30x20. Pass image_size=",
        ):
            data.train.batches()
    assert data.train.arrays(image_size=6)[0].shape == (9, 6, 6, 3)
    images, _ = epoch(data.train.batches(image_size=(6, 7)))
    assert images.shape == (9, 6, 7, 3)
    small = data.train.subset([0, 1]).batches()
    assert small.element_spec[0].shape == (None, 10, 8, 3)
    data = load_images(root, image_size=(6, 7), split=(1, 0, 0))
    np.testing.assert_array_equal(epoch(data.train.batches())[0], images)
    assert data.train.image(0).shape == (6, 7, 3)


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_channels(make_folder, channels):
    root = make_folder({"a": 4, "b": 4})
    data = load_images(root, channels=channels)
    assert data.channels == channels
    assert next(iter(data.train.batches()))[0].shape[-1] == channels


def test_a_file_that_breaks_later_is_named(make_folder):
    root = make_folder({"a": 4, "b": 4})
    data = load_images(root, split=(1, 0, 0))
    (root / "b" / "002.png").write_bytes(b"\x89PNG broken")
    message = "Cannot decode the image file .*b/002.png.: its content is no"
    with pytest.raises(tf.errors.InvalidArgumentError, match=message):
        epoch(data.train.batches())
    with pytest.raises(ValueError, match=message):
        data.train.arrays()
    (root / "b" / "002.png").unlink()
    with pytest.raises(ValueError, match="b/002.png.: no such file"):
        data.train.image(data.train.ids.index("b/002.png"))


def test_wrong_arguments(data, arrays):
    train = data.train
    for arguments, message in (
        (
            {"label_mode": "binary"},
            '`label_mode` must be "categorical" or "int"',
        ),
        ({"batch_size": 0}, "`batch_size` must be an integer of at least 1"),
        ({"batch_size": 2.0}, "`batch_size` must be an integer of at least 1"),
        ({"seed": -1}, "`seed` must be an integer of at least 0"),
        ({"image_size": "big"}, "`image_size` must be"),
        (
            {"augment": Augmentation(mixup=0.2), "label_mode": "int"},
            "`mixup` and `cutmix` mix labels",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            train.batches(**arguments)
    labels = np.random.default_rng(0).integers(0, 2, (40, 3))
    multi = load_images((arrays[0], labels), multi_label=True)
    with pytest.raises(ValueError, match="the examples have several labels"):
        multi.train.batches(label_mode="int")
    with pytest.raises(ValueError, match="`shots` needs one class per example"):
        multi.train.shots(1)
    np.testing.assert_array_equal(
        epoch(multi.train.batches())[1], multi.train.labels
    )


def test_fit_and_predict(data):
    import keras

    model = keras.Sequential(
        [keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(4)]
    )
    loss = keras.losses.CategoricalCrossentropy(from_logits=True)
    model.compile("sgd", loss)
    augment = Augmentation(rotation=5.0, mixup=0.2)
    history = model.fit(
        data.train.batches(8, shuffle=True, augment=augment, cache=True),
        validation_data=data.validation.batches(8),
        epochs=2,
        shuffle=False,  # Or Keras warns that it cannot shuffle tf.data.
        verbose=0,
    )
    assert np.isfinite(history.history["val_loss"]).all()
    assert model.predict(data.test.batches(), verbose=0).shape == (4, 4)


def test_import_needs_no_tensorflow():
    code = (
        "import sys, keras_transfer.data.images as i, keras_transfer.data;"
        "print(sorted({'tensorflow', 'keras', 'sklearn', "
        "'tensorflow_datasets'} & set(sys.modules)))"
    )
    out = subprocess.run(
        [sys.executable, "-c", code],
        cwd=pathlib.Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=True,
    )
    assert out.stdout.strip() == "[]"


# --- real images --------------------------------------------------------------


def test_flowers(assets):
    start = time.perf_counter()
    data = load_images(assets / "images" / "flowers12")
    assert time.perf_counter() - start < 30
    assert data.num_classes == 12
    assert [len(data.train), len(data.validation), len(data.test)] == [
        640,
        80,
        240,
    ]
    assert data.image_size == (224, 224)
    # The source holds one image twice; both copies are in one split.
    assert data.report.duplicates == ()
    images, labels = next(iter(data.test.batches(16, image_size=96)))
    assert images.shape == (16, 96, 96, 3)
    few = data.train.shots(5)
    assert np.bincount(few.labels).tolist() == [5] * 12


def test_pacs(assets):
    data = load_images(assets / "images" / "pacs_small" / "photo")
    assert data.num_classes == 7
    assert len(data.train) + len(data.validation) + len(data.test) == 420


def test_a_dataset_that_is_gone_frees_its_images():
    """TensorFlow keeps functions that it was given for good."""
    import gc
    import weakref

    from keras_transfer.data import pipeline

    images = np.zeros((6, 8, 8, 3), np.uint8)
    data = load_images(
        {
            "train": (
                images + np.arange(6, dtype=np.uint8)[:, None, None, None],
                np.arange(6) % 2,
            )
        }
    )
    alive = []
    real = pipeline.PixelCache.__init__

    def remember(self, *arguments):
        alive.append(weakref.ref(self))
        real(self, *arguments)

    pipeline.PixelCache.__init__ = remember
    try:
        iterator = iter(data.train.batches(2, cache=True, shuffle=True))
        assert len(list(iterator)) == 3
    finally:
        pipeline.PixelCache.__init__ = real
    assert alive[0]() is not None
    del iterator
    gc.collect()
    assert alive[0]() is None
