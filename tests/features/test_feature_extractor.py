"""The extractor as scikit-learn uses it: pipelines, folds, clones."""

import keras
import numpy as np
import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.utils.validation import check_is_fitted

import keras_transfer as ktr
from keras_transfer.caching.store.store import FeatureStore
from keras_transfer.features.extraction import extract_features
from keras_transfer.features.feature_extractor import FeatureExtractor

from ._counting import Counting, passed


@pytest.fixture(scope="module")
def images():
    generator = np.random.default_rng(0)
    images = generator.integers(0, 200, (30, 32, 32, 3), dtype="uint8")
    for image, label in zip(images, np.arange(30) % 3, strict=True):
        image[..., label] //= 4
    return images


@pytest.fixture(scope="module")
def labels():
    return np.arange(30) % 3


@pytest.fixture(scope="module")
def backbone():
    return ktr.load_backbone("ResNet20")


@pytest.fixture
def extractor(backbone):
    return FeatureExtractor(backbone, store=FeatureStore())


def test_features_are_those_of_extract_features(images, extractor):
    found = extractor.fit_transform(images)
    expected = extract_features("ResNet20", images, store="memory", verbose=0)
    assert found.dtype == "float32"
    np.testing.assert_allclose(found, expected.values, atol=1e-5)
    names = extractor.get_feature_names_out()
    assert names.shape == (64,)
    assert names[1] == "resnet20_1"
    assert extractor.n_features_out_ == 64


def test_pixels_may_be_floats(images, extractor):
    found = extractor.fit(images).transform(images[:4].astype("float64"))
    np.testing.assert_allclose(
        found, extractor.transform(images[:4]), atol=1e-5
    )


def test_a_pipeline_is_cross_validated(images, labels, extractor):
    steps = make_pipeline(extractor, LogisticRegression(max_iter=1000))
    scores = cross_val_score(steps, images, labels, cv=3)
    assert scores.shape == (3,)
    assert scores.mean() > 0.9


def test_each_image_passes_the_backbone_once_over_all_folds(images, labels):
    inputs = keras.Input((32, 32, 3))
    x = keras.layers.Conv2D(8, 3, strides=4)(Counting()(inputs))
    network = keras.Model(inputs, x, name="counted")
    extractor = FeatureExtractor(
        ktr.load_backbone(network, pixel_range="[0, 1]"), store=FeatureStore()
    )
    steps = make_pipeline(extractor, LogisticRegression(max_iter=1000))
    passed(images)
    cross_val_score(steps, images, labels, cv=3)
    assert passed(images) == [1] * 30


def test_a_search_changes_parameters(images, labels, extractor):
    steps = make_pipeline(extractor, LogisticRegression(max_iter=1000))
    search = GridSearchCV(
        steps, {"featureextractor__pooling": ["avg", "max"]}, cv=2, refit=False
    )
    search.fit(images, labels)
    assert len(search.cv_results_["mean_test_score"]) == 2


def test_a_clone_has_the_parameters_and_is_not_fitted(images, extractor):
    extractor.fit(images)
    check_is_fitted(extractor)
    other = clone(extractor)
    assert other is not extractor
    assert other.get_params() == extractor.get_params()
    assert other.backbone is extractor.backbone
    with pytest.raises(NotFittedError):
        check_is_fitted(other)
    again = clone(make_pipeline(extractor))
    assert again[0].store is extractor.store


def test_parameters_are_read_and_set():
    extractor = FeatureExtractor("ResNet20")
    assert repr(extractor) == "FeatureExtractor(backbone='ResNet20')"
    assert extractor.set_params(pooling="max", batch_size=4) is extractor
    assert extractor.get_params()["pooling"] == "max"
    assert list(extractor.get_params()) == [
        "backbone",
        "weights",
        "image_size",
        "layers",
        "pooling",
        "batch_size",
        "store",
    ]
    with pytest.raises(ValueError, match="Did you mean 'pooling'"):
        extractor.set_params(poling="max")


def test_blocks_give_names(images, backbone):
    extractor = FeatureExtractor(
        backbone, layers="stage3*", store=FeatureStore()
    ).fit(images)
    names = extractor.get_feature_names_out()
    assert len(names) == extractor.n_features_out_ == 192
    assert len(set(names)) == 192
    assert names[0].startswith("resnet20_stage3")


def test_images_are_resized_and_names_loaded(images):
    extractor = FeatureExtractor(
        "ResNet20", image_size=32, store=FeatureStore()
    )
    small = images[:6, ::2, ::2, :1]
    assert extractor.fit_transform(small).shape == (6, 64)
    assert extractor.backbone_.input_shape == (32, 32, 1)
    with pytest.raises(
        ValueError, match=r"of shape \(16, 16, 1\).*like the images"
    ):
        extractor.transform(images)
    with pytest.raises(ValueError, match="`image_size` must be"):
        FeatureExtractor("ResNet20", image_size=0).fit(images)


def test_what_is_no_image_is_refused(images, extractor):
    with pytest.raises(ValueError, match="height, width, channels.*reshape"):
        extractor.fit(images.reshape(30, -1))
    with pytest.raises(ValueError, match="at least one.*shape"):
        extractor.fit(images[:0])
    with pytest.raises(TypeError, match="`X` must be an array of numbers"):
        extractor.fit([1, 2])
    with pytest.raises(TypeError, match="`X` must be an array of numbers"):
        extractor.fit(images.astype(str))
    with pytest.raises(ValueError, match=r"pixels must be in \[0, 255\]"):
        extractor.fit(images - 100.0)
    with pytest.raises(ValueError, match=r"pixels must be in \[0, 255\]"):
        extractor.fit(images * np.nan)
    with pytest.raises(ValueError, match='`pooling` must be "avg" or "max"'):
        clone(extractor).set_params(pooling=None).fit(images)
    with pytest.raises(NotFittedError, match="`fit` must be called first"):
        clone(extractor).transform(images)
    with pytest.raises(NotFittedError, match="`fit` must be called first"):
        clone(extractor).get_feature_names_out()


def test_output_in_data_frames(images, extractor, monkeypatch):
    import sys
    import types

    import sklearn

    class Frame:
        def __init__(self, values, columns=None, schema=None):
            self.values, self.columns = values, columns or schema

    array = extractor.fit_transform(images)
    assert isinstance(array, np.ndarray)
    assert extractor.n_features_in_ == 32
    for name in ("pandas", "polars"):
        library = types.SimpleNamespace(DataFrame=Frame)
        monkeypatch.setitem(sys.modules, name, library)
        pipeline = make_pipeline(extractor).set_output(transform=name)
        for frame in (
            pipeline.fit_transform(images),
            clone(extractor).fit(images).transform(images),
        ):
            np.testing.assert_array_equal(frame.values, array)
            assert frame.columns == extractor.get_feature_names_out().tolist()
        assert pipeline.n_features_in_ == 32
    monkeypatch.setitem(sys.modules, "polars", None)
    with pytest.raises(ImportError, match="pip install polars"):
        extractor.transform(images)
    extractor.set_output(transform="default")
    monkeypatch.setitem(
        sys.modules, "pandas", types.SimpleNamespace(DataFrame=Frame)
    )
    with sklearn.config_context(transform_output="pandas"):
        assert isinstance(extractor.transform(images), np.ndarray)
        other = FeatureExtractor(extractor.backbone, store=extractor.store)
        assert isinstance(other.fit_transform(images), Frame)
    with pytest.raises(ValueError, match="`transform` must be one of"):
        extractor.set_output(transform="numpy")
    assert extractor.set_output() is extractor
