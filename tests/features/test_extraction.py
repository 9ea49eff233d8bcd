"""Features: what the backbone says, and each (image, view) computed once."""

import dataclasses
import functools
import json
import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image

import keras_transfer as ktr
from keras_transfer.caching import feeds, filling
from keras_transfer.caching.cuts import Cut, network_to
from keras_transfer.caching.fingerprints import digest_network
from keras_transfer.caching.store import FeatureStore
from keras_transfer.caching.store.entry import Entry
from keras_transfer.caching.store.shards import shard_names
from keras_transfer.caching.store.store import open_store
from keras_transfer.caching.views import View, make_views
from keras_transfer.features import (
    Features,
    FeatureSplit,
    extract_features,
)

from ._extracting import (
    KILLED,
    extract,
    make_backbone,
    make_images,
    make_network,
    passed,
)

COUNT = 10
CHANGING = ktr.Augmentation(crop=0.3, rotation=20.0, lighting=0.2)


@pytest.fixture
def images():
    return make_images(COUNT)


@pytest.fixture
def store(tmp_path):
    return FeatureStore(tmp_path / "store")


def run(backbone, images):
    """The backbone called directly."""
    pixels = images.astype("float32")
    return np.array(backbone.model(backbone.preprocessing(pixels)))


def unit(rows):
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


# --- Values ---


@pytest.mark.parametrize("tier", ["disk", "memory"])
@pytest.mark.parametrize(
    "pooling, pool",
    [
        ("avg", lambda x: x.mean(axis=(1, 2))),
        ("max", lambda x: x.max(axis=(1, 2))),
        (None, lambda x: x),
    ],
)
def test_values_are_those_of_the_backbone(images, store, pooling, pool, tier):
    backbone = make_backbone()
    found, _ = extract(
        images,
        store if tier == "disk" else "memory",
        backbone,
        pooling=pooling,
        batch_size=4,
    )
    expected = pool(run(backbone, images))
    assert found.values.dtype == np.float32
    assert found.shape == expected.shape[1:]
    np.testing.assert_allclose(found.values, expected, atol=1e-5)
    np.testing.assert_allclose(found[3], expected[3], atol=1e-5)
    np.testing.assert_allclose(found[[7, 2]], expected[[7, 2]], atol=1e-5)
    pieces = np.concatenate(list(found.chunks(4)))
    np.testing.assert_array_equal(pieces, found.values)


def test_blocks_have_unit_norm_each(images):
    backbone = make_backbone()
    found, passes = extract(images, "memory", backbone, layers="*")
    assert passes == COUNT
    names = [f"block_{number}" for number in (1, 2, 3)]
    assert [part.block for part in found.parts] == names
    assert [part.backbone for part in found.parts] == [backbone.name] * 3
    assert [(p.start, p.stop) for p in found.parts] == [
        (0, 4),
        (4, 10),
        (10, 15),
    ]
    network = make_network()
    ends = [network.get_layer(f"block_{i}_relu").output for i in (1, 2)]
    inner = keras.Model(network.inputs, [*ends, network.output])
    outputs = inner([images.astype("float32") / 255])
    expected = [unit(np.array(o).mean(axis=(1, 2))) for o in outputs]
    np.testing.assert_allclose(
        found.values, np.concatenate(expected, axis=1), atol=1e-5
    )


def test_backbones_are_stacked(images):
    first = make_backbone(seed=1, name="first")
    second = make_backbone(seed=2, name="second")
    found, passes = extract(
        images, "memory", [first, second], layers={"second": ["block_[12]"]}
    )
    assert passes == 2 * COUNT
    assert [(p.backbone, p.block) for p in found.parts] == [
        (first.name, "block_3"),
        (second.name, "block_1"),
        (second.name, "block_2"),
    ]
    expected = unit(run(first, images).mean(axis=(1, 2)))
    np.testing.assert_allclose(found.values[:, :5], expected, atol=1e-5)
    np.testing.assert_allclose(
        np.linalg.norm(found.values, axis=1), np.sqrt(3), atol=1e-5
    )


def test_float16_within_its_precision(images, store):
    exact, _ = extract(images, store)
    half, passes = extract(images, store, dtype="float16")
    assert passes == COUNT
    np.testing.assert_allclose(half.values, exact.values, rtol=1e-3)
    large, small = sorted(info.num_bytes for info in store.ls())[::-1]
    assert small < large


