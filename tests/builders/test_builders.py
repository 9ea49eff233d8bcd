"""Builders: the classic example, labels that travel, errors at once."""

import types

import keras
import numpy as np
import pytest

import keras_transfer as ktr


def small(**options):
    options = {"weights": None, "input_shape": (16, 16, 3)} | options
    return ktr.load_backbone("ResNet20", **options)


def fake_data(**values):
    defaults = {
        "class_names": ("cat", "dog"),
        "image_size": (16, 16),
        "channels": 3,
        "multi_label": False,
    }
    return types.SimpleNamespace(**defaults | values)


def count(variables):
    return sum(int(np.prod(v.shape)) for v in variables)


def test_the_classic_example():
    backbone = ktr.load_backbone("VGG16", weights=None)
    model = ktr.build_classifier(backbone, num_classes=10)
    assert type(model).__name__ == "Functional"
    assert count(model.non_trainable_variables) == 14_714_688
    assert count(model.trainable_variables) == 5_130
    head = model.get_layer("head").layers
    assert [type(layer).__name__ for layer in head[1:]] == [
        "GlobalAveragePooling2D",
        "Dense",
    ]
    assert head[-1].activation is keras.activations.softmax
    images = np.random.default_rng(0).uniform(0, 255, (4, 32, 32, 3))
    targets = np.eye(10)[[0, 1, 2, 3]]
    model.compile("adam", "categorical_crossentropy", metrics=["accuracy"])
    before = model.get_layer("backbone").get_weights()
    history = model.fit(
        images, targets, validation_data=(images, targets), verbose=0
    )
    assert {"loss", "accuracy", "val_loss"} <= set(history.history)
    after = model.get_layer("backbone").get_weights()
    assert all(map(np.array_equal, before, after))


def test_class_names_survive_everything(tmp_path):
    names = ("Löwe", "a/b", 'say "hi"', "new\nline", "名前", "{x}")
    model = ktr.build_classifier(small(), class_names=names)
    path = tmp_path / "model.keras"
    model.save(path)
    loaded = keras.models.load_model(path)
    loaded.save(tmp_path / "again.keras")
    assert ktr.class_names(model) == names
    assert ktr.class_names(path) == names
    assert ktr.class_names(loaded) == names
    assert ktr.class_names(keras.models.clone_model(model)) == names
    assert ktr.class_names(tmp_path / "again.keras") == names


def test_data_gives_classes_and_size():
    model = ktr.build_classifier("ResNet20", data=fake_data())
    assert model.input_shape == (None, 16, 16, 3)
    assert model.output_shape == (None, 2)
    assert ktr.class_names(model) == ("cat", "dog")


def test_data_without_size_takes_the_backbones():
    data = fake_data(image_size=None, channels=1)
    model = ktr.build_classifier("ResNet20", data=data)
    assert model.input_shape == (None, 32, 32, 1)


def test_two_models_share_no_weights():
    backbone = small()
    one, two = (ktr.build_classifier(backbone, 2) for _ in range(2))
    ids = {id(v) for v in one.variables}
    assert not ids & {id(v) for v in two.variables}
    assert not ids & {id(v) for v in backbone.model.variables}
    images = np.random.default_rng(0).uniform(0, 255, (1, 16, 16, 3))
    features = [m.get_layer("backbone").get_weights() for m in (one, two)]
    assert all(map(np.array_equal, *features))
    assert np.isfinite(one(images)).all()


def test_regressor():
    model = ktr.build_regressor(small(), 2, hidden_units=(8,))
    model.compile("adam", "mse")
    images = np.random.default_rng(0).uniform(0, 255, (4, 16, 16, 3))
    model.fit(images, np.ones((4, 2)), verbose=0)
    assert model.get_layer("head").layers[-1].activation.__name__ == "linear"
    with pytest.raises(ValueError, match="built with class names"):
        ktr.class_names(model)


def test_multi_label():
    data = fake_data(multi_label=True)
    with pytest.raises(ValueError, match='must be "sigmoid" for images with'):
        ktr.build_classifier(small(), data=data)
    model = ktr.build_classifier(small(), data=data, activation="sigmoid")
    assert model.get_layer("head").layers[-1].activation.__name__ == "sigmoid"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "`num_classes` must be given"),
        ({"num_classes": 1}, "at least 2 for a softmax"),
        ({"num_classes": 0}, "must be a positive integer"),
        (
            {"num_classes": 3, "data": fake_data()},
            r"`num_classes` must be 2, the number of class names \(cat, dog\)",
        ),
        (
            {"class_names": ["dog", "cat"], "data": fake_data()},
            "must be those of `data`, in the same order",
        ),
        ({"class_names": ["a", "a"]}, "`class_names` must be different"),
        ({"class_names": "cat"}, "`class_names` must be different, non-empty"),
        ({"class_names": [0, 1]}, "`class_names` must be different, non-empty"),
        ({"data": fake_data(channels=1)}, "must have 3 channels"),
        (
            {"data": fake_data(image_size=(32, 32))},
            r"takes: 16 x 16 \(None: any\), at least 8. Received: .* 32 x 32",
        ),
        ({"num_classes": 2, "pooling": "average"}, "`pooling` must be one"),
        ({"num_classes": 2, "dropout": 1.0}, "`dropout` must be a fraction"),
        ({"num_classes": 2, "hidden_units": 8}, "`hidden_units` must be a s"),
    ],
)
def test_arguments_that_do_not_fit(arguments, message):
    with pytest.raises(ValueError, match=message):
        ktr.build_classifier(small(), **arguments)


def test_images_too_small_for_the_backbone():
    xception = ktr.load_backbone("Xception", weights=None)
    with pytest.raises(ValueError, match="at least 71. Received: images of 16"):
        ktr.build_classifier(xception, data=fake_data())
    with pytest.raises(ValueError, match="at least 71 x 71 pixels"):
        ktr.build_classifier("Xception", data=fake_data())


def test_a_model_is_no_backbone():
    with pytest.raises(TypeError, match="Wrap a model of your own"):
        ktr.build_classifier(small().model, 2)


def test_class_names_of_what_is_no_model(tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("hello")
    with pytest.raises(ValueError, match="`.h5` file.*something else"):
        ktr.class_names(path)
    with pytest.raises(TypeError, match="must be a keras.Model or the path"):
        ktr.class_names(None)
    with pytest.raises(ValueError, match="`.h5` file.*does not exist"):
        ktr.class_names(tmp_path / "none.keras")


def test_class_names_of_a_model_within_a_model():
    model = ktr.build_classifier(small(), class_names=["a", "b"])
    images = keras.Input((16, 16, 3))
    outer = keras.Model(images, model(keras.layers.RandomFlip()(images)))
    assert ktr.class_names(outer) == ("a", "b")


def test_numpy_integers_are_integers():
    count = np.array([0, 2]).max() + 1
    assert ktr.build_classifier(small(), count).output_shape == (None, 3)


def test_flatten_needs_a_size():
    backbone = small(input_shape=(None, None, 3))
    with pytest.raises(ValueError, match="images of one fixed size"):
        ktr.build_classifier(backbone, 2, pooling="flatten")
