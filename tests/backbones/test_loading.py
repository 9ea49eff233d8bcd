"""Sources of pretrained weights: files, models, channels, errors."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_transfer as ktr


def features(backbone, images):
    return np.asarray(backbone.model(backbone.preprocessing(images)))


@pytest.fixture(scope="module")
def colour(tmp_path_factory):
    """A backbone with weights, statistics included, and its file."""
    keras.utils.set_random_seed(0)
    backbone = ktr.load_backbone(
        "MobileNetV2", alpha=0.35, weights=None, input_shape=(32, 32, 3)
    )
    generator = np.random.default_rng(0)
    backbone.model.set_weights(
        [
            generator.uniform(0.5, 1.5, w.shape)
            if "variance" in w.path
            else generator.normal(0, 0.2, w.shape)
            for w in backbone.model.weights
        ]
    )
    path = tmp_path_factory.mktemp("weights") / "colour.weights.h5"
    backbone.model.save_weights(path)
    return backbone, path


@pytest.fixture
def images():
    generator = np.random.default_rng(1)
    return generator.uniform(0, 255, (2, 32, 32, 3)).astype("float32")


def load(path, **options):
    options = {"input_shape": (32, 32, 3)} | options
    return ktr.load_backbone("MobileNetV2", alpha=0.35, weights=path, **options)


def test_list_is_searchable():
    assert len(ktr.list_backbones()) == 41
    assert list(ktr.list_backbones("*v3s*")) == ["MobileNetV3Small"]
    spec = ktr.list_backbones()["Xception"]
    assert (spec.default_size, spec.min_size) == (299, 71)
    assert spec.pixel_range == "[0, 255]"
    assert ktr.list_backbones("nothing*") == {}


@pytest.mark.parametrize("ending", [".weights.h5", ".h5", ".keras"])
def test_every_kind_of_weights_file(colour, images, tmp_path, ending):
    backbone, _ = colour
    path = tmp_path / f"file{ending}"
    if ending == ".weights.h5":
        backbone.model.save_weights(path)
    elif ending == ".keras":
        ktr.build_classifier(backbone, 2).save(path)
    else:
        save_legacy(backbone.model, path)
    np.testing.assert_array_equal(
        features(load(path), images), features(backbone, images)
    )


def save_legacy(model, path):
    """The layout that Keras 1 and 2 gave to weights files."""
    import h5py

    with h5py.File(path, "w") as file:
        with_weights = [layer for layer in model.layers if layer.weights]
        file.attrs["layer_names"] = [x.name.encode() for x in with_weights]
        for layer in with_weights:
            group = file.create_group(layer.name)
            names = [w.path.encode() for w in layer.weights]
            group.attrs["weight_names"] = names
            for name, array in zip(names, layer.get_weights(), strict=True):
                group[name.decode()] = array


@pytest.mark.parametrize("ending", [".weights.h5", ".h5"])
def test_a_classifier_on_top_is_left_off(images, tmp_path, ending):
    whole = keras.applications.MobileNetV2(
        alpha=0.35, weights=None, input_shape=(32, 32, 3), classes=7
    )
    path = tmp_path / f"whole{ending}"
    if ending == ".h5":
        save_legacy(whole, path)
    else:
        whole.save_weights(path)
    body = keras.Model(whole.input, whole.get_layer("out_relu").output)
    backbone = load(path)
    np.testing.assert_allclose(
        features(backbone, images),
        body(backbone.preprocessing(images)),
        atol=1e-6,
    )


def test_weights_that_do_not_fit_change_nothing(colour, tmp_path):
    from keras_transfer.backbones.weight_files import load_weights

    _, path = colour
    other = ktr.load_backbone("MobileNetV2", alpha=0.5, weights=None).model
    before = other.get_weights()
    with pytest.raises(ValueError, match=r"`weights` must fit .* width"):
        load_weights(other, path)
    assert all(map(np.array_equal, before, other.get_weights()))


def test_grey_is_the_repeated_grey_image(colour, images):
    backbone, path = colour
    grey = images[..., :1]
    one = load(path, input_shape=(32, 32, 1))
    np.testing.assert_array_equal(
        features(one, grey), features(backbone, grey.repeat(3, -1))
    )


@pytest.mark.parametrize("channels", [4, 7])
def test_further_channels_start_without_influence(colour, images, channels):
    backbone, path = colour
    more = load(path, input_shape=(32, 32, channels))
    shape = (*images.shape[:-1], channels - 3)
    extra = np.random.default_rng(2).uniform(0, 255, shape)
    together = np.concatenate([images, extra], -1).astype("float32")
    np.testing.assert_allclose(
        features(more, together), features(backbone, images), atol=1e-5
    )


def test_two_channels_take_two_colour_filters(colour):
    backbone, path = colour
    two = load(path, input_shape=(32, 32, 2))
    kernel = two.model.get_layer("Conv1").get_weights()[0]
    pretrained = backbone.model.get_layer("Conv1").get_weights()[0]
    np.testing.assert_allclose(kernel, 1.5 * pretrained[:, :, :2])


def test_efficientnet_file_is_scaled_like_the_published_graph(tmp_path):
    """Keras' own `EfficientNetB0(weights=path)` sees wrongly scaled pixels."""
    published = keras.applications.EfficientNetB0(
        include_top=False, weights=None, input_shape=(32, 32, 3)
    )
    scaling = next(
        layer
        for layer in published.layers
        if isinstance(layer, layers.Normalization)
    )
    mean = np.array([0.485, 0.456, 0.406])
    std = np.array([0.229, 0.224, 0.225])
    scaling.set_weights([mean, std, np.array(0)])  # as in the published file
    path = tmp_path / "published.weights.h5"
    published.save_weights(path)
    backbone = ktr.load_backbone(
        "EfficientNetB0", weights=path, input_shape=(32, 32, 3)
    )
    images = np.random.default_rng(0).uniform(0, 255, (1, 32, 32, 3))
    scaling = next(
        layer
        for layer in backbone.model.layers
        if isinstance(layer, layers.Normalization)
    )
    scaled = keras.Model(backbone.model.input, scaling.output)
    np.testing.assert_allclose(
        scaled(images), (images / 255 - mean) / std, atol=1e-5
    )