def test_float16_does_not_overflow_in_silence(images):
    backbone = make_backbone(bias=1e5)
    with pytest.raises(ValueError, match='must be "float32" because the netw'):
        extract(images, "memory", backbone, dtype="float16")


def test_images_of_many_sizes(tmp_path):
    many = [make_images(1, size=size)[0, :8] for size in (8, 9, 16, 30, 40)]
    data = load(write_files(tmp_path / "files", many), image_size=8)
    found, _ = extract(data, "memory")
    expected = run(make_backbone(), data.train.arrays()[0])
    np.testing.assert_allclose(
        found.train.values, expected.mean(axis=(1, 2)), atol=1e-5
    )


def test_floats_are_taken_as_they_are(images):
    backbone = make_backbone()
    floats = images + np.float32(0.25)
    found, _ = extract(floats, "memory", backbone)
    expected = run(backbone, floats).mean(axis=(1, 2))
    np.testing.assert_allclose(found.values, expected, atol=1e-5)


def test_a_model_is_read_as_in_inference(images):
    model = ktr.build_classifier(make_backbone(), 3, dropout=0.5)
    ktr.unfreeze(model, "all", train_batch_norm=True)
    before = [np.array(v) for v in model.variables]
    found, _ = extract(images, "memory", model)
    for variable, array in zip(model.variables, before, strict=True):
        np.testing.assert_array_equal(np.array(variable), array)
    expected = run(make_backbone(), images).mean(axis=(1, 2))
    np.testing.assert_allclose(found.values, expected, atol=1e-5)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_mixed_precision(images, store, policy):
    exact, _ = extract(images, store)
    keras.config.set_dtype_policy(policy)
    try:
        backbone = make_backbone()
    finally:
        keras.config.set_dtype_policy("float32")
    found, passes = extract(images, store, backbone)
    assert passes == COUNT  # Other numbers: another key.
    assert found.values.dtype == np.float32
    assert np.abs(found.values - exact.values).max() > 0
    np.testing.assert_allclose(found.values, exact.values, rtol=0.05, atol=0.05)


# --- Data ---


def test_splits_labels_and_names(images):
    labels = np.arange(30) % 3
    data = ktr.load_images((make_images(30), labels))
    found, _ = extract(data, "memory")
    assert isinstance(found, Features)
    assert found.class_names == data.class_names
    for name in ("train", "validation", "test"):
        split, features = getattr(data, name), getattr(found, name)
        assert features.ids == split.ids
        np.testing.assert_array_equal(features.labels, split.labels)
        expected = run(make_backbone(), split.arrays()[0]).mean(axis=(1, 2))
        np.testing.assert_allclose(features.values, expected, atol=1e-5)
    assert "train: " in repr(found) and "block_3" in repr(found)


def test_a_split_alone(images):
    data = ktr.load_images((images, np.arange(COUNT) % 2))
    found, _ = extract(data.train, "memory")
    assert isinstance(found, FeatureSplit)
    assert len(found) == len(data.train)
    np.testing.assert_array_equal(found.labels, data.train.labels)


def test_pairs_and_dicts_of_pairs(images):
    one_hot = np.eye(2)[np.arange(COUNT) % 2]
    found, _ = extract((images, one_hot), "memory")
    np.testing.assert_array_equal(found.labels, np.arange(COUNT) % 2)
    parts = {"train": (images, one_hot), "test": (images[:4], one_hot[:4])}
    found, passes = extract(parts, "memory")
    assert passes == COUNT  # The test images are among the others.
    assert found.validation is None and found.class_names is None
    np.testing.assert_array_equal(found.test.values, found.train.values[:4])


def test_labels_of_several_classes_and_regression_stay(images):
    several = np.ones((COUNT, 2))
    found, _ = extract((images, several), "memory")
    np.testing.assert_array_equal(found.labels, several)
    targets = np.linspace(0, 1, COUNT)
    found, _ = extract((images, targets), "memory")
    np.testing.assert_array_equal(found.labels, targets)


# --- Hits ---


def write_files(folder, images):
    for number, image in enumerate(images):
        place = folder / f"class{number % 2}"
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(place / f"{number}.png")
    return folder


