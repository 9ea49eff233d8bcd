"""A layer over a SavedModel: what it computes, trains, freezes and saves."""

import contextlib
import shutil
import tarfile

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_transfer.backbones.tfhub.layer import SavedModelLayer


class Line(tf.Module):
    """`y = w x + 1`, with a loss of its own where it is asked for."""

    def __init__(self, weight=2.0, strength=0.0):
        self.w = tf.Variable([[weight]], name="w")
        self.b = tf.Variable([1.0], name="b", trainable=False)
        self.all = [self.w, self.b]
        if strength:

            @tf.function(input_signature=[])
            def loss():
                return strength * tf.reduce_sum(self.w**2)

            self.regularization_losses = [loss]

    @tf.function(input_signature=[tf.TensorSpec((None, 1))])
    def __call__(self, x):
        return x @ self.w + self.b


class Norm(tf.Module):
    """BatchNormalization with a momentum of 0.9, by hand."""

    def __init__(self):
        self.gamma = tf.Variable([1.0], name="gamma")
        self.beta = tf.Variable([0.0], name="beta")
        self.mean = tf.Variable([0.0], name="mean", trainable=False)
        self.variance = tf.Variable([1.0], name="variance", trainable=False)

    @tf.function
    def __call__(self, x, training=False):
        mean, variance = self.mean, self.variance
        if training:
            mean, variance = tf.nn.moments(x, [0])
            self.mean.assign(0.9 * self.mean + 0.1 * mean)
            self.variance.assign(0.9 * self.variance + 0.1 * variance)
        x = (x - mean) / tf.sqrt(variance + 1e-3)
        return self.gamma * x + self.beta


class Words(tf.Module):
    """The lengths of strings."""

    @tf.function(input_signature=[tf.TensorSpec((None,), tf.string)])
    def __call__(self, x):
        return tf.cast(tf.strings.length(x), tf.float32)[:, None]


class Lengths(tf.Module):
    """The lengths of rows that differ in it."""

    @tf.function(input_signature=[tf.RaggedTensorSpec((None, None))])
    def __call__(self, x):
        return tf.cast(x.row_lengths(), tf.float32)


class Several(tf.Module):
    """Two outputs with names."""

    @tf.function(input_signature=[tf.TensorSpec((None, 2))])
    def __call__(self, x):
        return {"double": 2 * x, "sum": tf.reduce_sum(x, 1, keepdims=True)}


def write(folder, module, **options):
    tf.saved_model.save(module, str(folder), **options)
    return folder


def write_norm(folder):
    module = Norm()
    spec = tf.TensorSpec((None, 1))
    for training in (False, True):
        module.__call__.get_concrete_function(spec, training=training)
    return write(folder, module)


def model_of(layer, shape=(1,), **options):
    inputs = keras.Input(shape, **options)
    return keras.Model(inputs, layer(inputs))


X = np.array([[1.0], [2.0], [3.0]], np.float32)


def test_computes_what_it_says(tmp_path):
    model = model_of(SavedModelLayer(write(tmp_path / "line", Line())))
    np.testing.assert_array_equal(model.predict(X, verbose=0), 2 * X + 1)
    assert model.output_shape == (None, 1)
    assert not model.trainable_variables
    assert [w.name for w in model.weights] == ["w", "b"]


def test_trains_what_is_trainable_and_nothing_else(tmp_path):
    layer = SavedModelLayer(write(tmp_path / "line", Line()), trainable=True)
    model = model_of(layer)
    model.compile(keras.optimizers.SGD(0.01), "mse")
    model.fit(X, 5 * X + 1, batch_size=3, epochs=1, verbose=0, shuffle=False)
    # d/dw mean((w - 5)^2 x^2) = 2 (w - 5) mean(x^2)
    expected = 2 - 0.01 * 2 * (2 - 5) * np.mean(X**2)
    np.testing.assert_allclose(layer.weights[0], [[expected]], rtol=1e-6)
    np.testing.assert_array_equal(layer.weights[1], [1.0])


