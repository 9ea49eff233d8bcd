"""What more devices are worth, by hand."""

import keras
import pytest

from keras_transfer import predict_scaling


def make_model(units=10):
    inputs = keras.Input((9,))
    return keras.Model(inputs, keras.layers.Dense(units)(inputs))


def test_by_hand():
    found = predict_scaling(
        make_model(),  # 100 weights, 400 bytes
        step_seconds=0.5,
        fixed_seconds=0.1,
        bytes_per_second=4000,
        latency=0.01,
        replicas=(1, 2, 4),
    )
    assert found.gradient_bytes == 400
    one, two, four = found.rows
    assert (one.step_seconds, one.speed_up, one.efficiency) == (0.5, 1, 1)
    # 0.1 + 0.4 / 2, 2 * 1/2 * 0.1 on the way, two messages.
    assert two.step_seconds == pytest.approx(0.1 + 0.2 + 0.1 + 0.02)
    assert four.step_seconds == pytest.approx(0.1 + 0.1 + 0.15 + 0.06)
    assert four.efficiency == pytest.approx(0.5 / 0.41 / 4)
    assert two.grown_speed_up == pytest.approx(2 * 0.5 / 0.62)
    assert found.summary().splitlines()[-1].split()[0] == "4"


@pytest.mark.parametrize(
    "wrong",
    [
        {"step_seconds": 0},
        {"bytes_per_second": float("nan")},
        {"fixed_seconds": 2.0},
        {"latency": -1},
        {"replicas": ()},
        {"replicas": (0,)},
    ],
    ids=str,
)
def test_numbers_out_of_range(wrong):
    good = {"step_seconds": 1.0, "bytes_per_second": 1e9}
    with pytest.raises(ValueError, match=next(iter(wrong))):
        predict_scaling(make_model(), **(good | wrong))


def test_a_frozen_model_has_nothing_to_send():
    model = make_model()
    model.trainable = False
    with pytest.raises(ValueError, match="something to train"):
        predict_scaling(model, step_seconds=1.0, bytes_per_second=1e9)
