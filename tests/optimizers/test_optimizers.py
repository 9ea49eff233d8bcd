"""A wrapped optimizer equals plain ones, one for each multiplier."""

import json
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_transfer as ktr
from keras_transfer.optimizers.decoupled_decay import DecoupledDecay
from keras_transfer.optimizers.learning_rate_multiplier import (
    LearningRateMultiplier,
)
from keras_transfer.optimizers.rates_by_block import (
    block_multipliers,
    layer_decay,
)

o = keras.optimizers
RATE = 0.02
BODY = 0.25

# One row for each optimizer of Keras, weight decay included where it has one.
MADE = {
    "Adadelta": lambda rate: o.Adadelta(50 * rate),
    "Adafactor": lambda rate: o.Adafactor(rate),
    "Adagrad": lambda rate: o.Adagrad(rate),
    "Adam": lambda rate: o.Adam(rate, amsgrad=True),
    "AdamW": lambda rate: o.AdamW(rate, weight_decay=0.1),
    "Adamax": lambda rate: o.Adamax(rate),
    "Ftrl": lambda rate: o.Ftrl(rate, l1_regularization_strength=0.01),
    "Lamb": lambda rate: o.Lamb(rate, weight_decay=0.1),
    "Lion": lambda rate: o.Lion(rate),
    "Muon": lambda rate: o.Muon(rate, weight_decay=0.1),
    "Nadam": lambda rate: o.Nadam(rate),
    "RMSprop": lambda rate: o.RMSprop(rate, momentum=0.9, centered=True),
    "SGD": lambda rate: o.SGD(
        rate, momentum=0.9, nesterov=True, weight_decay=0.1
    ),
    "ScheduleFreeAdamW": lambda rate: o.ScheduleFreeAdamW(
        rate, warmup_steps=3, weight_decay=0.1
    ),
}
REFUSED = {"LossScaleOptimizer", "MultiOptimizer"}
each_optimizer = pytest.mark.parametrize("name", MADE)
# What each kind of state needs; the others are exhaustive.
FEW = ("AdamW", "Muon", "Nadam", "SGD", "ScheduleFreeAdamW")
few_optimizers = pytest.mark.parametrize(
    "name",
    [
        *FEW,
        *(
            pytest.param(name, marks=pytest.mark.exhaustive)
            for name in MADE
            if name not in FEW
        ),
    ],
)


def test_table_is_complete():
    exported = {
        name
        for name, value in vars(keras.optimizers).items()
        if isinstance(value, type) and issubclass(value, o.Optimizer)
    }
    assert exported - {"Optimizer"} == MADE.keys() | REFUSED


def make_model(**options):
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((3,)),
            keras.layers.Dense(4, activation="tanh", name="body", **options),
            keras.layers.Dense(2, name="head"),
        ],
        name="model",
    )
    # The gradient of a zero bias is no special case, its weight decay is.
    for layer in model.layers:
        layer.bias.assign(np.linspace(0.5, 1.0, layer.units))
    return model


def make_data(count=16):
    generator = np.random.default_rng(0)
    x = generator.normal(size=(count, 3)).astype("float32")
    return x, generator.normal(size=(count, 2)).astype("float32")


def multipliers_of(model, body=BODY, head=1.0):
    return {
        v.path: body if "body" in v.path else head
        for v in model.trainable_variables
    }


def variables_of(model, name):
    return model.get_layer(name).trainable_variables


def fit(model, optimizer, epochs=10, batch_size=16, graph=False, **options):
    """Takes `epochs` steps, or as many times more as there are batches."""
    model.compile(
        optimizer,
        "mse",
        run_eagerly=not graph,
        jit_compile=False if graph else "auto",
    )
    x, y = make_data()
    return model.fit(
        x,
        y,
        batch_size=batch_size,
        epochs=epochs,
        shuffle=False,
        verbose=0,
        **options,
    )


def take_steps(model, optimizers, steps=10, edit=lambda step, grads: grads):
    """Steps layers by the optimizers under their names, or all by one."""
    if isinstance(optimizers, o.Optimizer):
        optimizers = {"": optimizers}
    parts = {
        name: [v for v in model.trainable_variables if name in v.path]
        for name in optimizers
    }
    x, y = make_data()
    for step in range(steps):
        variables = [v for part in parts.values() for v in part]
        with tf.GradientTape() as tape:
            loss = keras.ops.mean((model(x) - y) ** 2)
        grads = edit(step, tape.gradient(loss, [v.value for v in variables]))
        for name, optimizer in optimizers.items():
            own = parts[name]
            optimizer.apply(grads[: len(own)], own)
            grads = grads[len(own) :]


