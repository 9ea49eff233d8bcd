"""TF-Hub models as backbones."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_transfer as ktr


class Images(tf.Module):
    """Mean of a convolution over an image: eight features."""

    def __init__(self):
        generator = tf.random.Generator.from_seed(0)
        self.kernel = tf.Variable(generator.normal((3, 3, 3, 8)), name="kernel")
        self.mean = tf.Variable(tf.zeros(8), name="mean", trainable=False)

    @tf.function
    def __call__(self, x, training=False):
        x = tf.nn.relu(tf.nn.conv2d(x, self.kernel, 1, "SAME"))
        x = tf.reduce_mean(x, [1, 2])
        if training:
            mean = tf.reduce_mean(x, 0)
            self.mean.assign(0.9 * self.mean + 0.1 * mean)
        return x - self.mean


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    module = Images()
    spec = tf.TensorSpec((None, None, None, 3))
    for training in (False, True):
        module.__call__.get_concrete_function(spec, training=training)
    path = tmp_path_factory.mktemp("hub") / "tiny-images" / "2"
    tf.saved_model.save(module, str(path))
    return path


@pytest.fixture(scope="module")
def data():
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (60, 8, 8, 3), "uint8")
    images[::3, :, :, 0] = 0
    return ktr.load_images(
        (images, np.arange(60) % 3), split=(0.6, 0.2, 0.2), seed=0
    )


def load(folder, **options):
    options.setdefault("input_shape", (8, 8, 3))
    return ktr.load_backbone(f"hub:{folder}", **options)


def test_is_a_backbone_like_any_other(folder, data):
    backbone = load(folder)
    assert backbone.name == "tiny_images"
    assert backbone.num_features == 8
    model = ktr.build_classifier(backbone, data=data)
    (block,) = ktr.blocks(model)
    assert block.name == "tiny_images"
    images, _ = data.test.arrays()
    below, above = ktr.split(model, 0)
    np.testing.assert_allclose(
        above.predict(below.predict(images, verbose=0), verbose=0),
        model.predict(images, verbose=0),
        atol=1e-6,
    )


def test_pixels_come_as_declared(folder, data):
    images, _ = data.test.arrays()
    layer = load(folder).model.layers[-1]
    for pixel_range, scaled in (
        ("[0, 1]", images / 255),
        ("[-1, 1]", images / 127.5 - 1),
        ("[0, 255]", images),
    ):
        backbone = load(folder, pixel_range=pixel_range)
        np.testing.assert_allclose(
            backbone.model(backbone.preprocessing(images)),
            layer(np.asarray(scaled, np.float32)),
            rtol=1e-5,
            atol=1e-5,
        )


def test_models_share_no_weights(folder, data):
    backbone = load(folder)
    before = backbone.model.get_weights()
    model = ktr.build_classifier(backbone, data=data)
    ktr.fine_tune(
        model,
        data,
        strategy=[ktr.Phase("all", depth=1, epochs=1, learning_rate=0.1)],
        verbose=0,
    )
    after = model.get_layer("backbone").get_weights()
    assert not np.array_equal(after[0], before[0])
    for one, other in zip(backbone.model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(one, other)


def test_depth_decides_what_trains(folder, data):
    model = ktr.build_classifier(load(folder), data=data)
    backbone = model.get_layer("backbone")
    before = backbone.get_weights()
    run = ktr.fine_tune(
        model, data, strategy="linear-probe", epochs=2, verbose=0
    )
    assert run.plan.phases[0].cut is not None  # It passed once.
    for one, other in zip(backbone.get_weights(), before, strict=True):
        np.testing.assert_array_equal(one, other)
    ktr.fine_tune(
        model, data, strategy="fine-tune", depth=1, epochs=1, verbose=0
    )
    kernel, mean = backbone.get_weights()
    assert not np.array_equal(kernel, before[0])
    np.testing.assert_array_equal(mean, before[1])


def test_kept_equals_direct(folder, data):
    found = []
    for store in ("memory", False):
        keras.utils.set_random_seed(0)
        model = ktr.build_classifier(load(folder), data=data)
        ktr.fine_tune(
            model, data, strategy="linear-probe", store=store, verbose=0
        )
        found.append(model.get_weights())
    for one, other in zip(*found, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


def test_features_are_found_by_what_they_were_made_of(folder, data):
    store = ktr.FeatureStore()
    first = ktr.extract_features(load(folder), data, store=store, verbose=0)
    again = ktr.extract_features(load(folder), data, store=store, verbose=0)
    assert first.computed == 60
    assert again.computed == 0
    backbone = load(folder)
    weights = backbone.model.get_weights()
    backbone.model.set_weights([1.5 * w for w in weights])
    other = ktr.extract_features(backbone, data, store=store, verbose=0)
    assert other.computed == 60


def test_a_saved_classifier_names_its_classes(folder, data, tmp_path):
    model = ktr.build_classifier(load(folder), class_names=["a", "b", "c"])
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    assert ktr.class_names(again) == ("a", "b", "c")
    images, _ = data.test.arrays()
    np.testing.assert_array_equal(
        again.predict(images, verbose=0), model.predict(images, verbose=0)
    )


def test_bad_arguments(folder, assets):
    with pytest.raises(ValueError, match="which does not exist"):
        load("nowhere")
    with pytest.raises(ValueError, match="part of it"):
        load(folder, weights=None)
    with pytest.raises(TypeError, match="Received: alpha"):
        load(folder, alpha=0.35)
    with pytest.raises(ValueError, match="`pixel_range` must be"):
        load(folder, pixel_range="[0, 2]")
    with pytest.raises(ValueError, match="`input_shape` must fit"):
        load(folder, input_shape=(8, 8, 1))
    music = assets / "savedmodels/basic_pitch_nmp"
    with pytest.raises(ValueError, match="'contour', 'note', 'onset'"):
        load(music, signature="serving_default")
    with pytest.raises(ValueError, match="must take images"):
        load(music, signature="serving_default", output="note")
    with pytest.raises(ValueError, match="for TensorFlow 1"):
        load(assets / "savedmodels/tfhub_zh_segmentation")


def test_without_a_network(monkeypatch):
    def resolve(handle):
        raise OSError("no route to host")

    monkeypatch.setattr("tensorflow_hub.resolve", resolve)
    with pytest.raises(ConnectionError, match="TFHUB_CACHE_DIR"):
        load("https://tfhub.dev/google/imagenet/mobilenet_v2/1")


@pytest.mark.pretrained
def test_a_real_one_is_the_network_of_keras(assets):
    backbone = load(
        assets / "savedmodels/mobilenet_v2_035_fv_reusable",
        pixel_range="[-1, 1]",
        input_shape=(96, 96, 3),
    )
    known = ktr.load_backbone(
        "MobileNetV2",
        alpha=0.35,
        weights=assets / "weights/mobilenet_v2_0.35_224_no_top.weights.h5",
        input_shape=(96, 96, 3),
    )
    images = np.random.default_rng(0).uniform(0, 255, (4, 96, 96, 3))
    images = images.astype("float32")
    expected = keras.ops.mean(
        known.model(known.preprocessing(images)), axis=(1, 2)
    )
    found = backbone.model(backbone.preprocessing(images))
    np.testing.assert_allclose(found, expected, atol=1e-4)
    layer = backbone.model.layers[-1]
    assert len(layer.weights) == len({v.path for v in layer.weights}) == 260
    layer.trainable = True
    assert len(layer.trainable_weights) == 156


# --- SavedModels that converters write ---


def write_call(folder, call, shape):
    module = tf.train.Checkpoint()
    module.__call__ = tf.function(
        call, input_signature=[tf.TensorSpec(shape)], autograph=False
    )
    tf.saved_model.save(module, str(folder))
    return "hub:" + str(folder)


def _means(x):
    return tf.reduce_mean(x, (1, 2))


def _transposed(x):
    return tf.transpose(tf.concat([x] * 4, -1), (0, 3, 1, 2))


@pytest.mark.parametrize(
    ("call", "shape", "match"),
    [
        (_means, (1, 8, 8, 3), "batches of any size"),
        (_means, None, "batches of any size"),
        (_means, (None, 3, 8, 8), "channels last: "),
        (_means, (None, 1, None, None), "channels last: "),
        (_transposed, (None, 8, 8, 3), "feature maps with the channels last"),
        (lambda x: tf.reduce_sum(x, (1, 2, 3)), (None, 8, 8, 3), "features of"),
        (
            lambda x: tf.py_function(lambda y: y, [x], tf.float32),
            (None, 8, 8, 3),
            "a row for each row",
        ),
    ],
)
def test_shapes_that_would_be_misread_are_refused(tmp_path, call, shape, match):
    with pytest.raises(ValueError, match=match):
        ktr.load_backbone(write_call(tmp_path / "saved", call, shape))


@pytest.fixture(scope="module")
def weightless(tmp_path_factory):
    """Backbones without weights: of a frozen graph, and of Keras."""
    folder = tmp_path_factory.mktemp("saved")
    own = keras.Sequential(
        [keras.Input((8, 8, 3)), keras.layers.AveragePooling2D(2)]
    )
    return {
        "hub": ktr.load_backbone(write_call(folder, _means, (None, 8, 8, 3))),
        "keras": ktr.load_backbone(own, pixel_range="[0, 1]"),
    }


@pytest.mark.parametrize("kind", ["hub", "keras"])
def test_a_backbone_without_weights_goes_through_every_strategy(
    weightless, kind
):
    images = np.random.default_rng(0).integers(0, 255, (24, 8, 8, 3))
    pair = images.astype("uint8"), np.arange(24) % 2
    for strategy in (
        None,
        "linear-probe",
        ktr.LinearProbe(exact=True),
        "fine-tune",
        "lp-ft",
        "gradual-unfreezing",
        "from-scratch",
    ):
        model = ktr.build_classifier(weightless[kind], num_classes=2)
        epochs = 1 if isinstance(strategy, str | None) else None
        run = ktr.fine_tune(
            model, pair, strategy=strategy, epochs=epochs, verbose=0
        )
        assert [len(paths) for paths in run.trainable] == (
            [2] * len(run.phases)
        )
    (block,) = ktr.blocks(model)
    assert not block.layers
    below, above = ktr.split(model, 0)
    np.testing.assert_allclose(above(below(pair[0])), model(pair[0]), rtol=1e-6)
    features = ktr.extract_features(
        weightless[kind], pair[0], store="memory", verbose=0
    )
    np.testing.assert_allclose(
        np.asarray(features.values),
        pair[0].mean((1, 2)) / 255,
        rtol=1e-5,
    )
    for call in (
        lambda: ktr.fine_tune(model, pair, depth=1, verbose=0),
        lambda: ktr.unfreeze(model, 1),
    ):
        with pytest.raises(ValueError, match=r"an integer in \[0, 0\]"):
            call()
