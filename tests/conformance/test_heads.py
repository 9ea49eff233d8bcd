"""Every head is what its formula says: shapes, values, files, training."""

import itertools

import keras
import numpy as np
import pytest

from keras_transfer.heads.head_building import POOLINGS, build_head

HEIGHT, WIDTH, CHANNELS, OUTPUTS = 3, 2, 4, 5


def avg(x):
    return x.mean(axis=(1, 2))


def peak(x):
    return x.max(axis=(1, 2))


def gem(x):
    return (np.maximum(x, 1e-6) ** 3).mean(axis=(1, 2)) ** (1 / 3)


# How a feature map becomes a vector, in NumPy.
POOLING = {
    "avg": avg,
    "max": peak,
    "avgmax": lambda x: np.concatenate([avg(x), peak(x)], axis=-1),
    "gem": gem,
    "flatten": lambda x: x.reshape(len(x), -1),
}

ACTIVATION = {
    "softmax": lambda x: np.exp(x) / np.exp(x).sum(axis=-1, keepdims=True),
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "linear": lambda x: x,
}

# The layers between pooling and output.
HIDDEN = {
    "plain": {},
    "dropout": {"dropout": 0.5},
    "hidden": {"hidden_units": (6,)},
    "tanh": {"hidden_units": (6,), "hidden_activation": "tanh"},
    "everything": {"hidden_units": (6, 3), "batch_norm": True, "dropout": 0.5},
}

TABLE = list(itertools.product(POOLING, ACTIVATION, HIDDEN))


@pytest.fixture(params=TABLE, ids="-".join)
def head(request):
    """A head with random weights, and its formula."""
    pooling, activation, hidden = request.param
    options = HIDDEN[hidden]
    model = build_head(
        (HEIGHT, WIDTH, CHANNELS),
        OUTPUTS,
        pooling=pooling,
        activation=activation,
        **options,
    )
    rng = np.random.default_rng(0)
    for weight in model.weights:  # positive, as variances have to be
        weight.assign(rng.uniform(0.1, 1.0, weight.shape))
    return model, lambda x: formula(model, x, pooling, activation, options)


def formula(model, x, pooling, activation, options):
    """The head in float64, from the names and weights of its layers."""
    x = POOLING[pooling](x.astype("float64"))
    for number, units in enumerate(options.get("hidden_units", ()), start=1):
        kernel, *bias = arrays(model, f"hidden_{number}")
        assert kernel.shape[-1] == units
        x = x @ kernel + (bias[0] if bias else 0)
        if options.get("batch_norm"):
            name = f"batch_norm_{number}"
            gamma, beta, mean, variance = arrays(model, name)
            epsilon = model.get_layer(name).epsilon
            x = gamma * (x - mean) / np.sqrt(variance + epsilon) + beta
        else:
            assert bias
        tanh = options.get("hidden_activation") == "tanh"
        x = np.tanh(x) if tanh else np.maximum(x, 0)
    kernel, bias = arrays(model, "predictions")
    return ACTIVATION[activation](x @ kernel + bias)


def arrays(model, name):
    return [np.array(w, "float64") for w in model.get_layer(name).weights]


def feature_maps(number=2):
    rng = np.random.default_rng(1)
    shape = (number, HEIGHT, WIDTH, CHANNELS)
    return rng.normal(size=shape).astype("float32")


def test_table_is_complete():
    assert (*POOLING, "token") == POOLINGS


@pytest.mark.parametrize("pooling", POOLINGS)
def test_sequences(pooling):
    """Those of transformers; a map of one column says the rest."""
    x = feature_maps()[:, :, 0]
    model = build_head(x.shape[1:], OUTPUTS, pooling=pooling)
    if pooling == "token":
        vectors = x[:, 0].astype("float64")
    else:
        vectors = POOLING[pooling](x[:, :, None].astype("float64"))
    kernel, bias = arrays(model, "predictions")
    expected = ACTIVATION["softmax"](vectors @ kernel + bias)
    np.testing.assert_allclose(model(x), expected, rtol=1e-5)


def test_outputs_are_the_formula(head):
    model, expected = head
    features = feature_maps()

    outputs = model(features)

    assert model.name == "head"
    assert model.output_shape == (None, OUTPUTS)
    assert outputs.dtype == "float32"
    np.testing.assert_allclose(outputs, expected(features), rtol=1e-5)


def test_saved_head_is_the_same(head, tmp_path):
    model, _ = head
    file = tmp_path / "head.keras"
    model.save(file)

    loaded = keras.models.load_model(file)

    assert loaded.to_json() == model.to_json()
    features = feature_maps()
    np.testing.assert_allclose(loaded(features), model(features), rtol=1e-6)


