"""Targets of all kinds, through the doors of training."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from training._tiny import make_images

import keras_transfer as ktr

ONE = (ktr.Phase("head", depth=0, epochs=2, learning_rate=1e-2),)
EXACT = ktr.LinearProbe(exact=True)
QUIET = {"verbose": 0, "store": False}
IMAGES, CLASSES = make_images(30)
OTHERS, _ = make_images(30, seed=1)
ROWS = np.eye(3, dtype="float32")[CLASSES]
SMOOTHED = 0.9 * ROWS + 0.05
LEVELS = (0.2 + 0.3 * CLASSES).astype("float32")
AGES = 20 + 10 * CLASSES + np.arange(30) % 7
SEVERAL = np.stack(
    [np.ones(30), np.arange(30) % 2, np.arange(30) % 3 == 0], 1
).astype("float32")


def make_backbone():
    """One block, which keeps the place of the bright square."""
    inputs = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(4, 3, activation="relu", name="block_1_conv")(
        inputs
    )
    x = keras.layers.Conv2D(12, 6, activation="relu", name="block_1_out")(x)
    network = keras.Model(inputs, x, name="tiny")
    return ktr.load_backbone(network, pixel_range="[0, 1]")


@pytest.fixture(scope="module")
def backbone():
    return make_backbone()


def batches(*arrays, size=10):
    return tf.data.Dataset.from_tensor_slices(arrays).batch(size)


# --- Fractions ---


@pytest.mark.parametrize("door", ["arrays", "dataset", "one sigmoid"])
def test_fractions_are_fitted_as_fractions(backbone, door):
    keras.utils.set_random_seed(0)
    targets, units = SMOOTHED, 3
    if door == "one sigmoid":
        targets, units = SMOOTHED[:, 0], 1
    data = (IMAGES, targets)
    if door == "dataset":
        data = batches(IMAGES, targets)
    model = ktr.build_classifier(backbone, units, activation="sigmoid")
    run = ktr.fine_tune(model, data, epochs=1, learning_rate=1e-6, **QUIET)
    found = model.predict(IMAGES, verbose=0)
    hard = ROWS if units == 3 else ROWS[:, :1]
    assert ((found > 0.5) == hard).mean() > 0.8
    assert found.mean() == pytest.approx(targets.mean(), abs=0.02)
    assert run.history["accuracy"][-1] > 0.8
    assert run.evaluate((IMAGES, targets))["accuracy"] > 0.8
    assert run.evaluate((IMAGES, hard))["accuracy"] > 0.8


def test_a_model_trained_on_fractions_is_plain_keras(
    backbone, in_fresh_process
):
    model = ktr.build_classifier(backbone, 3, activation="sigmoid")
    ktr.fine_tune(model, (IMAGES, SMOOTHED), strategy=EXACT, **QUIET)
    found = model.predict(IMAGES, verbose=0)
    assert in_fresh_process(model, IMAGES, found)["difference"] < 1e-5


@pytest.mark.parametrize("activation", ["softmax", "linear"])
def test_soft_rows_of_classes(backbone, activation):
    keras.utils.set_random_seed(0)
    soft = (0.8 * ROWS + 0.2 / 3).astype("float32")
    model = ktr.build_classifier(backbone, 3, activation=activation)
    data = {"train": (IMAGES, soft), "validation": (OTHERS, ROWS)}
    run = ktr.fine_tune(model, data, strategy=EXACT, **QUIET)
    assert run.history["val_accuracy"][-1] > 0.8
    found = run.evaluate((IMAGES, soft))
    assert found["accuracy"] > 0.8
    assert found.probabilities.max(axis=1).mean() < 0.9


# --- Numbers ---


@pytest.mark.parametrize("loss", [None, "mse", "mae", keras.losses.Huber()])
def test_a_regressor_with_a_sigmoid(backbone, loss):
    keras.utils.set_random_seed(0)
    model = ktr.build_regressor(backbone, activation="sigmoid")
    run = ktr.fine_tune(model, (IMAGES, LEVELS), loss=loss, epochs=1, **QUIET)
    assert "accuracy" not in run.history
    assert run.evaluate((IMAGES, LEVELS))["mse"] < LEVELS.var() / 2


def test_an_own_model_that_ends_in_a_sigmoid():
    keras.utils.set_random_seed(0)
    x = np.random.default_rng(0).normal(size=(40, 4)).astype("float32")
    y = (1 / (1 + np.exp(-x[:, 0]))).astype("float32")
    model = keras.Sequential(
        [keras.Input((4,)), keras.layers.Dense(1, "sigmoid")]
    )
    settings = {"depth": "all", "learning_rate": 0.5, **QUIET}
    run = ktr.fine_tune(model, batches(x, y), loss="mse", epochs=9, **settings)
    assert "mae" in run.history
    assert run.evaluate((x, y))["r2"] > 0.5
    # The loss does not depend on the first batch.
    y[:10] = y[:10] > 0.5
    for order in (slice(None), slice(None, None, -1)):
        data = batches(x[order], y[order])
        run = ktr.fine_tune(model, data, epochs=1, **settings)
        assert type(model.loss) is keras.losses.BinaryCrossentropy
        assert "accuracy" in run.history


@pytest.mark.parametrize("loss", ["mae", "mse", keras.losses.Huber()])
@pytest.mark.parametrize("door", ["arrays", "dataset"])
def test_integers_as_numbers(backbone, loss, door):
    data = (IMAGES, AGES) if door == "arrays" else batches(IMAGES, AGES)
    model = ktr.build_regressor(backbone)
    run = ktr.fine_tune(model, data, loss=loss, epochs=1, **QUIET)
    assert "accuracy" not in run.history
    assert run.evaluate(data)["mae"] < 20


def test_numbers_beyond_the_activation_are_an_error(backbone):
    for activation, low in (("sigmoid", 0), ("tanh", -1)):
        model = ktr.build_regressor(backbone, activation=activation)
        told = f"from 20 to 46, and the output, a {activation}, lies between"
        with pytest.raises(ValueError, match=f"{told} {low} and 1"):
            ktr.fine_tune(model, (IMAGES, AGES), **QUIET)
    # As told.
    model = ktr.build_regressor(backbone, activation="sigmoid")
    ktr.fine_tune(model, (IMAGES, AGES / 50), epochs=1, **QUIET)


def test_an_activation_without_an_exact_probe(backbone):
    model = ktr.build_regressor(backbone, activation="exponential")
    run = ktr.fine_tune(model, (IMAGES, AGES), epochs=1, **QUIET)
    assert "linear probe" not in run.history["name"]
    with pytest.raises(ValueError, match="a head that ends in exponential"):
        ktr.fine_tune(model, (IMAGES, AGES), strategy="lp-ft", **QUIET)


def test_classes_for_a_regressor_are_an_error(backbone):
    data = ktr.load_images((IMAGES, CLASSES))
    model = ktr.build_regressor(backbone, data=data)
    with pytest.raises(ValueError, match="predict classes.*build_classifier"):
        ktr.fine_tune(model, data, **QUIET)


def test_folds_of_numbers(backbone):
    result = ktr.cross_validate(
        lambda: ktr.build_regressor(backbone),
        (IMAGES, AGES),
        folds=2,
        strategy=EXACT,
        verbose=0,
    )
    assert result.pooled().kind == "regression"


def test_regression_has_no_classes_to_weigh(backbone):
    for weight in ("balanced", {0: 2.0}):
        model = ktr.build_regressor(backbone)
        with pytest.raises(ValueError, match="regression, which has no class"):
            ktr.fine_tune(model, (IMAGES, AGES), class_weight=weight, **QUIET)


# --- Yes or no ---


def test_one_sigmoid_for_two_named_classes(backbone, in_fresh_process):
    names = np.array(["cat", "dog", "dog"])[CLASSES]
    data = ktr.load_images((IMAGES, names))
    model = ktr.build_classifier(backbone, 1, data=data, activation="sigmoid")
    run = ktr.fine_tune(model, data, strategy=EXACT, **QUIET)
    found = run.evaluate(data.test)
    assert found.class_names == ("dog",)
    for given in (CLASSES > 0, ROWS[:, :1] * [1, -1] + [0, 1]):
        assert run.evaluate((IMAGES, given))["accuracy"] > 0.8
    assert ktr.class_names(model) == ("cat", "dog")
    outputs = model.predict(IMAGES, verbose=0)
    assert (outputs[:, 0] > 0.5).mean() > 0.5  # the output is that of "dog"
    other = in_fresh_process(model, IMAGES, outputs)
    assert tuple(other["class_names"]) == ("cat", "dog")


def test_one_logit_for_two_named_classes(backbone):
    data = ktr.load_images((IMAGES, CLASSES > 0))
    model = ktr.build_classifier(backbone, 1, data=data, activation="linear")
    run = ktr.fine_tune(model, data, strategy=EXACT, **QUIET)
    assert run.evaluate(data.test)["accuracy"] > 0.5


def test_one_output_for_other_classes_is_an_error(backbone):
    three = ktr.load_images((IMAGES, CLASSES))
    two = ktr.load_images((IMAGES, CLASSES > 0))
    for data, activation in ((three, "sigmoid"), (two, "softmax")):
        with pytest.raises(ValueError, match="`num_classes` must be"):
            ktr.build_classifier(backbone, 1, data=data, activation=activation)


def test_sigmoids_over_classes(backbone):
    data = ktr.load_images((IMAGES, CLASSES))
    model = ktr.build_classifier(backbone, data=data, activation="sigmoid")
    run = ktr.fine_tune(model, data, strategy=EXACT, **QUIET)
    assert run.evaluate(data.test).kind == "multi-label"
    assert run.evaluate(data.train)["exact_match"] > 0.7


# --- Weights ---


def losses_under(backbone, data, weight, units=3, activation="sigmoid"):
    keras.utils.set_random_seed(0)
    model = ktr.build_classifier(backbone, units, activation=activation)
    run = ktr.fine_tune(model, data, strategy=ONE, class_weight=weight, **QUIET)
    return run.history["loss"]


@pytest.mark.parametrize("door", ["arrays", "dataset", "cached"])
def test_columns_are_weighed(backbone, door):
    data = (IMAGES, SEVERAL)
    if door == "dataset":
        data = batches(*data)
    store = {} if door != "cached" else {"store": "memory"}
    losses = []
    for weight in (None, {0: 1.0}, {2: 100.0}):
        keras.utils.set_random_seed(0)
        model = ktr.build_classifier(backbone, 3, activation="sigmoid")
        run = ktr.fine_tune(
            model,
            data,
            strategy=ONE,
            class_weight=weight,
            **{**QUIET, **store},
        )
        losses.append(run.history["loss"])
        assert type(model.loss) is keras.losses.BinaryCrossentropy
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-6)
    assert losses[2][0] > 10 * losses[0][0]


@pytest.mark.parametrize("door", ["arrays", "cached", "devices"])
def test_a_validation_loss_is_not_weighed(backbone, door):
    keras.utils.set_random_seed(0)
    model = ktr.build_classifier(backbone, 3, activation="sigmoid")
    options = {"cached": {"store": "memory"}}
    if door == "devices":
        strategy = tf.distribute.MirroredStrategy(["CPU:0"])
        options["devices"] = {"devices": strategy}
    # The epoch of the exact probe, and one of steps.
    phase = ktr.Phase("a", depth=0, epochs=1, exact_probe=True)
    measured = []

    class Measure(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if door == "arrays":
                self.model.evaluate(IMAGES[:7], SEVERAL[:7], verbose=0)
                measured.append(epoch)

    run = ktr.fine_tune(
        model,
        {"train": (IMAGES, SEVERAL), "validation": (OTHERS, SEVERAL)},
        strategy=[phase],
        class_weight={0: 30.0, 2: 0.0},
        callbacks=[Measure()] if door == "arrays" else (),
        **{**QUIET, **options.get(door, {})},
    )
    assert bool(measured) == (door == "arrays")
    found = run.evaluate((OTHERS, SEVERAL))["loss"]
    assert found == pytest.approx(run.history["val_loss"][run.best], rel=1e-3)
    assert len(run.history["val_loss"]) == 2


def test_weights_of_examples_and_classes_are_multiplied(backbone):
    weights = np.random.default_rng(0).uniform(0.5, 2, 30).astype("float32")
    factors = np.array([1.0, 3.0, 0.5], "float32")
    for labels, activation, units in (
        (CLASSES, "softmax", 3),
        (ROWS, "softmax", 3),
        (CLASSES > 0, "sigmoid", 1),
    ):
        labels = np.asarray(labels, "float32")
        both = losses_under(
            backbone,
            batches(IMAGES, labels, weights),
            dict(enumerate(factors[: max(2, units)])),
            units,
            activation,
        )
        classes = CLASSES if units == 3 else (CLASSES > 0).astype(int)
        product = losses_under(
            backbone,
            batches(IMAGES, labels, weights * factors[classes]),
            None,
            units,
            activation,
        )
        np.testing.assert_allclose(both, product, rtol=1e-5)


def test_both_weights_count_in_the_exact_probe(backbone):
    weights = np.random.default_rng(0).uniform(0.5, 2, 30).astype("float32")
    kernels = []
    for own, by_class in (
        (weights, {0: 9.0}),
        (weights * np.where(CLASSES, 1, 9), None),
    ):
        model = ktr.build_classifier(backbone, 3)
        data = batches(IMAGES, CLASSES, own.astype("float32"))
        ktr.fine_tune(
            model,
            data,
            strategy=EXACT,
            class_weight=by_class,
            **QUIET,
        )
        kernels.append(model.get_layer("head").get_weights()[0])
    np.testing.assert_allclose(*kernels, atol=1e-4)


# --- Labels of later batches ---


def wide(value):
    rows = ROWS.copy()
    rows[25:, 0] = value
    return rows


@pytest.mark.parametrize("strategy", ["lp-ft", "fine-tune"])
@pytest.mark.parametrize(
    ("labels", "activation", "told"),
    [
        (wide(1), "softmax", "sum to 1. Received: 1, 1, 0 in row 5 of batch 3"),
        (wide(-1), "sigmoid", "Received: -1, 1, 0 in row 5 of batch 3"),
        (
            np.where(np.arange(30) > 24, 3, CLASSES),
            "softmax",
            "from 0 to 2. Received: 3 in row 5 of batch 3 of train",
        ),
        (
            np.where(np.arange(30) > 24, 0.5, CLASSES).astype("float32"),
            "softmax",
            "from 0 to 2. Received: 0.5 in row 5 of batch 3 of train",
        ),
    ],
)
def test_labels_of_a_later_batch(backbone, strategy, labels, activation, told):
    model = ktr.build_classifier(backbone, 3, activation=activation)
    with pytest.raises(ValueError, match=told):
        ktr.fine_tune(
            model,
            batches(IMAGES, labels),
            strategy=strategy,
            epochs=1,
            **QUIET,
        )


def test_labels_of_the_first_batch_with_a_metric(backbone):
    # Rows of 0 and 1 tell a metric nothing; the third class has no output.
    labels = np.where(np.arange(30) == 3, -1, CLASSES)
    with pytest.raises(ValueError, match="row 3 of batch 1 of train"):
        ktr.fine_tune(
            ktr.build_classifier(backbone, 3),
            batches(IMAGES, labels),
            metrics=["sparse_top_k_categorical_accuracy"],
            **QUIET,
        )


def test_numbers_of_a_later_batch(backbone):
    for late, told in ((np.nan, "finite"), (7.0, "from 0 to 1, like the out")):
        levels = np.where(np.arange(30) > 24, late, LEVELS).astype("float32")
        activation = "sigmoid" if late == 7 else "linear"
        model = ktr.build_regressor(backbone, activation=activation)
        with pytest.raises(ValueError, match=f"{told}.*batch 3 of train"):
            ktr.fine_tune(model, batches(IMAGES, levels), epochs=1, **QUIET)


def test_labels_of_a_later_validation_batch(backbone):
    late = np.where(np.arange(30) > 24, 3, CLASSES)
    data = {
        "train": batches(IMAGES, CLASSES),
        "validation": batches(IMAGES, late),
    }
    with pytest.raises(ValueError, match="row 5 of batch 3 of validation"):
        losses_under(backbone, data, None, activation="softmax")


def test_labels_of_a_later_batch_in_a_sweep(backbone):
    late = np.where(np.arange(30) > 24, 3, CLASSES)
    with pytest.raises(ValueError, match="row 5 of batch 3 of train"):
        ktr.find_learning_rate(
            ktr.build_classifier(backbone, 3), batches(IMAGES, late), steps=12
        )


def test_labels_that_fit_pass_unchanged(backbone):
    """Checked batches are those of the data, weights included."""
    weights = np.linspace(0.5, 2, 30).astype("float32")
    losses = [
        losses_under(backbone, data, None, activation="softmax")
        for data in (
            (IMAGES, CLASSES),
            batches(IMAGES, CLASSES, 0 * weights + 1, size=32),
            batches(IMAGES, CLASSES, weights, size=32),
        )
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    assert losses[0] != pytest.approx(losses[2], rel=1e-3)
