"""Images with 1, 2, 4 or 5 channels, on one backbone of each family."""

import keras
import numpy as np
import pytest
from keras import layers

from ._table import BY_NAME, IMAGENET_MEAN, IMAGENET_STD, enliven

slow, exhaustive = pytest.mark.slow, pytest.mark.exhaustive


# One network of each preprocessing; the others are exhaustive.
@pytest.fixture(
    scope="module",
    params=[
        "VGG16",  # caffe
        pytest.param("ResNet50", marks=exhaustive),  # caffe
        pytest.param("DenseNet121", marks=slow),  # torch
        "MobileNetV2",  # tf
        pytest.param("InceptionV3", marks=exhaustive),  # tf
        pytest.param("NASNetMobile", marks=exhaustive),  # tf
        "MobileNetV3Small",  # tf, inside
        "EfficientNetB0",  # torch, inside, with weights
        pytest.param("EfficientNetV2B0", marks=exhaustive),  # torch, inside
        pytest.param("EfficientNetV2S", marks=exhaustive),  # 128, inside
        pytest.param("ConvNeXtTiny", marks=exhaustive),  # torch, inside
        "ResNet20",
    ],
)
def row(request):
    keras.backend.clear_session()
    return BY_NAME[request.param]


@pytest.fixture(scope="module")
def file(row, tmp_path_factory):
    """Weights of a colour network, saved as one would after training it."""
    backbone = row.make()
    enliven(backbone, row.images(8))
    for layer in backbone.model.layers:
        if isinstance(layer, layers.Normalization) and layer.weights:
            # EfficientNet v1: as its published files have them.
            published = (IMAGENET_MEAN, IMAGENET_STD, 0)
            layer.set_weights([np.array(x) for x in published])
    path = tmp_path_factory.mktemp("weights") / f"{row.name}.weights.h5"
    backbone.model.save_weights(path)
    yield path
    path.unlink()


@pytest.fixture(scope="module")
def colour(row, file):
    return row.make(3, file)


def features(backbone, pixels):
    return np.array(backbone.model(backbone.preprocessing(pixels)))


def test_grey_is_grey_in_colour(row, file, colour):
    pixels = row.images(channels=1)
    repeated = np.repeat(pixels, 3, axis=-1)

    grey = features(row.make(1, file), pixels)

    assert np.ptp(grey, axis=0).max() > 0.01
    np.testing.assert_array_equal(grey, features(colour, repeated))


@pytest.mark.parametrize("channels", [4, pytest.param(5, marks=exhaustive)])
def test_more_channels_change_nothing_at_first(row, file, colour, channels):
    pixels = row.images(channels=channels)
    expected = features(colour, pixels[..., :3])

    wide = row.make(channels, file)

    assert wide.input_shape == (row.size, row.size, channels)
    assert wide.model.count_params() > colour.model.count_params()
    assert_close(features(wide, pixels), expected)
    pixels[..., 3:] = 255 - pixels[..., 3:]
    assert_close(features(wide, pixels), expected)
    pixels[..., 0] = 255 - pixels[..., 0]
    assert not np.allclose(features(wide, pixels), expected, atol=1e-2)


def test_two_channels_take_over_two_filters(row, file, colour):
    narrow = row.make(2, file)

    assert np.isfinite(features(narrow, row.images(channels=2))).all()
    adapted = 0
    for weight, source in zip(weights(narrow), weights(colour), strict=True):
        expected = np.array(source)
        if weight.shape != source.shape:
            adapted += 1
            if row.scaling == "caffe":
                expected = expected[:, :, ::-1]  # blue first
            expected = expected[:, :, :2] * 1.5
        np.testing.assert_array_equal(weight, expected, err_msg=weight.path)
    assert adapted == 1


@pytest.mark.parametrize(
    ("name", "channels"),
    [
        ("EfficientNetB0", 2),
        *(("ResNet20", channels) for channels in (1, 2, 4)),
    ],
)
def test_file_written_for_as_many_channels(name, channels, tmp_path):
    row = BY_NAME[name]
    backbone = row.make(channels)
    file = tmp_path / "own.weights.h5"
    backbone.model.save_weights(file)

    loaded = row.make(channels, file)

    pixels = row.images(channels=channels)
    np.testing.assert_array_equal(
        features(loaded, pixels), features(backbone, pixels)
    )


def weights(backbone):
    """All but those of EfficientNet v1's scaling, which are per channel."""
    return [
        weight
        for layer in backbone.model.layers
        if not isinstance(layer, layers.Normalization)
        for weight in layer.weights
    ]


def assert_close(actual, expected):
    limit = 1e-5 * np.abs(expected).max()
    np.testing.assert_allclose(actual, expected, rtol=0, atol=limit)
