"""What `find_learning_rate` reads off a curve, and that it leaves no trace."""

import keras
import numpy as np
import pytest

import keras_transfer as ktr
from keras_transfer.training.learning_rate_sweep import (
    LearningRateSweep,
    _Sweep,
    find_learning_rate,
    smooth,
)

from ._tiny import arrays_of, assert_same, make_images, make_model

# Cheap to trace: one size of batches, and an optimizer without moments.
SHORT = {"steps": 12, "highest": 1e-2, "batch_size": 16, "optimizer": "sgd"}


def state_of(model):
    """Everything but the values of the variables, by identity."""
    return {
        "trainable": [layer.trainable for layer in model._flatten_layers()],
        "variables": [v.trainable for v in model.variables],
        "regularizers": [v.regularizer for v in model.variables],
        "compiled": model.compiled,
        "parts": [
            getattr(model, name, None)
            for name in ("optimizer", "loss", "train_function", "test_function")
        ],
        "metrics": model.metrics,
        "trained": [v.path for v in model.trainable_variables],
    }


@pytest.fixture
def compiled(data):
    """A model in the middle of its training, dropout and metrics included."""
    model = make_model(dropout=0.5)
    ktr.unfreeze(model, 1)
    model.compile("adam", "categorical_crossentropy", metrics=["accuracy"])
    model.fit(data.train.batches(16), shuffle=False, verbose=0)
    return model


# --- What is swept ---


def dense(weight):
    """`y = w x` with one weight, whose loss against 0 is `w^2`."""
    inputs = keras.Input((1,))
    layer = keras.layers.Dense(1, use_bias=False)
    model = keras.Model(inputs, layer(inputs))
    layer.set_weights([np.array([[weight]])])
    return model, (np.ones((4, 1), "float32"), np.zeros((4, 1), "float32"))


def test_rates_are_a_geometric_sequence():
    model, data = dense(3.0)
    sweep = find_learning_rate(model, data, lowest=1e-6, highest=1e-3, steps=20)
    expected = [1e-6 * (1e-3 / 1e-6) ** (i / 19) for i in range(20)]
    assert sweep.rates == tuple(expected)
    assert len(sweep.losses) == len(sweep.smoothed) == 20
    np.testing.assert_array_equal(sweep.smoothed, smooth(sweep.losses))


def test_quadratic_diverges_above_two_over_its_curvature():
    """`loss = w^2`, so that `w <- (1 - 2 rate) w`: stable below rate 1."""
    model, data = dense(3.0)
    sweep = find_learning_rate(
        model, data, optimizer="sgd", lowest=1e-3, highest=1e3, steps=60
    )
    factors = 1 - 2 * np.array(sweep.rates[:-1])
    weights = 3 * np.cumprod([1, *factors])
    np.testing.assert_allclose(sweep.losses, weights**2, rtol=1e-3)
    assert 1 < sweep.rates[-1] < 1e3
    for rate in (sweep.valley, sweep.steepest, sweep.minimum):
        assert 1e-3 < rate < 1
    assert sweep.suggestion == sweep.valley
    assert float(model.trainable_variables[0][0, 0]) == 3

    # It stops at four times the minimum, and not before.
    *before, last = sweep.smoothed[6:]
    assert last > 4 * min(before)
    assert before[-1] <= 4 * min(before)


def test_it_stops_at_a_loss_that_is_not_finite():
    model, data = dense(1e15)
    sweep = find_learning_rate(
        model, data, optimizer="sgd", lowest=1e-3, highest=1e30, steps=10
    )
    assert len(sweep.rates) < 10
    assert np.isfinite(sweep.losses).all()
    assert float(model.trainable_variables[0][0, 0]) == np.float32(1e15)


def test_not_finite_from_the_start_raises():
    model, data = dense(1e30)
    with pytest.raises(FloatingPointError, match="before the first step"):
        find_learning_rate(model, data, optimizer="sgd")
    assert float(model.trainable_variables[0][0, 0]) == np.float32(1e30)


def test_the_loss_is_that_of_each_batch(data, model):
    """At rates too low to train, in the order of `fit`, over and over."""
    sweep = find_learning_rate(
        model, data, **SHORT | {"lowest": 1e-30, "highest": 1e-29}
    )
    batches = data.train.batches(16, shuffle=True, seed=0)
    expected = [
        keras.losses.categorical_crossentropy(labels, model(images))
        for _ in range(4)
        for images, labels in batches
    ]
    np.testing.assert_allclose(
        sweep.losses, np.mean(expected, axis=1), rtol=1e-5
    )


def test_one_seed_gives_one_sweep(data):
    """On one model, whose dropout begins anew each time."""
    model = make_model(dropout=0.5)
    first, same, other = (
        find_learning_rate(model, data, seed=seed, **SHORT).losses
        for seed in (0, 0, 1)
    )
    assert same == first
    assert other != first


