"""Images and a model that a run takes a second or two for."""

import pytest

from ._tiny import make_data, make_model


@pytest.fixture(scope="session")
def data():
    return make_data()


@pytest.fixture
def model():
    return make_model()
