"""Each finding has a set-up that triggers it, and a sound one that does not."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_transfer as ktr
from keras_transfer.doctor import Diagnosis, Finding, check

SIZE = (16, 16, 3)


def make_images(count=30, seed=0):
    generator = np.random.default_rng(seed)
    return generator.integers(0, 256, (count, *SIZE), dtype="uint8")


IMAGES = make_images()
LABELS = np.arange(30) % 3
ONE_HOT = np.eye(3, dtype="float32")[LABELS]
NORMAL = (IMAGES / 127.5 - 1).astype("float32")


@pytest.fixture(scope="module")
def classifier():
    """ResNet20 with a head of three classes, for tests that only read it."""
    return ktr.build_classifier("ResNet20", num_classes=3)


@pytest.fixture
def data():
    return ktr.load_images(
        {
            "train": (IMAGES, LABELS),
            "validation": (make_images(9, 1), LABELS[:9]),
        }
    )


def make_model(*layers, units=3, activation="softmax", shape=SIZE):
    """A small network that scales nothing itself."""
    return keras.Sequential(
        [
            keras.Input(shape),
            *layers,
            keras.layers.Conv2D(4, 3, name="conv"),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(units, activation=activation, name="dense"),
        ]
    )


def names(diagnosis, severity=None):
    return [f.name for f in diagnosis if severity in (None, f.severity)]


def only(diagnosis, name, severity="error"):
    """Returns the finding, which must be the only one."""
    assert [(f.name, f.severity) for f in diagnosis] == [(name, severity)]
    return diagnosis[0].message


# --- The diagnosis ------------------------------------------------------------


def test_diagnosis_lists_and_raises():
    error = Finding("a", "error", "A is wrong.", "Mend A.")
    warning = Finding("b", "warning", "B may be.", "Look at B.")
    diagnosis = Diagnosis((error, warning))
    assert len(diagnosis) == 2
    assert list(diagnosis) == [error, warning]
    assert diagnosis[-1] is warning
    assert diagnosis.errors == (error,)
    assert diagnosis.warnings == (warning,)
    assert not diagnosis.ok
    assert str(diagnosis).splitlines() == [
        "1 error and 1 warning:",
        "error a: A is wrong.",
        "  Cure: Mend A.",
        "warning b: B may be.",
        "  Cure: Look at B.",
    ]
    assert repr(diagnosis) == "<Diagnosis: error a, warning b>"
    with pytest.raises(ValueError, match="error a: A is wrong.\n  Cure: Mend"):
        diagnosis.raise_for_errors()
    Diagnosis((warning,)).raise_for_errors()
    assert str(Diagnosis()) == "Nothing found."


def test_errors_come_first(classifier):
    data = {"train": (IMAGES / 255, LABELS)}
    diagnosis = check(classifier, data, loss="sparse_categorical_crossentropy")
    assert names(diagnosis) == ["pixel-range", "no-validation"]
    with pytest.raises(ValueError, match="^1 error:\nerror pixel-range") as err:
        diagnosis.raise_for_errors()
    assert "no-validation" not in str(err.value)


# --- Sound set-ups ------------------------------------------------------------


def test_readme_flow_is_sound(data):
    model = ktr.build_classifier("ResNet20", data=data)
    assert not check(model, data, loss="categorical_crossentropy")
    model.compile("adam", "categorical_crossentropy", metrics=["accuracy"])
    train = data.train.batches(8, shuffle=True, augment=ktr.Augmentation())
    parts = {"train": train, "validation": data.validation.batches()}
    assert not check(model, data)
    assert not check(model, parts)
    model.fit(train, shuffle=False, verbose=0)
    assert not check(model, data)
    ktr.unfreeze(model, depth=2)
    assert not check(model, data, depth=2)
    model.compile("adam", "categorical_crossentropy", metrics=["accuracy"])
    model.fit(train, shuffle=False, verbose=0)
    assert not check(model, data)
    model.save("model.keras")
    assert not check(keras.saving.load_model("model.keras"), data)


def test_first_example_of_the_readme_is_sound(classifier):
    loss = "categorical_crossentropy"
    assert not check(classifier, (IMAGES, ONE_HOT), loss=loss)
    assert not check(classifier, (IMAGES.astype("float32"), ONE_HOT), loss=loss)
    loss = keras.losses.SparseCategoricalCrossentropy()
    assert not check(classifier, (IMAGES, LABELS[:, None]), loss=loss)
    assert not check(classifier, (IMAGES, LABELS))


def test_check_changes_nothing(classifier, data):
    before = [np.array(weight) for weight in classifier.weights]
    paths = [v.path for v in classifier.trainable_variables]
    check(classifier, data, loss="mse", depth="all")
    for weight, old in zip(classifier.weights, before, strict=True):
        np.testing.assert_array_equal(weight, old)
    assert paths == [v.path for v in classifier.trainable_variables]
    assert not classifier.compiled


def test_sound_training_from_scratch():
    norm = keras.layers.BatchNormalization()
    model = make_model(keras.layers.Rescaling(1 / 255), norm)
    model.compile("adam", "sparse_categorical_crossentropy")
    assert not check(model, (IMAGES, LABELS))


def test_sound_regression():
    model = ktr.build_regressor("ResNet20", num_outputs=2)
    targets = np.random.default_rng(0).normal(size=(30, 2))
    assert not check(model, (IMAGES, targets), loss="mse")
    model = ktr.build_regressor("ResNet20")
    ages = np.arange(30)
    for loss in ("mse", "mae", "huber", None):
        assert not check(model, (IMAGES, ages), loss=loss)
        assert not check(model, (IMAGES, ages[:, None] / 7), loss=loss)


@pytest.mark.parametrize("from_logits", [False, True])
def test_sound_sigmoids(from_logits):
    activation = "linear" if from_logits else "sigmoid"
    loss = keras.losses.BinaryCrossentropy(from_logits=from_logits)
    several = np.maximum(ONE_HOT, ONE_HOT[::-1])
    model = make_model(activation=activation)
    assert not check(model, (NORMAL, several), loss=loss)
    assert not check(model, (NORMAL, 0.9 * several), loss=loss)
    model = make_model(units=1, activation=activation)
    assert not check(model, (NORMAL, LABELS % 2), loss=loss)


def test_sound_multi_label_data():
    several = np.maximum(ONE_HOT, ONE_HOT[::-1]).astype("int64")
    data = ktr.load_images(
        {
            "train": (IMAGES, several),
            "validation": (IMAGES[::-1] // 2, several),
        },
        multi_label=True,
    )
    model = ktr.build_classifier("ResNet20", data=data, activation="sigmoid")
    assert not check(model, data, loss="binary_crossentropy")


def test_sound_mixed_labels(data):
    """MixUp makes rows that sum to 1."""
    model = ktr.build_classifier("ResNet20", data=data)
    train = data.train.batches(8, augment=ktr.Augmentation(mixup=0.4))
    assert not check(model, train, loss="categorical_crossentropy")


def test_models_that_cannot_be_read_are_let_through():
    class Own(keras.Model):
        def __init__(self):
            super().__init__()
            self.dense = keras.layers.Dense(3, activation="softmax")

        def call(self, inputs):
            return self.dense(inputs[:, 0, 0])

    own = Own()
    assert not check(own, (NORMAL, LABELS))
    own(NORMAL)
    own.compile("adam", "sparse_categorical_crossentropy")
    assert not check(own, (NORMAL, LABELS))
    left, right = keras.Input((4,)), keras.Input((4,))
    merged = keras.layers.Add()([left, right])
    two = keras.Model([left, right], [merged, keras.layers.Dense(2)(merged)])
    assert not check(two, (np.ones((5, 4)), np.zeros(5)))
    features = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    assert not check(features, (50 * np.ones((30, 4)), LABELS))


def test_own_losses_are_let_through(classifier):
    def categorical_crossentropy(y_true, y_pred):
        return keras.ops.mean(y_pred)

    assert not check(
        classifier, (IMAGES, LABELS), loss=categorical_crossentropy
    )


# --- The model ----------------------------------------------------------------


def compiled(optimizer="adam", **options):
    model = make_model()
    model.compile(optimizer, "sparse_categorical_crossentropy", **options)
    return model


def fit(model):
    model.fit(NORMAL, LABELS, verbose=0)


def weights(model, name):
    return model.get_layer(name).get_weights()


def same(before, after):
    return all(np.array_equal(x, y) for x, y in zip(before, after, strict=True))


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_stale_compile_after_freezing(optimizer):
    model = compiled(optimizer)
    fit(model)
    model.get_layer("conv").trainable = False
    message = only(check(model, (NORMAL, LABELS)), "stale-compile")
    assert "2 variables frozen since" in message
    assert "conv/kernel" in message
    before = weights(model, "conv")
    fit(model)
    assert not same(before, weights(model, "conv")), "Keras honours it now"
    model.compile("sgd", "sparse_categorical_crossentropy")
    fit(model)
    assert not check(model, (NORMAL, LABELS))


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_stale_compile_after_unfreezing(optimizer):
    model = make_model()
    model.get_layer("conv").trainable = False
    model.compile(optimizer, "sparse_categorical_crossentropy")
    fit(model)
    model.get_layer("conv").trainable = True
    message = only(check(model, (NORMAL, LABELS)), "stale-compile")
    assert "2 variables unfrozen since" in message
    assert "will not train" in message
    before = weights(model, "conv")
    fit(model)
    assert same(before, weights(model, "conv")), "Keras honours it now"


def test_change_before_the_first_fit_is_honoured():
    model = compiled()
    model.get_layer("conv").trainable = False
    assert not check(model, (NORMAL, LABELS))
    before = weights(model, "conv")
    fit(model)
    assert same(before, weights(model, "conv"))
    assert not check(model, (NORMAL, LABELS))
    model = make_model()
    model.get_layer("conv").trainable = False
    model.compile("adam", "sparse_categorical_crossentropy")
    model.get_layer("conv").trainable = True
    assert not check(model, (NORMAL, LABELS))
    before = weights(model, "conv")
    fit(model)
    assert not same(before, weights(model, "conv"))
    assert not check(model, (NORMAL, LABELS))


def test_stale_compile_of_a_loaded_model():
    model = make_model()
    model.get_layer("conv").trainable = False
    model.compile("adam", "sparse_categorical_crossentropy")
    fit(model)
    model.save("model.keras")
    model = keras.saving.load_model("model.keras")
    assert not check(model, (NORMAL, LABELS))
    model.get_layer("conv").trainable = True
    message = only(check(model, (NORMAL, LABELS)), "stale-compile")
    assert "will make `fit` raise" in message
    with pytest.raises(ValueError, match="Unknown variable"):
        fit(model)


def test_compiling_again_is_not_stale():
    """The optimizer knows more than is trained; that does no harm."""
    optimizer = keras.optimizers.Adam()
    model = compiled(optimizer)
    fit(model)
    model.get_layer("conv").trainable = False
    model.compile(optimizer, "sparse_categorical_crossentropy")
    assert not check(model, (NORMAL, LABELS))
    before = weights(model, "conv")
    fit(model)
    assert same(before, weights(model, "conv"))
    assert not check(model, (NORMAL, LABELS))


def test_eager_training_is_not_stale():
    model = compiled(run_eagerly=True)
    fit(model)
    model.get_layer("conv").trainable = False
    assert not check(model, (NORMAL, LABELS))
    before = weights(model, "conv")
    fit(model)
    assert same(before, weights(model, "conv"))


def test_stale_compile_with_loss_scaling():
    model = compiled(
        keras.mixed_precision.LossScaleOptimizer(keras.optimizers.SGD())
    )
    fit(model)
    assert not check(model, (NORMAL, LABELS))
    model.get_layer("conv").trainable = False
    only(check(model, (NORMAL, LABELS)), "stale-compile")


def test_unfreeze_is_not_stale():
    """It takes the compile back; `fit` asks for a new one by itself."""
    model = ktr.build_classifier("ResNet20", num_classes=3)
    model.compile("sgd", "sparse_categorical_crossentropy")
    model.fit(IMAGES, LABELS, verbose=0)
    ktr.unfreeze(model, depth=1)
    assert not check(model, (IMAGES, LABELS))


def test_nothing_trainable(data):
    model = make_model()
    model.trainable = False
    message = only(check(model, (NORMAL, LABELS)), "nothing-trainable")
    assert "None of the 4 weights" in message
    assert not check(model, (NORMAL, LABELS), depth=1)
    model = ktr.build_classifier("ResNet20", data=data)
    model.get_layer("head").trainable = False
    assert "head" in check(model, data, depth=0)[0].cure
    only(check(model, data, depth=0), "nothing-trainable")
    assert not check(model, data, depth=1)
    # What is open now would be closed by a probe.
    ktr.unfreeze(model, depth=1)
    assert not check(model, data)
    only(check(model, data, depth=0), "nothing-trainable")


def test_new_batch_norm(data):
    backbone = ktr.load_backbone("ResNet20", weights=None)
    model = ktr.build_classifier(backbone, data=data)
    message = only(check(model, data), "new-batch-norm", "warning")
    assert "never trained" in message
    # One that saw a batch, in one layer, is pretrained.
    norm = next(
        layer
        for layer in model.get_layer("backbone").layers
        if isinstance(layer, keras.layers.BatchNormalization)
    )
    norm.moving_mean.assign(norm.moving_mean + 0.1)
    assert not check(model, data)


def test_from_scratch_is_no_place_for_the_warning(data):
    backbone = ktr.load_backbone("ResNet20", weights=None)
    model = ktr.build_classifier(backbone, data=data)
    run = ktr.fine_tune(
        model, data, strategy="from-scratch", epochs=1, verbose=0
    )
    assert "new-batch-norm" not in names(run.diagnosis)


def test_batch_norm_moves(data):
    model = ktr.build_classifier("ResNet20", data=data)
    backbone = model.get_layer("backbone")
    backbone.trainable = False  # An open container passes nothing on.
    backbone.trainable = True
    diagnosis = check(model, data)
    message = only(diagnosis, "batch-norm-moves", "warning")
    assert message.startswith("All 21 BatchNormalization layers")
    assert "(stem_" in message
    assert diagnosis.ok
    ktr.freeze(model)
    assert not check(model, data)
    ktr.unfreeze(model, 1, train_batch_norm=True)
    message = only(check(model, data), "batch-norm-moves", "warning")
    assert message.startswith("2 of ")
    assert "stage3_block3" in message


def test_batch_norm_of_new_weights_may_move(data):
    backbone = ktr.load_backbone("ResNet20", weights=None)
    model = ktr.build_classifier(backbone, data=data)
    ktr.unfreeze(model, "all", train_batch_norm=True)
    assert not check(model, data)


def test_augmentation_in_model():
    flip = keras.layers.RandomFlip()
    model = make_model(keras.Sequential([flip], name="augmentation"))
    assert not check(model, (NORMAL, LABELS))
    model.get_layer("conv").trainable = False
    diagnosis = check(model, (NORMAL, LABELS))
    assert flip.name in only(diagnosis, "augmentation-in-model", "warning")


def test_output_of_sixteen_bits():
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model = make_model()
        good = ktr.build_classifier("ResNet20", num_classes=3)
    finally:
        keras.config.set_dtype_policy("float32")
    diagnosis = check(model, (NORMAL, LABELS))
    assert "float16" in only(diagnosis, "dtype", "warning")
    assert not check(good, (IMAGES, LABELS))


def test_nan_weights():
    model = make_model()
    kernel = model.get_layer("conv").kernel
    kernel.assign(np.full(kernel.shape, np.inf))
    message = only(check(model, (NORMAL, LABELS)), "nan-weights")
    assert "in 1 of the 4 weights" in message
    assert kernel.path in message


# --- The data -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("images", "words"),
    [
        (IMAGES / 255, r"[0, 1]"),
        (IMAGES // 128, r"[0, 1]"),
        (NORMAL, r"[-1, 1]"),
        ((IMAGES - IMAGES.mean()) / IMAGES.std(), "preprocessed already"),
        (IMAGES - 120.0, "preprocessed already"),
        (IMAGES.astype("uint16") * 257, "beyond 8 bits"),
    ],
)
def test_pixels_for_a_model_that_scales(classifier, images, words):
    diagnosis = check(classifier, (images, LABELS))
    assert words in only(diagnosis, "pixel-range")
    assert "itself scales pixels of [0, 255]" in diagnosis[0].message
    dataset = tf.data.Dataset.from_tensor_slices((images, LABELS)).batch(8)
    assert words in only(check(classifier, dataset), "pixel-range")


@pytest.mark.parametrize(
    "images",
    [IMAGES * 0, IMAGES // 16, np.clip(IMAGES * 1.02 - 1, 0, 260)],
    ids=["black", "dark", "resized"],
)
def test_odd_pixels_are_let_through(classifier, images):
    assert not check(classifier, (images, LABELS))


@pytest.mark.parametrize(
    ("scaling", "expected"),
    [
        (keras.layers.Rescaling(1 / 127.5, -1), "[0, 255]"),
        (keras.layers.Normalization(mean=[120] * 3, variance=[58] * 3), None),
        (
            keras.layers.Normalization(mean=[120] * 3, variance=[58**2] * 3),
            "[0, 255]",
        ),
        (keras.layers.Rescaling(2.0, -1), "[0, 1]"),
        (
            keras.Sequential(
                [keras.layers.RandomFlip(), keras.layers.Rescaling(1 / 255)]
            ),
            "[0, 255]",
        ),
    ],
)
def test_scaling_layers_are_read(scaling, expected):
    model = make_model(scaling)
    pairs = {"[0, 255]": IMAGES, "[0, 1]": IMAGES / 255}
    for kind, images in pairs.items():
        found = names(check(model, (images, LABELS)))
        wrong = expected is not None and kind != expected
        assert found == (["pixel-range"] if wrong else [])


def test_a_model_that_scales_nothing(data):
    model = make_model(keras.layers.ZeroPadding2D())
    for source in (data, data.train, (IMAGES, LABELS)):
        message = only(check(model, source), "pixel-range", "warning")
        assert "no layer of the model scales them" in message
    assert not check(model, (NORMAL, LABELS))
    assert not check(model, (IMAGES / 255, LABELS))
    scaled = [
        keras.layers.Lambda(lambda x: x / 255),
        keras.layers.BatchNormalization(),
    ]
    for layer in scaled:
        assert not check(make_model(layer), (IMAGES, LABELS))
    features = make_model(shape=(4, 4, 64))
    assert not check(features, (np.full((30, 4, 4, 64), 90.0), LABELS))


def test_applications_are_read():
    """Preprocessing within the network, and without."""
    inside = keras.applications.EfficientNetV2B0(
        weights=None, include_top=False, pooling="avg", input_shape=(32, 32, 3)
    )
    images = np.random.default_rng(0).integers(0, 256, (6, 32, 32, 3))
    labels = np.random.default_rng(1).normal(size=(6, 1280))
    assert not check(inside, (images, labels))
    only(check(inside, (images / 255, labels)), "pixel-range")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_nan_data(classifier, value):
    images = IMAGES.astype("float32")
    images[[3, 17], 0, 0, 0] = value
    message = only(check(classifier, (images, LABELS)), "nan-data")
    assert "The inputs of 2 of the 30 train examples" in message
    assert "first at index 3" in message
    targets = np.arange(30.0)
    targets[5] = value
    model = ktr.build_regressor("ResNet20")
    message = only(check(model, (IMAGES, targets), loss="mse"), "nan-data")
    assert "The labels of 1 of" in message
    dataset = tf.data.Dataset.from_tensor_slices((images, LABELS)).batch(8)
    assert "that were read" in only(check(classifier, dataset), "nan-data")


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (LABELS + 1, "integers from 1 to 3, and the model has 3 outputs"),
        (LABELS - 1, "integers from -1 to 1"),
        (np.eye(4)[LABELS], "4 columns wide"),
    ],
)
def test_class_count(classifier, labels, message):
    data = (IMAGES, labels)
    assert message in only(check(classifier, data), "class-count")
    loss = "sparse_categorical_crossentropy"
    if labels.ndim == 2:
        loss = "categorical_crossentropy"
    assert message in only(check(classifier, data, loss=loss), "class-count")


def test_class_count_of_image_data(data):
    model = ktr.build_classifier("ResNet20", num_classes=4)
    diagnosis = check(model, data, loss="categorical_crossentropy")
    assert "of 3 classes" in only(diagnosis, "class-count")
    two = ktr.load_images((IMAGES, LABELS % 2))
    single = ktr.build_classifier(
        "ResNet20", num_classes=1, activation="sigmoid"
    )
    assert not check(single, two, loss="binary_crossentropy")


def test_class_names(data):
    for wanted, words in (
        (["1", "0", "2"], "in another order"),
        (["0", "1", "dog"], "differ from those"),
    ):
        model = ktr.build_classifier("ResNet20", class_names=wanted)
        message = only(check(model, data), "class-names")
        assert words in message
    assert "label 2 is '2', output 2 is 'dog'" in message
    model = ktr.build_classifier("ResNet20", class_names=["0", "1", "2"])
    assert not check(model, data)


def test_class_names_of_a_keras_dataset(tmp_path):
    for name in ("ant", "bee"):
        (tmp_path / name).mkdir()
        for i in range(3):
            image = make_images(1, i)[0]
            keras.utils.save_img(tmp_path / name / f"{i}.png", image)
    dataset = keras.utils.image_dataset_from_directory(
        tmp_path, image_size=(16, 16), verbose=False
    )
    good = ktr.build_classifier("ResNet20", class_names=["ant", "bee"])
    assert not check(good, dataset, loss="sparse_categorical_crossentropy")
    bad = ktr.build_classifier("ResNet20", class_names=["bee", "ant"])
    only(check(bad, dataset), "class-names")


def test_missing_class(classifier):
    chosen = LABELS != 1
    for labels in (LABELS, ONE_HOT):
        found = check(classifier, (IMAGES[chosen], labels[chosen]))
        message = only(found, "missing-class", "warning")
        assert "1 of the 3 classes (1) have no training example" in message


def test_imbalance(classifier):
    labels = np.repeat([0, 1, 2], [10, 19, 1])
    diagnosis = check(classifier, (IMAGES, labels))
    message = only(diagnosis, "imbalance", "warning")
    assert "from 1 (2) to 19 (1)" in message
    assert "class_weight" in diagnosis[0].cure
    labels = np.repeat([0, 1, 2], [8, 20, 2])
    assert not check(classifier, (IMAGES, labels))


def test_few_examples(classifier):
    diagnosis = check(classifier, (IMAGES[:2], LABELS[:2]))
    assert names(diagnosis) == ["missing-class", "few-examples"]
    assert diagnosis.ok
    empty = (IMAGES[:0], LABELS[:0])
    only(check(classifier, empty), "few-examples")
    dataset = tf.data.Dataset.from_tensor_slices((IMAGES, LABELS))
    dropped = dataset.batch(64, drop_remainder=True)
    loss = "sparse_categorical_crossentropy"
    only(check(classifier, dropped, loss=loss), "few-examples")


def test_no_validation(classifier):
    data = ktr.load_images((IMAGES, LABELS), split=(0.8, 0.0, 0.2))
    only(check(classifier, data), "no-validation", "warning")
    train = {"train": (IMAGES, LABELS)}
    only(check(classifier, train), "no-validation", "warning")
    assert not check(classifier, data.train)
    assert not check(classifier, (IMAGES, LABELS))


def test_split_overlap_of_arrays(classifier):
    train = (IMAGES, LABELS)
    many = (make_images(40, 1), np.arange(40) % 3)
    many[0][5] = IMAGES[7]
    for dtype in ("uint8", "float32"):
        held_out = (many[0].astype(dtype), many[1])
        found = check(classifier, {"train": train, "validation": held_out})
        message = only(found, "split-overlap", "warning")
        assert "1 of the 40 validation examples" in message
    some = (IMAGES[:3], LABELS[:3])
    parts = {"train": train, "validation": many, "test": some}
    found = check(classifier, parts)
    assert names(found, "error") == ["split-overlap"]
    assert "3 of the 3 test examples" in found.errors[0].message
    both = {"train": train, "validation": train}
    found = check(classifier, both)
    message = only(found, "split-overlap")
    assert message == "The validation examples are the training examples."
    assert 'other examples as "validation"' in found.errors[0].cure


def test_split_overlap_of_image_data(classifier):
    held_out = make_images(30, 1)
    held_out[5] = IMAGES[2]
    with pytest.warns(UserWarning, match="are in different splits"):
        data = ktr.load_images(
            {"train": (IMAGES, LABELS), "validation": (held_out, LABELS)}
        )
    assert data.report.leaks
    message = only(check(classifier, data), "split-overlap", "warning")
    assert "1 of the 30 validation examples" in message
    parts = {"train": data.train, "validation": data.train.subset(range(9))}
    assert "9 of the 9" in only(check(classifier, parts), "split-overlap")


def flip(images, labels):
    return tf.image.random_flip_left_right(images), labels


KERAS_FLIP = keras.layers.RandomFlip()


@pytest.mark.parametrize(
    "augment",
    [flip, lambda x, y: (KERAS_FLIP(x, training=True), y)],
    ids=["tf.image", "keras"],
)
def test_augmentation_behind_cache(classifier, augment):
    dataset = tf.data.Dataset.from_tensor_slices((IMAGES, LABELS)).batch(8)
    bad = dataset.map(augment).map(lambda x, y: (x, y)).cache().prefetch(2)
    only(check(classifier, bad), "augmentation-behind-cache")
    good = dataset.map(lambda x, y: (x, y)).shuffle(4).cache().map(augment)
    assert not check(classifier, good.prefetch(2))


def test_own_batches_behind_cache(classifier, data):
    augment = ktr.Augmentation(rotation=10.0)
    train = data.train.batches(8, shuffle=True, augment=augment, cache=True)
    assert not check(classifier, train)
    only(check(classifier, train.cache()), "augmentation-behind-cache")
    assert not check(classifier, data.train.batches(8).cache())


def test_datasets_are_read_two_batches_far(classifier):
    read = []

    def load(index):
        read.append(int(index))
        return IMAGES[index].astype("float32")

    def one(index):
        image = tf.numpy_function(load, [index], tf.float32)
        return tf.ensure_shape(image, SIZE), index % 3

    dataset = tf.data.Dataset.range(30).map(one).batch(4).repeat()
    loss = "sparse_categorical_crossentropy"
    assert not check(classifier, dataset, loss=loss)
    # TensorFlow would read on in the background.
    assert read == list(range(8))


# --- The loss -----------------------------------------------------------------

COLUMN = LABELS[:, None]
SEVERAL = np.maximum(ONE_HOT, ONE_HOT[::-1])


@pytest.mark.parametrize(
    ("labels", "loss", "words"),
    [
        (LABELS, "categorical_crossentropy", "expects one-hot rows"),
        (COLUMN, "categorical_crossentropy", "one number per example"),
        (LABELS, keras.losses.CategoricalCrossentropy(), "one-hot rows"),
        (ONE_HOT, "sparse_categorical_crossentropy", r"rows of 3 \(one-hot\)"),
        (
            ONE_HOT,
            keras.losses.sparse_categorical_crossentropy,
            "expects integers",
        ),
        (LABELS / 2, "sparse_categorical_crossentropy", "truncates them"),
        (SEVERAL, "categorical_crossentropy", r"sum to 1 \(multi-hot\)"),
        (5 * ONE_HOT, "categorical_crossentropy", r"sum to 1 \(numbers\)"),
        (COLUMN, "mse", "compares it with 3 outputs"),
        (LABELS / 2, None, "the output is a softmax"),
        (np.array(["a", "b", "c"] * 10), None, "which is not a number"),
    ],
)
def test_label_format(classifier, labels, loss, words):
    diagnosis = check(classifier, (IMAGES, labels), loss=loss)
    only(diagnosis, "label-format")
    with pytest.raises(ValueError, match=words):
        diagnosis.raise_for_errors()


def test_label_format_of_binary_crossentropy():
    sigmoids = make_model(activation="sigmoid")
    message = only(
        check(sigmoids, (NORMAL, 2 * SEVERAL), loss="bce"), "label-format"
    )
    assert "from 0 to 2" in message
    diagnosis = check(sigmoids, (NORMAL, LABELS), loss="binary_crossentropy")
    assert "expects 3 of 0 or 1" in only(diagnosis, "label-format")


def test_several_labels_and_a_softmax(classifier):
    several = ktr.load_images(
        {
            "train": (IMAGES, SEVERAL),
            "validation": (make_images(30, 1), SEVERAL),
        },
        multi_label=True,
    )
    loss = "categorical_crossentropy"
    only(check(classifier, several, loss=loss), "label-format")


def categorical(from_logits):
    return keras.losses.CategoricalCrossentropy(from_logits=from_logits)


def binary(from_logits):
    return keras.losses.BinaryCrossentropy(from_logits=from_logits)


@pytest.mark.parametrize(
    ("activation", "loss", "severity", "words"),
    [
        ("linear", categorical(False), "error", "expects probabilities"),
        ("relu", "categorical_crossentropy", "error", "The output is relu"),
        ("linear", "binary_crossentropy", "error", '`activation="sigmoid"`'),
        ("softmax", "binary_crossentropy", "error", "as those of a sigmoid"),
        ("sigmoid", categorical(False), "error", "as those of a softmax"),
        ("softmax", categorical(True), "warning", "Keras on TensorFlow"),
        ("sigmoid", binary(True), "warning", "Keras on TensorFlow"),
        ("linear", categorical(True), None, ""),
        ("softmax", categorical(False), None, ""),
        ("softmax", "kl_divergence", None, ""),
        ("softmax", "mse", None, ""),
    ],
)
def test_activation_and_loss(activation, loss, severity, words):
    model = make_model(activation=activation)
    diagnosis = check(model, (NORMAL, ONE_HOT), loss=loss)
    if severity is None:
        assert not diagnosis
    else:
        only(diagnosis, "activation-loss", severity)
        assert words in str(diagnosis)


def test_the_compiled_loss_is_read():
    model = make_model(activation="linear")
    model.compile("adam", "sparse_categorical_crossentropy")
    only(check(model, (NORMAL, LABELS)), "activation-loss")
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    assert not check(model, (NORMAL, LABELS), loss=loss)


@pytest.mark.parametrize(
    "last",
    [keras.layers.Softmax, lambda: keras.layers.Activation("softmax")],
)
def test_activation_in_a_layer_of_its_own(last):
    model = make_model(activation="linear")
    model.add(last())
    model.add(keras.layers.Identity())
    data = (NORMAL, LABELS)
    assert not check(model, data, loss="sparse_categorical_crossentropy")
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    only(check(model, data, loss=loss), "activation-loss", "warning")


def test_activation_of_an_operation():
    inputs = keras.Input((4,))
    outputs = keras.ops.softmax(keras.layers.Dense(3)(inputs))
    model = keras.Model(inputs, outputs)
    data = (np.ones((30, 4)), LABELS)
    assert not check(model, data, loss="sparse_categorical_crossentropy")
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    only(check(model, data, loss=loss), "activation-loss", "warning")


def test_own_activations_are_let_through():
    class Linear(keras.layers.Layer):
        def call(self, inputs):
            return keras.ops.softmax(inputs)

    def linear(x):
        return keras.ops.softmax(x)

    loss = "sparse_categorical_crossentropy"
    model = make_model()
    model.add(Linear())
    assert not check(model, (NORMAL, LABELS), loss=loss)
    model = make_model(activation=linear)
    assert not check(model, (NORMAL, LABELS), loss=loss)


def test_a_single_output():
    zeros = (NORMAL, LABELS % 2)
    softmax = make_model(units=1)
    message = only(check(softmax, zeros), "activation-loss")
    assert "a softmax of a single unit" in message
    sigmoid = make_model(units=1, activation="sigmoid")
    loss = "categorical_crossentropy"
    message = only(check(sigmoid, zeros, loss=loss), "activation-loss")
    assert "of a single output" in message


# --- Arguments ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "error", "message"),
    [
        (IMAGES, TypeError, "`data` must be an `ImageData`"),
        ("flowers/", TypeError, "Received: str for train"),
        ((IMAGES, LABELS[:5]), ValueError, "as many labels as inputs"),
        ({"validation": (IMAGES, LABELS)}, ValueError, 'the key "train"'),
        ({"train": (IMAGES, LABELS), "val": 1}, ValueError, "keys .*'val'"),
        (
            tf.data.Dataset.from_tensor_slices((IMAGES, LABELS)),
            ValueError,
            r"Add `.batch\(32\)`",
        ),
        (
            tf.data.Dataset.from_tensor_slices(IMAGES).batch(2),
            TypeError,
            "one tensor each",
        ),
    ],
)
def test_refuses_other_data(classifier, data, error, message):
    with pytest.raises(error, match=message):
        check(classifier, data)


def test_refuses_other_arguments(classifier):
    data = (IMAGES, LABELS)
    with pytest.raises(TypeError, match="`model` must be a keras.Model"):
        check("ResNet20", data)
    for depth in (-1, 99, True, "some"):
        with pytest.raises(ValueError, match=r"`depth` must be an integer in"):
            check(classifier, data, depth=depth)
    with pytest.raises(ValueError, match="Did you mean 'categorical_cross"):
        check(classifier, data, loss="categorical_crossentrpy")
