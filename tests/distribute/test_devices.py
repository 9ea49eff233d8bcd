"""Law 7: several devices give the numbers of one."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf
from training._tiny import make_data, make_model

import keras_transfer as ktr
from keras_transfer.data.pipeline import part_of
from keras_transfer.distribute import (
    ProcessGroup,
    check_batch_size,
    choose_devices,
)
from keras_transfer.training.replica_trainer import split

from ._several import CASES, FEW
from ._starting import Workers, config_of, run_python


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """What one device, two and four, and two processes came to."""
    folder = tmp_path_factory.mktemp("runs")
    run_python("distribute._several", folder, 1, 2, 4)
    Workers(folder, "distribute._several", [folder]).succeed()
    return folder


@pytest.mark.parametrize(
    ("case", "place"),
    [(case, "2") for case in CASES if case != "per-replica"]
    + [(case, place) for place, cases in FEW.items() for case in cases],
)
def test_replicas_give_the_numbers_of_one_device(runs, case, place):
    # Half precision says little from the fourth digit on.
    bound = 1e-3 if case.startswith("half") else 1e-5
    one, several = (
        json.loads((runs / f"{case}-{where}.json").read_text())
        for where in ("1", place)
    )
    assert len(one) >= 2
    np.testing.assert_allclose(several, one, rtol=0, atol=bound)
    ours, theirs = (
        np.load(runs / f"{case}-{where}.npz") for where in (place, "1")
    )
    for name in theirs.files:
        np.testing.assert_allclose(
            ours[name], theirs[name], rtol=0, atol=bound, err_msg=name
        )


def test_searches_and_features_are_those_of_one_device():
    (line,) = run_python("distribute._searching").splitlines()[-1:]
    found = json.loads(line)
    assert found["trials"] == 4
    assert found["table"] <= 1e-5
    assert found["best"] <= 1e-5
    assert found["features"] <= 1e-5
    assert (found["replicas"], found["epochs"]) == (2, 1 + 1)


@pytest.mark.parametrize("apart", [False, True])
@pytest.mark.parametrize("size", [1, 3, 4, 7])
def test_parts_hold_each_example_once(size, apart):
    x = np.arange(size, dtype="float32")[:, None]
    weights = np.linspace(1, 2, size).astype("float32")
    seen, weight, lengths = [], [], []
    for part in [(0, 2, 4), (2, 4, 4)]:  # Of two processes.
        read = slice(*part_of(size, part)) if apart else slice(None)
        given = (x[read], x[read], weights[read])
        sizes = np.array([size]) if apart else None
        batches = tf.data.Dataset.from_tensors(given)
        for inputs, labels, some, real, whole in split(batches, part, sizes):
            assert len(inputs) == len(labels) == len(some) == len(real) > 0
            assert whole == size
            seen += inputs.numpy()[:, 0].tolist()
            weight += some.numpy().tolist()
            lengths.append(float(real.numpy().sum()))
    if size < 4:  # All are for everybody, and count a fourth.
        assert seen == list(range(size)) * 4
        assert lengths == pytest.approx([size / 4] * 4)
        return
    assert seen == list(range(size))
    np.testing.assert_allclose(weight, weights)
    assert max(lengths) - min(lengths) <= 1


def test_a_process_reads_its_part_alone():
    split_ = make_data().train
    wholes = list(split_.batches(14, shuffle=True))
    ones, others = (
        list(split_.batches(14, shuffle=True, part=part))
        for part in [(0, 1, 3), (1, 3, 3)]
    )
    assert [len(x) for x, _ in ones] == [4, 4, 4, 2]
    for whole, one, other in zip(wholes, ones, others, strict=True):
        for array, first, second in zip(whole, one, other, strict=True):
            np.testing.assert_array_equal(
                np.concatenate([first, second]), array
            )


def test_statistics_of_each_replica_are_others(runs):
    whole, own = (
        json.loads((runs / f"{case}-2.json").read_text())
        for case in ("batch-norm", "per-replica")
    )
    assert np.abs(np.array(whole) - np.array(own)).max() > 1e-4


def test_devices_are_checked():
    with pytest.raises(ValueError, match="there are 1 logical CPUs"):
        choose_devices(2)
    with pytest.raises(TypeError, match='must be "auto", an integer'):
        choose_devices("all")
    with pytest.raises(TypeError, match='must be "auto", an integer'):
        choose_devices(True)
    assert choose_devices("auto") is None
    assert choose_devices(1) is None
    assert choose_devices(None) is None


def test_workers_that_did_not_connect_are_refused(monkeypatch):
    monkeypatch.setenv("TF_CONFIG", config_of(0, [1, 2]))
    with pytest.raises(ValueError, match="each of which would train alone"):
        choose_devices("auto")
    monkeypatch.setenv("TF_CONFIG", config_of(0, [1]))
    assert choose_devices("auto") is None


def test_a_strategy_that_does_not_mirror_is_refused():
    central = tf.distribute.experimental.CentralStorageStrategy(["CPU:0"])
    with pytest.raises(ValueError, match="Received: a CentralStorage"):
        ktr.fine_tune(make_model(), make_data(), devices=central)


def test_what_is_frozen_or_penalised_is_not_lost():
    device = tf.distribute.OneDeviceStrategy("CPU:0")
    model = make_model()
    ktr.unfreeze(model, "all")
    ktr.freeze(model, ["block_2"])
    before = np.array(
        model.get_layer("backbone").get_layer("block_2_conv").kernel
    )
    ktr.fine_tune(
        model, make_data(), depth="all", epochs=1, devices=device, verbose=0
    )
    after = model.get_layer("backbone").get_layer("block_2_conv").kernel
    np.testing.assert_array_equal(after, before)
    with (
        ktr.L2SP(1.0, 1.0).attach(model),
        pytest.raises(ValueError, match="no penalty"),
    ):
        ktr.fine_tune(model, make_data(), devices=device)


def test_scopes_and_models_made_elsewhere_are_refused():
    device = tf.distribute.OneDeviceStrategy("CPU:0")
    with (
        device.scope(),
        pytest.raises(ValueError, match="Leave the scope"),
    ):
        ktr.fine_tune(make_model(), make_data())
    average = keras.optimizers.SGD(use_ema=True, ema_overwrite_frequency=2)
    with pytest.raises(ValueError, match="ema_overwrite_frequency"):
        ktr.fine_tune(
            make_model(), make_data(), optimizer=average, devices=device
        )


def test_a_batch_smaller_than_the_replicas_is_refused():
    class Four:
        num_replicas_in_sync = 4

    check_batch_size(4, Four())
    with pytest.raises(ValueError, match="batch_size=3, 4 replicas"):
        check_batch_size(3, Four())


def test_one_device_is_a_strategy_too():
    data = make_data()
    device = tf.distribute.OneDeviceStrategy("CPU:0")
    rows = [
        ktr.fine_tune(
            make_model(), data, depth=1, epochs=2, devices=devices, verbose=0
        ).rows
        for devices in (None, device)
    ]
    for one, other in zip(*rows, strict=True):
        for name in ("loss", "val_loss", "val_accuracy"):
            assert (one.get(name) or 0) == pytest.approx(
                other.get(name) or 0, abs=1e-5
            )


def test_a_model_of_a_strategy_of_one_device_trains_on_it():
    """As on two devices, without `devices`: a notebook with one GPU."""
    data = make_data()
    strategy = tf.distribute.MirroredStrategy(["CPU:0"])
    with strategy.scope():
        model = make_model()
    for depth in (0, 1):
        ktr.fine_tune(model, data, depth=depth, epochs=1, verbose=0)
    plain = make_model()
    for depth in (0, 1):
        ktr.fine_tune(plain, data, depth=depth, epochs=1, verbose=0)
    for one, other in zip(model.variables, plain.variables, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-5)
    with pytest.raises(ValueError, match="`devices` must be omitted"):
        ktr.fine_tune(model, data, devices=1, verbose=0)
    result = ktr.search(
        model,
        data,
        space={"learning_rate": [1e-3, 1e-2], "lambda_": 0, "depth": 1},
        oracle="grid",
        max_trials=2,
        epochs=1,
        verbose=0,
    )
    assert [row["status"] for row in result.rows] == ["completed"] * 2


def test_a_search_within_a_scope_is_refused():
    strategy = tf.distribute.MirroredStrategy(["CPU:0"])
    for source in ("ResNet20", make_model, make_model()):
        with (
            strategy.scope(),
            pytest.raises(ValueError, match="Leave the scope"),
        ):
            ktr.search(source, make_data(), max_trials=2, verbose=0)


def test_what_has_a_training_step_of_its_own_is_refused():
    class Own(keras.Model):
        def train_step(self, data):
            return {}

    inputs = keras.Input((8, 8, 3))
    x = keras.layers.Flatten(name="flat")(inputs)
    model = Own(inputs, keras.layers.Dense(3, activation="softmax")(x))
    with pytest.raises(ValueError, match="training step of its own"):
        ktr.fine_tune(
            model,
            make_data().train.arrays(),
            devices=tf.distribute.OneDeviceStrategy("CPU:0"),
        )


def test_bss_is_refused():
    with pytest.raises(ValueError, match="BSS"):
        ktr.fine_tune(
            make_model(),
            make_data(),
            penalty=ktr.BSS(0.1),
            devices=tf.distribute.OneDeviceStrategy("CPU:0"),
        )


def test_a_group_of_one_process_needs_nobody():
    process_group = ProcessGroup(None)
    assert process_group.is_chief
    assert process_group.gather(b"here") == [b"here"]
    assert process_group.share(lambda: None) is None
    with pytest.raises(KeyError):
        process_group.share(lambda: {}["missing"])