def load(folder, **options):
    return ktr.load_images(folder, split=(1.0, 0.0, 0.0), **options)


def test_renamed_files_are_found(images, store, tmp_path):
    folder = write_files(tmp_path / "files", images)
    first, passes = extract(load(folder), store)
    assert passes == COUNT
    for file in sorted(folder.rglob("*.png")):
        file.rename(file.with_name(f"x{9 - int(file.stem)}.png"))
    folder.rename(tmp_path / "moved")
    second, passes = extract(load(tmp_path / "moved"), store)
    assert passes == 0
    np.testing.assert_array_equal(
        np.sort(first.train.values, axis=0),
        np.sort(second.train.values, axis=0),
    )


def test_subsets_other_orders_and_shots_are_found(images, store):
    data = ktr.load_images(
        (images, np.arange(COUNT) % 2), split=(1.0, 0.0, 0.0)
    )
    whole, _ = extract(data.train, store)
    for part in (
        data.train.subset([7, 1, 3]),
        data.train.subset(np.arange(COUNT)[::-1]),
        data.train.shots(2),
    ):
        found, passes = extract(part, store)
        assert passes == 0
        rows = [whole.ids.index(name) for name in part.ids]
        np.testing.assert_array_equal(found.values, whole.values[rows])
    found, passes = extract(images[[4, 2]], "memory")
    assert passes == 2


def test_new_images_alone_are_computed(images, store):
    extract(images, store)
    more = np.concatenate([make_images(3, seed=9), images])
    found, passes = extract(more, store, batch_size=4)
    assert passes == 3
    expected = run(make_backbone(), more).mean(axis=(1, 2))
    np.testing.assert_allclose(found.values, expected, atol=1e-5)


def test_arrays_and_data_sets_of_them_are_the_same(images, store):
    extract(images, store)
    data = ktr.load_images((images, np.arange(COUNT) % 2))
    assert extract(data, store)[1] == 0
    # The same numbers as floats come in by another way.
    assert extract(images.astype("float32"), store)[1] == COUNT


def test_blocks_are_found_one_by_one(images, store):
    _, passes = extract(images, store, layers=["block_1", "block_3"])
    assert passes == COUNT
    for layers in ("block_1", "block_3", None):
        assert extract(images, store, layers=layers)[1] == 0
    _, passes = extract(images, store, layers="*")
    assert passes == COUNT  # block_2 is new.
    assert extract(images, store, layers=["block_[23]"])[1] == 0


def test_copies_files_and_models_are_found(images, store, tmp_path):
    backbone = make_backbone()
    extract(images, store, backbone)
    assert extract(images, store, make_backbone(name="other"))[1] == 0
    assert extract(images, store, backbone.copy())[1] == 0
    model = ktr.build_classifier(backbone, 3)
    assert extract(images, store, model)[1] == 0
    ktr.unfreeze(model, 1)
    assert extract(images, store, model)[1] == 0
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    assert extract(images, store, again)[1] == 0


def test_fine_tune_looks_for_the_same_key():
    model = ktr.build_classifier(make_backbone(), 3)
    below = network_to(model, [Cut(0, True, "after pooling")])
    pixels = keras.Input((8, 8, 3))
    x = model.get_layer("backbone")(model.get_layer("preprocessing")(pixels))
    x = keras.layers.GlobalAveragePooling2D()(x)
    assert digest_network(below) == digest_network(keras.Model(pixels, x))


def test_duplicates_pass_once(images, store):
    twice = np.concatenate([images, images[::-1]])
    found, passes = extract(twice, store)
    assert passes == COUNT
    np.testing.assert_array_equal(found.values[:COUNT], found.values[:9:-1])


# --- Misses ---


def change_a_weight(backbone):
    kernel = backbone.model.get_layer("block_2_conv").kernel
    values = np.array(kernel)
    values.flat[3] = np.nextafter(values.flat[3], np.float32(1))
    kernel.assign(values)


def change_a_statistic(backbone):
    mean = backbone.model.get_layer("block_1_norm").moving_mean
    mean.assign(np.array(mean) + 1e-3)


OTHERS = {
    "weight": change_a_weight,
    "statistic": change_a_statistic,
}