@pytest.mark.parametrize("pooling", POOLING)
def test_graph_does_what_the_layers_do_one_by_one(pooling):
    model = build_head(
        (HEIGHT, WIDTH, CHANNELS),
        OUTPUTS,
        pooling=pooling,
        **HIDDEN["everything"],
    )
    features = feature_maps()
    np.testing.assert_allclose(
        model.predict(features, verbose=0), model(features), rtol=1e-5
    )


@pytest.mark.parametrize("pooling", POOLING)
def test_number_of_weights(pooling):
    width = POOLING[pooling](feature_maps()).shape[-1]
    shape = (HEIGHT, WIDTH, CHANNELS)
    plain = build_head(shape, OUTPUTS, pooling=pooling)
    assert plain.count_params() == width * OUTPUTS + OUTPUTS
    deep = build_head(
        shape, OUTPUTS, pooling=pooling, hidden_units=(6,), batch_norm=True
    )
    # The offset of the normalisation stands for the bias.
    assert deep.count_params() == width * 6 + 4 * 6 + 6 * OUTPUTS + OUTPUTS


@pytest.mark.parametrize("depth", [0, 1, 2])
@pytest.mark.parametrize("pooling", POOLING)
def test_dropout_acts_in_training_only_below_each_dense_layer(pooling, depth):
    features = np.abs(feature_maps(8)) + 0.1
    pooled = POOLING[pooling](features)
    width = pooled.shape[-1]
    model = build_head(
        features.shape[1:],
        width,
        pooling=pooling,
        hidden_units=(width,) * depth,
        hidden_activation="linear",
        dropout=0.5,
        activation="linear",
    )
    model.set_weights([np.eye(width), np.zeros(width)] * (depth + 1))

    np.testing.assert_allclose(model(features), pooled, rtol=1e-5)
    ratio = np.array(model(features, training=True)) / pooled
    # Each time half is dropped, and the other half doubled.
    kept = ratio > 0
    scale = 2.0 ** (depth + 1)
    np.testing.assert_allclose(ratio, scale * kept, rtol=1e-4)
    assert 0.4 / scale < kept.mean() < 1.6 / scale
    again = np.array(model(features, training=True)) / pooled
    assert not np.array_equal(ratio, again)


@pytest.mark.parametrize("activation", ACTIVATION)
def test_features_that_are_vectors_need_no_pooling(activation):
    model = build_head((CHANNELS,), OUTPUTS, activation=activation)
    vectors = feature_maps()[:, 0, 0]
    kernel, bias = arrays(model, "predictions")
    expected = ACTIVATION[activation](vectors @ kernel + bias)
    np.testing.assert_allclose(model(vectors), expected, rtol=1e-5)


@pytest.mark.parametrize("pooling", ["avg", "max", "avgmax", "gem"])
def test_pooling_takes_any_image_size(pooling):
    model = build_head((None, None, CHANNELS), OUTPUTS, pooling=pooling)
    for size in (1, 3):
        features = np.ones((2, size, size + 1, CHANNELS), "float32")
        assert model(features).shape == (2, OUTPUTS)


@pytest.mark.parametrize("pooling", POOLING)
@pytest.mark.parametrize("policy", ["float32", "mixed_float16"])
@pytest.mark.parametrize("scale", [0.0, 0.01, 1.0, 100.0])
def test_gradients_and_outputs_are_finite(pooling, policy, scale):
    """Also where 16 bits are few: 100 ** 3 is none of them, nor is 0.001 ** 3.

    Features of ResNet50 reach 40.
    """
    tf = pytest.importorskip("tensorflow")
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        model = build_head(
            (HEIGHT, WIDTH, CHANNELS),
            OUTPUTS,
            pooling=pooling,
            activation="linear",
        )
    finally:
        keras.config.set_dtype_policy(before)
    features = scale * np.abs(feature_maps())
    precise = POOLING[pooling](features) @ arrays(model, "predictions")[0]
    x = tf.constant(features)
    with tf.GradientTape() as tape:
        tape.watch(x)
        outputs = model(x)
    gradient = tape.gradient(outputs, x)

    assert outputs.dtype == "float32"
    assert np.isfinite(outputs).all()
    assert np.isfinite(gradient).all()
    # Half precision has 11 bits.
    tolerance = {"float32": 1e-5, "mixed_float16": 5e-3}[policy]
    atol = tolerance * np.abs(precise).max() + 1e-7
    if scale or pooling != "gem":
        np.testing.assert_allclose(outputs, precise, rtol=0, atol=atol)
