"""What is predicted follows from the builder, the labels and the loss."""

import keras
import numpy as np
import pytest

from keras_transfer.data.adapters.arrays import label_format_of
from keras_transfer.tasks import choose_task

CLASSES = np.arange(6) % 3
ROWS = np.eye(3, dtype="float32")[CLASSES]
SEVERAL = np.array([[1, 1, 0], [0, 0, 0], [0, 1, 1]], "float32")
SOFT = 0.8 * ROWS + 0.2 / 3
SMOOTHED = 0.9 * ROWS + 0.05
SHARES = np.array([0.1, 0.5, 1.0, 0.25], "float32")
ANSWERS = np.array([0, 1, 1, 0])
AGES = np.array([17, 40, 65, 23])
PRICES = np.array([1.5, 2.25, 7.0, 3.5])
MULTI, NUMBER, CLASS = "multi-label", "regression", "classification"


def model(activation, units=1, builder=""):
    """One dense layer, named as the builders name their models."""
    inputs = keras.Input((4,))
    outputs = keras.layers.Dense(units, activation)(inputs)
    name = f"tiny_{builder}" if builder else "own"
    return keras.Model(inputs, outputs, name=name)


def choose(made, labels, **options):
    return choose_task(made, label_format_of(labels), **options)


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (CLASSES, "indices"),
        (CLASSES[:, None].astype("float32"), "indices"),
        (CLASSES > 0, "indices"),
        (ROWS, "one-hot"),
        (SEVERAL, "multi-hot"),
        (SOFT, "soft"),
        (SMOOTHED, "fractions"),
        (SHARES, "fractions"),
        (SHARES[:, None], "fractions"),
        (PRICES, "numbers"),
        (10 * ROWS, "numbers"),
        (np.array([0.5, np.nan]), "numbers"),
        (np.zeros([2, 4, 4, 1]), "numbers"),
    ],
)
def test_formats_of_labels(labels, expected):
    assert label_format_of(labels) == expected


@pytest.mark.parametrize(
    ("activation", "units", "builder", "labels", "loss", "expected"),
    [
        # A regressor predicts numbers, whatever they look like.
        ("sigmoid", 1, "regressor", SHARES, None, NUMBER),
        ("sigmoid", 1, "regressor", ANSWERS, "binary_crossentropy", NUMBER),
        ("sigmoid", 3, "regressor", SMOOTHED, "mae", NUMBER),
        ("linear", 1, "regressor", AGES, "mae", NUMBER),
        ("linear", 3, "regressor", ROWS, None, NUMBER),
        ("softmax", 3, "regressor", SOFT, None, NUMBER),
        # A classifier predicts classes, also where targets are fractions.
        ("sigmoid", 1, "classifier", SHARES, None, MULTI),
        ("sigmoid", 3, "classifier", SMOOTHED, None, MULTI),
        ("sigmoid", 3, "classifier", SOFT, None, MULTI),
        ("sigmoid", 3, "classifier", ROWS, None, MULTI),
        ("softmax", 3, "classifier", SOFT, None, CLASS),
        ("linear", 3, "classifier", SOFT, None, CLASS),
        ("linear", 3, "classifier", SMOOTHED, None, MULTI),
        ("linear", 1, "classifier", ANSWERS, None, MULTI),
        ("linear", 1, "classifier", SHARES, None, MULTI),
        # A model of one's own: the loss decides where labels leave it open.
        ("linear", 1, "", AGES, None, NUMBER),
        ("linear", 1, "", AGES, "mae", NUMBER),
        ("linear", 1, "", AGES, keras.losses.Huber(), NUMBER),
        ("linear", 1, "", AGES, lambda y, p: abs(y - p), NUMBER),
        ("relu", 1, "", AGES, "poisson", NUMBER),
        ("tanh", 1, "", ANSWERS, None, NUMBER),
        ("linear", 2, "", PRICES.reshape(2, 2), None, NUMBER),
        ("linear", 3, "", SEVERAL, "mse", NUMBER),
        ("linear", 3, "", CLASSES, None, CLASS),
        ("linear", 3, "", ROWS, "mse", CLASS),
        ("sigmoid", 1, "", ANSWERS, None, MULTI),
        ("sigmoid", 1, "", SHARES, None, MULTI),
        ("sigmoid", 1, "", SHARES, "mse", NUMBER),
        ("sigmoid", 1, "", SHARES, "binary_crossentropy", MULTI),
        ("sigmoid", 4, "", SHARES.reshape(1, 4) / 2, None, MULTI),
    ],
)
def test_kinds(activation, units, builder, labels, loss, expected):
    task = choose(model(activation, units, builder), labels, loss=loss)
    assert task.name == expected