def assert_same(model, other, tolerance=1e-6):
    for weight, expected in zip(
        model.get_weights(), other.get_weights(), strict=True
    ):
        np.testing.assert_allclose(weight, expected, atol=tolerance, rtol=1e-5)


# Equality with plain optimizers ----------------------------------------------


@each_optimizer
def test_equals_one_optimizer_for_each_multiplier(name):
    model, plain = make_model(), make_model()
    start = model.get_weights()
    optimizer = LearningRateMultiplier(MADE[name](RATE), multipliers_of(model))
    take_steps(model, optimizer)
    take_steps(
        plain, {"body": MADE[name](RATE * BODY), "head": MADE[name](RATE)}
    )
    assert_same(model, plain)
    assert not np.allclose(model.get_weights()[0], start[0], atol=1e-3)


@few_optimizers
def test_without_multipliers_is_the_optimizer_itself(name):
    model, plain = make_model(), make_model()
    take_steps(model, LearningRateMultiplier(MADE[name](RATE)))
    take_steps(plain, MADE[name](RATE))
    assert_same(model, plain)


@pytest.mark.parametrize("name", ["AdamW", "Nadam", "ScheduleFreeAdamW"])
def test_graph_equals_eager(name):
    model, plain = make_model(), make_model()
    for each, graph in ((model, True), (plain, False)):
        optimizer = LearningRateMultiplier(
            MADE[name](RATE), multipliers_of(each)
        )
        fit(each, optimizer, epochs=3, graph=graph)
    assert_same(model, plain)


def test_without_multipliers_no_operations_for_each_variable():
    def count(optimizer, units):
        variables = [
            keras.Variable(np.ones(2), name=f"v{i}") for i in range(units)
        ]
        optimizer.build(variables)

        @tf.function
        def step():
            optimizer.apply([tf.ones(2) for _ in variables], variables)

        return len(step.get_concrete_function().graph.get_operations())

    extra = {
        count(LearningRateMultiplier("adam"), units) - count(o.Adam(), units)
        for units in (1, 4)
    }
    assert len(extra) == 1, extra


def test_scaled_gradients_are_no_scaled_rate():
    model, plain = make_model(), make_model()
    take_steps(
        model, LearningRateMultiplier(o.Adam(RATE), multipliers_of(model))
    )
    take_steps(
        plain,
        {"body": o.Adam(RATE), "head": o.Adam(RATE)},
        edit=lambda step, grads: [BODY * g for g in grads[:2]] + grads[2:],
    )
    start = make_model().get_weights()[0]
    moved = np.abs(model.get_weights()[0] - start).mean()
    moved_by_hand = np.abs(plain.get_weights()[0] - start).mean()
    assert moved_by_hand > 3 * moved


def test_sgd_moves_each_weight_by_its_rate():
    """One step on `w x` from w = 1: the gradient of the loss is 2."""
    model = keras.Sequential(
        [keras.Input((1,)), keras.layers.Dense(1, use_bias=False, name="a")]
    )
    model.set_weights([np.ones((1, 1))])
    path = model.weights[0].path
    model.compile(LearningRateMultiplier(o.SGD(0.1), {path: 0.5}), "mse")
    model.fit(np.ones((1, 1)), np.zeros((1, 1)), verbose=0)
    assert model.get_weights()[0] == pytest.approx(1 - 0.1 * 0.5 * 2)


@pytest.mark.parametrize("name", ["adam", "ftrl", "lion"])
def test_multiplier_zero_leaves_the_weights(name):
    model = make_model()
    start = model.get_weights()
    optimizer = o.get(name)
    optimizer.weight_decay = 0.1
    pulls = [pull_of(model, "body", 10.0)]
    take_steps(
        model,
        LearningRateMultiplier(
            optimizer, multipliers_of(model, body=0), pulls=pulls
        ),
    )
    for weight, before in zip(model.get_weights()[:2], start, strict=False):
        np.testing.assert_array_equal(weight, before)
    assert not np.allclose(model.get_weights()[3], start[3])


# What the base class does, once ----------------------------------------------


def test_global_clipnorm_counts_all_variables():
    def clip(step, grads):
        norm = np.sqrt(sum(float((g.numpy() ** 2).sum()) for g in grads))
        assert norm > 0.05
        return [g * 0.05 / norm for g in grads]

    model, plain = make_model(), make_model()
    take_steps(
        model,
        LearningRateMultiplier(
            o.SGD(1.0, global_clipnorm=0.05), multipliers_of(model)
        ),
    )
    take_steps(plain, {"body": o.SGD(BODY), "head": o.SGD(1.0)}, edit=clip)
    assert_same(model, plain)