def test_frozen_does_not_train(tmp_path):
    layer = SavedModelLayer(write_norm(tmp_path / "norm"))
    inputs = keras.Input((1,))
    outputs = keras.layers.Dense(1)(layer(inputs))
    model = keras.Model(inputs, outputs)
    model.compile("sgd", "mse")
    before = [np.array(w) for w in layer.weights]
    model.fit(X, X, epochs=3, verbose=0)
    assert len(before) == 4
    for weight, old in zip(layer.weights, before, strict=True):
        np.testing.assert_array_equal(weight, old)


def test_in_training_statistics_move(tmp_path):
    folder = write_norm(tmp_path / "norm")
    layer = SavedModelLayer(folder, trainable=True, training_mode=True)
    model = model_of(layer)
    model.compile(keras.optimizers.SGD(0.0), "mse")
    model.fit(X, X, batch_size=3, verbose=0)
    by_name = {w.name: np.array(w) for w in layer.weights}
    np.testing.assert_allclose(by_name["mean"], [0.1 * 2], rtol=1e-6)
    np.testing.assert_allclose(
        by_name["variance"], [0.9 + 0.1 * np.var(X)], rtol=1e-6
    )
    # In inference these count, and stay.
    expected = (X - 0.2) / np.sqrt(by_name["variance"] + 1e-3)
    np.testing.assert_allclose(model.predict(X, verbose=0), expected, rtol=1e-5)


def test_statistics_stay_unless_asked_for(tmp_path):
    layer = SavedModelLayer(write_norm(tmp_path / "norm"), trainable=True)
    model = model_of(layer)
    model.compile("sgd", "mse")
    model.fit(X, 5 * X, verbose=0)
    by_name = {w.name: np.array(w) for w in layer.weights}
    assert by_name["gamma"] != 1.0
    assert by_name["mean"] == 0.0
    assert by_name["variance"] == 1.0


def test_losses_count_where_it_trains(tmp_path):
    layer = SavedModelLayer(write(tmp_path / "line", Line(3.0, 0.5)))
    model = model_of(layer)
    for trainable in (False, True, False, True):
        layer.trainable = trainable
        model.compile(keras.optimizers.SGD(0.0), "mse")
        loss = model.evaluate(X, 3 * X + 1, verbose=0)
        expected = 0.5 * 3.0**2 if trainable else 0.0
        assert loss == pytest.approx(expected, abs=1e-6)


def test_a_saved_file_needs_no_folder(tmp_path):
    folder = write(tmp_path / "line", Line())
    layer = SavedModelLayer(folder, trainable=True)
    model = model_of(layer)
    model.compile(keras.optimizers.SGD(0.01), "mse")
    model.fit(X, 5 * X + 1, epochs=2, verbose=0)
    expected = model.predict(X, verbose=0)
    model.save(tmp_path / "model.keras")
    shutil.rmtree(folder)
    again = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(again.predict(X, verbose=0), expected)
    # It trains on, and a copy of it saves and loads as well.
    again.fit(X, 5 * X + 1, verbose=0)
    copy = keras.models.clone_model(again)
    copy.set_weights(again.get_weights())
    expected = again.predict(X, verbose=0)
    del again
    copy.save(tmp_path / "copy.keras")
    last = keras.models.load_model(tmp_path / "copy.keras")
    np.testing.assert_array_equal(last.predict(X, verbose=0), expected)


def test_another_savedmodel_in_the_same_place_is_not_taken(tmp_path):
    folder = write(tmp_path / "line", Line())
    model = model_of(SavedModelLayer(folder))
    expected = model.predict(X, verbose=0)
    model.save(tmp_path / "model.keras")
    shutil.rmtree(folder)
    write(folder, Words())
    again = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(again.predict(X, verbose=0), expected)


def test_signatures_strings_and_names(tmp_path):
    line = Line()
    write(tmp_path / "line", line, signatures={"run": line.__call__})
    layer = SavedModelLayer(tmp_path / "line", signature="run")
    np.testing.assert_array_equal(model_of(layer)(X), 2 * X + 1)
    assert len(layer.weights) == 2

    layer = SavedModelLayer(write(tmp_path / "words", Words()))
    model = model_of(layer, (), dtype="string")
    words = tf.constant(["a", "word"])
    np.testing.assert_array_equal(model(words), [[1.0], [4.0]])

    folder = write(tmp_path / "several", Several())
    layer = SavedModelLayer(folder, output="sum")
    np.testing.assert_array_equal(
        model_of(layer, (2,))(np.ones((3, 2), np.float32)), 2 * np.ones((3, 1))
    )
    with pytest.raises(ValueError, match="one of 'double', 'sum'"):
        SavedModelLayer(folder)
    with pytest.raises(ValueError, match="Received: output='max'"):
        SavedModelLayer(folder, output="max")