OPTIONS = {
    "depth": 2,
    "lowest": 1e-3,
    "highest": 0.1,
    "steps": 10,
    "batch_size": 16,
    "optimizer": "sgd",
}


@pytest.fixture(scope="module")
def plain_losses(data):
    return find_learning_rate(make_model(), data, **OPTIONS).losses


@pytest.mark.parametrize(
    "arguments",
    [
        {"depth": "all"},
        {"layer_decay": 0.5},
        {"penalty": ktr.L2(1.0)},
        {"penalty": ktr.L2SP(1.0, 1.0, decoupled=True)},
        {"penalty": ktr.FeatureMap(1.0)},
        {"penalty": ktr.BSS(1.0, k=8)},
        {"optimizer": "adam"},
        {"loss": "mean_squared_error"},
        {"augment": ktr.Augmentation()},
    ],
    ids=lambda arguments: "-".join(arguments),
)
def test_argument_changes_the_losses_and_not_the_model(
    data, plain_losses, arguments
):
    """None of them is a silent no-op, and none leaves a trace."""
    model = make_model()
    before, state = arrays_of(model), state_of(model)

    losses = find_learning_rate(model, data, **OPTIONS | arguments).losses

    count = min(len(losses), len(plain_losses))
    gaps = np.subtract(losses[:count], plain_losses[:count])
    assert np.abs(gaps).max() > 1e-6
    assert_same(model, before)
    assert state_of(model) == state


def test_it_trains_as_a_phase_does(data):
    """The loss after one step is that after one step of `fine_tune`."""
    images, labels = make_images(16)
    options = {
        "optimizer": "sgd",
        "batch_size": 16,
        "penalty": ktr.L2SP(0.1, 0.1),
    }
    model, other = make_model(), make_model()
    for network in (model, other):
        ktr.freeze(network, "block_2")
    sweep = find_learning_rate(
        model,
        (images, labels),
        depth="all",
        layer_decay=0.5,
        lowest=0.1,
        highest=0.1 + 1e-9,
        steps=10,
        **options,
    )
    phase = ktr.Phase(
        depth="all",
        epochs=10,
        learning_rate=0.1,
        schedule="constant",
        layer_decay=0.5,
    )
    run = ktr.fine_tune(
        other, (images, labels), strategy=[phase], verbose=0, **options
    )
    np.testing.assert_allclose(sweep.losses, run.history["loss"], rtol=1e-4)


# --- What is left as it was ---


def test_model_is_restored_to_the_bit(data, compiled):
    ktr.freeze(compiled, "block_2")
    # Open BatchNormalization and a variable that is frozen on its own.
    backbone = compiled.get_layer("backbone")
    backbone.get_layer("block_3_norm").trainable = True
    compiled.get_layer("head").weights[-1].trainable = False
    before, state = arrays_of(compiled), state_of(compiled)
    seeds = [v.path for v in compiled.variables if "seed" in v.path]

    for depth in (None, "all"):
        find_learning_rate(compiled, data, depth=depth, **SHORT)
        assert_same(compiled, before)
        assert state_of(compiled) == state
    assert seeds


@pytest.mark.parametrize("penalty", [ktr.L2SP(0.1), ktr.FeatureMap(0.1)])
def test_fit_goes_on_as_without_the_sweep(data, penalty):
    """Weights, dropout, Adam's moments and the order that Keras shuffles in."""
    images, labels = make_images(32)
    results = []
    for sweeps in (False, True):
        model = make_model(dropout=0.5)
        ktr.unfreeze(model, 1)
        model.compile(
            "adam", "sparse_categorical_crossentropy", metrics=["accuracy"]
        )
        model.fit(images, labels, batch_size=8, verbose=0)
        optimizer = model.optimizer
        if sweeps:
            find_learning_rate(
                model, data, depth="all", penalty=penalty, **SHORT
            )
        model.fit(images, labels, batch_size=8, verbose=0)
        new = keras.layers.Dense(2)
        new.build((None, 2))
        assert model.optimizer is optimizer
        results.append(
            [
                np.array(v)
                for v in (*model.variables, *optimizer.variables, new.kernel)
            ]
        )
        results[-1].append(list(model.history.history.values()))
    for without, swept in zip(*results, strict=True):
        np.testing.assert_array_equal(without, swept)


def test_metrics_of_layers_are_restored():
    class Counting(keras.layers.Layer):
        def __init__(self):
            super().__init__()
            self.seen = keras.metrics.Sum(name="seen")

        def call(self, x):
            self.seen.update_state(x)
            return x

    inputs = keras.Input((2,))
    layer = Counting()
    outputs = keras.layers.Dense(1)(layer(inputs))
    model = keras.Model(inputs, outputs)
    model(np.ones((3, 2)))
    data = np.ones((4, 2), "float32"), np.zeros((4, 1), "float32")
    find_learning_rate(model, data, **SHORT)
    assert float(layer.seen.result()) == 6


