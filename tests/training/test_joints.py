"""A task and a loss that the package does not know train as its own do."""

import json

import numpy as np
import pytest
from distribute._starting import run_python

# Law 2 and law 7, in float32.
SAME = 1e-5


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    folder = tmp_path_factory.mktemp("joints")
    run_python("training._joints", folder)
    return folder


def weights(out, name):
    with np.load(out / f"{name}.npz") as file:
        return [file[key] for key in sorted(file.files)]


def assert_same(one, other, atol):
    for a, b in zip(one, other, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=atol)


@pytest.mark.parametrize("way", ["cached", "replicas", "cached-replicas"])
@pytest.mark.parametrize("name", ["task", "loss"])
def test_every_way_gives_the_same_weights(out, name, way):
    assert_same(
        weights(out, f"{name}-{way}"), weights(out, f"{name}-direct"), SAME
    )


@pytest.mark.parametrize("name", ["task", "loss"])
def test_a_resumed_run_ends_where_the_whole_one_does(out, name):
    assert_same(
        weights(out, f"{name}-resumed"), weights(out, f"{name}-cached"), 0
    )


def test_the_frozen_part_is_cached(out):
    cuts = json.loads((out / "cached.json").read_text())
    assert cuts["task-cached"] == ["after block_2"]
    assert cuts["loss-cached"] == ["after pooling", "after block_2"]
    assert set(cuts["task-direct"] + cuts["loss-direct"]) == {None}


def test_the_loss_acts(out):
    found, without = weights(out, "loss-cached"), weights(out, "loss-without")
    gaps = [np.abs(a - b).max() for a, b in zip(found, without, strict=True)]
    assert max(gaps) > 1e-3


def test_weight_0_changes_no_bit(out):
    assert_same(weights(out, "loss-off"), weights(out, "loss-without"), 0)