def test_one_logit_of_the_users_loss():
    loss = keras.losses.BinaryCrossentropy(from_logits=True)
    task = choose(model("linear"), ANSWERS, loss=loss)
    assert (task.name, task.from_logits) == (MULTI, True)
    found = task.evaluate(np.array([[-2.0], [3.0], [1.0], [-1.0]]), ANSWERS)
    assert found["accuracy"] == 1


def test_outputs_of_a_sigmoid_are_no_logits():
    """Keras finds the logits below the sigmoid; its outputs stay."""
    loss = keras.losses.BinaryCrossentropy(from_logits=True)
    task = choose(model("sigmoid", 1, "classifier"), ANSWERS, loss=loss)
    assert not task.from_logits


@pytest.mark.parametrize("labels", [PRICES, SHARES, SMOOTHED])
def test_a_softmax_takes_classes(labels):
    with pytest.raises(ValueError, match="rows of shares that sum to 1"):
        choose(model("softmax", 3, "classifier"), labels)


def test_a_sparse_loss_takes_indices():
    loss = "sparse_categorical_crossentropy"
    for labels, kind in ((ROWS, "one-hot"), (SOFT, "soft")):
        with pytest.raises(ValueError, match=f"labels that are {kind} rows"):
            choose(model("softmax", 3, "classifier"), labels, loss=loss)


# --- The exact head ---


@pytest.fixture(scope="module")
def features():
    return np.random.default_rng(0).normal(size=(400, 3)).astype("float32")


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


SLOPES = np.array([[1.0, -0.5], [0.5, 0.0], [-1.0, 0.3]])
SHIFTS = np.array([0.4, -0.2])


@pytest.mark.parametrize(
    ("activation", "function"),
    [("sigmoid", sigmoid), ("tanh", np.tanh), ("linear", lambda x: x)],
)
@pytest.mark.parametrize("held_out", [False, True])
def test_regression_is_solved_below_the_activation(
    features, activation, function, held_out
):
    targets = function(features @ SLOPES + SHIFTS)
    task = choose(model(activation, 2, "regressor"), targets)
    probe = task.fit_head(
        features,
        targets,
        2,
        validation=(features[:50], targets[:50]) if held_out else None,
    )
    np.testing.assert_allclose(probe.kernel, SLOPES, atol=0.02)
    np.testing.assert_allclose(probe.bias, SHIFTS, atol=0.02)


def test_shares_of_classes_are_solved_as_shares(features):
    scores = features @ np.eye(3) * [1.0, 0.5, 2.0]
    shares = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    for activation in ("softmax", "linear"):
        task = choose(model(activation, 3, "classifier"), shares)
        probe = task.fit_head(features, shares, 3)
        found = features @ probe.kernel + probe.bias
        found = np.exp(found) / np.exp(found).sum(axis=1, keepdims=True)
        np.testing.assert_allclose(found, shares, atol=0.01)


def test_fractions_of_several_labels_are_solved_as_fractions(features):
    shares = sigmoid(features @ SLOPES + SHIFTS)
    task = choose(model("sigmoid", 2, "classifier"), shares)
    probe = task.fit_head(features, shares, 2)
    np.testing.assert_allclose(probe.kernel, SLOPES, atol=0.02)


def test_the_same_share_everywhere_is_the_bias(features):
    shares = np.full([400, 1], 0.9)
    task = choose(model("sigmoid", 1, "classifier"), shares)
    probe = task.fit_head(features, shares, 1)
    np.testing.assert_allclose(probe.kernel, 0, atol=1e-3)
    assert sigmoid(probe.bias[0]) == pytest.approx(0.9, abs=1e-3)


