"""Schedules against golden numbers, and that the callback applies them."""

import functools

import keras
import numpy as np
import pytest

from keras_transfer.schedules.bit import bit_hyperrule, bit_learning_rate
from keras_transfer.schedules.callback import ScheduledLearningRate
from keras_transfer.schedules.schedules import (
    constant,
    one_cycle,
    slanted_triangular,
    step_decay,
    warmup_cosine,
)


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        (0, 0.1 / 25),
        (25, 0.1),
        (100, 0.1 / 1e5),
        # Half-way up and down a cosine lies half-way between its ends.
        (12.5, (0.1 / 25 + 0.1) / 2),
        (62.5, (0.1 + 0.1 / 1e5) / 2),
    ],
)
def test_golden_numbers(step, expected):
    rate = one_cycle(step, total_steps=100, learning_rate=0.1)
    assert rate == pytest.approx(expected, rel=1e-12)


def test_rises_then_falls():
    rates = [one_cycle(s, total_steps=40, learning_rate=1.0) for s in range(41)]
    assert np.all(np.diff(rates[:11]) > 0)
    assert np.all(np.diff(rates[10:]) < 0)


@pytest.mark.parametrize("step", [-1, 101])
@pytest.mark.parametrize(
    "schedule",
    [constant, one_cycle, slanted_triangular, step_decay, warmup_cosine],
)
def test_step_out_of_range(schedule, step):
    with pytest.raises(ValueError, match=r"`step` must be in \[0, total_st"):
        schedule(step, total_steps=100, learning_rate=0.1)
    with pytest.raises(ValueError, match="`total_steps` positive"):
        schedule(0, total_steps=0, learning_rate=0.1)


def test_constant():
    assert constant(3, total_steps=4, learning_rate=0.1) == 0.1


@pytest.mark.parametrize(
    ("step", "expected"),
    [(0, 0.0), (5, 0.5), (10, 1.0), (55, 0.6), (100, 0.2)],
)
def test_warmup_cosine(step, expected):
    for warmup in (10, 0.1):
        rate = warmup_cosine(
            step, total_steps=100, learning_rate=1.0, warmup=warmup, final=0.2
        )
        assert rate == pytest.approx(expected, rel=1e-12)


def test_cosine_without_warmup():
    for warmup in (0, 0.0):
        rates = [
            warmup_cosine(s, total_steps=4, learning_rate=1.0, warmup=warmup)
            for s in range(5)
        ]
        half = np.sqrt(0.5) / 2
        np.testing.assert_allclose(
            rates, [1, 0.5 + half, 0.5, 0.5 - half, 0], atol=1e-12
        )


@pytest.mark.parametrize("warmup", [-1, 100, 1.0, -0.1])
def test_warmup_of_the_cosine_out_of_range(warmup):
    with pytest.raises(ValueError, match=r"in \[0, 99\] \(an integer\). Rec"):
        warmup_cosine(0, total_steps=100, learning_rate=0.1, warmup=warmup)


@pytest.mark.parametrize("final", [-0.1, 0.2])
def test_final_out_of_range(final):
    with pytest.raises(ValueError, match=r"`final` must be in \[0, learning_"):
        warmup_cosine(0, total_steps=9, learning_rate=0.1, final=final)


@pytest.mark.parametrize(
    ("step", "expected"),
    [(0, 1 / 32), (10, 1.0), (55, 0.515625), (100, 1 / 32)],
)
def test_slanted_triangular(step, expected):
    rate = slanted_triangular(step, total_steps=100, learning_rate=1.0)
    assert rate == pytest.approx(expected, rel=1e-12)


def test_slanted_triangular_never_falls_below_its_start():
    """The paper's own formula does where the peak is no whole step."""
    for total in range(1, 40):
        rates = [
            slanted_triangular(s, total_steps=total, learning_rate=1.0)
            for s in range(total + 1)
        ]
        assert min(rates) >= 1 / 32 - 1e-12
        assert max(rates) <= 1 + 1e-12


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cut": 0.0}, r"`cut` must be a fraction in \(0, 1\)"),
        ({"cut": 1.0}, r"`cut` must be a fraction in \(0, 1\)"),
        ({"ratio": 0.5}, "`ratio` must be a number of at least 1"),
    ],
)
def test_triangle_out_of_range(options, message):
    with pytest.raises(ValueError, match=message):
        slanted_triangular(0, total_steps=9, learning_rate=0.1, **options)


@pytest.mark.parametrize("boundaries", [(0.5, 0.75), (20, 30), (20, 0.75)])
def test_step_decay(boundaries):
    def rate(step):
        return step_decay(
            step, total_steps=40, learning_rate=1.0, boundaries=boundaries
        )

    keras_rate = keras.optimizers.schedules.PiecewiseConstantDecay(
        [20, 30], [1.0, 0.1, 0.01]
    )
    rates = [rate(step) for step in range(41)]
    assert (rates[20], rates[21]) == (1.0, 0.1)
    np.testing.assert_allclose(
        rates, [float(keras_rate(step)) for step in range(41)], rtol=1e-6
    )


