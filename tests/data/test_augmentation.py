import pathlib
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from keras_transfer.data import Augmentation, load_images

ALL = {
    "horizontal_flip": True,
    "vertical_flip": True,
    "rotation": 20.0,
    "zoom": 0.3,
    "crop": 0.3,
    "translation": 0.2,
    "erasing": 0.5,
    "color_jitter": 0.5,
    "lighting": 0.5,
    "mixup": 0.4,
    "cutmix": 0.4,
}


def only(**values):
    return Augmentation(**{"horizontal_flip": False, **values})


def run(dataset):
    pairs = [(x.numpy(), y.numpy()) for x, y in dataset]
    return tuple(np.concatenate(parts) for parts in zip(*pairs, strict=True))


@pytest.fixture
def dataset(arrays):
    labels = np.eye(4, dtype=np.float32)[arrays[1]]
    data = tf.data.Dataset.from_tensor_slices((arrays[0], labels))
    return data.batch(16)


@pytest.mark.parametrize("name", ALL)
def test_each_change_acts_on_its_own(dataset, arrays, name):
    augment = only(**{name: ALL[name]})
    result = augment.apply(dataset, seed=1)
    assert result.cardinality() == 3
    assert result.element_spec[0].dtype == tf.float32
    images, labels = run(result)
    assert images.shape == arrays[0].shape
    assert images.min() >= 0 and images.max() <= 255
    assert not np.array_equal(images, arrays[0])
    if not augment.mixes_labels:
        np.testing.assert_array_equal(labels, run(dataset)[1])


def test_nothing_switched_on_changes_nothing(dataset, arrays):
    images, _ = run(only().apply(dataset))
    np.testing.assert_array_equal(images, arrays[0])


@pytest.mark.parametrize(
    "name", [n for n in ALL if n not in ("mixup", "cutmix")]
)
def test_each_image_draws_its_own_change(name):
    pixels = np.random.default_rng(0).integers(0, 256, (1, 16, 16, 3))
    same = np.repeat(pixels, 16, axis=0).astype(np.uint8)
    data = tf.data.Dataset.from_tensor_slices((same, np.zeros(16)))
    images, _ = run(only(**{name: ALL[name]}).apply(data.batch(16)))
    assert len({image.tobytes() for image in images}) > 1


def test_everything_at_once_stays_in_range_and_convex(dataset):
    images, labels = run(Augmentation(**ALL).apply(dataset))
    assert images.min() >= 0 and images.max() <= 255
    np.testing.assert_allclose(labels.sum(axis=1), 1, atol=1e-5)
    assert (labels >= 0).all()


def test_flip_mirrors_half_of_the_images():
    pixels = np.random.default_rng(0).integers(0, 256, (200, 4, 5, 3))
    data = tf.data.Dataset.from_tensor_slices((pixels, np.zeros(200)))
    images, _ = run(Augmentation().apply(data.batch(50)))
    mirrored = [
        np.array_equal(image, before[:, ::-1])
        for image, before in zip(images, pixels, strict=True)
    ]
    kept = [
        np.array_equal(image, before)
        for image, before in zip(images, pixels, strict=True)
    ]
    assert sum(mirrored) + sum(kept) == 200
    assert 70 < sum(mirrored) < 130


def test_crop_shows_a_window_of_the_image():
    # Pixels hold their own row and column, which a window preserves.
    rows, columns = np.mgrid[0:64, 0:64].astype(np.float32)
    image = np.stack([rows, columns, rows], axis=-1)
    data = tf.data.Dataset.from_tensors(
        (np.repeat(image[None], 32, axis=0), np.zeros(32))
    )
    images, _ = run(only(crop=0.5).apply(data))
    for axis in (0, 1):
        side = np.ptp(images[..., axis], axis=(1, 2))
        np.testing.assert_allclose(side, 32, atol=1.6)
        low = images[..., axis].min(axis=(1, 2))
        assert low.min() < 8 and low.max() > 24  # Anywhere in the image.