def test_fractions_cannot_be_beyond_0_and_1(features):
    task = choose(model("sigmoid", 1, "classifier"), SHARES)
    targets = np.linspace(0, 1.5, 400)
    with pytest.raises(ValueError, match="from 0 to 1.5"):
        task.fit_head(features, targets, 1)


# --- Metrics and evaluation ---


def test_accuracy_of_fractions():
    task = choose(model("sigmoid", 3, "classifier"), SMOOTHED)
    (metric,) = task.metrics()
    metric.update_state(SMOOTHED, np.where(ROWS > 0, 0.7, 0.2))
    assert float(metric.result()) == 1
    found = task.evaluate(np.where(ROWS > 0, 0.7, 0.2), SMOOTHED)
    assert found["accuracy"] == found["exact_match"] == 1
    likely = 0.95 * np.log(0.7) + 0.05 * np.log(0.3)
    rare = 0.05 * np.log(0.2) + 0.95 * np.log(0.8)
    assert found["loss"] == pytest.approx(-(likely + 2 * rare) / 3)
    assert found.per_class()["0"].support == 2
    assert found.interval("accuracy") == (1.0, 1.0)
    assert found.top_losses(1)[0].true in "012"


@pytest.mark.parametrize("labels", [CLASSES, ROWS])
def test_sigmoids_over_classes_are_evaluated_by_class(labels):
    task = choose(model("sigmoid", 3, "classifier"), ROWS)
    found = task.evaluate(0.8 * ROWS + 0.1, labels)
    assert found["exact_match"] == 1


def test_soft_rows_are_evaluated_by_their_largest_class():
    task = choose(model("softmax", 3, "classifier"), SOFT)
    assert task.evaluate(SOFT, SOFT)["accuracy"] == 1


# --- Class weights ---


def test_columns_of_several_labels_are_weighed():
    task = choose(
        model("sigmoid", 3, "classifier"), SEVERAL, label_smoothing=0.1
    )
    outputs = np.random.default_rng(0).uniform(0.1, 0.9, (3, 3))
    weights = [1.0, 0.0, 5.0]
    smoothed = SEVERAL * 0.9 + 0.05
    terms = -smoothed * np.log(outputs) - (1 - smoothed) * np.log(1 - outputs)
    loss, of_examples = task.weigh_classes(weights, 3)
    assert of_examples is None
    assert float(loss(SEVERAL, outputs)) == pytest.approx(
        (terms * weights).mean(), rel=1e-5
    )
    plain, _ = task.weigh_classes([1.0, 1.0, 1.0], 3)
    assert float(plain(SEVERAL, outputs)) == pytest.approx(
        float(task.loss(SEVERAL, outputs)), rel=1e-6
    )
    again = type(loss).from_config(loss.get_config())
    assert float(again(SEVERAL, outputs)) == float(loss(SEVERAL, outputs))


def test_weights_of_examples_by_class():
    for activation, labels, expected in (
        ("softmax", CLASSES, [1, 2, 6, 1, 2, 6]),
        ("softmax", CLASSES[:, None], [1, 2, 6, 1, 2, 6]),
        ("softmax", ROWS, [1, 2, 6, 1, 2, 6]),
        ("softmax", np.array([[0.5, 0.5, 0.0]]), [1.5]),
        ("sigmoid", np.array([0.0, 1.0, 0.25]), [1, 2, 1.25]),
    ):
        units = 3 if activation == "softmax" else 1
        task = choose(model(activation, units, "classifier"), labels)
        weights = [1.0, 2.0, 6.0][: max(2, units)]
        found = task.weigh_classes(weights, units).of_examples(labels)
        np.testing.assert_allclose(found, expected)


def test_classes_that_cannot_be_weighed():
    regression = choose(model("linear", 1, "regressor"), AGES)
    with pytest.raises(ValueError, match="regression, which has no classes"):
        regression.weigh_classes([1.0, 2.0], 1)
    focal = choose(
        model("sigmoid", 3, "classifier"),
        SEVERAL,
        loss="binary_focal_crossentropy",
    )
    with pytest.raises(ValueError, match="weigh the labels in your loss"):
        focal.weigh_classes([1.0, 2.0, 3.0], 3)
