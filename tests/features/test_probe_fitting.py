"""Probes on features: what is chosen, what comes out, what a model gets."""

import keras
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold

import keras_transfer as ktr
from keras_transfer.features.extraction import extract_features
from keras_transfer.features.features import (
    BlockColumns,
    Features,
    FeatureSplit,
)
from keras_transfer.features.probe_fitting import fit_probe

KINDS = ("logistic", "ridge", "knn", "nearest-mean", "head2toe")
LINEAR = ("logistic", "nearest-mean", "ridge")
WIDTH = 64
LAST = BlockColumns("tiny", "block_1", 0, WIDTH)


def make_split(values, labels=None, parts=(), views=1):
    """A split of arrays; further views are the first with a little noise."""
    values = np.asarray(values, "float32")
    noise = np.random.default_rng(9).normal(size=(views, *values.shape[1:]))
    noise[0] = 0
    seen = (values[:, None] + 0.1 * noise).astype("float32")
    return FeatureSplit(
        seen.__getitem__,
        len(values),
        values.shape[1:],
        labels,
        tuple(f"{i}.png" for i in range(len(values))),
        parts,
        views,
    )


def make_arrays(count, seed, width=WIDTH, classes=3, noise=2.5):
    """Columns as of a ReLU: not centred, of different sizes, one constant."""
    means = np.random.default_rng(0).normal(size=(classes, width))
    generator = np.random.default_rng(seed)
    labels = np.arange(count) % classes
    values = means[labels] + noise * generator.normal(size=(count, width))
    values = np.maximum(values + 1, 0) * np.linspace(0.2, 3, width)
    values[:, 5] = 0.25
    return values.astype("float32"), labels.astype("int32")


def make_features(validation=True, names=("a", "b", "c"), **options):
    splits = {
        name: make_split(*make_arrays(count, seed), **options)
        for seed, (name, count) in enumerate(
            {"train": 60, "validation": 30, "test": 45}.items(), start=1
        )
    }
    if not validation:
        del splits["validation"]
    return Features(**splits, class_names=names)


@pytest.fixture(scope="module")
def features():
    return make_features(parts=(LAST,))


@pytest.fixture(scope="module")
def backbone():
    inputs = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(8, 3, name="block_0_conv")(inputs)
    x = keras.layers.Conv2D(WIDTH, 3, name="block_1_conv")(x)
    network = keras.Model(inputs, x, name="tiny")
    return ktr.load_backbone(network, pixel_range="[0, 1]")


def build(backbone, num_classes=3, **options):
    return ktr.build_classifier(backbone, num_classes, **options)


def outputs_on(model, values):
    """What the model's dense layer says of features."""
    layer = model.get_layer("head").get_layer("predictions")
    return keras.ops.convert_to_numpy(layer(values))