@pytest.mark.parametrize("name", ["mixup", "cutmix"])
def test_mixing_is_convex_in_images_and_labels(name):
    # Two constant images: the mean of a mixed one is its label's weight.
    images = np.zeros((64, 32, 32, 3), np.float32)
    images[32:] = 200
    labels = np.eye(2, dtype=np.float32)[np.arange(64) // 32]
    data = tf.data.Dataset.from_tensors((images, labels))
    mixed, weights = run(only(**{name: 1.0}).apply(data))
    np.testing.assert_allclose(weights.sum(axis=1), 1, atol=1e-5)
    assert ((weights > 0.05) & (weights < 0.95)).any()
    share = mixed.mean(axis=(1, 2, 3)) / 200
    # CutMix pastes whole pixels, its labels have the exact area.
    atol = 1e-3 if name == "mixup" else 0.07
    np.testing.assert_allclose(share, weights[:, 1], atol=atol)


def test_epochs_differ_and_the_seed_decides(dataset):
    augment = only(rotation=30.0, lighting=0.3)
    result = augment.apply(dataset, seed=5)
    first, second = run(result)[0], run(result)[0]
    assert not np.array_equal(first, second)
    again = augment.apply(dataset, seed=5)
    np.testing.assert_array_equal(run(again)[0], first)
    np.testing.assert_array_equal(run(again)[0], second)
    other = augment.apply(dataset, seed=6)
    assert not np.array_equal(run(other)[0], first)
    later = augment.apply(dataset, seed=5, initial_epoch=1)
    np.testing.assert_array_equal(run(later)[0], second)


SCRIPT = """
import numpy as np, tensorflow as tf
from keras_transfer.data import Augmentation
images = (np.arange(4 * 8 * 8 * 3) % 251).reshape(4, 8, 8, 3)
data = tf.data.Dataset.from_tensors((images.astype("uint8"), np.zeros(4)))
augment = Augmentation(rotation=10.0, color_jitter=0.2, erasing=0.5)
result = [x.numpy().sum() for _ in range(2) for x, _ in augment.apply(data, 3)]
"""


def test_another_process_augments_alike():
    here = {}
    exec(SCRIPT, here)
    # Neither TensorFlow's seed nor what ran before matters.
    code = f"{SCRIPT}\nprint(*map(float, result))"
    out = subprocess.run(
        [sys.executable, "-c", code],
        cwd=pathlib.Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=True,
    )
    there = [float(value) for value in out.stdout.split()]
    np.testing.assert_allclose(there, here["result"], rtol=1e-6)


def test_train_is_augmented_and_validation_never(arrays):
    data = load_images(arrays, split=(0.5, 0.5, 0.0))
    augment = Augmentation(rotation=90.0)
    images, _ = run(data.train.batches(8, augment=augment))
    assert not np.array_equal(images, data.train.arrays()[0])
    images, _ = run(data.validation.batches(8))
    np.testing.assert_array_equal(images, data.validation.arrays()[0])


def test_a_dataset_of_unknown_length(dataset, arrays):
    some = dataset.filter(lambda x, y: True)
    images, _ = run(only().apply(some))
    np.testing.assert_array_equal(images, arrays[0])


def test_float16_policy_does_not_reach_the_augmentation(dataset):
    import keras

    keras.config.set_dtype_policy("mixed_float16")
    try:
        images, _ = run(only(lighting=0.1, mixup=0.2).apply(dataset))
    finally:
        keras.config.set_dtype_policy("float32")
    assert images.dtype == np.float32


@pytest.mark.parametrize("channels", [1, 4, 6])
def test_other_numbers_of_channels(channels):
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 8, channels))
    data = tf.data.Dataset.from_tensor_slices((pixels, np.eye(8))).batch(4)
    values = {**ALL, "color_jitter": 0.5 if channels == 1 else 0.0}
    images, _ = run(Augmentation(**values).apply(data))
    assert images.shape == (8, 8, 8, channels)
    if channels > 1:
        with pytest.raises(
            ValueError, match="`color_jitter` needs images with"
        ):
            only(color_jitter=0.1).apply(data)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("rotation", 181),
        ("rotation", -1.0),
        ("zoom", 0.95),
        ("crop", 1.0),
        ("translation", 1.1),
        ("erasing", 2),
        ("color_jitter", "strong"),
        ("lighting", None),
        ("mixup", 1.5),
        ("cutmix", float("nan")),
        ("zoom", True),
    ],
)
def test_values_out_of_range(name, value):
    with pytest.raises(
        ValueError, match=rf"`{name}` must be a number in \[0, "
    ):
        Augmentation(**{name: value})


def test_wrong_types_and_shapes(dataset):
    with pytest.raises(
        TypeError, match="`vertical_flip` must be True or False"
    ):
        Augmentation(vertical_flip=1)
    integers = dataset.map(lambda x, y: (x, tf.argmax(y, axis=-1)))
    with pytest.raises(ValueError, match='one-hot .* label_mode="categorical"'):
        only(mixup=0.2).apply(integers)
    with pytest.raises(
        ValueError, match=r"batches of images .*shape=\(8, 8, 3\)"
    ):
        only().apply(dataset.unbatch())
    with pytest.raises(ValueError, match=r"pairs \(images, labels\)"):
        only().apply(dataset.map(lambda x, y: x))


def test_only_training_images_are_augmented():
    images = np.random.default_rng(0).integers(0, 256, (12, 8, 8, 3), "uint8")
    data = load_images((images, np.arange(12) % 2), split=(0.5, 0.0, 0.5))
    with pytest.raises(ValueError, match='Received: an .* for split "test"'):
        data.test.batches(augment=Augmentation())
    with pytest.raises(TypeError, match="must be an `Augmentation` or None"):
        data.train.batches(augment="mixup")