def own_network():
    inner = keras.Sequential(
        [
            keras.Input((16, 16, 3)),
            layers.Conv2D(4, 3, name="inner_conv"),
            layers.ReLU(name="inner_relu"),
        ],
        name="inner",
    )
    inputs = keras.Input((16, 16, 3))
    x = inner(inputs)
    x = layers.Conv2D(5, 3, name="outer_conv")(x)
    x = layers.GlobalAveragePooling2D(name="pooled")(x)
    x = layers.Dense(8, activation="relu", name="hidden")(x)
    x = layers.Dense(2, activation="softmax", name="classes")(x)
    return keras.Model(inputs, x, name="mine")


def test_own_model_is_copied_opened_and_cut():
    model = own_network()
    backbone = ktr.load_backbone(model, pixel_range="[0, 1]")
    names = [layer.name for layer in backbone.model.layers]
    assert names[1:] == ["inner_conv", "inner_relu", "outer_conv"]
    images = np.random.default_rng(0).uniform(0, 255, (2, 16, 16, 3))
    below = keras.Model(model.input, model.get_layer("outer_conv").output)
    np.testing.assert_allclose(
        features(backbone, images), below(images / 255), atol=1e-5
    )
    assert not {id(v) for v in backbone.model.variables} & {
        id(v) for v in model.variables
    }


def test_own_model_at_another_size_layer_and_without_weights():
    backbone = ktr.load_backbone(
        own_network(),
        pixel_range="[-1, 1]",
        output_layer="hidden",
        input_shape=(20, 20, 3),
        weights=None,
    )
    assert backbone.model.output_shape == (None, 8)
    assert backbone.input_shape == (20, 20, 3)
    model = ktr.build_classifier(backbone, 3)
    assert model.output_shape == (None, 3)


