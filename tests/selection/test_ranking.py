"""The networks are told apart, each image passes each of them once."""

import dataclasses
import functools
import time

import keras
import numpy as np
import pytest

import keras_transfer as ktr
from keras_transfer.backbones import applications
from keras_transfer.selection import (
    backbone_ranking,
    candidate,
    leep,
    nce,
    successive_halving,
)

CLASSES = 3


def make_data(count=90):
    """Noise, and a bright square whose place says the class."""
    generator = np.random.default_rng(0)
    images = generator.integers(0, 160, (count, 8, 8, 3)).astype("uint8")
    labels = np.arange(count) % CLASSES
    for image, label in zip(images, labels, strict=True):
        image[1:5, 2 * label : 2 * label + 3] += 90
    return ktr.load_images((images, labels), split=(0.8, 0.1, 0.1))


def make_backbone(name, good):
    """Means of the columns, or the same number twelve times."""
    inputs = keras.Input((8, 8, 3))
    layer = keras.layers.Conv2D(12, 8, name="block_1_conv", use_bias=False)
    network = keras.Model(inputs, layer(inputs), name=name)
    kernel = np.full((8, 8, 3, 12), 1 / 192, "float32")
    if good:
        columns = np.arange(8)[:, None] // 2 == np.arange(12) % 4
        kernel = kernel * columns[None, :, None]
    layer.kernel.assign(kernel)
    return ktr.load_backbone(network, pixel_range="[0, 1]")


def backbones():
    return [make_backbone("poor", False), make_backbone("rich", True)]


def test_the_better_one_comes_first(tmp_path):
    result = ktr.rank_backbones(
        backbones(),
        make_data(),
        scores=("logme", "h_score", "parc", "nleep"),
        store="memory",
        verbose=0,
    )
    rich, poor = result.rows
    assert result.best == "rich"
    assert rich.probe.accuracy > 0.95
    assert poor.probe.accuracy < 0.6
    for name, score in rich.scores.items():
        assert score > poor.scores[name], name
    assert rich.probe.low < rich.probe.accuracy <= rich.probe.high
    assert set(result.pareto()) <= {"rich", "poor"}
    assert "rich" in result.pareto()
    assert len(result.table().splitlines()) == 3
    result.save_table(tmp_path / "table.csv")
    assert (tmp_path / "table.csv").read_text().count("\n") == 3
    result.plot(tmp_path / "costs.png")
    assert (tmp_path / "costs.png").stat().st_size > 1000


def test_each_image_passes_once(tmp_path, monkeypatch):
    data = make_data()
    passed, decoded = [], []
    make = candidate.Candidate.__init__

    def counting(self, *arguments):
        make(self, *arguments)
        compute = self._outputs.compute

        def counted(images):
            # What compiles it is no image.
            passed.append(0 if not np.asarray(images).any() else len(images))
            return compute(images)

        self._outputs = self._outputs._replace(compute=counted)

    monkeypatch.setattr(candidate.Candidate, "__init__", counting)
    read = type(data.train).image

    def counted_read(self, index):
        decoded.append(index)
        return read(self, index)

    monkeypatch.setattr(type(data.train), "image", counted_read)
    store = tmp_path / "store"
    results = [
        ktr.rank_backbones(
            backbones(), data, budget=1e-9 if early else None, first=30,
            store=store, verbose=0,
        )
        for early in (True, False, False)
    ]  # fmt: skip
    assert [row.examples for row in results[0].rows] == [30, 30]
    count = len(data.train)
    assert [r.computed for r in results] == [60, 2 * (count - 30), 0]
    assert sum(passed) == 2 * count
    # Once for both of them, the second time for what is new, then not at all.
    assert len(decoded) <= count + 10
    first, second = results[1:]
    assert [row[:4] for row in first.rows] == [row[:4] for row in second.rows]
    assert second.rows[0].images_per_second == 0