def test_mixed_precision(tmp_path):
    layer = SavedModelLayer(
        write(tmp_path / "line", Line()), dtype="mixed_float16"
    )
    found = model_of(layer)(X.astype(np.float16))
    assert found.dtype == tf.float16
    np.testing.assert_array_equal(found, 2 * X + 1)


def test_in_a_dataset(tmp_path):
    layer = SavedModelLayer(write(tmp_path / "line", Line()))
    data = tf.data.Dataset.from_tensor_slices(X).batch(2).map(layer)
    found = np.concatenate(list(data.as_numpy_iterator()))
    np.testing.assert_array_equal(found, 2 * X + 1)


def test_an_archive(tmp_path):
    folder = write(tmp_path / "line", Line())
    with tarfile.open(tmp_path / "line.tar.gz", "w:gz") as file:
        file.add(folder, arcname=".")
    layer = SavedModelLayer(tmp_path / "line.tar.gz")
    np.testing.assert_array_equal(model_of(layer)(X), 2 * X + 1)


def test_refuses_what_cannot_run(tmp_path, assets):
    with pytest.raises(ValueError, match="format for TensorFlow 1"):
        SavedModelLayer(assets / "savedmodels/tfhub_zh_segmentation")
    with pytest.raises(ValueError, match="a folder with 'saved_model.pb'"):
        SavedModelLayer(tmp_path)
    (tmp_path / "broken.tar.gz").write_bytes(b"no archive")
    with pytest.raises(ValueError, match="an archive"):
        SavedModelLayer(tmp_path / "broken.tar.gz")
    folder = write(tmp_path / "line", Line())
    with pytest.raises(ValueError, match="or None for `__call__`"):
        SavedModelLayer(folder, signature="predict")
    with pytest.raises(ValueError, match="takes RaggedTensorSpec"):
        SavedModelLayer(write(tmp_path / "lengths", Lengths()))
    graph = folder / "saved_model.pb"
    graph.write_bytes(graph.read_bytes().replace(b"MatMul", b"MyMul!"))
    with pytest.raises(ValueError, match=r"has\. Received: .*MyMul!"):
        SavedModelLayer(folder)


def test_a_config_alone_says_what_is_missing(tmp_path):
    folder = write(tmp_path / "line", Line())
    config = SavedModelLayer(folder).get_config()
    shutil.rmtree(folder)
    layer = SavedModelLayer.from_config(config)
    assert [w.shape for w in layer.weights] == [(1, 1), (1,)]
    assert model_of(layer).output_shape == (None, 1)
    with pytest.raises(ValueError, match="load_model"):
        layer(X)
    with pytest.raises(ValueError, match="config alone"):
        model_of(layer).save(tmp_path / "model.keras")


def test_two_replicas_are_one(tmp_path):
    folder = write_norm(tmp_path / "norm")
    devices = tf.config.list_logical_devices("CPU")
    names = [device.name for device in devices]
    found = []
    for strategy in (None, tf.distribute.MirroredStrategy(names)):
        scope = strategy.scope() if strategy else contextlib.nullcontext()
        with scope:
            layer = SavedModelLayer(folder)
            inputs = keras.Input((1,))
            dense = keras.layers.Dense(1, kernel_initializer="ones")
            model = keras.Model(inputs, dense(layer(inputs)))
            model.compile(keras.optimizers.SGD(0.1), "mse")
        data = tf.data.Dataset.from_tensor_slices((X, 3 * X)).batch(3)
        model.fit(data, epochs=2, verbose=0, shuffle=False)
        found.append([np.array(w) for w in model.weights])
    for one, two in zip(*found, strict=True):
        np.testing.assert_allclose(one, two, atol=1e-6)


# --- What its calls take ---


