"""Fine-tuning and mixed precision, seen in the weights of many families."""

import keras
import numpy as np
import pytest

from keras_transfer import build_classifier, unfreeze

from ._table import BY_NAME, USER_MODEL, enliven

slow, exhaustive = pytest.mark.slow, pytest.mark.exhaustive


def build(name):
    row = BY_NAME[name]
    backbone = row.make()
    enliven(backbone, row.images(8))
    return row, build_classifier(backbone, num_classes=3)


def arrays(weights):
    return {id(weight): np.array(weight) for weight in weights}


@pytest.mark.parametrize(
    ("name", "depth"),
    [
        ("VGG16", 2),
        pytest.param("ResNet50", 2, marks=exhaustive),
        ("MobileNetV2", 2),
        pytest.param("EfficientNetB0", 2, marks=exhaustive),
        pytest.param("EfficientNetV2B0", 2, marks=exhaustive),
        pytest.param("ConvNeXtTiny", 2, marks=slow),
        pytest.param("NASNetMobile", 2, marks=exhaustive),
        pytest.param("DenseNet121", 2, marks=exhaustive),
        ("ResNet20", 2),
        ("ResNet20", "all"),
        (USER_MODEL, 2),
        (USER_MODEL, "all"),
    ],
)
def test_fit_changes_what_is_unfrozen_and_nothing_else(name, depth):
    row, model = build(name)
    head = [v.path for v in model.get_layer("head").trainable_variables]
    assert [v.path for v in model.trainable_variables] == head

    opened = unfreeze(model, depth)

    assert opened
    assert len({v.path for v in model.variables}) == len(model.variables)
    trainable = {v.path for v in model.trainable_variables}
    assert trainable == {*opened, *head}

    before = arrays(model.weights)
    model.compile("adam", "sparse_categorical_crossentropy")
    history = model.fit(
        row.images(4), np.array([0, 1, 2, 0]), batch_size=4, verbose=0
    )

    assert np.isfinite(history.history["loss"]).all()
    after = arrays(model.weights)
    for weight in model.weights:
        same = np.array_equal(before[id(weight)], after[id(weight)])
        assert same == (weight.path not in trainable), weight.path
    # In particular, but said on its own since Keras gets it wrong:
    for weight in model.get_layer("backbone").weights:
        if weight.name.startswith("moving_"):
            assert np.array_equal(before[id(weight)], after[id(weight)])


@pytest.mark.parametrize(
    "name",
    [
        "EfficientNetB0",
        pytest.param("EfficientNetV2B0", marks=exhaustive),
        pytest.param("NASNetMobile", marks=exhaustive),
        "MobileNetV3Small",
    ],
)
def test_frozen_backbone_computes_the_same_in_training(name, tmp_path):
    """EfficientNet drops whole blocks at random; not what is pretrained."""
    row = BY_NAME[name]
    backbone = row.make()
    enliven(backbone, row.images(8))
    file = tmp_path / "trained.weights.h5"
    backbone.model.save_weights(file)
    model = build_classifier(row.make(weights=file), num_classes=3)
    images = row.images()
    np.testing.assert_array_equal(
        model(images, training=True), model(images, training=False)
    )


@pytest.fixture
def mixed_float16():
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_float16")
    yield
    keras.config.set_dtype_policy(before)


@pytest.mark.parametrize("name", ["MobileNetV2", "ResNet20"])
def test_mixed_precision(name, mixed_float16):
    row, model = build(name)
    backbone = model.get_layer("backbone")
    assert {w.dtype for w in backbone.trainable_weights} <= {"float32"}
    pixels = row.images()
    scaled = model.get_layer("preprocessing")(pixels)
    assert scaled.dtype == "float32"
    assert backbone(scaled).dtype == "float16"

    outputs = model(pixels)

    assert outputs.dtype == "float32"
    assert np.isfinite(outputs).all()
    np.testing.assert_allclose(np.sum(outputs, axis=-1), 1.0, atol=1e-6)
