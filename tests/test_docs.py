"""Every example in a docstring runs and prints what it says."""

import doctest
import functools
import importlib
import pkgutil

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_transfer as ktr

# Has examples of commands only.
SKIPPED = {"keras_transfer.__main__"}


def find_examples():
    """The examples of the package, by the full name of what they belong to."""
    finder = doctest.DocTestFinder(exclude_empty=True)
    packages = pkgutil.walk_packages(ktr.__path__, "keras_transfer.")
    names = {package.name for package in packages} - SKIPPED
    return {
        test.name: test
        for name in sorted(names)
        for test in finder.find(importlib.import_module(name))
        if test.examples
    }


EXAMPLES = find_examples()


def full_name(symbol):
    value = getattr(ktr, symbol)
    return f"{value.__module__}.{value.__qualname__}"


@pytest.mark.parametrize("symbol", ktr.__all__)
def test_public_name_has_an_example(symbol):
    assert full_name(symbol) in EXAMPLES


@pytest.fixture(scope="module")
def backbone():
    """A network that trains in a moment."""
    keras.utils.set_random_seed(0)
    images = keras.Input([32, 32, 3])
    maps = keras.layers.Conv2D(8, 3, 4, activation="relu", name="stem")(images)
    maps = keras.layers.Conv2D(8, 3, activation="relu", name="block_1")(maps)
    network = keras.Model(images, maps, name="small")
    return ktr.load_backbone(network, pixel_range="[0, 255]")


@pytest.fixture
def given(tmp_path, backbone):
    """What the examples take for granted."""
    generator = np.random.default_rng(0)
    arrays = generator.integers(0, 256, (30, 32, 32, 3), dtype="uint8")
    return {
        "functools": functools,
        "keras": keras,
        "np": np,
        "tf": tf,
        "folder": tmp_path,
        "backbone": backbone,
        "images": arrays[:2].astype("float32"),
        "arrays": arrays,
        "labels": np.arange(30) % 3,
    }


@pytest.mark.parametrize("name", EXAMPLES)
def test_example_runs(name, given):
    names = {symbol: getattr(ktr, symbol) for symbol in ktr.__all__}
    test = EXAMPLES[name]
    # What the module itself calls so is meant, before what is public.
    test.globs = {**names, **test.globs, **given}
    report: list[str] = []
    runner = doctest.DocTestRunner(
        optionflags=doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS
    )
    assert runner.run(test, out=report.append).failed == 0, "".join(report)