@pytest.mark.parametrize("validation", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_fits_and_measures(kind, validation):
    given = make_features(validation)
    probe = fit_probe(given, kind=kind)
    outputs = probe.predict(given.test)
    assert outputs.shape == (45, 3)
    assert outputs.dtype == "float32"
    if kind != "ridge":
        np.testing.assert_allclose(outputs.sum(axis=1), 1, atol=1e-5)
    found = probe.evaluate(given.test)
    assert found["accuracy"] > 0.8
    assert found.class_names == ("a", "b", "c")
    assert found.ids[0] == "0.png"
    chosen = [row for row in probe.rows if row.strength == probe.strength]
    assert chosen
    if kind != "knn":
        best = min(row.loss for row in probe.rows)
        assert best in [row.loss for row in chosen]
    np.testing.assert_allclose(
        probe.predict(given.test.values), outputs, atol=1e-6
    )
    again = fit_probe(given, kind=kind)
    np.testing.assert_array_equal(again.predict(given.test), outputs)


def test_the_exact_probe_is_scikit_learns_on_train_and_validation(features):
    probe = fit_probe(features, strengths=[0.3], standardize=False)
    values = np.concatenate([features.train.values, features.validation.values])
    labels = np.concatenate([features.train.labels, features.validation.labels])
    oracle = LogisticRegression(C=1 / 0.3, max_iter=100_000, tol=1e-10)
    oracle.fit(values.astype("float64"), labels)

    def loss(kernel, bias):
        scores = values @ kernel.astype("float64") + bias
        losses = np.logaddexp.reduce(scores, axis=1)
        losses -= scores[np.arange(len(labels)), labels]
        return losses.sum() + 0.15 * (kernel.astype("float64") ** 2).sum()

    best = loss(oracle.coef_.T, oracle.intercept_)
    assert loss(probe.kernel, probe.bias) == pytest.approx(best, abs=1e-6)


def test_lambda_is_the_best_on_validation(features):
    """Against scikit-learn's own solutions, on the features in one unit."""
    probe = fit_probe(features)
    train = features.train.values.astype("float64")
    mean, by = train.mean(axis=0), np.sqrt(train.var(axis=0).mean())
    held = (features.validation.values - mean) / by
    labels = features.validation.labels
    for row in probe.rows[4::6]:
        oracle = LogisticRegression(
            C=1 / row.strength, max_iter=100_000, tol=1e-8
        )
        oracle.fit((train - mean) / by, features.train.labels)
        given = oracle.predict_proba(held)
        loss = -np.log(given[np.arange(30), labels]).mean()
        assert row.loss == pytest.approx(loss, abs=5e-3)
    best = min(probe.rows, key=lambda row: row.loss)
    assert probe.strength == best.strength
    assert "30 validation examples" in probe.summary()


def test_without_validation_the_folds_choose():
    given = make_features(validation=False)
    probe = fit_probe(given, folds=3, seed=4)
    assert "3-fold cross-validation" in probe.summary()
    values, labels = given.train.values.astype("float64"), given.train.labels
    values = (values - values.mean(axis=0)) / np.sqrt(values.var(0).mean())
    row = min(probe.rows, key=lambda row: row.loss)
    folds = StratifiedKFold(3, shuffle=True, random_state=4)
    losses = []
    for some, held in folds.split(values, labels):
        oracle = LogisticRegression(
            C=1 / row.strength, max_iter=100_000, tol=1e-8
        )
        oracle.fit(values[some], labels[some])
        given = oracle.predict_proba(values[held])
        losses.append(-np.log(given[np.arange(len(held)), labels[held]]))
    expected = np.concatenate(losses).mean()
    assert row.loss == pytest.approx(expected, abs=5e-3)


def test_one_example_a_class_takes_lambda_1():
    values, labels = make_arrays(3, 1)
    probe = fit_probe(make_split(values, labels))
    assert probe.strength == pytest.approx(1.0)
    assert probe.rows == ()
    assert "a single example" in probe.summary()


def test_an_edge_is_told(features):
    inside = fit_probe(features)
    assert not inside.at_edge
    edge = fit_probe(features, strengths=[inside.strength, 1e4])
    assert edge.at_edge
    assert "edge of the values tried" in edge.summary()
    assert "chosen" in str(edge)
    assert not fit_probe(features, strengths=[3.0]).at_edge


@pytest.mark.parametrize("kind", LINEAR)
def test_one_scale_changes_no_direction(features, kind):
    """The unit of the features is no matter, neither is their zero."""
    moved = Features(
        *(
            make_split(1000 * split.values + 3, split.labels)
            for split in (features.train, features.validation)
        )
    )
    plain = fit_probe(features, kind=kind)
    scaled = fit_probe(moved, kind=kind)
    assert plain.strength == pytest.approx(scaled.strength)
    np.testing.assert_allclose(
        plain.predict(features.test),
        scaled.predict(1000 * features.test.values + 3),
        atol=2e-3,
    )


def test_no_part_outweighs_the_others():
    """A hundredfold part of noise does not drown one that knows."""
    generator = np.random.default_rng(3)
    parts = (
        BlockColumns("x", "b", 0, WIDTH),
        BlockColumns("y", "b", WIDTH, 2 * WIDTH),
    )
    splits = []
    for seed, count in ((1, 60), (2, 45)):
        values, labels = make_arrays(count, seed)
        noise = 100 * generator.normal(size=values.shape)
        joined = np.concatenate([values, noise], axis=1)
        splits.append(make_split(joined, labels, parts))
    given = Features(splits[0], test=splits[1])
    for kind in ("logistic", "nearest-mean", "knn"):
        accuracies = [
            fit_probe(given, kind=kind, standardize=some).evaluate(given.test)[
                "accuracy"
            ]
            for some in (True, False)
        ]
        assert accuracies[0] > accuracies[1] + 0.2


def test_views_of_an_example_count_once_and_stay_together():
    """Copies change nothing: neither lambda nor who judges whom."""
    values, labels = make_arrays(60, 1)
    once = make_split(values, labels)
    copied = FeatureSplit(
        lambda rows: np.repeat(values[rows][:, None], 3, axis=1),
        60,
        (WIDTH,),
        labels,
        views=3,
    )
    for kind in ("logistic", "nearest-mean"):
        one = fit_probe(once, kind=kind, seed=1)
        three = fit_probe(copied, kind=kind, seed=1)
        assert one.strength == three.strength
        np.testing.assert_allclose(one.kernel, three.kernel, atol=1e-3)
        assert [r.accuracy for r in one.rows] == pytest.approx(
            [r.accuracy for r in three.rows], abs=0.02
        )


@pytest.mark.parametrize("kind", ["logistic", "ridge", "knn", "head2toe"])
def test_several_labels(kind):
    splits = []
    for seed, count in ((1, 60), (2, 30), (3, 45)):
        values, labels = make_arrays(count, seed)
        hot = np.stack([labels == 0, labels != 1, labels > 5], axis=1)
        splits.append(make_split(values, hot.astype("float32")))
    given = Features(*splits, class_names=("a", "b", "c"))
    probe = fit_probe(given, kind=kind)
    found = probe.evaluate(given.test)
    assert found.kind == "multi-label"
    assert found["accuracy"] > 0.85
    assert (found.predictions[:, 2] == 0).all()


def test_classes_in_a_column(features):
    """The labels of Keras' data sets have the shape (n, 1)."""
    values, labels = make_arrays(60, 1)
    flat, column = (
        fit_probe(Features(make_split(values, y)), strengths=[1.0])
        for y in (labels, labels[:, None])
    )
    assert column.problem == flat.problem == "classification"
    split = make_split(values, labels[:, None])
    np.testing.assert_array_equal(column.predict(split), flat.predict(split))
    split = split.shots(3)
    assert np.bincount(split.labels).tolist() == [3, 3, 3]


def test_numbers_take_ridge(features):
    values = features.train.values[:, 40:60]
    for numbers in (values[:, 0] * 2.0 + 1, values[:, :2] * 2.0):
        split = make_split(values, numbers)
        probe = fit_probe(split, kind="ridge")
        assert "leave-one-out" in probe.summary()
        assert probe.evaluate(split)["r2"] > 0.999
        assert probe.rows[0].accuracy is None


def test_head2toe_says_what_it_keeps():
    given = make_features()
    probe = fit_probe(given, kind="head2toe")
    assert probe.kernel is None
    assert {row.kept for row in probe.rows} >= {1, 3, 32, 64}
    assert f"{len(probe.kept)} of 64 features" in probe.summary()


@pytest.mark.parametrize(
    ("kind", "activation"),
    [
        ("logistic", "softmax"),
        ("nearest-mean", "softmax"),
        ("ridge", "linear"),
    ],
)
def test_a_model_gets_the_probe(features, backbone, kind, activation):
    model = build(backbone, activation=activation)
    probe = fit_probe(features, kind=kind)
    probe.write_to(model)
    values = features.test.values
    np.testing.assert_allclose(
        outputs_on(model, values), probe.predict(values), atol=1e-5
    )


def test_a_model_that_gives_logits_gets_the_logits(features, backbone):
    model = build(backbone, activation="linear")
    probe = fit_probe(features)
    probe.write_to(model)
    values = features.test.values
    given = keras.ops.softmax(outputs_on(model, values))
    np.testing.assert_allclose(given, probe.predict(values), atol=1e-5)


def test_two_classes_fit_one_sigmoid(features, backbone):
    labels = (features.train.labels > 0).astype("int32")
    probe = fit_probe(make_split(features.train.values, labels))
    model = build(backbone, 1, activation="sigmoid")
    probe.write_to(model)
    values = features.test.values
    given = outputs_on(model, values)[:, 0]
    np.testing.assert_allclose(given, probe.predict(values)[:, 1], atol=1e-5)


def test_several_labels_and_numbers_are_written(features, backbone):
    values, labels = features.train.values, features.train.labels
    hot = np.stack([labels == 0, labels != 1], axis=1).astype("float32")
    probe = fit_probe(make_split(values, hot))
    model = build(backbone, 2, activation="sigmoid")
    probe.write_to(model)
    np.testing.assert_allclose(
        outputs_on(model, values), probe.predict(values), atol=1e-5
    )
    probe = fit_probe(make_split(values, values[:, 0]), kind="ridge")
    model = ktr.build_regressor(backbone)
    probe.write_to(model)
    np.testing.assert_allclose(
        outputs_on(model, values), probe.predict(values), atol=1e-4
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "knn"}, "not linear maps of the features"),
        ({"kind": "head2toe"}, "not linear maps of the features"),
        ({"kind": "ridge"}, "ends in 'softmax'.*`activation=\"linear\"`"),
        ({"model": {"activation": "sigmoid"}}, "ends in 'sigmoid'.*softmax"),
        ({"model": {"hidden_units": (8,)}}, "a head with hidden_1"),
        ({"model": {"pooling": "avgmax"}}, "on 64 features, a head on 128"),
        ({"model": {"num_classes": 5}}, "probe of 3 outputs, a model of 5"),
        (
            {"model": {"class_names": ["a", "c", "b"]}},
            "the classes a, b, c, a model for a, c, b",
        ),
        ({"part": LAST._replace(block="block_0")}, "of the block 'block_0'"),
        ({"part": LAST._replace(backbone="VGG16")}, "of VGG16, a model named"),
    ],
)
def test_a_model_of_another_kind_is_refused(backbone, change, message):
    given = make_features(parts=(change.get("part", LAST),))
    probe = fit_probe(given, kind=change.get("kind", "logistic"))
    options = {"num_classes": 3} | change.get("model", {})
    if "class_names" in options:
        del options["num_classes"]
    model = ktr.build_classifier(backbone, **options)
    before = [np.array(weight) for weight in model.weights]
    with pytest.raises(ValueError, match=message):
        probe.write_to(model)
    for weight, array in zip(model.weights, before, strict=True):
        np.testing.assert_array_equal(weight, array)


