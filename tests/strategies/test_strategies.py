"""Strategies are plain data."""

import dataclasses

import pytest

import keras_transfer as ktr
from keras_transfer.schedules import schedules
from keras_transfer.strategies.strategies import resolve


def test_a_strategy_is_a_tuple_of_phases():
    strategy = ktr.LPFT(depth=2, epochs=4)
    assert isinstance(strategy, tuple)
    assert strategy == (*ktr.LinearProbe(exact=True), strategy[1])
    assert dataclasses.asdict(strategy[1])["depth"] == 2
    assert repr(strategy).startswith("LPFT(")
    with pytest.raises(dataclasses.FrozenInstanceError):
        strategy[1].depth = 3


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("linear-probe", ktr.LinearProbe(epochs=3, learning_rate=0.1)),
        ("fine-tune", ktr.FineTune(epochs=3, learning_rate=0.1)),
        ("lp-ft", ktr.LPFT(epochs=3, learning_rate=0.1)),
        (
            "gradual-unfreezing",
            ktr.GradualUnfreezing(epochs=3, learning_rate=0.1),
        ),
        ("from-scratch", ktr.FromScratch(epochs=3, learning_rate=0.1)),
    ],
)
def test_names_stand_for_strategies(name, expected):
    assert resolve(name, epochs=3, learning_rate=0.1) == tuple(expected)


def test_phases_by_hand_are_taken_as_they_are():
    phases = [ktr.Phase("a", depth=0), ktr.Phase("b", blocks=("block_1",))]
    assert resolve(phases) == tuple(phases)


def test_gradual_unfreezing_opens_one_block_a_phase():
    strategy = ktr.GradualUnfreezing(depth=3, epochs=7, phase_epochs=2)
    assert [phase.depth for phase in strategy] == [0, 1, 2, 3]
    assert [phase.epochs for phase in strategy] == [2, 2, 2, 7]
    assert strategy[0].layer_decay == pytest.approx(1 / 2.6)


def test_surgical_without_head_epochs():
    assert len(ktr.Surgical(["stem", "block_1"], head_epochs=0)) == 1
    assert ktr.Surgical("stem")[0].depth == 0


@pytest.mark.parametrize(
    ("name", "schedule"),
    [
        ("constant", schedules.constant),
        ("one-cycle", schedules.one_cycle),
        ("cosine", schedules.warmup_cosine),
        ("slanted-triangular", schedules.slanted_triangular),
    ],
)
def test_rate_follows_the_schedule(name, schedule):
    phase = ktr.Phase(schedule=name, learning_rate=0.3)
    for step in (0, 10, 55, 100):
        assert phase.rate(step, 100) == schedule(
            step, total_steps=100, learning_rate=0.3
        )


def test_own_schedule():
    phase = ktr.Phase(
        schedule=lambda step, total_steps, learning_rate: (
            learning_rate * (1 - step / total_steps)
        ),
        learning_rate=0.5,
    )
    assert phase.rate(50, 100) == 0.25


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"name": ""}, "`name` must be"),
        ({"depth": -1}, "`depth` must be"),
        ({"depth": "some"}, "`depth` must be"),
        ({"depth": 1.5}, "`depth` must be"),
        ({"depth": True}, "`depth` must be"),
        ({"epochs": 0}, "`epochs` must be an integer of at least 1"),
        ({"epochs": -1, "exact_probe": True}, "of at least 0"),
        ({"learning_rate": 0.0}, "`learning_rate` must be"),
        ({"learning_rate": float("nan")}, "`learning_rate` must be"),
        ({"learning_rate": "high"}, "`learning_rate` must be"),
        ({"layer_decay": 1.1}, r"in \(0, 1\]"),
        ({"head_multiplier": 0}, "`head_multiplier` must be"),
        ({"schedule": "linear"}, "`schedule` must be"),
        ({"blocks": "stem"}, "`blocks` must be a tuple"),
        ({"blocks": ()}, "`blocks` must be a tuple"),
        ({"blocks": ("stem",), "depth": 2}, "`depth` must be None"),
    ],
)
def test_phase_refuses(arguments, match):
    with pytest.raises(ValueError, match=match):
        ktr.Phase(**arguments)


def test_resolve_refuses():
    with pytest.raises(ValueError, match="Did you mean 'lp-ft'"):
        resolve("lpft")
    with pytest.raises(ValueError, match='left out for "linear-probe"'):
        resolve("linear-probe", depth=2)
    with pytest.raises(ValueError, match="integer above 0"):
        resolve("gradual-unfreezing", depth="all")
    with pytest.raises(TypeError, match="sequence of `Phase`"):
        resolve([{"depth": 1}])