def write_call(folder, call, *specs, **named):
    """Writes a SavedModel with one function, traced for each of `specs`."""
    module = tf.Module()
    module.weight = tf.Variable([[1.0, 2.0]])
    module.call = call
    module.__call__ = tf.function(lambda *a, **n: call(module.weight, *a, **n))
    if named:
        module.__call__ = tf.function(
            lambda x, flip=False, training=False: call(
                module.weight, x, flip, training
            )
        )
    for spec in specs:
        for flip in named.get("flip", [None]):
            for training in named.get("training", [None]):
                options = {"flip": flip, "training": training} if named else {}
                module.__call__.get_concrete_function(spec, **options)
    return write(folder, module)


def times(weight, x, flip=False, training=False):
    return (-x if flip else x) @ weight * (10.0 if training else 1.0)


@pytest.mark.parametrize("shape", [(1, 1), None, (4, 1)])
def test_a_batch_of_one_size_is_refused(tmp_path, shape):
    """Keras would divide the loss by the size that the graph states."""
    folder = write_call(tmp_path / "one", times, tf.TensorSpec(shape))
    with pytest.raises(ValueError, match="batches of any size"):
        SavedModelLayer(folder)


def test_a_signature_with_a_batch_of_one_size_is_refused(tmp_path):
    module = tf.Module()
    serve = tf.function(lambda x: 2 * x, [tf.TensorSpec((1, 1))])
    folder = write(tmp_path / "one", module, signatures={"serve": serve})
    with pytest.raises(ValueError, match="batches of any size"):
        SavedModelLayer(folder, signature="serve")


def test_traces_for_one_batch_and_any(tmp_path):
    """TensorFlow takes the first that fits, and a batch of any size fits."""
    one, some = tf.TensorSpec((1, 1)), tf.TensorSpec((None, 1))
    layer = SavedModelLayer(write_call(tmp_path / "some", times, some, one))
    assert layer.takes.shape.as_list() == [None, 1]
    np.testing.assert_allclose(model_of(layer)(X), X @ [[1.0, 2.0]], rtol=1e-6)
    with pytest.raises(ValueError, match="a row for each row"):
        SavedModelLayer(write_call(tmp_path / "one", times, one, some))


@pytest.mark.parametrize(
    "call",
    [
        lambda weight, x: tf.reduce_sum(x @ weight),
        lambda weight, x: tf.reduce_sum(x @ weight, 0, keepdims=True),
    ],
)
def test_an_output_without_rows_is_refused(tmp_path, call):
    folder = write_call(tmp_path / "rows", call, tf.TensorSpec((None, 1)))
    with pytest.raises(ValueError, match="a row for each row"):
        SavedModelLayer(folder)


def test_two_inputs_are_refused(tmp_path):
    module = tf.Module()
    module.__call__ = tf.function(
        lambda x, y: x + y, [tf.TensorSpec((None, 1))] * 2
    )
    folder = write(tmp_path / "two", module)
    with pytest.raises(ValueError, match="takes one tensor"):
        SavedModelLayer(folder)


@pytest.mark.parametrize("flips", [[False], [False, True]])
def test_a_flag_that_is_not_training_keeps_its_default(tmp_path, flips):
    folder = write_call(
        tmp_path / "flag",
        times,
        tf.TensorSpec((None, 1)),
        flip=flips,
        training=[False, True],
    )
    layer = SavedModelLayer(folder, trainable=True, training_mode=True)
    model = model_of(layer)
    np.testing.assert_allclose(
        model(X, training=True), 10 * X @ [[1.0, 2.0]], rtol=1e-6
    )
    np.testing.assert_allclose(model(X), X @ [[1.0, 2.0]], rtol=1e-6)


def test_a_flag_by_another_name_is_not_training(tmp_path):
    module = tf.Module()
    module.__call__ = tf.function(lambda x, flip=False: -x if flip else x)
    for flip in (False, True):
        module.__call__.get_concrete_function(tf.TensorSpec((None, 1)), flip)
    folder = write(tmp_path / "flag", module)
    np.testing.assert_array_equal(model_of(SavedModelLayer(folder))(X), X)
    with pytest.raises(ValueError, match="`training_mode` must be False"):
        SavedModelLayer(folder, training_mode=True)


def test_a_model_in_training_mode_alone_is_refused(tmp_path):
    folder = write_call(
        tmp_path / "mode",
        times,
        tf.TensorSpec((None, 1)),
        flip=[False],
        training=[True],
    )
    with pytest.raises(ValueError, match="with an inference mode"):
        SavedModelLayer(folder)