@pytest.mark.parametrize(
    ("error", "penalty"),
    [(KeyboardInterrupt, ktr.L2(0.1)), (MemoryError, ktr.FeatureMap(0.1))],
)
def test_interrupted_sweep_restores(
    data, compiled, monkeypatch, error, penalty
):
    before, state = arrays_of(compiled), state_of(compiled)
    own, seen = _Sweep.on_train_batch_end, []

    def stop(self, batch, logs=None):
        own(self, batch, logs)
        seen.append(not np.array_equal(before[-2], arrays_of(compiled)[-2]))
        if len(seen) == 5:
            raise error

    monkeypatch.setattr(_Sweep, "on_train_batch_end", stop)
    with pytest.raises(error):
        find_learning_rate(
            compiled, data, depth="all", penalty=penalty, **SHORT
        )
    assert seen == [True] * 5
    assert_same(compiled, before)
    assert state_of(compiled) == state


def test_diverged_sweep_restores(data, compiled):
    before, state = arrays_of(compiled), state_of(compiled)
    sweep = find_learning_rate(
        compiled, data, depth="all", **SHORT | {"highest": 1e30}
    )
    assert len(sweep.rates) < 12
    assert_same(compiled, before)
    assert state_of(compiled) == state


def test_a_model_closed_as_a_whole_stays_closed(data, model):
    model.trainable = False
    before, state = arrays_of(model), state_of(model)
    for depth in (0, 1):
        with pytest.raises(ValueError, match="something to train"):
            find_learning_rate(model, data, depth=depth, **SHORT)
    assert_same(model, before)
    assert state_of(model) == state


# --- What it takes ---