def test_a_dense_network_is_cut_below_its_classifier():
    model = keras.Sequential(
        [
            keras.Input((4, 4, 1)),
            layers.Flatten(),
            layers.Dense(6, activation="relu"),
            layers.Dropout(0.5),
            layers.Dense(2, activation="softmax"),
        ]
    )
    backbone = ktr.load_backbone(model, pixel_range="[0, 1]")
    assert backbone.input_shape == (4, 4, 1)
    assert backbone.num_features == 16


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({}, ValueError, "`pixel_range` must be that of the model's training"),
        ({"pixel_range": "0-1"}, ValueError, "`pixel_range` must be"),
        (
            {"pixel_range": "[0, 1]", "output_layer": "conv"},
            ValueError,
            "`output_layer` must be a layer of the model, one of .*outer_conv",
        ),
        (
            {"pixel_range": "[0, 1]", "input_shape": (16, 16, 1)},
            ValueError,
            "`input_shape` must fit model 'mine'",
        ),
        ({"alpha": 1.0}, TypeError, "must be `pixel_range` and"),
    ],
)
def test_own_model_errors(options, error, message):
    with pytest.raises(error, match=message):
        ktr.load_backbone(own_network(), **options)


@pytest.mark.parametrize(
    ("source", "options", "message"),
    [
        ("MobilNetV2", {}, "Did you mean 'MobileNetV2'"),
        ("model.keras", {}, "must be an existing model file"),
        ("VGG16", {"weights": "imagnet"}, '`weights` must be "pretrained"'),
        ("VGG16", {"weights": "a.h5"}, "`weights` must be an existing file"),
        (
            "Xception",
            {"weights": None, "input_shape": (70, 71, 3)},
            "`input_shape` must be at least 71 x 71 pixels",
        ),
        ("VGG16", {"input_shape": (32, 32)}, r"must be \(height, width, ch"),
        ("VGG16", {"input_shape": 32}, r"must be \(height, width, channels"),
    ],
)
def test_errors_name_the_way_out(source, options, message):
    with pytest.raises(ValueError, match=message):
        ktr.load_backbone(source, **options)


def test_other_types_and_options():
    with pytest.raises(TypeError, match="must be a name, a path or a keras"):
        ktr.load_backbone(7)
    with pytest.raises(TypeError, match="takes no further options"):
        ktr.load_backbone("ResNet20", weights=None, alpha=0.5)


def test_weights_that_cannot_be_fetched(monkeypatch):
    def offline(*args, **kwargs):
        raise Exception("URL fetch failure on https://x: None -- no route")

    monkeypatch.setattr(keras.applications, "VGG16", offline)
    with pytest.raises(ConnectionError, match="not in Keras' cache") as caught:
        ktr.load_backbone("VGG16")
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


def test_embedded_weights_are_those_of_the_model_card():
    import hashlib
    import re
    from pathlib import Path

    from keras_transfer.backbones import embedded

    path = embedded.weights_path("ResNet20")
    card = Path(path).with_name("resnet20.md").read_text()
    checksum = re.search(r"`([0-9a-f]{64})`", card)[1]
    assert hashlib.sha256(path.read_bytes()).hexdigest() == checksum


def test_real_weights_all_ways(assets, keras_home, images):
    published = load("imagenet")
    path = assets / "weights/mobilenet_v2_0.35_224_no_top.weights.h5"
    np.testing.assert_array_equal(
        features(published, images), features(load(path), images)
    )


def test_a_strangers_keras_2_file(assets):
    source = assets / "weights/legacy_keras_model.h5"
    backbone = ktr.load_backbone(source, pixel_range="[-1, 1]")
    assert backbone.model.output_shape == (None, 7, 7, 1280)
    assert len(ktr.blocks(backbone.model)) == 18
    # Its body is MobileNetV2 0.35, frozen: the published weights, to the bit.
    published = ktr.load_backbone(
        "MobileNetV2",
        alpha=0.35,
        weights=assets / "weights/mobilenet_v2_0.35_224_no_top.weights.h5",
    )
    assert all(
        map(
            np.array_equal,
            backbone.model.get_weights(),
            published.model.get_weights(),
        )
    )


def test_weights_alone_are_no_model(assets):
    path = assets / "keras_home/models/mobilenet_2_5_224_tf_no_top.h5"
    with pytest.raises(ValueError, match="which holds weights alone"):
        ktr.load_backbone(path, pixel_range="[-1, 1]")


def with_adapted_scaling():
    """An own model whose scaling was learned from data."""
    scaling = layers.Normalization(name="scaling")
    scaling.adapt(np.random.default_rng(0).normal(90, 30, (20, 8, 8, 3)))
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(4, 3, name="conv")(scaling(inputs))
    return keras.Model(inputs, x)