@pytest.mark.parametrize("change", OTHERS)
def test_another_weight_is_another_key(images, store, change):
    backbone = make_backbone()
    before, _ = extract(images, store, backbone)
    OTHERS[change](backbone)
    after, passes = extract(images, store, backbone)
    assert passes == COUNT
    expected = run(backbone, images).mean(axis=(1, 2))
    np.testing.assert_allclose(after.values, expected, atol=1e-5)


def test_what_is_above_a_block_does_not_decide_it(images, store):
    backbone = make_backbone()
    extract(images, store, backbone, layers="*")
    change_a_weight(backbone)
    assert extract(images, store, backbone, layers="block_1")[1] == 0
    assert extract(images, store, backbone, layers="block_2")[1] == COUNT


@pytest.mark.parametrize(
    "options",
    [
        {"swap": True},
        {"bias": 0.25},
        {"pixel_range": "[-1, 1]"},
        {"seed": 5},
    ],
    ids=str,
)
def test_another_network_is_another_key(images, store, options):
    extract(images, store)
    backbone = make_backbone(**options)
    found, passes = extract(images, store, backbone)
    assert passes == COUNT
    expected = run(backbone, images).mean(axis=(1, 2))
    np.testing.assert_allclose(found.values, expected, atol=1e-5)


@pytest.mark.parametrize(
    "options", [{"dtype": "float16"}, {"pooling": "max"}, {"pooling": None}]
)
def test_another_result_is_another_key(images, store, options):
    extract(images, store)
    assert extract(images, store, **options)[1] == COUNT


def test_another_pixel_is_one_example(images, store):
    extract(images, store)
    images[4, 2, 2, 1] ^= 1
    found, passes = extract(images, store)
    assert passes == 1
    expected = run(make_backbone(), images).mean(axis=(1, 2))
    np.testing.assert_allclose(found.values, expected, atol=1e-5)


def test_another_size_is_another_key(store, tmp_path):
    folder = write_files(tmp_path / "files", make_images(4, size=16))
    sources = [
        ktr.load_images(folder, image_size=size, split=(1.0, 0.0, 0.0))
        for size in (8, (8, 16), 16)
    ]
    network = keras.Sequential(
        [
            keras.Input((None, None, 3)),
            keras.layers.Conv2D(2, 3),
            keras.layers.ReLU(),
        ]
    )
    backbone = ktr.load_backbone(network, pixel_range="[0, 1]")
    for data in sources:
        extract(data, store, backbone)
    assert len(store.ls()) == 3
    for data in sources:
        found, _ = extract(data, store, backbone)
        expected = run(backbone, data.train.arrays()[0]).mean(axis=(1, 2))
        np.testing.assert_allclose(found.train.values, expected, atol=1e-5)


def test_other_views_are_other_keys(images, store):
    options = {"views": 3, "augment": CHANGING}
    assert extract(images, store, **options)[1] == 3 * COUNT
    assert extract(images, store, **options)[1] == 0
    # Clean and mirrored stay; one is drawn anew.
    assert extract(images, store, **options, seed=1)[1] == COUNT
    other = dataclasses.replace(CHANGING, crop=0.2)
    assert extract(images, store, views=3, augment=other)[1] == COUNT
    assert extract(images, store, views=4, augment=CHANGING)[1] == COUNT
    flat = dataclasses.replace(CHANGING, horizontal_flip=False)
    assert extract(images, store, views=2, augment=flat)[1] == COUNT
    mixed = dataclasses.replace(CHANGING, mixup=0.2)
    assert extract(images, store, views=4, augment=mixed)[1] == 0


# --- Digests of networks ---


def double(x):
    return 2 * x


def scale_by(factor):
    def scale(x):
        return factor * x

    return scale


class Own(keras.layers.Layer):
    def __init__(self, factor, **kwargs):
        super().__init__(**kwargs)
        self.factor = factor

    def call(self, x):
        return self.factor * x


def digest_of(function, shape=(8, 8, 3)):
    inputs = keras.Input(shape)
    return digest_network(keras.Model(inputs, function(inputs)))


def layer(kind, *args, **kwargs):
    return lambda x: getattr(keras.layers, kind)(*args, **kwargs)(x)


def lam(factor):
    return keras.layers.Lambda(lambda x: x * factor)


