"""The images of the training tests."""

import pytest
from training._tiny import make_data


@pytest.fixture(scope="session")
def data():
    return make_data()