def test_what_is_no_built_model_is_refused(features, backbone):
    probe = fit_probe(features, strengths=[1.0])
    with pytest.raises(ValueError, match="which has no head"):
        probe.write_to(backbone.model)
    with pytest.raises(TypeError, match="must be a keras.Model"):
        probe.write_to("model.keras")
    half = WIDTH // 2
    parts = (
        BlockColumns("x", "b", 0, half),
        BlockColumns("y", "b", half, WIDTH),
    )
    stacked = fit_probe(make_features(parts=parts), strengths=[1.0])
    with pytest.raises(ValueError, match="one block of one backbone.*2 parts"):
        stacked.write_to(build(backbone))


def test_features_of_something_else_are_refused(features):
    probe = fit_probe(features, strengths=[1.0])
    values, labels = make_arrays(12, 1)
    other = make_split(values, labels, (LAST._replace(backbone="VGG16"),))
    with pytest.raises(ValueError, match="tiny block_1. Received: VGG16"):
        probe.predict(other)
    with pytest.raises(ValueError, match=r"shape \(n, 64\).*shape \(12, 10\)"):
        probe.predict(values[:, :10])
    with pytest.raises(ValueError, match="not pooled"):
        probe.predict(values[:, None, None])
    more = make_split(values, labels + 5, (LAST,))
    with pytest.raises(ValueError, match="of the data set.*up to 7"):
        probe.evaluate(more)
    several = make_split(values, np.eye(3, dtype="float32")[labels])
    with pytest.raises(ValueError, match=r"of the data set.*shape \(12, 3\)"):
        probe.evaluate(several)
    with pytest.raises(ValueError, match="no labels"):
        probe.evaluate(make_split(values))
    with pytest.raises(TypeError, match="such as `features.test`"):
        probe.evaluate(values)