@pytest.mark.parametrize(
    "setting", [{"clipnorm": 0.05}, {"clipvalue": 0.02}, {"weight_decay": 0.3}]
)
def test_settings_of_single_variables(setting):
    model, plain = make_model(), make_model()
    optimizer = LearningRateMultiplier(
        o.Adam(RATE, **setting), multipliers_of(model)
    )
    take_steps(model, optimizer)
    take_steps(
        plain,
        {
            "body": o.Adam(RATE * BODY, **setting),
            "head": o.Adam(RATE, **setting),
        },
    )
    assert_same(model, plain)


def test_gradients_are_accumulated_once():
    model, plain = make_model(), make_model()
    optimizer = LearningRateMultiplier(
        o.Nadam(RATE, gradient_accumulation_steps=4), multipliers_of(model)
    )
    fit(model, optimizer, epochs=6, batch_size=4)  # 24 batches, 6 steps.
    take_steps(
        plain, {"body": o.Nadam(RATE * BODY), "head": o.Nadam(RATE)}, steps=6
    )
    assert_same(model, plain)
    assert int(optimizer.iterations) == 6
    assert [int(count) for count in counts_of(optimizer)] == [6]


def counts_of(optimizer):
    return [v for v in optimizer.variables if v.name.startswith("iteration_")]


@pytest.mark.parametrize("on_inner", [True, False])
def test_exclusion_from_weight_decay(on_inner):
    model, plain = make_model(), make_model()
    inner = o.AdamW(RATE, weight_decay=0.5)
    optimizer = inner
    if on_inner:
        inner.exclude_from_weight_decay(var_names=["bias"])
    optimizer = LearningRateMultiplier(inner, multipliers_of(model))
    if not on_inner:
        optimizer.exclude_from_weight_decay(
            var_list=[layer.bias for layer in model.layers]
        )
    take_steps(model, optimizer)
    by_hand = {
        "body": o.AdamW(RATE * BODY, weight_decay=0.5),
        "head": o.AdamW(RATE, weight_decay=0.5),
    }
    for each in by_hand.values():
        each.exclude_from_weight_decay(var_names=["bias"])
    take_steps(plain, by_hand)
    assert_same(model, plain)
    with pytest.raises(ValueError, match="before the optimizer is built"):
        optimizer.exclude_from_weight_decay(var_names=["kernel"])
    again = LearningRateMultiplier.from_config(optimizer.get_config())
    again.build(model.trainable_variables)
    decays = [v["decays"] for v in again.get_config()["variables"]]
    assert decays == [True, False, True, False]


def test_schedules_and_callables():
    def rates():
        yield o.schedules.CosineDecay(RATE, decay_steps=10)
        yield lambda: RATE

    for rate, again in zip(rates(), rates(), strict=True):
        model, plain = make_model(), make_model()
        optimizer = LearningRateMultiplier(o.Adam(rate), multipliers_of(model))
        take_steps(model, optimizer)
        body = again
        if callable(again) and not isinstance(again, o.schedules.CosineDecay):
            body = RATE * BODY
        else:
            body = o.schedules.CosineDecay(RATE * BODY, decay_steps=10)
        take_steps(plain, {"body": o.Adam(body), "head": o.Adam(again)})
        assert_same(model, plain)


def test_callbacks_set_the_learning_rate():
    model, plain = make_model(), make_model()
    optimizer = LearningRateMultiplier(o.Adam(RATE), multipliers_of(model))
    callback = keras.callbacks.LearningRateScheduler(lambda e: RATE / (e + 1))
    fit(model, optimizer, callbacks=[callback])
    by_hand = {"body": o.Adam(RATE), "head": o.Adam(RATE)}

    def decay(step, grads):
        by_hand["body"].learning_rate = RATE * BODY / (step + 1)
        by_hand["head"].learning_rate = RATE / (step + 1)
        return grads

    take_steps(plain, by_hand, edit=decay)
    assert_same(model, plain)
    plateau = keras.callbacks.ReduceLROnPlateau(
        monitor="loss", factor=0.1, patience=1, min_delta=1e9
    )
    before = float(optimizer.learning_rate)
    fit(model, optimizer, epochs=2, callbacks=[plateau])
    assert float(optimizer.learning_rate) == pytest.approx(before / 10)