def attention(x, first, second):
    made = keras.layers.MultiHeadAttention(1, 2, kernel_initializer="ones")
    return made(x[:, first], x[:, second])


def rnn(initializer):
    made = keras.layers.SimpleRNN(
        2, kernel_initializer="ones", recurrent_initializer=initializer
    )
    return lambda x: keras.layers.Bidirectional(made)(x[:, :, 0])


def dense(**options):
    return layer("Dense", 2, kernel_initializer="ones", **options)


CHANGES = {
    "policy": (dense(), dense(dtype="mixed_float16")),
    "activation": (dense(), dense(activation="relu")),
    "part": (lambda x: x[:, 1:], lambda x: x[:, 2:]),
    "order": (lambda x: x - x * 2, lambda x: x * 2 - x),
    "side": (lambda x: 1 - x, lambda x: x - 1),
    "array": (lambda x: x + np.arange(3.0), lambda x: x + np.ones(3)),
    "number": (
        lambda x: keras.ops.where(x > 1, x, 0.0),
        lambda x: keras.ops.where(x > 2, x, 0.0),
    ),
    "lambda": (lam(2), lam(3)),
    "function": (
        layer("Activation", scale_by(2.0)),
        layer("Activation", scale_by(3.0)),
    ),
    "other function": (
        layer("Activation", double),
        layer("Activation", scale_by(2)),
    ),
    "option of an own layer": (lambda x: Own(2)(x), lambda x: Own(3)(x)),
    "rescaling": (layer("Rescaling", [1.0, 2, 3]), layer("Rescaling", 2.0)),
    "inner weights": (rnn("ones"), rnn("zeros")),
    "arguments": (lambda x: attention(x, 0, 1), lambda x: attention(x, 1, 0)),
    "outputs": (lambda x: [x + 1, x + 2], lambda x: [x + 2, x + 1]),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_decides(change):
    one, other = CHANGES[change]
    assert digest_of(one) == digest_of(one)
    assert digest_of(one) != digest_of(other)


def test_what_cannot_be_told_is_another_one():
    """Keras cannot write these down: they are the same as themselves only."""
    activations = [
        functools.partial(keras.activations.leaky_relu, negative_slope=slope)
        for slope in (0.1, 0.2)
    ]
    one, other = (keras.layers.Activation(a) for a in activations)
    assert digest_of(one) == digest_of(one)
    assert digest_of(one) != digest_of(other)


def test_sharing_a_layer_is_not_two_layers():
    def make(shared):
        inputs = keras.Input((4,))
        layers = [keras.layers.Dense(4) for _ in range(2)]
        for number, layer in enumerate(layers):
            layer.build((None, 4))
            layer.kernel.assign(np.eye(4) * (number + 1))
        x = layers[0](inputs)
        return keras.Model(inputs, layers[0 if shared else 1](x))

    assert digest_network(make(True)) == digest_network(make(True))
    assert digest_network(make(True)) != digest_network(make(False))


def test_nesting_and_names_decide_nothing():
    network = make_network()
    pixels = keras.Input((8, 8, 3))
    nested = keras.Model(pixels, keras.Sequential([network])(pixels))
    assert digest_network(nested) == digest_network(network)
    assert digest_network(make_network(name="b")) == digest_network(network)
    network.trainable = False
    assert digest_network(nested) == digest_network(network)


def test_other_outputs_decide_nothing():
    network = make_network()
    early = network.get_layer("block_1_relu").output
    both = keras.Model(network.inputs, [early, network.output])
    pixels = keras.Input((8, 8, 3))
    ends = both(pixels)
    for tensor, end in zip((early, network.output), ends, strict=True):
        assert digest_network(keras.Model(pixels, end)) == digest_network(
            keras.Model(network.inputs, tensor)
        )


def test_order_of_outputs_decides():
    network = make_network()
    ends = [network.get_layer("block_1_relu").output, network.output]
    assert digest_network(keras.Model(network.inputs, ends)) != digest_network(
        keras.Model(network.inputs, ends[::-1])
    )


# --- Once ---


def test_each_image_and_view_passes_once(store):
    images = make_images(20)
    labels = np.arange(20) % 2
    data = ktr.load_images((images, labels), split=(0.7, 0.3, 0.0))
    every = {"store": store, "verbose": 0}
    backbone = make_backbone()
    passed()
    extract_features(backbone, data, layers="*", views=3, **every)
    counts = passed()
    assert counts == [1] * (3 * len(data.train) + len(data.validation))
    for layers in ("*", "block_1", ["block_[23]"], None):
        for views in (1, 3):
            extract_features(
                backbone, data, layers=layers, views=views, **every
            )
            extract_features(backbone, data.train, layers=layers, **every)
    extract_features(
        backbone, data.train.subset([3, 1]), layers="*", views=2, **every
    )
    assert passed() == []


# --- Views ---


@pytest.fixture(scope="module")
def digests():
    return np.random.default_rng(3).integers(0, 256, (COUNT, 16), dtype="uint8")


def look(view, images, digests):
    return np.array(view.make(3)(images, view.seeds(digests)))


def test_first_views_are_clean_and_mirrored(images, digests):
    clean, mirror, _ = make_views(3)
    np.testing.assert_array_equal(look(clean, images, digests), images)
    np.testing.assert_array_equal(
        look(mirror, images, digests), images[:, :, ::-1]
    )
    assert [view.kind for view in make_views(3)] == [
        "clean",
        "mirrored",
        "drawn",
    ]
    still = ktr.Augmentation(horizontal_flip=False, crop=0.1)
    assert make_views(2, still)[1].kind == "drawn"
    assert View().kind == "clean"


def test_drawn_views_depend_on_content_and_seed_alone(images, digests):
    view = View(2, CHANGING, seed=0)
    whole = look(view, images, digests)
    assert whole.min() >= 0 and whole.max() <= 255
    for rows in ([4], [9, 4, 0], [4, 4]):
        some = look(view, images[rows], digests[rows])
        np.testing.assert_allclose(some, whole[rows], atol=1e-3)
    for other in (View(3, CHANGING), View(2, CHANGING, seed=1)):
        gaps = np.abs(look(other, images, digests) - whole).max(axis=(1, 2, 3))
        assert (gaps > 1).all()
    same = np.repeat(images[:1], COUNT, axis=0)
    changed = look(view, same, digests)
    assert len({image.tobytes() for image in changed}) == COUNT


def test_views_come_out_in_their_order(images):
    found, _ = extract(images, "memory", views=3, batch_size=4)
    assert found.views == 3 and found.all_views.shape == (COUNT, 3, 5)
    np.testing.assert_array_equal(found.all_views[:, 0], found.values)
    expected = run(make_backbone(), images[:, :, ::-1]).mean(axis=(1, 2))
    np.testing.assert_allclose(found.all_views[:, 1], expected, atol=1e-5)
    again, _ = extract(images[[6, 2]], "memory", views=3)
    np.testing.assert_allclose(
        again.all_views, found.all_views[[6, 2]], atol=1e-4
    )


def test_only_training_images_have_views(images):
    parts = {"train": (images, None), "test": (make_images(4, seed=5), None)}
    parts = {name: pair[0] for name, pair in parts.items()}
    found, passes = extract(parts, "memory", views=2)
    assert passes == 2 * COUNT + 4
    assert found.train.views == 2 and found.test.views == 1


# --- Interrupted ---


def test_an_interrupt_keeps_what_was_computed(images, store, monkeypatch):
    real = feeds._grouped
    batches = iter(range(3))

    def interrupted(outputs, sizes):
        if next(batches) == 2:
            raise KeyboardInterrupt
        return real(outputs, sizes)

    with monkeypatch.context() as patch:
        patch.setattr(feeds, "_grouped", interrupted)
        with pytest.raises(KeyboardInterrupt):
            extract(images, store, batch_size=2, layers="*")
    assert [info.rows for info in store.ls()] == [4] * 3
    found, passes = extract(images, store, layers="*")
    assert passes == COUNT - 4
    expected, _ = extract(images, "memory", layers="*")
    np.testing.assert_allclose(found.values, expected.values, atol=1e-6)


def test_a_broken_file_keeps_what_was_computed(images, store, tmp_path):
    folder = write_files(tmp_path / "files", images)
    data = load(folder)
    Path(data.train.pixels.paths[int(data.train.positions[7])]).write_text("x")
    with pytest.raises(Exception, match="Cannot decode the image file"):
        extract(data, store, batch_size=2)
    (info,) = store.ls()
    assert 0 < info.rows <= 6


def test_no_room_is_said_before_anything_is_computed(images):
    with pytest.raises(OSError, match="no room for 360 B of features in mem"):
        extract(images, FeatureStore(limit=350))
    assert passed() == []


def test_a_full_store_is_read(images, tmp_path):
    extract(images, tmp_path / "s")
    found, passes = extract(images, FeatureStore(tmp_path / "s", limit=1))
    assert passes == 0 and len(found.values) == COUNT


@pytest.mark.parametrize("tier", ["disk", "memory"])
def test_a_store_too_small_for_all_backbones(images, tmp_path, tier):
    """The second one takes the room of the first, which is still read."""
    directory = tmp_path / "s" if tier == "disk" else None
    backbones = [make_backbone(seed=seed) for seed in (1, 2)]
    extract(images, FeatureStore(tmp_path / "one"), backbones[0])
    room = FeatureStore(tmp_path / "one").size() + 50
    small = FeatureStore(directory, limit=room if directory else 400)
    parts = {"train": images, "test": images[3:6]}
    found, _ = extract(parts, small, backbones)
    assert small.size() <= small.limit
    expected, _ = extract(parts, "memory", backbones)
    for name in parts:
        np.testing.assert_allclose(
            getattr(found, name).values,
            getattr(expected, name).values,
            atol=1e-6,
        )


def test_shards_are_written_as_it_goes(images, store, monkeypatch):
    """What waits in memory is a shard and a batch, whatever the data."""
    monkeypatch.setattr(filling, "_SHARD_BYTES", 4 * 5 * 4)
    sizes = []
    append = Entry.append

    def counted(self, digests, arrays):
        sizes.append(len(digests))
        append(self, digests, arrays)

    monkeypatch.setattr(Entry, "append", counted)
    found, _ = extract(make_images(50), store, batch_size=3)
    assert max(sizes) == 6 and sum(sizes) == 50 and len(sizes) == 9
    (info,) = store.ls()
    assert len(shard_names(store.directory / info.key)) == 9
    expected = run(make_backbone(), make_images(50)).mean(axis=(1, 2))
    np.testing.assert_allclose(found.values, expected, atol=1e-5)


def test_many_entries_share_what_may_wait(images, store, monkeypatch):
    monkeypatch.setattr(filling, "_WAITING_BYTES", 3 * 4 * 4 * 4)
    extract(make_images(50), store, batch_size=4, layers="*")
    # 4, 6 and 5 floats a row: each batch is a shard.
    for info in store.ls():
        assert len(shard_names(store.directory / info.key)) == 13


def test_features_outlive_their_entry(images, store):
    """What is read was mapped; another process may clear the store."""
    found, _ = extract(images, store)
    before = found.values
    FeatureStore(store.directory).clear()
    _, passes = extract(images[::-1].copy(), store)
    assert passes == COUNT
    np.testing.assert_array_equal(found.values, before)


def test_a_damaged_shard_is_computed_again(images, store):
    before = extract(images, store)[0].values
    (file,) = store.directory.glob("*/shards/*/tensor_0.npy")
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.warns(UserWarning, match=f"Shard {file.parent.name} of .* dam"):
        found, passes = extract(images, store.directory)
    assert passes == COUNT
    np.testing.assert_array_equal(found.values, before)


# --- Other processes ---


def in_process(command, *arguments):
    result = subprocess.run(
        [
            sys.executable,
            *("-m", "features._extracting", command),
            *map(str, arguments),
        ],
        cwd=Path(__file__).parents[1],
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    return json.loads(result.stdout.splitlines()[-1])


def test_another_process_finds_it(images, store):
    assert extract(images, store, layers="*")[1] == COUNT
    keys = sorted(info.key for info in store.ls())
    assert in_process("elsewhere", store.directory) == {
        "passes": 0,
        "keys": keys,
    }


def test_two_devices_extract_as_one(tmp_path):
    found = in_process("mirrored", tmp_path / "store")
    assert found["passes"] == [3 * COUNT, 0, 0]
    assert found["difference"] < 1e-5


def check_killed(found):
    everything = KILLED["count"] * KILLED["views"]
    assert found["passes"] == everything
    for killed in found["killed"]:
        assert killed["passes"] == everything - killed["left"], killed
        assert killed["damaged"] == []
        assert killed["difference"] <= 1e-5, killed
    return [killed["left"] for killed in found["killed"]]


@pytest.mark.parametrize(
    "kills", [6, pytest.param(20, marks=pytest.mark.exhaustive)]
)
def test_killed_at_any_moment(tmp_path, kills):
    left = check_killed(in_process("kill", tmp_path, kills, 0))
    # The moments fell within the extraction.
    everything = KILLED["count"] * KILLED["views"]
    assert sum(0 < rows < everything for rows in left) > kills // 4


def test_racing_processes_extract_once(tmp_path):
    found = in_process("race", tmp_path, 3)
    assert sum(found["passes"]) == KILLED["count"] * KILLED["views"]
    assert found["difference"] == 0


# --- Errors ---


@pytest.mark.parametrize(
    "options, error, message",
    [
        ({"pooling": "sum"}, ValueError, '`pooling` must be "avg", "max" or'),
        ({"dtype": "int8"}, ValueError, '`dtype` must be "float32" or "float'),
        ({"batch_size": 0}, ValueError, "`batch_size` must be an integer of"),
        ({"views": 0}, ValueError, "`views` must be an integer above 0"),
        ({"layers": "block_9"}, ValueError, "block_9"),
        ({"layers": {"huge": "*"}}, ValueError, "names of the backbones"),
        (
            {"layers": "*", "pooling": None},
            ValueError,
            '"avg" or "max" if several',
        ),
        ({"store": 3}, TypeError, "`store` must be a FeatureStore"),
        ({"backbones": []}, ValueError, "must hold at least one"),
        ({"backbones": 3}, TypeError, "`backbones` must be names"),
        ({"backbones": len}, TypeError, "`backbones` must be names"),
    ],
    ids=str,
)
def test_wrong_arguments(images, options, error, message):
    options = {"store": "memory", **options}
    with pytest.raises(error, match=message):
        extract(images, **options)


@pytest.mark.parametrize(
    "data, error, message",
    [
        (make_images(3, size=9), ValueError, r"shape \(8, 8, 3\) for"),
        (np.zeros((3, 4)), ValueError, "must have images of shape"),
        ("photos", TypeError, "must be an `ImageData` or"),
        (np.array(["a"]), ValueError, "must be images for tiny"),
        (make_images(0), ValueError, "at least one example"),
        ((make_images(3), [1, 2]), ValueError, "3 examples, 2 labels"),
        ({"test": make_images(3)}, ValueError, 'must have the key "train"'),
        (
            {"train": make_images(3), "valid": make_images(3)},
            ValueError,
            'must have the key "train"',
        ),
        (
            {"train": make_images(3), "test": make_images(3, size=9)},
            ValueError,
            "images of one size. Received: train .8, 8, 3., test .9, 9, 3.",
        ),
    ],
    ids=lambda value: str(value)[:30],
)
def test_wrong_data(data, error, message):
    with pytest.raises(error, match=message):
        extract(data, "memory")


def test_a_model_that_is_not_ours(images):
    with pytest.raises(TypeError, match="Wrap it: `load_backbone"):
        extract(images, "memory", make_network())


def test_open_store(tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_TRANSFER_CACHE", str(tmp_path))
    assert open_store(None).directory == tmp_path / "features"
    assert open_store("memory").directory is None
    assert open_store(tmp_path / "x").directory == tmp_path / "x"
    with pytest.raises(TypeError, match="`store` must be a FeatureStore"):
        open_store(3)


def test_features_of_a_network_without_weights():
    inputs = keras.Input((8, 8, 3))
    model = keras.Model(inputs, keras.layers.MaxPooling2D()(inputs), name="no")
    backbone = ktr.load_backbone(model, pixel_range="[0, 1]")
    pixels = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 3), "uint8")
    found = ktr.extract_features(backbone, pixels, store="memory", verbose=0)
    expected = pixels.reshape(4, 4, 2, 4, 2, 3).max((2, 4)).mean((1, 2)) / 255
    np.testing.assert_allclose(found.values, expected, atol=1e-6)
