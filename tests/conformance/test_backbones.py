"""Every backbone of the table does what every other one does."""

import gc
import importlib
import inspect
import re
from collections import Counter

import keras
import numpy as np
import pytest
from keras import layers

from keras_transfer import (
    blocks,
    build_classifier,
    class_names,
    list_backbones,
    load_backbone,
    split,
    unfreeze,
)

from ._table import (
    BY_NAME,
    IMAGENET_MEAN,
    IMAGENET_STD,
    SCALINGS,
    TABLE,
    USER_MODEL,
    enliven,
)

exhaustive = pytest.mark.exhaustive

NAMES = (
    "cat",
    "and/or",
    "\\/",
    'the "quoted"',
    "it's = 1",
    "Größe, ünïcode",
    "猫",
    "🐈‍⬛",
    "two\nlines",
)


@pytest.fixture(
    scope="module",
    params=[pytest.param(row, id=row.name, marks=row.marks) for row in TABLE],
)
def row(request):
    return request.param


@pytest.fixture(scope="module")
def backbone(row):
    """Built once for all tests of a row; up to 350 million parameters."""
    keras.backend.clear_session()
    gc.collect()
    made = row.make()
    enliven(made, row.images(8))
    yield made
    del made
    keras.backend.clear_session()
    gc.collect()


@pytest.fixture(scope="module")
def features(row, backbone):
    pixels = backbone.preprocessing(row.images())
    return np.array(backbone.model(pixels, training=False))


@pytest.fixture(scope="module")
def classifier(backbone, features):
    model = build_classifier(backbone, class_names=NAMES)
    kernel, _ = model.get_layer("head").weights
    # A softmax that is sure of itself would hide what is before it.
    kernel.assign(kernel / np.abs(features).max())
    return model


@pytest.fixture(scope="module")
def predictions(row, classifier):
    """Of the two images of the row; far from equal, so that they tell."""
    found = np.array(classifier(row.images(), training=False))
    assert np.abs(found[0] - found[1]).max() > 1e-4
    assert found.max() < 0.9
    return found


def test_table_is_complete():
    assert len(BY_NAME) == len(TABLE)
    assert set(BY_NAME) == {*list_backbones(), USER_MODEL}
    of_keras = {
        name
        for name in dir(keras.applications)
        if inspect.isfunction(getattr(keras.applications, name))
    }
    assert {row.name for row in TABLE if row.module} == of_keras


# --- facts ---


def test_facts(row, backbone):
    assert backbone.num_features == row.num_features
    assert backbone.model.output_shape[-1] == row.num_features
    assert backbone.spec.num_features == row.num_features
    assert backbone.input_shape == (row.size, row.size, 3)
    assert backbone.spec.built_in == row.built_in
    assert backbone.spec.pixel_range == "[0, 255]"
    assert backbone.model.name == "backbone"
    assert backbone.preprocessing.name == "preprocessing"
    assert not backbone.preprocessing.weights


@pytest.mark.parametrize("name", list(list_backbones()))
def test_facts_known_before_building(name):
    row, spec = BY_NAME[name], list_backbones()[name]
    assert spec.name == name
    assert spec.num_features == row.num_features
    assert spec.min_size == row.size  # at which the fixture above builds it
    assert spec.weights == ("imagenet" if row.module else "cifar10")
    assert spec.licence
    too_small = (row.size, row.size - 1, 3)
    with pytest.raises(
        ValueError,
        match=rf"`input_shape` must be at least {row.size} x {row.size} "
        rf"pixels for backbone '{name}'. Received: input_shape=\({row.size}, "
        rf"{row.size - 1}, 3\). Load the images larger",
    ):
        load_backbone(name, weights=None, input_shape=too_small)