def test_moving_averages():
    def setting(rate):
        return o.Adam(rate, use_ema=True, ema_momentum=0.5)

    model, plain = make_model(), make_model()
    swap = keras.callbacks.SwapEMAWeights(swap_on_epoch=True)
    optimizer = LearningRateMultiplier(setting(RATE), multipliers_of(model))
    fit(model, optimizer, callbacks=[swap])
    by_hand = {"body": setting(RATE * BODY), "head": setting(RATE)}
    take_steps(plain, by_hand)
    for name, each in by_hand.items():
        each.finalize_variable_values(variables_of(plain, name))
    assert_same(model, plain, tolerance=1e-5)


def test_averages_by_variable():
    model = make_model()
    optimizer = LearningRateMultiplier(o.SGD(use_ema=True, ema_momentum=0.0))
    assert optimizer.averages() == {}
    take_steps(model, optimizer, steps=2)
    averages = optimizer.averages()
    for variable in model.trainable_variables:
        np.testing.assert_array_equal(averages[id(variable)], variable)
    without = LearningRateMultiplier("sgd")
    take_steps(model, without, steps=1)
    assert without.averages() == {}


def test_mixed_precision():
    model, plain = make_model(dtype="mixed_float16"), make_model()
    fit(
        model,
        o.LossScaleOptimizer(
            LearningRateMultiplier(o.Adam(RATE), multipliers_of(model))
        ),
    )
    fit(plain, LearningRateMultiplier(o.Adam(RATE), multipliers_of(plain)))
    assert isinstance(model.optimizer, o.LossScaleOptimizer)
    assert_same(model, plain, tolerance=0.01)
    assert not np.allclose(
        plain.get_weights()[2], make_model().get_weights()[2], atol=0.05
    )


# Pulls -----------------------------------------------------------------------


def pull_of(model, name, strength, start=None):
    kernel = model.get_layer(name).kernel
    if start is not None:
        start = keras.Variable(start, trainable=False)
    return DecoupledDecay(
        kernel, keras.Variable(strength, trainable=False), start
    )


def test_pull_is_outside_the_gradient():
    """With SGD and no gradient, w falls geometrically towards the start."""
    model = make_model()
    kernel, start = model.get_weights()[0], np.full((3, 4), 2.0, "float32")
    optimizer = LearningRateMultiplier(
        o.Adam(0.1),
        multipliers_of(model),
        pulls=[pull_of(model, "body", 3.0, start)],
    )
    optimizer.build(model.trainable_variables)
    zeros = [keras.ops.zeros_like(v) for v in model.trainable_variables]
    for _ in range(4):
        optimizer.apply(zeros)
    shrink = (1 - 0.1 * BODY * 3.0) ** 4
    expected = start + shrink * (kernel - start)
    np.testing.assert_allclose(model.get_weights()[0], expected, atol=1e-6)
    np.testing.assert_array_equal(
        model.get_weights()[1], np.linspace(0.5, 1, 4, dtype="float32")
    )


def test_pull_towards_zero_is_weight_decay():
    model, plain = make_model(), make_model()
    pulls = [pull_of(model, name, 0.3) for name in ("body", "head")]
    optimizer = LearningRateMultiplier(
        o.Adam(RATE), multipliers_of(model), pulls=pulls
    )
    decayed = LearningRateMultiplier(
        o.Adam(RATE, weight_decay=0.3), multipliers_of(plain)
    )
    decayed.exclude_from_weight_decay(var_names=["bias"])
    take_steps(model, optimizer)
    take_steps(plain, decayed)
    assert_same(model, plain)


def test_strength_of_a_pull_changes_without_retracing():
    model, plain = make_model(), make_model()
    pull = pull_of(model, "head", 5.0)
    optimizer = LearningRateMultiplier(o.SGD(0.1), pulls=[pull])
    fit(model, optimizer, epochs=1, graph=True)
    fit(plain, o.SGD(0.1), epochs=1)
    far = float(np.abs(model.get_weights()[2] - plain.get_weights()[2]).max())
    assert far > 0.01
    model.set_weights(plain.get_weights())
    pull.strength.assign(0.0)
    x, y = make_data()
    for each in (model, plain):
        each.fit(x, y, batch_size=16, verbose=0)
    assert_same(model, plain)


