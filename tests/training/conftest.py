"""Images and a model that a run takes a second or two for."""

import pytest

import keras_transfer as ktr

from ._tiny import make_images, make_model


@pytest.fixture(scope="session")
def data():
    parts = {
        name: make_images(count, seed)
        for seed, (name, count) in enumerate(
            {"train": 48, "validation": 18, "test": 18}.items()
        )
    }
    return ktr.load_images(parts)


@pytest.fixture
def model():
    return make_model()