@pytest.mark.parametrize(
    "name", [row.name for row in TABLE if row.module is not None]
)
def test_sizes_and_weights_are_those_of_keras(name):
    spec = list_backbones()[name]
    function = getattr(keras.applications, name)
    assert inspect.signature(function).parameters["weights"].default == (
        spec.weights
    )
    # Keras tells its sizes in its errors, before it builds anything.
    smallest, default = spec.min_size, spec.default_size
    shape = (smallest, smallest - 1, 3)
    with pytest.raises(ValueError, match=f"least {smallest}x{smallest}"):
        function(weights=None, include_top=False, input_shape=shape)
    shape = (smallest, smallest + 1, 3)
    with pytest.raises(
        (ValueError, UserWarning), match=rf"\({default}, {default}"
    ):
        function(weights="imagenet", input_shape=shape)


# The smallest of each function of Keras.
@pytest.mark.parametrize(
    "name",
    [
        pytest.param("ConvNeXtTiny", marks=exhaustive),
        pytest.param("DenseNet121", marks=exhaustive),
        pytest.param("EfficientNetB0", marks=exhaustive),
        pytest.param("EfficientNetV2B0", marks=exhaustive),
        pytest.param("InceptionResNetV2", marks=exhaustive),
        pytest.param("InceptionV3", marks=exhaustive),
        "MobileNet",
        "MobileNetV2",
        "MobileNetV3Small",
        pytest.param("NASNetMobile", marks=exhaustive),
        pytest.param("ResNet50", marks=exhaustive),
        pytest.param("ResNet50V2", marks=exhaustive),
        "VGG16",
        pytest.param("VGG19", marks=exhaustive),
        pytest.param("Xception", marks=exhaustive),
    ],
)
def test_published_weights_are_asked_for_without_a_size(name, monkeypatch):
    """As far as one comes without a network: nothing warns or fails before."""

    def get_file(file_name, origin, **_):
        raise Exception(f"URL fetch failure on {origin}: None -- offline")

    file_utils = importlib.import_module("keras.src.utils.file_utils")
    monkeypatch.setattr(file_utils, "get_file", get_file)
    with pytest.raises(
        ConnectionError,
        match=rf"The pretrained weights of '{name}' are not in Keras' cache "
        "and could not be fetched",
    ):
        load_backbone(name)


# --- preprocessing ---


def test_preprocessing_is_the_familys_own(row, backbone):
    pixels = row.images()
    expected = row.preprocess(pixels)
    assert_close(backbone.preprocessing(pixels), expected, 1e-5)
    if not row.built_in:
        assert_close(expected, SCALINGS[row.scaling](pixels), 1e-5)


def test_network_scales_pixels_where_the_family_does(row, backbone):
    network = backbone.model
    scaling = [
        layer
        for layer in network.layers
        if isinstance(layer, layers.Rescaling | layers.Normalization)
    ]
    if not row.built_in:
        assert not scaling
        return
    pixels = row.images()
    # Keras hands the pixels on as they are.
    np.testing.assert_array_equal(row.preprocess(pixels), pixels)
    expected = SCALINGS[row.scaling](pixels)
    scaled = keras.Function(network.inputs[0], scaling[-1].output)
    assert_close(scaled(pixels), expected, 1e-5)


def test_efficientnet_is_mended(tmp_path):
    """Its published files hold deviations where the graph wants variances."""
    row = BY_NAME["EfficientNetB0"]
    source = row.make().model
    (layer,) = [x for x in source.layers if isinstance(x, layers.Normalization)]
    layer.set_weights([np.array(x) for x in (IMAGENET_MEAN, IMAGENET_STD, 0)])
    file = tmp_path / "published.weights.h5"
    source.save_weights(file)

    loaded = row.make(weights=file).model
    (layer,) = [x for x in loaded.layers if isinstance(x, layers.Normalization)]
    scaled = keras.Function(loaded.inputs[0], layer.output)
    pixels = row.images()
    assert_close(scaled(pixels), SCALINGS["torch"](pixels), 1e-5)


# --- blocks ---