def test_pulls_are_no_variables_of_the_optimizer():
    model = make_model()
    pull = pull_of(model, "head", 1.0, np.zeros((4, 2)))
    optimizer = LearningRateMultiplier("sgd", pulls=[pull])
    optimizer.build(model.trainable_variables)
    ids = {id(v) for v in optimizer.variables}
    assert not ids & {id(variable) for variable in pull}
    assert [id(p.start) for p in optimizer.pulls] == [id(pull.start)]
    optimizer.set_pulls(())
    assert optimizer.pulls == ()


# Phases ----------------------------------------------------------------------


@few_optimizers
def test_moments_go_on_in_the_next_phase(name):
    """The head in phase 1, all in 2, the body in 3, all in 4."""
    model, plain = make_model(), make_model()
    by_hand = {}
    previous = None
    for open_layers in (["head"], ["body", "head"], ["body"], ["body", "head"]):
        for each in (model, plain):
            for layer in each.layers:
                layer.trainable = layer.name in open_layers
        optimizer = LearningRateMultiplier(
            MADE[name](RATE), multipliers_of(model)
        )
        if previous:
            optimizer.continue_from(previous)
        # What trained in the phase before goes on, what did not begins anew.
        by_hand = {
            layer: by_hand.get(layer)
            or MADE[name](RATE * (BODY if layer == "body" else 1))
            for layer in open_layers
        }
        take_steps(model, optimizer, steps=5)
        take_steps(plain, by_hand, steps=5)
        previous = optimizer
    # The body's bias correction counts its 15 steps, the head's its last 5.
    assert [int(count) for count in counts_of(optimizer)] == [15, 5]
    assert_same(model, plain, tolerance=5e-6)


def test_new_variables_are_corrected_from_step_zero():
    """The first Adam step of a new variable is as long as the rate."""
    model = make_model()
    model.get_layer("body").trainable = False
    first = LearningRateMultiplier(o.Adam(RATE))
    take_steps(model, first, steps=100)
    model.get_layer("body").trainable = True
    second = LearningRateMultiplier(o.Adam(RATE), multipliers_of(model))
    second.continue_from(first)
    before = model.get_weights()[0]
    take_steps(model, second, steps=1)
    moved = np.abs(model.get_weights()[0] - before)
    np.testing.assert_allclose(moved, RATE * BODY, rtol=0.05)
    assert [int(count) for count in counts_of(second)] == [1, 101]
    assert int(second.iterations) == 1


def test_accumulated_steps_are_counted_over_phases():
    model = make_model()
    model.get_layer("body").trainable = False
    previous = None
    for expected in ([3], [3, 6]):
        optimizer = LearningRateMultiplier(
            o.Adam(RATE, gradient_accumulation_steps=2)
        )
        if previous:
            optimizer.continue_from(previous)
        fit(model, optimizer, epochs=3, batch_size=8)
        assert [int(count) for count in counts_of(optimizer)] == expected
        model.get_layer("body").trainable = True
        previous = optimizer


def test_multiplier_zero_then_more_is_a_new_variable():
    model = make_model()
    previous = None
    for body, expected in ((1, [3]), (0, [6]), (1, [3, 9])):
        optimizer = LearningRateMultiplier(
            "adam", multipliers_of(model, body=body)
        )
        if previous:
            optimizer.continue_from(previous)
        take_steps(model, optimizer, steps=3)
        assert [int(count) for count in counts_of(optimizer)] == expected
        previous = optimizer


def test_continue_from_refuses():
    model = make_model()
    first = LearningRateMultiplier("adam")
    with pytest.raises(ValueError, match="with one that was built. Received"):
        LearningRateMultiplier("adam").continue_from(first)
    first.build(model.trainable_variables)
    with pytest.raises(ValueError, match="this one built=True"):
        first.continue_from(first)
    with pytest.raises(ValueError, match="Adam for SGD, which differ in"):
        LearningRateMultiplier("sgd").continue_from(first)
    with pytest.raises(ValueError, match="which differ in beta_1"):
        LearningRateMultiplier(o.Adam(beta_1=0.8)).continue_from(first)
    with pytest.raises(TypeError, match="pass its `inner_optimizer`"):
        LearningRateMultiplier("adam").continue_from(
            o.LossScaleOptimizer(first)
        )
    LearningRateMultiplier(o.Adam(0.5, clipnorm=1.0)).continue_from(first)


# Saving ----------------------------------------------------------------------