def test_halving_leaves_the_better_half(monkeypatch):
    now, see = [0.0], successive_halving.SuccessiveHalving._extend

    def sees(self, rows):  # A second for each image and network.
        now[0] += len(rows) * len(self._running)
        see(self, rows)

    monkeypatch.setattr(successive_halving.SuccessiveHalving, "_extend", sees)
    monkeypatch.setattr(successive_halving.time, "monotonic", lambda: now[0])
    # After 2 * 24 seconds the rest would take 2 * 48; for one alone it fits.
    result = ktr.rank_backbones(
        backbones(), make_data(), budget=125, first=24, store="memory",
        verbose=0,
    )  # fmt: skip
    rich, poor = result.rows
    assert (rich.name, poor.name) == ("rich", "poor")
    assert poor.examples == 24
    assert rich.examples == len(make_data().train) == 72
    assert result.computed == 24 + 72


def test_beginnings_hold_all_classes():
    labels = np.repeat([0, 1, 2], [60, 30, 10])
    order = successive_halving._stratified_order(labels, seed=0)
    assert sorted(order) == list(range(100))
    for end in (10, 20, 50):
        counts = np.bincount(labels[order[:end]], minlength=3)
        np.testing.assert_allclose(counts / end, [0.6, 0.3, 0.1], atol=0.1)


def test_a_budget_knows_what_it_does_not_know(tmp_path):
    """What is in the store says nothing of what the rest takes."""
    data = make_data()
    rank = functools.partial(
        ktr.rank_backbones, data=data, first=10, store=tmp_path, verbose=0
    )
    assert rank(backbones(), budget=1e-9).computed == 20
    slow = make_backbone("rich", True)
    seen = []
    see = successive_halving.SuccessiveHalving._extend

    def sees(self, rows):
        seen.append(len(rows))
        see(self, rows)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(successive_halving.SuccessiveHalving, "_extend", sees)
        # As if the clock stood still: all is in the budget.
        patch.setattr(successive_halving.time, "monotonic", lambda: 0.0)
        rank([slow], budget=1.0)
    # Known, then twice as many, and only then the rest.
    assert seen == [10, 10, len(data.train) - 20]


def test_the_clock_leaves_out_decoding(monkeypatch):
    read = type(make_data().train)._read

    def slowly(self, index, image_size):
        time.sleep(0.02)
        return read(self, index, image_size)

    monkeypatch.setattr(type(make_data().train), "_read", slowly)
    result = ktr.rank_backbones(
        backbones(), make_data(), store="memory", verbose=0
    )
    # One that decodes for both would be at 100 a second with two threads.
    assert min(row.images_per_second for row in result.rows) > 500


def test_one_class_is_said_before_anything_is_computed():
    def computes(*_):
        raise AssertionError("It began.")

    data = make_data()
    rows = np.flatnonzero(data.train.labels == 1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(backbone_ranking, "Candidate", computes)
        with pytest.raises(ValueError, match="two classes at least"):
            ktr.rank_backbones(backbones(), data.train.subset(rows))
        with pytest.raises(ValueError, match="5 training images"):
            ktr.rank_backbones(backbones(), data.train.subset([0, 1, 2]))


def test_a_score_that_no_backbone_has():
    for arguments in ({"scores": ("nce",)}, {"by": "nce"}):
        with pytest.raises(
            ValueError, match="needs the backbone's own classifier"
        ):
            ktr.rank_backbones(backbones(), make_data(), verbose=0, **arguments)


def test_names_that_look_like_ours():
    several = [make_backbone(name, False) for name in ("a", "a", "a")]
    spec = several[1].spec._replace(name="a #2")
    several[1] = dataclasses.replace(several[1], spec=spec)
    result = ktr.rank_backbones(several, make_data(), store="memory", verbose=0)
    assert sorted(row.name for row in result.rows) == ["a", "a #2", "a #3"]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"scores": ("logmee",)}, "`scores` must be among .* Did you mean"),
        ({"by": "parcc"}, "`by` must be"),
        ({"budget": 0}, "`budget` must be seconds above 0"),
        ({"budget": "10"}, "`budget` must be seconds"),
        ({"first": 3}, "`first` must be an integer of at least 10"),
        ({"batch_size": 0}, "`batch_size` must be an integer of at least 1"),
        ({"seed": -1}, "`seed` must be an integer of at least 0"),
        ({"scores": "logme"}, "`scores` must be a sequence"),
        ({"backbones": "ResNet20"}, "`backbones` must be a sequence"),
    ],
    ids=[
        "scores", "by", "budget", "text", "first", "batch", "seed", "string",
        "name",
    ],
)  # fmt: skip
def test_what_is_no_good_is_said(wrong, message):
    arguments = {"backbones": backbones(), "data": make_data()} | wrong
    with pytest.raises((ValueError, TypeError), match=message):
        ktr.rank_backbones(**arguments, store="memory")