def test_blocks_are_the_architectures_own(row, backbone):
    found = blocks(backbone.model)
    names = [block.name for block in found]
    assert len(set(names)) == len(names) == row.num_blocks
    assert names[-1] == row.last_block
    for block in found:
        # Something to open: BatchNormalization alone stays frozen.
        assert any(
            layer.weights and not isinstance(layer, layers.BatchNormalization)
            for layer in block.layers
        ), block.name


def test_every_weight_is_in_one_block(backbone):
    counts = Counter(
        id(weight)
        for block in blocks(backbone.model)
        for weight in block.weights
    )
    assert counts == Counter(id(weight) for weight in backbone.model.weights)
    assert set(counts.values()) == {1}


def test_every_boundary_is_a_cut(row, backbone):
    network = backbone.model
    found = blocks(network)
    assert found[-1].outputs == tuple(network.outputs)
    widest = 2 if row.module == "nasnet" else 1
    for index, block in enumerate(found[:-1], start=1):
        assert 1 <= len(block.outputs) <= widest
        # Keras refuses a graph that reads what its inputs do not give.
        below = keras.Function(network.inputs, block.outputs)
        above = keras.Function(block.outputs, network.outputs)
        assert weights_in(below) == weights_of(found[:index]), block.name
        assert weights_in(above) == weights_of(found[index:]), block.name


def test_classifier_is_preprocessing_backbone_head(
    backbone, features, classifier, predictions
):
    assert [layer.name for layer in classifier.layers[1:]] == [
        "preprocessing",
        "backbone",
        "head",
    ]
    joined = classifier.get_layer("head")(features)
    np.testing.assert_allclose(joined, predictions, rtol=0, atol=1e-6)
    # A copy: nothing is shared with the backbone it was built from.
    assert not ids(classifier.weights) & ids(backbone.model.weights)


def test_split_then_join(row, classifier, predictions):
    found = blocks(classifier)
    num_blocks = len(found)
    for depth in sorted({0, 1, num_blocks // 2, num_blocks}):
        prefix, suffix = split(classifier, depth)
        joined = suffix(prefix(row.images(), training=False), training=False)
        np.testing.assert_allclose(
            joined, predictions, rtol=0, atol=1e-6, err_msg=f"depth={depth}"
        )
        assert ids(prefix.weights) == weights_of(found[: num_blocks - depth])
        assert ids(suffix.weights) == (
            weights_of(found[num_blocks - depth :])
            | ids(classifier.get_layer("head").weights)
        )


# --- files ---


def test_saved_model_needs_no_keras_transfer(
    row, classifier, predictions, in_fresh_process
):
    head = classifier.get_layer("head")
    opened = unfreeze(classifier, 1)

    loaded = in_fresh_process(classifier, row.images(), predictions)

    assert loaded["difference"] <= 1e-6
    assert loaded["dtype"] == "float32"
    assert tuple(loaded["class_names"]) == NAMES == class_names(classifier)
    assert loaded["layers"] == [layer.name for layer in classifier.layers]
    assert paths(loaded["weights"]) == paths(w.path for w in classifier.weights)
    assert paths(loaded["trainable"]) == [
        *paths(opened),
        *(w.path for w in head.weights),
    ]


def assert_close(actual, expected, tolerance):
    """Equal to `tolerance` times the range of what is expected."""
    expected = np.asarray(expected)
    assert np.ptp(expected) > 0
    np.testing.assert_allclose(
        actual, expected, rtol=0, atol=tolerance * np.ptp(expected)
    )


def paths(found):
    # LayerScale of ConvNeXt has a variable without a name, which Keras then
    # numbers through the whole process.
    return [re.sub(r"/variable_\d+$", "/variable", path) for path in found]


def ids(weights):
    return {id(weight) for weight in weights}


def weights_of(found):
    return ids(weight for block in found for weight in block.weights)


def weights_in(function):
    return ids(
        weight
        for operation in function.operations
        for weight in getattr(operation, "weights", ())
    )