def test_variables_are_listed_once():
    model = make_model()
    optimizer = LearningRateMultiplier("adam", multipliers_of(model))
    optimizer.build(model.trainable_variables)
    optimizer.build(model.trainable_variables)  # As Keras may do.
    # Step, rate, shared count, and two moments for each of four variables.
    assert len(optimizer.variables) == 3 + 2 * 4
    assert len({id(v) for v in optimizer.variables}) == 3 + 2 * 4
    values = [np.full(v.shape, 2, v.dtype) for v in optimizer.variables]
    optimizer.set_weights(values)
    assert all(np.all(v.numpy() == 2) for v in optimizer.variables)


@each_optimizer
def test_config_round_trip(name):
    inner = MADE[name](RATE)
    inner.clipnorm = 0.5
    optimizer = LearningRateMultiplier(inner, {"a": 0.5}, name="mine")
    config = optimizer.get_config()
    again = LearningRateMultiplier.from_config(json.loads(json.dumps(config)))
    assert again.get_config() == config
    assert again.clipnorm == 0.5
    assert again.weight_decay == inner.weight_decay
    assert config["optimizer"]["class_name"] == name


def test_config_holds_the_current_rate():
    optimizer = LearningRateMultiplier("sgd")
    optimizer.learning_rate = 0.25
    again = LearningRateMultiplier.from_config(optimizer.get_config())
    assert float(again.learning_rate) == 0.25
    schedule = o.schedules.CosineDecay(1.0, decay_steps=4)
    optimizer = LearningRateMultiplier(o.SGD(schedule))
    again = keras.saving.deserialize_keras_object(
        keras.saving.serialize_keras_object(optimizer)
    )
    assert float(again.learning_rate) == 1.0
    assert again.get_config() == optimizer.get_config()


GO_ON = """
import sys
import keras, numpy as np
import keras_transfer.optimizers
data = np.load("data.npz")
for name in sys.argv[1:]:
    model = keras.models.load_model(name)
    model.fit(data["x"], data["y"], batch_size=16, epochs=5, shuffle=False,
              verbose=0)
    model.save_weights(name.replace(".keras", ".weights.h5"))
"""


def test_training_goes_on_in_a_fresh_process(tmp_path):
    x, y = make_data()
    np.savez(tmp_path / "data.npz", x=x, y=y)
    expected = {}
    for wrapped in (False, True):
        model = make_model()
        model.get_layer("body").trainable = False
        first = LearningRateMultiplier(o.AdamW(RATE))
        fit(model, first, epochs=7, graph=True)
        model.get_layer("body").trainable = True
        optimizer = LearningRateMultiplier(
            o.AdamW(RATE, weight_decay=0.2), multipliers_of(model)
        )
        optimizer.exclude_from_weight_decay(var_names=["bias"])
        optimizer.continue_from(first)
        if wrapped:
            optimizer = o.LossScaleOptimizer(optimizer)
        fit(model, optimizer, epochs=5, graph=True)
        name = f"wrapped_{wrapped}.keras"
        model.save(tmp_path / name)
        model.fit(x, y, batch_size=16, epochs=5, shuffle=False, verbose=0)
        expected[name] = model.get_weights()
    subprocess.run(
        [sys.executable, "-c", GO_ON, *expected], check=True, cwd=tmp_path
    )
    for name, weights in expected.items():
        model = make_model()
        model.load_weights(tmp_path / name.replace(".keras", ".weights.h5"))
        for weight, wanted in zip(model.get_weights(), weights, strict=True):
            np.testing.assert_allclose(weight, wanted, atol=1e-7, rtol=0)


def test_a_loaded_optimizer_is_continued(tmp_path):
    model = make_model()
    optimizer = LearningRateMultiplier("adam", multipliers_of(model))
    fit(model, optimizer, epochs=4)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    for each, before in ((model, optimizer), (loaded, loaded.optimizer)):
        after = LearningRateMultiplier("adam", multipliers_of(each))
        after.continue_from(before)
        fit(each, after, epochs=3)
        assert [int(count) for count in counts_of(after)] == [7]
    assert_same(model, loaded, tolerance=1e-7)


def test_each_variable_is_saved_once(tmp_path):
    import h5py

    model = make_model()
    fit(model, LearningRateMultiplier("adam"), epochs=1)
    model.save_weights(tmp_path / "model.weights.h5")
    with h5py.File(tmp_path / "model.weights.h5") as file:
        found = []
        file.visit(found.append)
        saved = [name for name in found if name.startswith("optimizer/vars/")]
        assert len(saved) == len(model.optimizer.variables)
        others = [
            name
            for name in found
            if name.startswith("optimizer/")
            and not name.startswith("optimizer/vars")
        ]
        assert not others


