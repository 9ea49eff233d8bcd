"""The images and the model of the training tests."""

import pytest
from training._tiny import make_data, make_model


@pytest.fixture(scope="session")
def data():
    return make_data()


@pytest.fixture
def model():
    return make_model()
