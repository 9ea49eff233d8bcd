"""Penalties: closed forms, what they do to training, and that they leave."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import keras_transfer as ktr
from keras_transfer.penalties.activation_penalties import BSS, FeatureMap
from keras_transfer.penalties.weight_penalties import L1, L2, L2SP, ElasticNet

ALL_KINDS = ("weights", "biases", "normalization")
EVERY = [
    L1(0.1),
    L2(0.1),
    ElasticNet(0.1, 0.2),
    L2SP(0.1, 0.2),
    FeatureMap(0.1),
    BSS(0.1),
]
TARGETS = np.eye(3)[[0, 1, 2, 0, 1, 2]].astype("float32")


def class_name(penalty):
    return type(penalty).__name__


each = pytest.mark.parametrize("penalty", EVERY, ids=class_name)


def small_classifier(batch_norm=True):
    """Preprocessing, backbone with two resolutions, head: all trainable."""
    network = keras.Input((8, 8, 3))
    x = layers.Conv2D(4, 3, padding="same", name="first")(network)
    if batch_norm:
        x = layers.BatchNormalization(name="first_bn")(x)
    x = layers.ReLU(name="first_relu")(x)
    x = layers.MaxPooling2D(name="pool")(x)
    x = layers.Conv2D(6, 3, padding="same", name="last")(x)
    backbone = keras.Model(network, x, name="backbone")
    features = keras.Input((4, 4, 6))
    x = layers.GlobalAveragePooling2D(name="avg_pool")(features)
    x = layers.Dropout(0.5, name="dropout")(x)
    x = layers.Dense(3, activation="softmax", dtype="float32")(x)
    head = keras.Model(features, x, name="head")
    scaling = keras.Sequential(
        [keras.Input((8, 8, 3)), layers.Rescaling(1 / 255)],
        name="preprocessing",
    )
    inputs = keras.Input((8, 8, 3))
    outputs = head(backbone(scaling(inputs)))
    return keras.Model(inputs, outputs, name="small")


def linear_classifier():
    """The features are `X W`, the outputs `X W V`."""
    network = keras.Input((4,))
    backbone = keras.Model(
        network, layers.Dense(3, use_bias=False)(network), name="backbone"
    )
    features = keras.Input((3,))
    head = keras.Model(
        features, layers.Dense(2, use_bias=False)(features), name="head"
    )
    scaling = keras.Sequential(
        [keras.Input((4,)), layers.Rescaling(1.0)], name="preprocessing"
    )
    inputs = keras.Input((4,))
    return keras.Model(inputs, head(backbone(scaling(inputs))))


def dense_model(**options):
    return keras.Sequential(
        [
            keras.Input((4,)),
            layers.Dense(3, name="hidden", **options),
            layers.BatchNormalization(name="norm"),
            layers.Dense(2, name="output"),
        ]
    )


@pytest.fixture
def images():
    generator = np.random.default_rng(0)
    return generator.uniform(0, 255, (6, 8, 8, 3)).astype("float32")


@pytest.fixture
def rows():
    return np.random.default_rng(0).normal(size=(6, 4)).astype("float32")


def randomise(model):
    generator = np.random.default_rng(1)
    model.set_weights(
        [generator.normal(1, 0.5, w.shape) for w in model.get_weights()]
    )


def fit(model, x, y, learning_rate=0.1, epochs=3, loss="mse"):
    keras.utils.set_random_seed(0)
    model.compile(keras.optimizers.SGD(learning_rate), loss)
    history = model.fit(x, y, epochs=epochs, verbose=0, shuffle=False)
    return history.history["loss"]


def gradients(trainer, x):
    """Those of the penalty alone, and the penalty."""
    with tf.GradientTape() as tape:
        trainer(x, training=True)
        (loss,) = trainer.losses
    variables = trainer.trainable_variables
    return [
        None if g is None else g.numpy() for g in tape.gradient(loss, variables)
    ], float(loss)


# --- Plain values ---


@each
def test_is_plain_data(penalty):
    assert eval(repr(penalty)) == penalty
    assert hash(penalty) == hash(dataclasses.replace(penalty))
    with pytest.raises(dataclasses.FrozenInstanceError):
        penalty.strength = 1.0


def test_lists_are_kept_as_tuples():
    assert L2(1, on=["biases"]) == L2(1.0, on=("biases",))
    assert FeatureMap(1, blocks=["a"]).blocks == ("a",)
    assert type(BSS(np.float32(1)).strength) is float


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: L1(-1), "`strength` must be a finite number, at least 0.*-1"),
        (lambda: L2(float("nan")), "`strength` must be a finite number"),
        (lambda: L2(True), "`strength` must be a finite number.*True"),
        (lambda: L2("1"), "`strength` must be a finite number.*'1'"),
        (lambda: ElasticNet(1, -1), "`l2` must be a finite number.*l2=-1"),
        (lambda: L2SP(beta=None), "`beta` must be a finite number"),
        (
            lambda: L2(1, on="weights"),
            r"`on` must be a tuple out of weights, b",
        ),
        (lambda: L2(1, on=("kernel",)), r"`on` must be.*\('kernel',\)"),
        (lambda: L2(1, on=()), "`on` must be a tuple.*at least one"),
        (lambda: L2(1, on=("biases",) * 2), "`on` must be.*each once"),
        (lambda: L2(1, decoupled=1), "`decoupled` must be True or False.*1"),
        (lambda: BSS(1, k=0), "`k` must be a positive integer.*k=0"),
        (lambda: BSS(1, k=1.5), "`k` must be a positive integer.*k=1.5"),
        (lambda: FeatureMap(1, blocks=3), "`blocks` must be None, or names.*3"),
        (lambda: FeatureMap(1, blocks=()), "`blocks` must be None.*least one"),
    ],
)
def test_fields_are_checked(make, message):
    with pytest.raises(ValueError, match=message):
        make()


# --- Weights ---


def expected_value(penalty, arrays):
    if isinstance(penalty, L1):
        return 0.3 * sum(np.abs(a).sum() for a in arrays)
    if isinstance(penalty, L2):
        return 0.3 / 2 * sum((a**2).sum() for a in arrays)
    return sum(0.2 * np.abs(a).sum() + 0.3 / 2 * (a**2).sum() for a in arrays)


@pytest.mark.parametrize("on", [ALL_KINDS, *((kind,) for kind in ALL_KINDS)])
@pytest.mark.parametrize("kind", [L1, L2, ElasticNet])
def test_formula(kind, on):
    model = dense_model()
    randomise(model)
    hidden, norm, output = model.layers
    arrays = {
        "weights": [hidden.kernel, output.kernel],
        "biases": [hidden.bias, output.bias],
        "normalization": [norm.gamma, norm.beta],
    }
    chosen = [v.numpy() for name in on for v in arrays[name]]
    coefficients = (0.2, 0.3) if kind is ElasticNet else (0.3,)
    penalty = kind(*coefficients, on=on)
    attached = penalty.attach(model)
    expected = expected_value(penalty, chosen)
    assert attached.value() == pytest.approx(expected, rel=1e-6)
    assert attached.trainer is model
    assert attached.pulls == ()
    losses = model.losses
    assert len(losses) == len(chosen)
    assert all(x.shape == () and x.dtype == "float32" for x in losses)
    assert float(sum(losses)) == pytest.approx(expected, rel=1e-6)


def test_l2sp_formula():
    model = small_classifier()
    start = [w.numpy() for w in model.weights]
    attached = L2SP(0.3, 0.7, on=ALL_KINDS).attach(model)
    randomise(model)
    backbone = {id(w) for w in model.get_layer("backbone").weights}
    expected = 0.0
    for variable, w0 in zip(model.weights, start, strict=True):
        w = variable.numpy()
        if "moving" in variable.name:
            continue
        elif id(variable) in backbone:
            expected += 0.3 / 2 * ((w - w0) ** 2).sum()
        else:
            expected += 0.7 / 2 * (w**2).sum()
    assert attached.value() == pytest.approx(expected, rel=1e-5)


def test_l2sp_takes_other_models_as_pretrained():
    model = dense_model()
    attached = L2SP(on=ALL_KINDS).attach(model)
    assert attached.value() == 0.0


def test_l2sp_on_a_linear_model_is_ridge_to_a_prior():
    generator = np.random.default_rng(0)
    x = generator.normal(size=(20, 4)).astype("float32")
    y = generator.normal(size=(20, 1)).astype("float32")
    model = keras.Sequential(
        [keras.Input((4,)), layers.Dense(1, use_bias=False)]
    )
    w0 = model.get_weights()[0]
    L2SP(alpha=5.0).attach(model)

    class HalfSquares(keras.losses.Loss):
        def call(self, y_true, y_pred):
            return keras.ops.sum(keras.ops.square(y_pred - y_true), -1) / 2

    loss = HalfSquares(reduction="sum")
    model.compile(keras.optimizers.SGD(0.02), loss)
    for _ in range(100):
        model.train_on_batch(x, y)
    expected = np.linalg.solve(x.T @ x + 5 * np.eye(4), x.T @ y + 5 * w0)
    np.testing.assert_allclose(model.get_weights()[0], expected, atol=1e-4)


def test_large_alpha_holds_the_pretrained_weights(images):
    moved = {}
    for alpha in (0.0, 9.0):
        keras.utils.set_random_seed(0)
        model = small_classifier()
        kernel = model.get_layer("backbone").get_layer("last").kernel
        start = kernel.numpy()
        L2SP(alpha).attach(model)
        fit(model, images, TARGETS, epochs=5)
        moved[alpha] = np.linalg.norm(kernel.numpy() - start)
    assert moved[9.0] < 0.5 * moved[0.0]


ZERO = [
    L1(0.0),
    L2(0.0),
    ElasticNet(0.0, 0.0),
    L2SP(0.0, 0.0),
    L2SP(1.0, 1.0, decoupled=True),  # does nothing without our optimizer
    FeatureMap(0.0),
    BSS(0.0),
]


def test_no_strength_is_no_penalty(images):
    keras.utils.set_random_seed(0)
    start = small_classifier().get_weights()
    trained = []
    for penalty in [None, *ZERO]:
        model = small_classifier()
        model.set_weights(start)
        # The same sequence of dropout masks.
        for layer in model._flatten_layers():
            if isinstance(layer, layers.Dropout):
                layer.seed_generator.state.assign([0, 0])
        trainer = penalty.attach(model).trainer if penalty else model
        fit(trainer, images, TARGETS)
        trained.append(model.get_weights())
    assert any((a != b).any() for a, b in zip(start, trained[0], strict=True))
    for penalty, weights in zip(ZERO, trained[1:], strict=True):
        for a, b in zip(trained[0], weights, strict=True):
            np.testing.assert_array_equal(a, b, err_msg=repr(penalty))


def test_frozen_weights_add_no_loss_until_unfrozen():
    model = ktr.build_classifier("ResNet20", num_classes=3)
    kernel = model.get_layer("head").get_weights()[0]
    attached = L2(1.0).attach(model)
    assert len(model.losses) == 1
    head_only = (kernel**2).sum() / 2
    assert attached.value() == pytest.approx(head_only, rel=1e-6)
    ktr.unfreeze(model, depth=1)
    assert len(model.losses) == 3
    assert attached.value() > head_only
    ktr.freeze(model)
    assert attached.value() == pytest.approx(head_only, rel=1e-6)


def test_weights_frozen_before_they_were_made_are_found():
    layer = layers.Dense(3, trainable=False)
    model = keras.Sequential([keras.Input((4,)), layer])
    attached = L2(1.0).attach(model)
    assert attached.value() == 0.0
    layer.trainable = True
    assert attached.value() > 0


def test_a_suffix_is_penalised_too():
    model = ktr.build_classifier("ResNet20", num_classes=3)
    ktr.unfreeze(model, depth=1)
    L2(1.0).attach(model)
    _, suffix = ktr.split(model, depth=1)
    assert float(sum(suffix.losses)) == pytest.approx(float(sum(model.losses)))


def test_own_regularizer_stays_and_comes_back():
    own = keras.regularizers.L2(0.25)
    model = dense_model(kernel_regularizer=own)
    hidden = model.get_layer("hidden")
    squares = (hidden.kernel.numpy() ** 2).sum()
    attached = L2(1.0).attach(model)
    loss = float(hidden.losses[0])
    assert loss == pytest.approx((0.25 + 1 / 2) * squares, rel=1e-6)
    attached.detach()
    assert hidden.kernel.regularizer is own
    assert model.get_layer("output").kernel.regularizer is None
    assert float(sum(model.losses)) == pytest.approx(0.25 * squares, rel=1e-6)


def test_regularizer_set_later_is_not_taken_away():
    model = dense_model()
    attached = L2(1.0).attach(model)
    later = keras.regularizers.L1(1.0)
    model.get_layer("hidden").kernel.regularizer = later
    attached.detach()
    assert model.get_layer("hidden").kernel.regularizer is later


class Count(layers.Layer):
    """Counts how often Python runs it, which is once a trace."""

    calls = 0

    def call(self, x):
        self.calls += 1
        return x


def test_changed_coefficient_is_in_effect_without_a_trace(rows):
    count = Count()
    model = keras.Sequential(
        [keras.Input((4,)), count, layers.Dense(1, use_bias=False)]
    )
    attached = L2(0.0).attach(model)
    half = (model.get_weights()[0] ** 2).sum() / 2
    targets = np.zeros((6, 1))
    model.compile(keras.optimizers.SGD(0.0), "mse")
    plain = model.fit(rows, targets, verbose=0).history["loss"][0]
    traces = count.calls
    attached.set(strength=4.0)
    loss = model.fit(rows, targets, verbose=0).history["loss"][0]
    assert loss == pytest.approx(plain + 4 * half, rel=1e-5)
    assert attached.value() == pytest.approx(4 * half, rel=1e-6)
    assert count.calls == traces


@pytest.mark.parametrize("penalty", EVERY[3:], ids=class_name)
def test_attach_and_detach_act_on_what_is_compiled(penalty, images):
    keras.utils.set_random_seed(0)
    model = small_classifier(batch_norm=False)
    model.compile(keras.optimizers.SGD(0.0), "mse")
    plain = model.evaluate(images, TARGETS, verbose=0)
    model.fit(images, TARGETS, verbose=0)
    attached = penalty.attach(model)
    # Away from the start, where FeatureMap is 0.
    kernel = model.get_layer("backbone").get_layer("first").kernel
    kernel.assign(kernel + 0.1)
    if isinstance(penalty, BSS):  # its singular value is all but 0
        attached.set(strength=1e4)
    trainer = attached.trainer
    value = attached.value(images)
    assert value > 0
    if trainer is model:
        assert model.evaluate(images, TARGETS, verbose=0) > plain
    trainer.compile(keras.optimizers.SGD(0.0), "mse")

    def loss():
        # Dropout: masks are drawn anew each time.
        for layer in model._flatten_layers():
            if isinstance(layer, layers.Dropout):
                layer.seed_generator.state.assign([0, 0])
        return trainer.fit(images, TARGETS, verbose=0).history["loss"][0]

    penalised = loss()
    attached.detach()
    assert penalised - loss() == pytest.approx(value, rel=1e-4)
    assert attached.value(images) == 0.0


def test_attach_acts_on_a_model_that_was_trained(rows):
    model = keras.Sequential([keras.Input((4,)), layers.Dense(1)])
    model.compile(keras.optimizers.SGD(0.0), "mse")
    targets = np.zeros((6, 1))
    plain = model.fit(rows, targets, verbose=0).history["loss"][0]
    attached = L2(2.0).attach(model)
    loss = model.fit(rows, targets, verbose=0).history["loss"][0]
    assert loss == pytest.approx(plain + attached.value(), rel=1e-5)


def test_decoupled_asks_for_pulls_and_adds_no_loss():
    model = small_classifier()
    start = {id(w): w.numpy() for w in model.weights}
    attached = L2SP(0.3, 0.7, decoupled=True).attach(model)
    assert model.losses == []
    assert [pull.variable.name for pull in attached.pulls] == ["kernel"] * 3
    head = {id(w) for w in model.get_layer("head").weights}
    for pull in attached.pulls:
        if id(pull.variable) in head:
            assert pull.start is None
            assert float(pull.strength) == pytest.approx(0.7)
        else:
            assert float(pull.strength) == pytest.approx(0.3)
            np.testing.assert_array_equal(pull.start, start[id(pull.variable)])
    randomise(model)
    coupled = attached.value()
    attached.set(alpha=0.6, beta=1.4)
    assert attached.value() == pytest.approx(2 * coupled, rel=1e-5)
    attached.detach()
    # What holds the pulls pulls no longer.
    assert {float(pull.strength) for pull in attached.pulls} == {0.0}


def test_decoupled_l2_pulls_to_zero():
    model = dense_model()
    pulls = L2(0.3, on=ALL_KINDS, decoupled=True).attach(model).pulls
    assert len(pulls) == 6
    assert all(pull.start is None for pull in pulls)


# --- Activations ---


def test_feature_map_on_a_linear_network(rows):
    """`s/2 mean |x(W - W0)|^2`, and its gradient `s X'X(W - W0) / n`."""
    model = keras.Sequential(
        [keras.Input((4,)), layers.Dense(3, use_bias=False, name="only")]
    )
    w0 = model.get_weights()[0]
    attached = FeatureMap(0.6).attach(model)
    (gradient,), loss = gradients(attached.trainer, rows)
    assert loss == attached.value(rows) == 0.0
    np.testing.assert_array_equal(gradient, np.zeros((4, 3)))

    randomise(model)
    moved = model.get_weights()[0] - w0
    (gradient,), loss = gradients(attached.trainer, rows)
    expected = 0.6 / 2 * ((rows @ moved) ** 2).sum() / len(rows)
    assert loss == pytest.approx(expected, rel=1e-5)
    assert attached.value(rows) == pytest.approx(expected, rel=1e-5)
    np.testing.assert_allclose(
        gradient, 0.6 * rows.T @ rows @ moved / len(rows), rtol=1e-4
    )
    attached.set(strength=1.2)
    assert attached.value(rows) == pytest.approx(2 * expected, rel=1e-5)


def test_feature_map_brings_activations_back(rows):
    model = linear_classifier()
    trainer = FeatureMap(1.0).attach(model).trainer
    kernel = model.get_layer("backbone").weights[0]
    w0 = kernel.numpy()
    kernel.assign(w0 + 1.0)
    # A loss of 0, whatever the output.
    trainer.compile(
        keras.optimizers.SGD(0.3),
        lambda y_true, y_pred: 0.0 * keras.ops.sum(y_pred, -1),
    )
    for _ in range(400):
        trainer.train_on_batch(rows, np.zeros((6, 2)))
    np.testing.assert_allclose(kernel.numpy(), w0, atol=1e-3)


def test_reference_keeps_its_weights_and_statistics(images):
    model = small_classifier()
    backbone = model.get_layer("backbone")
    ends = [block.outputs[0] for block in ktr.blocks(model)]
    assert len(ends) == 2
    network = keras.Model(backbone.input, ends)
    before = network.predict(images / 255, verbose=0)
    moving = backbone.get_layer("first_bn").moving_mean
    start = moving.numpy()
    attached = FeatureMap(0.5, blocks="*").attach(model)
    assert attached.value(images) == 0.0
    fit(attached.trainer, images, TARGETS, learning_rate=0.01)
    assert (moving.numpy() != start).any()
    now = network.predict(images / 255, verbose=0)
    expected = sum(
        0.5 / 2 * ((f - f0) ** 2).sum() / len(images)
        for f, f0 in zip(now, before, strict=True)
    )
    assert attached.value(images) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("shape", [(32, 32, 3), (None, None, 3)])
def test_default_blocks_are_the_last_of_each_resolution(shape):
    backbone = ktr.load_backbone("ResNet20", input_shape=shape)
    model = ktr.build_classifier(backbone, 3)
    batch = np.random.default_rng(0).uniform(0, 255, (2, 32, 32, 3))
    stem = ktr.blocks(model)[0].layers[0]
    values = []
    for blocks in (None, ["stage?_block3"], "stage3_block3", "*"):
        start = stem.get_weights()
        with FeatureMap(1e-3, blocks=blocks).attach(model) as attached:
            stem.set_weights([1.1 * w for w in start])
            values.append(attached.value(batch))
        stem.set_weights(start)
    assert values[0] == pytest.approx(values[1], rel=1e-6)
    assert 0 < values[2] < values[1] < values[3]


@pytest.mark.parametrize("k", [1, 2, 3, 9])
@pytest.mark.parametrize("examples", [6, 2])
def test_bss_formula_and_gradient(rows, k, examples):
    model = linear_classifier()
    x = rows[:examples]
    w = model.get_layer("backbone").get_weights()[0]
    left, singular, _ = np.linalg.svd(x @ w, full_matrices=False)
    attached = BSS(0.6, k=k).attach(model)
    (gradient, of_head), loss = gradients(attached.trainer, x)
    assert loss == pytest.approx(0.3 * (singular[-k:] ** 2).sum(), rel=1e-4)
    assert attached.value(x) == pytest.approx(loss, rel=1e-6)
    left = left[:, -k:]
    expected = 0.6 * x.T @ left @ left.T @ x @ w
    np.testing.assert_allclose(gradient, expected, rtol=1e-3, atol=1e-5)
    assert of_head is None


def test_bss_takes_the_features_before_dropout(images):
    model = small_classifier(batch_norm=False)
    head = model.get_layer("head")
    features = keras.Model(head.input, head.get_layer("avg_pool").output)(
        model.get_layer("backbone")(images / 255)
    )
    singular = np.linalg.svd(np.array(features), compute_uv=False)
    attached = BSS(2.0, k=3).attach(model)
    _, loss = gradients(attached.trainer, images)
    assert loss == pytest.approx((singular[-3:] ** 2).sum(), rel=1e-3)


def test_bss_without_a_dense_layer_takes_the_average(images):
    model = small_classifier(batch_norm=False)
    backbone = model.get_layer("backbone")
    inputs = keras.Input((4, 4, 6))
    x = layers.Conv2D(3, 1)(inputs)
    head = keras.Model(inputs, layers.GlobalAveragePooling2D()(x), name="head")
    x = backbone(model.get_layer("preprocessing")(model.input))
    model = keras.Model(model.input, head(x))
    features = np.array(backbone(images / 255)).mean((1, 2))
    singular = np.linalg.svd(features, compute_uv=False)
    value = BSS(2.0).attach(model).value(images)
    assert value == pytest.approx(singular[-1] ** 2, rel=1e-3)


def test_bss_is_finite_on_equal_images_and_small_batches(images):
    model = small_classifier()
    trainer = BSS(1.0, k=4).attach(model).trainer
    equal = np.repeat(images[:1], 5, axis=0)
    trainer.compile(keras.optimizers.SGD(0.1), "mse")
    # A last batch of one.
    trainer.fit(equal, TARGETS[:5], batch_size=4, epochs=2, verbose=0)
    assert all(np.isfinite(w).all() for w in model.get_weights())


def test_activation_penalties_are_not_part_of_the_validation_loss(images):
    for penalty in (FeatureMap(0.5), BSS(9.0)):
        model = small_classifier()
        trainer = penalty.attach(model).trainer
        losses = fit(trainer, images, TARGETS, learning_rate=0.01)
        assert np.isfinite(losses).all()
        model.compile(loss="mse")
        assert trainer.evaluate(images, TARGETS, verbose=0) == pytest.approx(
            model.evaluate(images, TARGETS, verbose=0), rel=1e-5
        )


@each
def test_trainer_is_the_model(penalty, images):
    model = small_classifier()
    trainer = penalty.attach(model).trainer
    np.testing.assert_array_equal(
        trainer(images, training=False), model(images, training=False)
    )
    assert [id(w) for w in trainer.weights] == [id(w) for w in model.weights]
    assert [id(w) for w in trainer.trainable_variables] == [
        id(w) for w in model.trainable_variables
    ]
    assert trainer.output_names == model.output_names


def test_trainer_of_a_whole_model_keeps_the_name_of_its_output():
    model = dense_model()
    assert FeatureMap(1.0).attach(model).trainer.output_names == ["output"]


@each
def test_mixed_precision(penalty, images):
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model = small_classifier()
        attached = penalty.attach(model)
        # Too little for 16 bits: coefficients and sums are float32.
        for name in {"strength", "alpha", "beta", "l1", "l2"} & set(
            vars(penalty)
        ):
            attached.set(**{name: 1e-9})
        randomise(model)
        assert 0 < attached.value(images) < 1
        attached.trainer(images, training=True)
        losses = attached.trainer.losses
        assert all(x.shape == () and x.dtype == "float32" for x in losses)
        assert float(sum(losses)) > 0
        losses = fit(attached.trainer, images, TARGETS)
        assert np.isfinite(losses).all()
    finally:
        keras.config.set_dtype_policy("float32")


# --- What stays of it ---


@each
def test_leaves_nothing_in_the_model(penalty):
    model = small_classifier()

    def traces():
        return (
            model.to_json(),
            [id(v) for v in model.variables],
            [id(layer) for layer in model._flatten_layers()],
        )

    before = traces()
    attached = penalty.attach(model)
    assert traces() == before
    attached.detach()
    attached.detach()
    assert traces() == before
    assert model.losses == []
    penalty.attach(model).detach()


def test_saved_file_opens_without_us(tmp_path):
    model = small_classifier()
    batch = np.random.default_rng(0).uniform(0, 255, (6, 8, 8, 3))
    requests = []
    for penalty in (L2SP(), FeatureMap(0.1), BSS(0.1)):
        name = class_name(penalty)
        with penalty.attach(model) as attached:
            fit(attached.trainer, batch, TARGETS, epochs=1)
            model.save(tmp_path / f"{name}.keras")
        request = {"model": str(tmp_path / f"{name}.keras")}
        arrays = {"images": batch, "expected": model(batch, training=False)}
        for key, array in arrays.items():
            request[key] = str(tmp_path / f"{name}_{key}.npy")
            np.save(request[key], np.array(array))
        requests.append(json.dumps(request))
    script = Path(__file__).parents[1] / "_fresh_process.py"
    result = subprocess.run(
        [sys.executable, "-I", script],
        input="\n".join(requests) + "\n",
        capture_output=True,
        text=True,
        check=True,
    )
    answers = [json.loads(line) for line in result.stdout.splitlines()]
    assert len(answers) == 3
    for answer in answers:
        assert answer["difference"] == pytest.approx(0.0, abs=1e-6), answer
        assert answer["weights"] == [w.path for w in model.weights]


# --- Errors ---


@each
def test_one_penalty_at_a_time(penalty):
    model = small_classifier()
    with penalty.attach(model) as attached:
        for other in (L2(0.1, decoupled=True), FeatureMap(0.1)):
            for taken in (model, attached.trainer):
                with pytest.raises(ValueError, match="have no penalty of.*det"):
                    other.attach(taken)
    L2(0.1).attach(model)
    # Nor on a model over the same layers.
    with pytest.raises(ValueError, match="must have no penalty"):
        L1(0.1).attach(model.get_layer("head"))


def test_set_checks_names_and_values():
    attached = L2SP().attach(dense_model())
    with pytest.raises(
        ValueError, match=r"alpha, beta. Received: alhpa=1.*Did"
    ):
        attached.set(alhpa=1)
    with pytest.raises(ValueError, match="`alpha` must be a finite number"):
        attached.set(beta=5, alpha=-1)
    randomise(attached.model)
    assert attached.value() > 0  # and nothing was set
    attached.detach()
    with pytest.raises(
        ValueError, match="`set` must come before `detach`.*L2SP"
    ):
        attached.set(alpha=1)
    attached = BSS(0.1).attach(small_classifier())
    with pytest.raises(ValueError, match="which are strength. Received: k=2"):
        attached.set(k=2)


def test_attach_checks_the_model():
    with pytest.raises(
        TypeError, match="must be a keras.Model. Received: a str"
    ):
        L2(1.0).attach("model")
    with pytest.raises(TypeError, match="functional or built Sequential"):
        FeatureMap(1.0).attach(keras.Sequential([layers.Dense(1)]))
    with pytest.raises(ValueError, match="has none because it is not built"):
        L2(1.0).attach(keras.Sequential([layers.Dense(1)]))
    plain = keras.Sequential([keras.Input((4,)), layers.Dense(1)])
    with pytest.raises(ValueError, match="`on` must name var.*'normalization'"):
        L2(1.0, on=("normalization",)).attach(plain)
    with pytest.raises(ValueError, match="layers preprocessing, backbone and"):
        BSS(1.0).attach(plain)
    inputs = keras.Input((4,))
    two = keras.Model(
        inputs, [layers.Dense(1)(inputs), layers.Dense(2)(inputs)]
    )
    with pytest.raises(ValueError, match="must have one output. .* with 2"):
        FeatureMap(1.0).attach(two)
    # A failed attach leaves no mark.
    L2(1.0).attach(plain)


def test_unknown_block():
    with pytest.raises(
        ValueError, match="`blocks` must match.*first, last.*'frist'. Did you"
    ):
        FeatureMap(1.0, blocks="frist").attach(small_classifier())


def test_images_are_needed_for_activations():
    attached = FeatureMap(1.0).attach(small_classifier())
    with pytest.raises(
        ValueError, match="`images` must be given for FeatureMap"
    ):
        attached.value()


def test_closed_container():
    model = small_classifier()
    model.trainable = False
    model.get_layer("backbone").get_layer("last").trainable = True
    with pytest.raises(
        ValueError, match="no trainable variable in a frozen container.*last/ke"
    ):
        FeatureMap(1.0).attach(model)
    ktr.unfreeze(model, 0)
    FeatureMap(1.0).attach(model)