@pytest.mark.parametrize("kind", ["dict", "dataset"])
def test_sources(kind, model):
    import tensorflow as tf

    images, labels = make_images(12)
    given = {
        "dict": {
            "train": (images, labels),
            "validation": (images[:9] // 2, labels[:9]),
        },
        "dataset": tf.data.Dataset.from_tensor_slices((images, labels)).batch(
            6
        ),
    }[kind]
    sweep = find_learning_rate(model, given, **SHORT)
    assert len(sweep.rates) == 12


def test_sequential_model():
    model = keras.Sequential(
        [keras.Input((4,)), keras.layers.Dense(3, activation="softmax")]
    )
    before = arrays_of(model)
    x = np.random.default_rng(0).normal(size=(12, 4)).astype("float32")
    sweep = find_learning_rate(model, (x, np.arange(12) % 3), **SHORT)
    assert sweep.suggestion > 1e-7
    assert_same(model, before)


@pytest.fixture(scope="module")
def untouched():
    model = make_model()
    return model, arrays_of(model), state_of(model)


@pytest.mark.parametrize(
    ("arguments", "error", "match"),
    [
        ({"lowest": 0}, ValueError, "`lowest` must be"),
        ({"lowest": "1e-7"}, ValueError, "`lowest` must be"),
        ({"highest": np.inf}, ValueError, "`highest` must be a finite"),
        ({"lowest": 1.0, "highest": 1.0}, ValueError, "must be above `lowest`"),
        ({"steps": 9}, ValueError, "`steps` must be an integer of at least 10"),
        ({"steps": 20.0}, ValueError, "`steps` must be"),
        ({"layer_decay": 1.5}, ValueError, "`layer_decay` must be"),
        ({"depth": 9}, ValueError, r"in \[0, 3\]"),
        ({"penalty": 0.1}, TypeError, "`penalty` must be"),
        ({"batch_size": 0}, ValueError, "`batch_size` must be"),
        ({"optimizer": "adm"}, ValueError, "adm"),
        ({"augment": True}, TypeError, "`augment` must be"),
        ({"seed": -1}, ValueError, "`seed` must be"),
        ({"data": "folder"}, TypeError, "`data` must be"),
        ({"data": (np.zeros((3, 8, 8, 3)), np.zeros(2))}, ValueError,
         "as many labels"),
        ({"data": (make_images(9)[0] / 255.0, make_images(9)[1])}, ValueError,
         "pixel-range"),
    ],
)  # fmt: skip
def test_bad_arguments_raise(data, untouched, arguments, error, match):
    model, before, state = untouched
    with pytest.raises(error, match=match):
        find_learning_rate(model, **{"data": data} | arguments)
    assert_same(model, before)
    assert state_of(model) == state


def test_models_that_cannot_be_swept_raise(data):
    class OwnStep(keras.Model):
        def train_step(self, data):
            return super().train_step(data)

    class NoGraph(keras.Model):
        def call(self, x):
            return x

    model, arrays = dense(1.0)
    with pytest.raises(ValueError, match="by the `train_step` of Keras"):
        find_learning_rate(OwnStep(model.inputs, model.outputs), arrays)
    with pytest.raises(TypeError, match="functional"):
        find_learning_rate(NoGraph(), arrays)


def test_nothing_trainable_raises(data, model):
    model.get_layer("head").trainable = False
    with pytest.raises(ValueError, match="must have something to train"):
        find_learning_rate(model, data)
    ktr.freeze(model)
    with pytest.raises(ValueError, match="frozen by `freeze`"):
        find_learning_rate(model, data, depth=1)


def test_a_penalty_that_is_attached_raises(data, model):
    with (
        ktr.L2(0.1).attach(model),
        pytest.raises(ValueError, match="must have no penalty"),
    ):
        find_learning_rate(model, data, penalty=ktr.L2(0.1))


# --- What is read off a curve ---


def curve(smoothed, first=-5, per_decade=1):
    """A sweep whose rate at step i is `10 ** (first + i / per_decade)`."""
    rates = tuple(
        10.0 ** (first + i / per_decade) for i in range(len(smoothed))
    )
    return LearningRateSweep(rates, tuple(smoothed), tuple(smoothed))


def test_smoothing_is_a_weighted_mean():
    losses = np.random.default_rng(0).normal(size=40)
    expected = [
        np.average(losses[: i + 1], weights=0.9 ** np.arange(i, -1, -1))
        for i in range(40)
    ]
    np.testing.assert_allclose(smooth(losses), expected, rtol=1e-12)
    np.testing.assert_allclose(smooth([2.5] * 30), 2.5, rtol=1e-12)


def test_suggestions_on_a_clean_valley():
    #               1e-5  -4   -3   -2   -1    1    10
    sweep = curve([3.0, 2.9, 2.5, 1.5, 1.0, 2.0, 9.0])
    assert sweep.valley == sweep.suggestion == sweep.rates[2]
    assert sweep.steepest == sweep.rates[2]
    assert sweep.minimum == pytest.approx(1e-2)


def test_valley_bridges_noise():
    # Flat, then down with a step up in between: 3 2.8 2.4 2.0 1.6 1.2.
    sweep = curve([3, 3, 3, 3, 2.8, 2.9, 2.4, 2.0, 1.6, 1.2, 5, 50])
    assert sweep.valley == sweep.rates[4 + (9 - 4) // 2]


def test_what_comes_after_the_minimum_does_not_count():
    sweep = curve([3, 2, 1, 9, 8, 7, 6, 5, 4])
    assert sweep.valley == sweep.rates[1]
    assert sweep.minimum == sweep.rates[2] / 10
    assert sweep.steepest in sweep.rates[:2]


def test_steepest_is_over_the_logarithm_of_rates():
    rates = (1e-4, 1e-3, 1e-1, 1.0)
    losses = (4.0, 3.0, 1.5, 1.0)  # Per decade: 1, 0.75, 0.5.
    sweep = LearningRateSweep(rates, losses, losses)
    assert sweep.steepest == 1e-4


def test_the_first_tenth_is_left_out():
    fall = [*np.linspace(2, 1, 15), 5]
    sweep = curve([0.5, 9.0, *[2.0] * 4, *fall], per_decade=4)
    assert sweep.minimum == pytest.approx(sweep.rates[20] / 10)
    assert sweep.steepest > sweep.rates[2]


@pytest.mark.parametrize(
    "name", ["valley", "steepest", "minimum", "suggestion"]
)
@pytest.mark.parametrize("losses", [[1, 2, 3, 4], [1, 1, 1], [1, 3, 2, 1], [5]])
def test_a_loss_that_never_falls_raises(name, losses):
    with pytest.raises(ValueError, match="never fall below .*`lowest`"):
        getattr(curve(losses), name)


def test_lengths_must_agree():
    with pytest.raises(ValueError, match="must have one length"):
        LearningRateSweep((1.0, 2.0), (1.0,), (1.0,))
    with pytest.raises(ValueError, match="must have one length"):
        LearningRateSweep((), (), ())


def test_repr_says_what_was_found():
    text = repr(curve([3.0, 2.9, 2.5, 1.5, 1.0, 2.0, 9.0]))
    assert text == (
        "<LearningRateSweep: 7 steps from 1e-05 to 10; "
        "valley 0.001, steepest 0.001, minimum 0.01>"
    )
    assert "never fell" in repr(curve([1, 2, 3]))


@pytest.mark.parametrize("losses", [[3, 2, 1, 9], [1, 2, 3], [1, 1], [7]])
def test_plot_writes_a_picture(losses, tmp_path):
    curve(losses).plot(tmp_path / "rates.png")
    assert (tmp_path / "rates.png").read_bytes().startswith(b"\x89PNG")
