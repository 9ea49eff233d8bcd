"""The networks are told apart, each image passes each of them once."""

import keras
import numpy as np
import pytest

import keras_transfer as ktr
from keras_transfer.backbones import applications
from keras_transfer.selection import leep, nce
from keras_transfer.selection import ranking as module

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
    candidate = module._Candidate.__init__

    def counting(self, *arguments):
        candidate(self, *arguments)
        compute = self._outputs.compute

        def counted(images):
            # What compiles it is no image.
            passed.append(0 if not np.asarray(images).any() else len(images))
            return compute(images)

        self._outputs = self._outputs._replace(compute=counted)

    monkeypatch.setattr(module._Candidate, "__init__", counting)
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
    # As if the rest would take for ever.
    monkeypatch.setattr(module._Race, "_rest", lambda self, count: 1e9)
    result = ktr.rank_backbones(
        backbones(), make_data(), budget=1e6, first=24, store="memory",
        verbose=0,
    )  # fmt: skip
    rich, poor = result.rows
    assert (rich.name, poor.name) == ("rich", "poor")
    assert poor.examples == 24
    assert rich.examples == len(make_data().train)
    assert result.computed == 24 + len(make_data().train)


def test_beginnings_hold_all_classes():
    labels = np.repeat([0, 1, 2], [60, 30, 10])
    order = module._in_shares(labels, seed=0)
    assert sorted(order) == list(range(100))
    for end in (10, 20, 50):
        counts = np.bincount(labels[order[:end]], minlength=3)
        np.testing.assert_allclose(counts / end, [0.6, 0.3, 0.1], atol=0.1)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"scores": ("logmee",)}, "`scores` must be of .* Did you mean"),
        ({"by": "parc"}, "`by` must be"),
        ({"budget": 0}, "`budget` must be above 0"),
        ({"first": 3}, "`first` must be an integer from 10"),
    ],
    ids=["scores", "by", "budget", "first"],
)
def test_what_is_no_good_is_said(wrong, message):
    with pytest.raises(ValueError, match=message):
        ktr.rank_backbones(backbones(), make_data(), store="memory", **wrong)


def test_other_data_are_refused():
    with pytest.raises(TypeError, match="what `load_images` returned"):
        ktr.rank_backbones(backbones(), make_data().train.arrays())


def test_two_of_one_name_are_told_apart():
    twice = [make_backbone("one", False), make_backbone("one", True)]
    result = ktr.rank_backbones(twice, make_data(), store="memory", verbose=0)
    assert [row.name for row in result.rows] == ["one #2", "one"]


def test_one_at_least():
    with pytest.raises(ValueError, match="at least one"):
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


@pytest.mark.parametrize("last", ["softmax", "linear"])
def test_its_own_classifier_is_kept(last):
    keras.utils.set_random_seed(3)
    model = make_classifier(last)
    backbone = ktr.load_backbone(model, pixel_range="[0, 255]")
    images = make_data(12).train.arrays()[0].astype("float32")
    said = keras.ops.convert_to_numpy(model(images))
    if last == "linear":
        said = keras.ops.convert_to_numpy(keras.ops.softmax(said))
    found = ktr.extract_features(
        backbone, images, store="memory", verbose=0
    ).values
    np.testing.assert_allclose(
        backbone.classifier(found), said, rtol=1e-4, atol=1e-6
    )
    assert backbone.copy().classifier is backbone.classifier


def test_no_classifier_where_averages_do_not_tell():
    load = ktr.load_backbone
    numbers = make_classifier("sigmoid")
    assert load(numbers, pixel_range="[0, 255]").classifier is None
    assert make_backbone("plain", True).classifier is None
    new = load(make_classifier(), pixel_range="[0, 255]", weights=None)
    assert new.classifier is None
    assert load("ResNet20").classifier is None


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
    assert ktr.load_backbone("ResNet20").spec.imagenet_top1 is None


def test_real_weights_bring_their_accuracy(keras_home):
    found = ktr.load_backbone(
        "MobileNetV2", alpha=0.35, input_shape=(96, 96, 3)
    )
    assert found.spec.imagenet_top1 == 0.603
