"""OpenVINO computes what TensorFlow computes, where it is installed."""

import importlib.util
import sys

import keras
import numpy as np
import pytest

import keras_transfer as ktr
from keras_transfer.caching import compiled, engines
from keras_transfer.caching.store import FeatureStore

IMAGES = np.random.default_rng(0).integers(0, 256, (40, 32, 32, 3), "uint8")

needs_openvino = pytest.mark.skipif(
    importlib.util.find_spec("openvino") is None,
    reason='OpenVINO is not installed: pip install ".[openvino]"',
)


def extract(engine, **arguments):
    return ktr.extract_features(
        "ResNet20", IMAGES, engine=engine, verbose=0, **arguments
    ).values


@needs_openvino
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize(
    ("engine", "tolerance"), [("openvino", 1e-4), ("openvino-bfloat16", 0.2)]
)
def test_equals_tensorflow(engine, tolerance):
    expected = extract("tensorflow", store="memory")
    found = extract(engine, store="memory", layers="stage3_*", pooling="max")
    assert found.shape == (40, 3 * 64)
    found = extract(engine, store="memory")
    np.testing.assert_allclose(found, expected, atol=tolerance)
    assert len(np.unique(found, axis=0)) == 40  # no buffer was reused


@needs_openvino
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_engines_do_not_find_what_others_computed():
    store = FeatureStore()
    for engine in ("tensorflow", "openvino"):
        extract(engine, store=store)
    assert sorted(i.description["engine"] for i in store.ls()) == [
        "openvino",
        "tensorflow, folded",
    ]


@pytest.mark.parametrize(
    ("count", "theirs", "expected"),
    [
        (10, 0.0, "tensorflow, folded"),
        (9999, 0.0, "openvino"),
        (9999, 9.0, "tensorflow, folded"),
    ],
)
def test_auto_takes_the_faster_one_for_many_images(
    monkeypatch, count, theirs, expected
):
    network = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    monkeypatch.setattr(engines, "may_translate", lambda: True)
    monkeypatch.setattr(
        engines, "translated", lambda network, bfloat16: lambda x: ["theirs"]
    )
    monkeypatch.setattr(
        engines, "compiled", lambda network, shape, folded: lambda x: ["ours"]
    )
    monkeypatch.setattr(
        engines,
        "time_of",
        lambda f: theirs if f() == ["theirs"] else 1.0,
    )
    name, _ = engines.choose_engine("auto", network, (4,), count)
    assert name == expected


def test_an_engine_that_is_not_there(monkeypatch):
    with pytest.raises(ValueError, match="Did you mean 'openvino'"):
        extract("openvin", store="memory")
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(ImportError, match=r"keras_transfer\[openvino\]"):
        extract("openvino", store="memory")
    assert engines.may_translate() is False


def test_folded_is_close_and_keeps_its_weights(monkeypatch):
    backbone = ktr.load_backbone("ResNet20", input_shape=(32, 32, 3)).model
    images = IMAGES.astype(np.float32) / 255
    plain = compiled.compiled(backbone, (32, 32, 3))
    folded = compiled.compiled(backbone, (32, 32, 3), folded=True)
    before = np.array(plain(images)[0])
    np.testing.assert_allclose(folded(images)[0], before, rtol=1e-4, atol=1e-5)
    for weight in backbone.trainable_weights:
        weight.assign(0.5 * weight)
    assert np.abs(plain(images)[0] - before).max() > 0.1
    np.testing.assert_allclose(folded(images)[0], before, rtol=1e-4, atol=1e-5)
    # Too large for constants: as the model computes it.
    monkeypatch.setattr(compiled, "_MAX_CONSTANT_BYTES", 0)
    large = compiled.compiled(backbone, (32, 32, 3), folded=True)
    np.testing.assert_array_equal(large(images)[0], plain(images)[0])