# Two devices -----------------------------------------------------------------

TWO_DEVICES = """
import sys
import numpy as np, tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(
    cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
import keras
from keras_transfer.optimizers.decoupled_decay import DecoupledDecay as Pull
from keras_transfer.optimizers import LearningRateMultiplier
sys.path.insert(0, sys.argv[1])
from test_optimizers import make_model, make_data, multipliers_of, RATE, MADE

def train(strategy, name):
    x, y = make_data()
    with strategy.scope():
        model = make_model()
        previous = None
        start = keras.Variable(model.get_layer("head").kernel.numpy())
        pull = Pull(model.get_layer("head").kernel, keras.Variable(0.5), start)
        for body in (False, True):
            model.get_layer("body").trainable = body
            optimizer = LearningRateMultiplier(
                MADE[name](RATE), multipliers_of(model), pulls=[pull])
            if previous:
                optimizer.continue_from(previous)
            model.compile(optimizer, "mse", jit_compile=False)
            model.fit(x, y, batch_size=16, epochs=5, shuffle=False, verbose=0)
            previous = optimizer
    return model.get_weights(), [v.numpy() for v in optimizer.variables]

two = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
assert two.num_replicas_in_sync == 2
one_device, one_state = train(tf.distribute.get_strategy(), "AdamW")
two_devices, two_state = train(two, "AdamW")
for a, b in zip(one_device + one_state, two_devices + two_state, strict=True):
    np.testing.assert_allclose(a, b, atol=1e-6)
print([int(v) for v in two_state if v.dtype == "int64"])
"""


def test_two_devices_equal_one(request):
    folder = str(request.path.parent)
    done = subprocess.run(
        [sys.executable, "-c", TWO_DEVICES, folder],
        check=True,
        capture_output=True,
        text=True,
    )
    # The step of this phase, and the counts of new and old variables.
    assert done.stdout.splitlines() == ["[5, 5, 10]"]


# Refusals --------------------------------------------------------------------


def test_variable_without_multiplier():
    model = make_model()
    multipliers = multipliers_of(model)
    del multipliers["model/body/bias"]
    optimizer = LearningRateMultiplier("adam", multipliers)
    with pytest.raises(
        ValueError, match="lack 'model/body/bias'. Did you mean 'model/head/bi"
    ):
        optimizer.build(model.trainable_variables)
    model.get_layer("body").trainable = False
    optimizer.build(model.trainable_variables)


@pytest.mark.parametrize("value", [-0.1, float("nan"), float("inf"), "1"])
def test_multiplier_out_of_range(value):
    with pytest.raises(ValueError, match=r"`multipliers\['a'\]` must be a fin"):
        LearningRateMultiplier("adam", {"a": value})


def test_multipliers_of_the_wrong_type():
    with pytest.raises(TypeError, match="`multipliers` must be a mapping"):
        LearningRateMultiplier("adam", [1.0])


def test_optimizers_that_cannot_be_wrapped():
    used = o.Adam()
    used.build(make_model().trainable_variables)

    class OwnApply(o.SGD):
        def apply(self, grads, trainable_variables=None):
            super().apply(grads, trainable_variables)

    many = o.MultiOptimizer(o.OptimizerMap(default_optimizer=o.Adam()))
    for optimizer, message in {
        o.LossScaleOptimizer(o.Adam()): "Wrap the other way round",
        many: "`multipliers` tells its rates apart",
        used: "Adam. It belongs to the variables it was built with",
        LearningRateMultiplier("adam"): "with the products",
        OwnApply(0.1): "It changes more than the step",
    }.items():
        with pytest.raises(ValueError, match=message):
            LearningRateMultiplier(optimizer)
    with pytest.raises(TypeError, match="`optimizer` must be a Keras optimiz"):
        LearningRateMultiplier(None)


# Multipliers by block --------------------------------------------------------


@pytest.fixture(scope="module")
def resnet():
    return ktr.build_classifier("ResNet20", num_classes=3)


def could_train(model):
    """All weights but moving statistics."""
    return {
        v.path
        for v in model.weights
        if "moving_" not in v.path and "seed" not in v.path
    }


def test_layer_decay_counts_groups_below_the_head(resnet):
    multipliers = layer_decay(resnet, 0.5, head=2.0)
    assert multipliers.keys() == could_train(resnet)
    head = {v.path for v in resnet.get_layer("head").weights}
    for k, block in enumerate(reversed(ktr.blocks(resnet)), start=1):
        for layer in block.layers:
            for path in {v.path for v in layer.weights} & multipliers.keys():
                assert multipliers[path] == 0.5**k
                assert path not in head
    assert {multipliers[path] for path in head} == {2.0}