def test_step_decay_without_boundaries():
    assert step_decay(9, total_steps=9, learning_rate=0.1, boundaries=()) == 0.1


@pytest.mark.parametrize("boundaries", [(0.0,), (1.0,), (41,), (20, 0.25)])
def test_boundaries_out_of_range(boundaries):
    with pytest.raises(ValueError, match="in increasing order. Received"):
        step_decay(0, total_steps=40, learning_rate=0.1, boundaries=boundaries)


@pytest.mark.parametrize("factor", [0.0, 1.5])
def test_factor_out_of_range(factor):
    with pytest.raises(ValueError, match=r"`factor` must be in \(0, 1\]"):
        step_decay(0, total_steps=40, learning_rate=0.1, factor=factor)


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        (0, 0.0),
        (50, 0.0015),
        (100, 0.003),
        (200, 0.003),
        (201, 3e-4),
        (301, 3e-5),
        (401, 3e-6),
        (499, 3e-6),
    ],
)
def test_bit_learning_rate(step, expected):
    rate = bit_learning_rate(step, num_examples=1000)
    assert rate == pytest.approx(expected, rel=1e-12)
    half = bit_learning_rate(step, num_examples=1000, batch_size=256)
    assert half == pytest.approx(expected / 2, rel=1e-12)


def test_bit_training_ends():
    assert bit_learning_rate(500, num_examples=1000) is None
    assert bit_learning_rate(501, num_examples=1000) is None


@pytest.mark.parametrize(
    ("num_examples", "total", "warmup", "boundaries", "mixup"),
    [
        (19_999, 500, 100, (200, 300, 400), 0.0),
        (20_000, 10_000, 500, (3000, 6000, 9000), 0.1),
        (499_999, 10_000, 500, (3000, 6000, 9000), 0.1),
        (500_000, 20_000, 500, (6000, 12_000, 18_000), 0.1),
    ],
)
def test_bit_hyperrule(num_examples, total, warmup, boundaries, mixup):
    rule = bit_hyperrule(num_examples, (95, 97), batch_size=128)
    assert rule == (
        total,
        warmup,
        boundaries,
        pytest.approx(0.003 / 4),
        160,
        128,
        mixup,
    )
    assert bit_learning_rate(total, num_examples) is None
    assert bit_learning_rate(total - 1, num_examples) is not None


def test_bit_resolution():
    rule = bit_hyperrule(10, (96, 96))
    assert (rule.resize, rule.crop) == (512, 480)


def test_bit_refuses():
    with pytest.raises(ValueError, match="`num_examples` must be positive"):
        bit_hyperrule(0, (32, 32))
    with pytest.raises(ValueError, match="`batch_size` must be positive"):
        bit_hyperrule(10, (32, 32), batch_size=0)
    with pytest.raises(ValueError, match="`image_size` must be the positive"):
        bit_hyperrule(10, (32, 0))
    with pytest.raises(ValueError, match="`step` must be at least 0"):
        bit_learning_rate(-1, 10)


def test_warmup_out_of_range():
    with pytest.raises(ValueError, match="`warmup` must be a fraction"):
        one_cycle(0, total_steps=100, learning_rate=0.1, warmup=1.0)


def fit(schedule, epochs, **options):
    """Returns the learning rates of the steps, three in each epoch."""
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse", run_eagerly=True)
    seen = []
    watch = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: seen.append(
            float(model.optimizer.learning_rate)
        )
    )
    model.fit(
        np.zeros((6, 1)),
        np.zeros((6, 1)),
        batch_size=2,
        epochs=epochs,
        callbacks=[ScheduledLearningRate(schedule, **options), watch],
        verbose=0,
    )
    return seen


def test_callback_sets_the_rate_of_each_step():
    schedule = functools.partial(one_cycle, total_steps=6, learning_rate=0.5)
    expected = [schedule(s) for s in range(6)]
    np.testing.assert_allclose(fit(schedule, epochs=2), expected, rtol=1e-6)
    np.testing.assert_allclose(
        fit(schedule, epochs=1, initial_step=3), expected[3:], rtol=1e-6
    )


def test_callback_refuses():
    def schedule(step):
        return 0.1 if step < 2 else None

    with pytest.raises(ValueError, match="None at step 2. Train for 2 steps"):
        fit(schedule, epochs=1)
    with pytest.raises(ValueError, match="`initial_step` must be an integer"):
        ScheduledLearningRate(schedule, initial_step=-1)