def test_arguments_are_checked(features):
    with pytest.raises(ValueError, match="Did you mean 'logistic'"):
        fit_probe(features, kind="logistics")
    with pytest.raises(ValueError, match="`strengths` must be finite numbers"):
        fit_probe(features, strengths=[])
    with pytest.raises(ValueError, match="`strengths` must be finite numbers"):
        fit_probe(features, strengths=[1.0, 0.0])
    with pytest.raises(ValueError, match="numbers of neighbours from 1 to 60"):
        fit_probe(features, kind="knn", strengths=[1, 61])
    with pytest.raises(ValueError, match="numbers of neighbours from 1 to 60"):
        fit_probe(features, kind="knn", strengths=[1.5])
    with pytest.raises(ValueError, match="`folds` must be an integer of at"):
        fit_probe(features, folds=1)
    with pytest.raises(ValueError, match="`seed` must be an integer of at"):
        fit_probe(features, seed=-1)


def test_bad_features_are_refused(features):
    values, labels = make_arrays(12, 1)
    with pytest.raises(TypeError, match="from `extract_features`"):
        fit_probe(values)
    with pytest.raises(ValueError, match="must have labels.*without any"):
        fit_probe(make_split(values))
    with pytest.raises(ValueError, match="at least two classes. Received: 1"):
        fit_probe(make_split(values, labels * 0))
    with pytest.raises(ValueError, match="at least two training examples"):
        fit_probe(make_split(values[:1], labels[:1]))
    with pytest.raises(ValueError, match='vectors.*`pooling="avg"`'):
        fit_probe(make_split(values.reshape(12, 4, 4, 4), labels))
    with pytest.raises(ValueError, match=r"labels in \[0, 2\).*from 0 to 2"):
        fit_probe(Features(make_split(values, labels), class_names=("a", "b")))
    narrow = make_split(values[:, :9], labels)
    with pytest.raises(ValueError, match="the same backbones and blocks"):
        fit_probe(Features(make_split(values, labels), narrow))
    hot = np.eye(3, dtype="float32")[labels]
    with pytest.raises(ValueError, match="labels of one shape in all splits"):
        fit_probe(Features(make_split(values, labels), make_split(values, hot)))
    with pytest.raises(ValueError, match="differ between training examples"):
        fit_probe(make_split(values, np.ones_like(hot)))
    with pytest.raises(ValueError, match='Received: kind="nearest-mean"'):
        fit_probe(make_split(values, hot), kind="nearest-mean")
    with pytest.raises(ValueError, match='must be "ridge" for labels that are'):
        fit_probe(make_split(values, values[:, 0]))
    with pytest.raises(ValueError, match="must have finite labels"):
        fit_probe(make_split(values, values[:, 0] * np.nan), kind="ridge")
    values[3, 3] = np.inf
    with pytest.raises(ValueError, match="must be finite. Received: NaN"):
        fit_probe(make_split(values, labels))