def test_other_data_are_refused():
    with pytest.raises(TypeError, match="an `ImageData`, from `load_images`"):
        ktr.rank_backbones(backbones(), make_data().train.arrays())


def test_names_of_a_mapping_and_a_score_to_sort_by():
    named = {"b": make_backbone("x", False), "a": make_backbone("x", True)}
    result = ktr.rank_backbones(
        named, make_data(), by="parc", store="memory", verbose=0
    )
    assert [row.name for row in result.rows] == ["a", "b"]
    assert "parc" in result.rows[0].scores
    assert str(result) == result.table()


def test_two_of_one_name_are_told_apart():
    twice = [make_backbone("one", False), make_backbone("one", True)]
    result = ktr.rank_backbones(twice, make_data(), store="memory", verbose=0)
    assert [row.name for row in result.rows] == ["one #2", "one"]


def test_one_at_least():
    with pytest.raises(ValueError, match="must not be empty"):
        ktr.rank_backbones([], make_data(), store="memory")


def test_features_are_those_of_extract_features(tmp_path):
    data = make_data()
    backbone = make_backbone("rich", True)
    ktr.rank_backbones([backbone], data, store=tmp_path, verbose=0)
    found = ktr.extract_features(
        backbone, data.train, store=tmp_path, verbose=0
    )
    assert len(found.values) == len(data.train)


def make_classifier(last="softmax", pooling="avg"):
    """A user's model: a place that is bright, and of which class it is."""
    inputs = keras.Input((8, 8, 3))
    conv = keras.layers.Conv2D(12, 4, strides=2, name="block_1_conv")
    x = conv(inputs)
    pool = keras.layers.GlobalAveragePooling2D()
    if pooling == "flat":
        pool = keras.layers.Flatten()
    x = keras.layers.Dropout(0.3)(pool(x))
    outputs = keras.layers.Dense(5, activation=last, name="classes")(x)
    return keras.Model(inputs, outputs, name="mine")


def test_its_own_classifier_is_kept():
    keras.utils.set_random_seed(3)
    model = make_classifier()
    backbone = ktr.load_backbone(model, pixel_range="[0, 255]")
    images = make_data(12).train.arrays()[0].astype("float32")
    said = keras.ops.convert_to_numpy(model(images))
    found = ktr.extract_features(
        backbone, images, store="memory", verbose=0
    ).values
    np.testing.assert_allclose(
        backbone.classifier(found), said, rtol=1e-4, atol=1e-6
    )
    assert backbone.copy().classifier is backbone.classifier


def test_no_classifier_where_averages_do_not_tell():
    load = ktr.load_backbone
    for activation in ("sigmoid", "linear"):
        numbers = make_classifier(activation)
        assert load(numbers, pixel_range="[0, 255]").classifier is None
    assert make_backbone("plain", True).classifier is None
    new = load(make_classifier(), pixel_range="[0, 255]", weights=None)
    assert new.classifier is None
    assert load("ResNet20").classifier is None


