"""A soup is the mean of what is in it, and better than each."""

import numpy as np
import pytest
from training._tiny import make_model

import keras_transfer as ktr
from keras_transfer.tuning.soup import average

from .test_search import PHASE, search

SPACE = ktr.SearchSpace(
    learning_rate=[3e-2, 1e-2, 3e-3], depth=[1, 2], lambda_=0, strategy=PHASE
)


def test_average_is_the_mean_also_of_what_did_not_move():
    start = [np.float32([1, 2]), np.float32([5]), np.uint32([7])]
    some = [
        {0: np.float32([3, 4]), 2: np.uint32([9])},
        {0: np.float32([1, 8]), 1: np.float32([2])},
    ]
    mean = average(some, start)
    np.testing.assert_array_equal(mean[0], [2, 6])
    np.testing.assert_array_equal(mean[1], [3.5])
    np.testing.assert_array_equal(mean[2], [9])
    assert [mean[i].dtype for i in range(3)] == [a.dtype for a in start]


@pytest.fixture(scope="module")
def found(data, tmp_path_factory):
    return search(
        data,
        space=SPACE,
        soup=True,
        keep=6,
        objective="val_loss",
        directory=tmp_path_factory.mktemp("soup") / "search",
    )


def test_soup_is_better_than_the_best(data, found):
    soup = found.soup
    assert len(soup.trials) > 1
    assert soup.trials[0] == found.rows[0]["trial"]
    assert soup.metrics["val_loss"] < found.rows[0]["val_loss"]
    validation = data.validation.batches(32)
    values = soup.model.evaluate(validation, return_dict=True, verbose=0)
    for name, value in values.items():
        assert soup.metrics[f"val_{name}"] == pytest.approx(value, abs=1e-5)
    members = [found.model(trial).get_weights() for trial in soup.trials]
    for mean, *each in zip(soup.model.get_weights(), *members, strict=True):
        np.testing.assert_allclose(mean, np.mean(each, axis=0), atol=1e-6)


def test_each_that_is_left_out_would_not_help(data, found):
    """Adding it to those that were in when its turn came is no better."""
    validation = data.validation.batches(32)
    model = found.model(found.soup.trials[0])

    def loss(trials):
        weights = [found.model(trial).get_weights() for trial in trials]
        model.set_weights([np.mean(w, 0) for w in zip(*weights, strict=True)])
        return model.evaluate(validation, verbose=0)[0]

    inside = []
    for row in found.rows:
        trial = row["trial"]
        better = not inside or loss([*inside, trial]) < loss(inside)
        assert better == (trial in found.soup.trials)
        if better:
            inside.append(trial)


def test_trials_with_another_head_stay_out(data):
    result = ktr.search(
        "ResNet20",
        ktr.load_images(make_arrays()),
        space={
            "learning_rate": [1e-2, 1e-3],
            "lambda_": 0,
            "depth": 0,
            "hidden_units": [(), (4,)],
        },
        oracle="grid",
        epochs=1,
        soup=True,
        verbose=0,
    )
    heads = {row["trial"]: row["hidden_units"] for row in result.rows}
    assert len(set(heads.values())) == 2
    assert len({heads[trial] for trial in result.soup.trials}) == 1
    # Those with its own head could have been in it.
    assert list(heads.values()).count(heads[result.soup.trials[0]]) == 2


def make_arrays():
    rng = np.random.default_rng(0)
    return rng.integers(0, 255, (40, 32, 32, 3), np.uint8), np.arange(40) % 2


def test_what_cannot_be_averaged_is_refused(data):
    moving = (ktr.Phase(depth=1, train_batch_norm=True),)
    with pytest.raises(ValueError, match="train_batch_norm=True"):
        search(data, space={"strategy": moving, "depth": [1]}, soup=True)
    with pytest.raises(ValueError, match="`soup` must be False"):
        ktr.search(lambda hp: make_model(), data, soup=True)


def test_no_soup_unless_asked_for(data):
    small = {"learning_rate": [1e-2, 1e-3], "depth": 0, "lambda_": 0}
    assert search(data, space=small, epochs=1).soup is None