def test_predict_equals_the_probe_from_pixels_on():
    """Images to features to probe to head, with real weights."""
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (36, 32, 32, 3), dtype="uint8")
    labels = np.arange(36) % 3
    for image, label in zip(images, labels, strict=True):
        image[8 * label : 8 * label + 12] //= 3
    data = ktr.load_images((images, labels), split=(0.5, 0.25, 0.25))
    model = ktr.build_classifier("ResNet20", data=data)
    features = extract_features("ResNet20", data, store="memory", verbose=0)
    probe = fit_probe(features)
    probe.write_to(model)
    given = model.predict(data.test.batches(), verbose=0)
    np.testing.assert_allclose(given, probe.predict(features.test), atol=1e-5)
    assert probe.evaluate(features.test).class_names == data.class_names


@pytest.mark.pretrained
def test_predict_equals_the_probe_on_real_images(assets):
    """MobileNetV2 of ImageNet on photographs, 4 + 2 of each species."""
    data = ktr.load_images(
        assets / "images" / "flowers12", image_size=96, split=(0.8, 0.0, 0.2)
    )
    backbone = ktr.load_backbone(
        "MobileNetV2",
        weights=assets / "weights/mobilenet_v2_0.35_224_no_top.weights.h5",
        alpha=0.35,
        input_shape=(96, 96, 3),
    )
    parts = {
        "train": data.train.shots(4).arrays(),
        "test": data.test.shots(2).arrays(),
    }
    features = extract_features(backbone, parts, store="memory", verbose=0)
    model = ktr.build_classifier(backbone, data=data)
    images, labels = parts["test"]
    for kind in ("logistic", "nearest-mean"):
        probe = fit_probe(features, kind=kind)
        probe.write_to(model)
        given = model.predict(images, verbose=0)
        np.testing.assert_allclose(
            given, probe.predict(features.test), atol=1e-5
        )
        assert (given.argmax(1) == labels.argmax(1)).mean() > 0.5


@pytest.mark.parametrize(
    "change", ["weights", "pooling"], ids=["fine-tuned", "max"]
)
def test_refuses_a_model_whose_features_are_others(change):
    """Same name, block and width: only the digest of the network tells."""
    images = np.random.default_rng(0).integers(0, 256, (24, 32, 32, 3), "uint8")
    data = ktr.load_images((images, np.arange(24) % 2))
    features = ktr.extract_features("ResNet20", data, store="memory", verbose=0)
    probe = ktr.fit_probe(features)
    pooling = "max" if change == "pooling" else "avg"
    model = ktr.build_classifier("ResNet20", data=data, pooling=pooling)
    if change == "weights":
        variable = model.get_layer("backbone").weights[0]
        variable.assign(variable * 1.01)
    before = model.get_weights()
    with pytest.raises(ValueError, match="other weights, image size, sequ"):
        probe.write_to(model)
    for one, other in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(one, other)
    others = ktr.extract_features(
        model, data, pooling=pooling, store="memory", verbose=0
    )
    with pytest.raises(ValueError, match="same|backbones and blocks"):
        probe.predict(others.train)