def test_names_of_the_user_do_not_clash():
    layers = keras.layers
    inputs = keras.Input((8, 8, 3), name="features")
    x = layers.Conv2D(4, 3, name="block_1_conv")(inputs)
    x = layers.GlobalAveragePooling2D(keepdims=True, name="one_place")(x)
    x = layers.Reshape((4,), name="reshape")(x)
    model = keras.Model(inputs, layers.Dense(3, "softmax", name="reshape_1")(x))
    found = ktr.load_backbone(model, pixel_range="[0, 1]")
    assert found.classifier.output_shape == (None, 3)


def test_models_with_other_heads_load():
    layers = keras.layers
    inputs = keras.Input((8, 8, 3))
    one = layers.Conv2D(4, 3, name="block_1_conv")(inputs)
    two = layers.Conv2D(6, 3, name="block_2_conv")(one)
    pool = layers.GlobalAveragePooling2D
    both = layers.Concatenate()([pool()(one), pool()(two)])
    joined = keras.Model(inputs, layers.Dense(3, "softmax")(both))
    rows = layers.Dense(5, name="rows")(layers.Reshape((16, 6))(two))
    x = layers.GlobalAveragePooling1D()(rows)
    of_rows = keras.Model(inputs, layers.Dense(3, "softmax")(x))
    flat = layers.Dense(7, name="flat")(pool()(two))
    x = layers.Dense(7)(flat)
    around = keras.Model(
        inputs,
        layers.Dense(3, "softmax")(layers.Add()([x, pool()(one[..., :1])])),
    )
    for model, name in (
        (joined, "block_2_conv"), (of_rows, "rows"), (around, "flat"),
    ):  # fmt: skip
        found = ktr.load_backbone(
            model, pixel_range="[0, 1]", output_layer=name
        )
        assert found.classifier is None


def test_leep_and_nce_take_the_own_classifier():
    keras.utils.set_random_seed(0)
    model = make_classifier()
    data = make_data()
    own = ktr.load_backbone(model, pixel_range="[0, 1]")
    result = ktr.rank_backbones(
        [make_backbone("rich", True), own], data, scores=("leep", "nce"),
        by="leep", store="memory", verbose=0,
    )  # fmt: skip
    first, last = result.rows
    # Without the score it comes last, however good.
    assert (first.name, last.name) == ("mine", "rich")
    assert np.isnan(last.scores["leep"])
    images = data.train.arrays()[0].astype("float32") / 255
    probabilities = model.predict(images, verbose=0)
    for name, score in (("leep", leep), ("nce", nce)):
        expected = score(probabilities, data.train.labels)
        np.testing.assert_allclose(first.scores[name], expected, rtol=1e-3)
    line = result.table().splitlines()[2]
    assert line.split()[4:7] == ["-", "-", "-"]


def test_the_accuracy_on_imagenet_is_that_of_the_variant():
    spec = ktr.list_backbones()["MobileNetV2"]
    known = applications.imagenet_top1
    assert spec.imagenet_top1 == known(spec, {}) == 0.713
    assert known(spec, {"alpha": 0.35}) == 0.603
    assert known(spec, {"alpha": 0.9}) is None
    v3 = ktr.list_backbones()["MobileNetV3Large"]
    assert known(v3, {"minimalistic": True}) is None
    # It is that of the published weights alone.
    new = ktr.load_backbone("MobileNetV2", weights=None, alpha=0.35)
    assert new.spec.imagenet_top1 is None
    assert new.spec.licence == "none (new weights)"
    assert ktr.load_backbone("ResNet20").spec.imagenet_top1 is None


def test_real_weights_bring_their_accuracy(keras_home):
    found = ktr.load_backbone(
        "MobileNetV2", alpha=0.35, input_shape=(96, 96, 3)
    )
    assert found.spec.imagenet_top1 == 0.603
