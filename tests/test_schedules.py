"""one_cycle against its golden numbers, and that the callback applies it."""

import functools

import keras
import numpy as np
import pytest

from keras_transfer.schedules import ScheduledLearningRate, one_cycle


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
def test_step_out_of_range(step):
    with pytest.raises(ValueError, match=r"`step` must be in \[0, total_st"):
        one_cycle(step, total_steps=100, learning_rate=0.1)


def test_warmup_out_of_range():
    with pytest.raises(ValueError, match="`warmup` must be a fraction"):
        one_cycle(0, total_steps=100, learning_rate=0.1, warmup=1.0)


def test_callback_sets_the_rate_of_each_step():
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    seen = []
    watch = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: seen.append(
            float(model.optimizer.learning_rate)
        )
    )
    schedule = functools.partial(one_cycle, total_steps=6, learning_rate=0.5)
    model.fit(
        np.zeros((6, 1)),
        np.zeros((6, 1)),
        batch_size=2,
        epochs=2,
        callbacks=[ScheduledLearningRate(schedule), watch],
        verbose=0,
    )
    np.testing.assert_allclose(seen, [schedule(s) for s in range(6)], rtol=1e-6)