def test_copies_compute_with_their_own_scaling(tmp_path):
    model = with_adapted_scaling()
    backbone = ktr.load_backbone(model, pixel_range="[0, 255]")
    images = np.random.default_rng(1).uniform(0, 255, (2, 8, 8, 3))
    np.testing.assert_allclose(
        features(backbone, images), model(images), atol=1e-5
    )
    classifier = ktr.build_classifier(backbone, 2)
    pixels = classifier.get_layer("preprocessing")(images)
    np.testing.assert_allclose(
        classifier.get_layer("backbone")(pixels), model(images), atol=1e-5
    )
    classifier.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(loaded(images), classifier(images), atol=1e-6)


def test_a_convolutional_classifier_is_left_off():
    """MobileNet's own top is a convolution behind the global pooling."""
    whole = keras.applications.MobileNet(
        alpha=0.25, weights=None, input_shape=(32, 32, 3), classes=7
    )
    backbone = ktr.load_backbone(whole, pixel_range="tf")
    assert backbone.num_features == 256


def test_what_is_no_classifier_on_top_is_not_left_off_in_silence():
    inputs = keras.Input((16, 16, 3))
    x = layers.Conv2D(8, 8, 8, name="patches")(inputs)
    x = layers.Reshape((4, 8))(x)
    x = layers.MultiHeadAttention(2, 4, name="attention")(x, x)
    model = keras.Model(inputs, layers.GlobalAveragePooling1D()(x))
    with pytest.raises(ValueError, match="such as 'attention'"):
        ktr.load_backbone(model, pixel_range="[0, 1]")


def test_four_channel_weights_come_back(tmp_path):
    shape = {"input_shape": (16, 16, 4)}
    four = ktr.load_backbone("ResNet20", weights=None, **shape)
    path = tmp_path / "four.weights.h5"
    four.model.save_weights(path)
    again = ktr.load_backbone("ResNet20", weights=path, **shape)
    assert all(
        map(np.array_equal, four.model.get_weights(), again.model.get_weights())
    )


def test_pretrained_is_the_same_function_in_training(tmp_path):
    new = ktr.load_backbone(
        "EfficientNetB0", weights=None, input_shape=(32, 32, 3)
    )
    path = tmp_path / "b0.weights.h5"
    new.model.save_weights(path)
    backbone = ktr.load_backbone(
        "EfficientNetB0", weights=path, input_shape=(32, 32, 3)
    )
    model = ktr.build_classifier(backbone, 2)
    images = np.random.default_rng(0).uniform(0, 255, (2, 32, 32, 3))
    np.testing.assert_array_equal(
        model(images, training=True), model(images, training=False)
    )
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(
        loaded(images, training=True), model(images, training=False)
    )


def test_what_load_backbone_decides_is_refused():
    with pytest.raises(TypeError, match="Received: include_preprocessing"):
        ktr.load_backbone(
            "MobileNetV3Small", weights=None, include_preprocessing=False
        )


def test_channels_first_is_refused():
    keras.config.set_image_data_format("channels_first")
    try:
        with pytest.raises(ValueError, match="must be 'channels_last'"):
            ktr.load_backbone("ResNet20", weights=None)
    finally:
        keras.config.set_image_data_format("channels_last")


def test_another_size_for_a_classifier_that_was_flattened():
    model = keras.Sequential(
        [
            keras.Input((16, 16, 3)),
            layers.Conv2D(4, 3, name="conv"),
            layers.Flatten(),
            layers.Dense(2, activation="softmax"),
        ]
    )
    backbone = ktr.load_backbone(
        model, pixel_range="[0, 1]", input_shape=(24, 20, 3)
    )
    assert backbone.model.output_shape == (None, 22, 18, 4)


def test_nasnet_has_a_size():
    with pytest.raises(ValueError, match="must have height and width for 'NAS"):
        ktr.load_backbone(
            "NASNetMobile", weights=None, input_shape=(None, None, 3)
        )


@pytest.mark.exhaustive
def test_size_of_nasnet_by_default():
    backbone = ktr.load_backbone("NASNetMobile", weights=None)
    assert backbone.input_shape == (224, 224, 3)
