"""The examples in the docstrings run and print what they say."""

import doctest
import functools
import importlib

import keras
import numpy as np
import pytest

import keras_transfer as ktr

MODULES = {
    name: importlib.import_module(f"keras_transfer.{name}")
    for name in (
        "doctor",
        "evaluation",
        "features.clustering",
        "features.dataset",
        "features.extraction",
        "features.fitted",
        "features.probing",
        "features.store",
        "features.transformer",
        "features.views",
        "heads",
        "multipliers",
        "optimizers",
        "penalties",
        "probes",
        "probes.choosing",
        "probes.group_lasso",
        "probes.linear",
        "probes.ridge",
        "reports",
        "schedules",
        "strategies",
        "training.cross_validation",
        "training.learning_rate",
        "training.run",
    )
}
SYMBOLS = {name: getattr(ktr, name) for name in ktr.__all__} | {
    f"{module.__name__}.{name}": getattr(module, name)
    for module in MODULES.values()
    for name in vars(module)
    if not name.startswith("_")
    and getattr(getattr(module, name), "__module__", "") == module.__name__
}


@pytest.fixture
def names(tmp_path):
    """What the examples take for granted."""
    generator = np.random.default_rng(0)
    arrays = generator.integers(0, 256, (30, 32, 32, 3), dtype="uint8")
    return {
        **{name: getattr(ktr, name) for name in ktr.__all__},
        **{
            name: value
            for module in MODULES.values()
            for name, value in vars(module).items()
            if not name.startswith("_")
        },
        "functools": functools,
        "keras": keras,
        "np": np,
        "folder": tmp_path,
        "images": arrays[:2].astype("float32"),
        "arrays": arrays,
        "labels": np.arange(30) % 3,
    }


@pytest.mark.parametrize("symbol", SYMBOLS)
def test_example_runs(symbol, names):
    found = doctest.DocTestFinder(recurse=False).find(
        SYMBOLS[symbol], symbol, globs=names
    )
    examples = [test for test in found if test.examples]
    assert examples, f"{symbol} has no example"
    report: list[str] = []
    runner = doctest.DocTestRunner(
        optionflags=doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS
    )
    for test in examples:
        assert runner.run(test, out=report.append).failed == 0, "".join(report)