def test_layer_decay_without_a_head():
    model = make_model()
    multipliers = layer_decay(model, 0.1)
    assert multipliers == {
        "model/body/kernel": pytest.approx(0.1),
        "model/body/bias": pytest.approx(0.1),
        "model/head/kernel": 1.0,
        "model/head/bias": 1.0,
    }


@pytest.mark.parametrize("decay", [0, 1.1, -1])
def test_decay_out_of_range(decay):
    with pytest.raises(ValueError, match=r"`decay` must be a factor in \(0, 1"):
        layer_decay(make_model(), decay)
    with pytest.raises(ValueError, match="`head` must be a finite number"):
        layer_decay(make_model(), 0.5, head=-1)


def test_block_multipliers(resnet):
    multipliers = block_multipliers(
        resnet, {"stage*": 0.5, "stage3_*": 0.25, "head": 3}, default=0.1
    )
    assert multipliers.keys() == could_train(resnet)
    assert multipliers["stem_conv/kernel"] == 0.1
    assert multipliers["stage2_block1_1_conv/kernel"] == 0.5
    assert multipliers["stage3_block3_2_conv/kernel"] == 0.25
    head = resnet.get_layer("head").weights
    assert {multipliers[v.path] for v in head} == {3.0}
    # Later keys win, and patterns leave the head alone.
    multipliers = block_multipliers(resnet, {"stage3_*": 0.25, "*": 0.5})
    assert multipliers["stage3_block3_2_conv/kernel"] == 0.5
    assert {multipliers[v.path] for v in head} == {1.0}


def test_block_multipliers_refuse(resnet):
    with pytest.raises(
        ValueError, match="'stage3_block9'. Did you mean 'stage"
    ):
        block_multipliers(resnet, {"stage3_block9": 0.5})
    with pytest.raises(ValueError, match=r"are body, head. Received: 'tail'"):
        block_multipliers(make_model(), {"tail": 0.5})
    with pytest.raises(ValueError, match="`default` must be a finite number"):
        block_multipliers(resnet, {}, default=-1)
    with pytest.raises(TypeError, match="`multipliers` must be a mapping"):
        block_multipliers(resnet, None)


def test_one_path_for_two_groups():
    body = keras.Sequential(
        [keras.Input((3,)), keras.layers.Dense(3, name="same")], name="m"
    )
    head = keras.Sequential(
        [keras.Input((3,)), keras.layers.Dense(3, name="same")], name="m"
    )
    head.name = "n"
    model = keras.Sequential([keras.Input((3,)), body, head])
    with pytest.raises(ValueError, match="two with 'm/same/kernel'. Give"):
        layer_decay(model, 0.5)
    layer_decay(model, 1.0)  # The same for both.


def test_fine_tuning_a_built_model(resnet):
    ktr.unfreeze(resnet, depth=1)
    before = resnet.get_weights()
    optimizer = LearningRateMultiplier(
        o.SGD(0.1), block_multipliers(resnet, {"head": 0.0})
    )
    resnet.compile(optimizer, "categorical_crossentropy", jit_compile=False)
    images = np.random.default_rng(0).uniform(0, 255, (4, 32, 32, 3))
    resnet.fit(images, np.eye(3)[[0, 1, 2, 0]], verbose=0)
    changed = {
        v.path
        for v, old in zip(resnet.weights, before, strict=True)
        if np.any(v.numpy() != old)
    }
    assert changed == {
        "stage3_block3_1_conv/kernel",
        "stage3_block3_2_conv/kernel",
    }


def test_follows_a_table_of_rates():
    variable = keras.Variable(np.zeros(2, np.float32))
    optimizer = LearningRateMultiplier(keras.optimizers.SGD())
    optimizer.build([variable])
    optimizer.follow([9.0, 0.5, 0.25], step=1)
    gradient = keras.ops.ones(2)

    @tf.function
    def steps(count):
        for _ in tf.range(count):
            optimizer.apply([gradient], [variable])

    steps(tf.constant(2))
    np.testing.assert_allclose(variable, [-0.75, -0.75])
    steps(tf.constant(2))  # The last one stays.
    np.testing.assert_allclose(variable, [-1.25, -1.25])
    assert float(optimizer.learning_rate) == 0.25
    with pytest.raises(ValueError, match="`rates` must not be empty"):
        optimizer.follow([])
