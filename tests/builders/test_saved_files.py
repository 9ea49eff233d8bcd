"""Files saved before code moved still open, and compute what they computed.

Each was saved at commit ed66cbd, before the layers of this package moved to
other modules, with inputs and outputs beside it.
"""

from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_transfer as ktr
from keras_transfer.caching.fingerprints import digest_network

FILES = Path(__file__).parent / "files"
KINDS = ("image", "text", "hub", "lora")


def inputs_and_outputs(kind):
    with np.load(FILES / f"{kind}.npz") as file:
        inputs, outputs = file["inputs"], file["outputs"]
    if kind == "text":
        inputs = tf.constant(inputs.astype(object))
    return inputs, outputs


@pytest.mark.parametrize("kind", KINDS)
def test_file_saved_before_a_move_opens(kind, tmp_path):
    inputs, outputs = inputs_and_outputs(kind)
    model = ktr.load_model(FILES / f"{kind}.keras")
    np.testing.assert_allclose(model(inputs), outputs, atol=1e-6)
    # Saved again, it names the modules of today.
    model.save(tmp_path / "again.keras")
    again = ktr.load_model(tmp_path / "again.keras")
    np.testing.assert_allclose(again(inputs), outputs, atol=1e-6)


def test_class_names_are_inside():
    assert ktr.class_names(FILES / "image.keras") == ("cat", "dog", "fox")
    model = keras.models.load_model(FILES / "image.keras")
    assert ktr.class_names(model) == ("cat", "dog", "fox")


@pytest.mark.parametrize("kind", ["text", "hub", "lora"])
def test_stored_features_are_found_after_a_move(kind, monkeypatch):
    """Keys of stored features name no module of this package."""
    network = ktr.load_model(FILES / f"{kind}.keras")
    before = digest_network(network)
    moved = set()
    for layer in network._flatten_layers():
        own = type(layer)
        if own.__module__.startswith("keras_transfer."):
            monkeypatch.setattr(own, "__module__", "keras_transfer.elsewhere")
            moved.add(own.__name__)
    assert moved
    assert digest_network(network) == before


def test_our_own_file_is_a_backbone_without_pixel_range(tmp_path):
    model = ktr.load_model(FILES / "image.keras")
    images, _ = inputs_and_outputs("image")
    backbone = ktr.load_backbone(FILES / "image.keras")
    features = backbone.model(backbone.preprocessing(images))
    expected = model.get_layer("backbone")(
        model.get_layer("preprocessing")(images)
    )
    np.testing.assert_allclose(features, expected, rtol=1e-4, atol=1e-4)
    ktr.load_backbone(model, pixel_range="[0, 255]")
    with pytest.raises(ValueError, match="scales pixels itself"):
        ktr.load_backbone(model, pixel_range="[0, 1]")


@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5")
def test_class_names_of_a_legacy_file(tmp_path):
    model = keras.models.load_model(FILES / "image.keras")
    model.save(tmp_path / "model.h5")
    assert ktr.class_names(tmp_path / "model.h5") == ("cat", "dog", "fox")
    model.save_weights(tmp_path / "model.weights.h5")
    with pytest.raises(ValueError, match="weights alone"):
        ktr.class_names(tmp_path / "model.weights.h5")
    (tmp_path / "other.h5").write_text("text")
    with pytest.raises(ValueError, match="is something else"):
        ktr.class_names(tmp_path / "other.h5")
