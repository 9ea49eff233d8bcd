"""Blocks, cuts, freezing: judged by their effect on weights and outputs."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_transfer as ktr
from keras_transfer.structure import graph


def residual_network(name="net"):
    """Conv, two residual branches, conv: names that nobody has taught."""
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(4, 3, padding="same", name="first")(inputs)
    x = layers.BatchNormalization(name="first_bn")(x)
    y = layers.Conv2D(4, 3, padding="same", name="left")(x)
    z = layers.Conv2D(4, 3, padding="same", name="right")(x)
    x = layers.ReLU(name="joined_relu")(layers.Add(name="joined")([x, y, z]))
    x = layers.MaxPooling2D(name="pool")(x)
    x = layers.Conv2D(4, 3, padding="same", name="last")(x)
    return keras.Model(inputs, x, name=name)


@pytest.fixture
def classifier():
    backbone = ktr.load_backbone(
        "ResNet20", weights=None, input_shape=(16, 16, 3)
    )
    return ktr.build_classifier(backbone, 3)


@pytest.fixture
def images():
    return np.random.default_rng(0).uniform(0, 255, (4, 16, 16, 3))


TARGETS = np.eye(3)[[0, 1, 2, 0]]


def compile_and_fit(model, images):
    # A large rate: what can change, does.
    model.compile(keras.optimizers.SGD(1.0), "categorical_crossentropy")
    model.fit(images, TARGETS, epochs=2, verbose=0)


def values(variables):
    return {v.path: np.array(v.value) for v in variables}


def test_cuts_of_an_unknown_network():
    cuts = graph.cuts(residual_network(), max_width=1)
    assert [cut.name for cut in cuts] == [
        "first",
        "first_bn",
        "joined",
        "joined_relu",
        "pool",
        "last",
    ]


def test_two_tensors_cross_inside_a_branch():
    wide = graph.cuts(residual_network(), max_width=2)
    left = next(cut for cut in wide if cut.name == "left")
    operations = [t._keras_history.operation.name for t in left.tensors]
    assert sorted(operations) == ["first_bn", "left"]


def test_blocks_of_an_unknown_network_end_where_tensors_are_small():
    found = ktr.blocks(residual_network())
    assert [b.name for b in found] == ["first", "left", "last"]
    # Normalization, activation and pooling belong to what is before them.
    assert found[0].outputs[0]._keras_history.operation.name == "first_bn"
    assert found[1].outputs[0].shape == (None, 4, 4, 4)


def test_blocks_of_a_sequential_model():
    model = keras.Sequential(
        [
            keras.Input((4,)),
            layers.Dense(3, name="a"),
            layers.Dense(2, name="b"),
        ]
    )
    assert [b.name for b in ktr.blocks(model)] == ["a", "b"]


def test_a_shared_layer_joins_its_blocks():
    shared = layers.Dense(4, name="shared")
    inputs = keras.Input((4,))
    x = shared(inputs)
    x = layers.Dense(4, name="between")(x)
    x = layers.Dense(2, name="last")(shared(x))
    found = ktr.blocks(keras.Model(inputs, x))
    assert [b.name for b in found] == ["shared", "last"]
    assert len(found[0].layers) == 2


def test_blocks_survive_saving_and_splitting(classifier, tmp_path):
    expected = [block.name for block in ktr.blocks(classifier)]
    ktr.split(classifier, 2)  # must leave no trace
    classifier.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert [block.name for block in ktr.blocks(loaded)] == expected


def test_a_subclassed_model_has_no_blocks():
    class Own(keras.Model):
        pass

    with pytest.raises(TypeError, match="must be a functional or built Seq"):
        ktr.blocks(Own())


@pytest.mark.parametrize("depth", [0, 1, 4, "all"])
def test_split_then_join_is_the_model(classifier, images, depth):
    prefix, suffix = ktr.split(classifier, depth)
    np.testing.assert_allclose(
        suffix(prefix(images)), classifier(images), atol=1e-6
    )


def test_training_the_suffix_trains_the_model(classifier, images):
    ktr.unfreeze(classifier, 1)
    prefix, suffix = ktr.split(classifier, 1)
    before = values(classifier.variables)
    compile_and_fit(suffix, prefix.predict(images, verbose=0))
    after = values(classifier.variables)
    changed = {p for p in before if not np.array_equal(before[p], after[p])}
    assert changed == {v.path for v in classifier.trainable_variables}


def test_split_of_a_plain_model_needs_two_sides():
    with pytest.raises(ValueError, match=r"integer in \[1, 2\]"):
        ktr.split(residual_network(), 0)


def test_frozen_is_bit_identical_and_unfrozen_changes(classifier, images):
    opened = ktr.unfreeze(classifier, 2)
    assert opened and all("stage3" in path for path in opened)
    before = values(classifier.variables)
    compile_and_fit(classifier, images)
    after = values(classifier.variables)
    head = {v.path for v in classifier.get_layer("head").variables}
    for path, array in before.items():
        same = np.array_equal(array, after[path])
        assert same != (path in opened or path in head), path


def test_batch_norm_trains_when_asked(classifier, images):
    opened = ktr.unfreeze(classifier, 1, train_batch_norm=True)
    assert any(path.endswith("gamma") for path in opened)
    before = values(classifier.variables)
    compile_and_fit(classifier, images)
    after = values(classifier.variables)
    moved = {
        p
        for p in before
        if "moving" in p and not np.array_equal(before[p], after[p])
    }
    assert moved == {p for p in before if "moving" in p and "block3" in p} & {
        p for p in before if "stage3" in p
    }


def test_a_stale_compile_is_refused(classifier, images):
    compile_and_fit(classifier, images)
    ktr.unfreeze(classifier, 1)
    with pytest.raises(ValueError, match="must call `compile"):
        classifier.fit(images, TARGETS, verbose=0)
    compile_and_fit(classifier, images)


def test_no_change_keeps_the_compile(classifier, images):
    compile_and_fit(classifier, images)
    assert ktr.unfreeze(classifier, 0) == ()
    assert ktr.freeze(classifier) == ()
    classifier.fit(images, TARGETS, verbose=0)


def test_unfreeze_keeps_what_is_below(classifier):
    deep = ktr.unfreeze(classifier, 3)
    assert ktr.unfreeze(classifier, 1) == ()
    again = ktr.freeze(classifier, ["stage3_*"])
    assert sorted(again) == sorted(deep)


def test_depth_reaches_through_closed_containers(classifier):
    """Setting `trainable` on containers is what Keras users do."""
    classifier.get_layer("backbone").trainable = False
    opened = ktr.unfreeze(classifier, 1)
    trainable = {v.path for v in classifier.trainable_variables}
    assert opened and set(opened) < trainable
    head = {v.path for v in classifier.get_layer("head").variables}
    assert trainable - set(opened) == head


def test_a_head_that_the_user_froze_stays_frozen(classifier):
    classifier.trainable = False
    opened = ktr.unfreeze(classifier, 1)
    assert {v.path for v in classifier.trainable_variables} == set(opened)


def test_partial_freezing_survives_saving(classifier, tmp_path):
    opened = ktr.unfreeze(classifier, 2)
    classifier.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    backbone = loaded.get_layer("backbone")
    assert {v.path for v in backbone.trainable_variables} == set(opened)


@pytest.mark.parametrize("depth", [-1, 11, 1.0, True, "two", None])
def test_depth_out_of_range(classifier, depth):
    with pytest.raises(ValueError, match=r"integer in \[0, 10\] or \"all\""):
        ktr.unfreeze(classifier, depth)


def test_a_name_that_matches_nothing(classifier):
    with pytest.raises(ValueError, match="Did you mean 'stage3_block1'"):
        ktr.freeze(classifier, "stage3_blok1")


def test_summary_counts_what_trains(classifier):
    ktr.unfreeze(classifier, 1)
    lines = ktr.trainable_summary(classifier).splitlines()
    assert len(lines) == 1 + 10 + 1 + 1
    assert lines[-3].split()[:3] == ["1", "stage3_block3", "74,240"]
    assert lines[-3].split()[3:] == ["73,728", "frozen"]
    total = sum(np.prod(v.shape) for v in classifier.trainable_variables)
    assert lines[-1].split()[-1] == f"{total:,}"


@pytest.mark.parametrize(
    ("name", "pieces"),
    [
        ("VGG16", 13),
        ("MobileNetV2", 54),
        pytest.param("ResNet50", 18, marks=pytest.mark.exhaustive),
        pytest.param("NASNetMobile", 3, marks=pytest.mark.exhaustive),
        pytest.param("EfficientNetB0", 61, marks=pytest.mark.exhaustive),
        pytest.param("InceptionV3", 21, marks=pytest.mark.exhaustive),
        pytest.param("DenseNet121", 67, marks=pytest.mark.exhaustive),
    ],
)
def test_number_of_weighted_pieces_between_single_tensors(name, pieces):
    model = ktr.load_backbone(name, weights=None).model
    steps = graph.steps(model)
    found, done = 0, frozenset()
    for cut in graph.cuts(model, max_width=1):
        new = [steps[i].operation for i in cut.steps - done]
        found += any(getattr(operation, "weights", ()) for operation in new)
        done = cut.steps
    assert found == pieces


def nested_network():
    inner = keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            layers.Conv2D(4, 3, name="inner_conv"),
            layers.BatchNormalization(name="inner_bn"),
        ],
        name="inner",
    )
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(3, 3, padding="same", name="first")(inputs)
    x = layers.GlobalAveragePooling2D()(inner(x))
    return keras.Model(inputs, layers.Dense(3, name="last")(x)), inner


def test_batch_norm_that_is_closed_again_takes_the_compile_back(
    classifier, images
):
    ktr.unfreeze(classifier, "all", train_batch_norm=True)
    compile_and_fit(classifier, images)
    ktr.unfreeze(classifier, "all")
    assert not classifier.compiled
    before = values(classifier.variables)
    compile_and_fit(classifier, images)
    after = values(classifier.variables)
    moving = [path for path in before if "moving" in path]
    assert moving
    assert all(np.array_equal(before[p], after[p]) for p in moving)


def test_a_nested_model_is_opened_whatever_its_own_flag():
    model, inner = nested_network()
    ktr.freeze(model)
    ktr.unfreeze(model, "all")
    opened = ktr.unfreeze(model, "all", train_batch_norm=True)
    assert [p.split("/", 1)[1] for p in opened] == [
        "inner_bn/gamma",
        "inner_bn/beta",
    ]
    inner.trainable = False
    inner.get_layer("inner_bn").trainable = True
    ktr.freeze(model, "inner")
    assert not inner.get_layer("inner_bn").trainable


def test_every_weight_has_a_block_also_with_several_outputs():
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(4, 3, name="trunk")(inputs)
    one = layers.Conv2D(2, 3, name="one")(x)
    two = layers.Conv2D(2, 3, name="two")(x)
    model = keras.Model(inputs, [one, two])
    found = ktr.blocks(model)
    assert sum(len(b.weights) for b in found) == len(model.weights)
    ktr.freeze(model)
    assert not model.trainable_variables
    image = np.random.default_rng(0).uniform(size=(1, 8, 8, 3))
    prefix, suffix = ktr.split(model, 1)
    for got, expected in zip(suffix(prefix(image)), model(image), strict=True):
        np.testing.assert_allclose(got, expected, atol=1e-6)


def test_several_inputs_are_refused():
    inputs = [keras.Input((4,)), keras.Input((4,))]
    model = keras.Model(inputs, layers.Dense(1)(layers.Add()(inputs)))
    with pytest.raises(ValueError, match="`model` must have one input"):
        ktr.blocks(model)


def test_a_strangers_layer_named_backbone_is_a_layer():
    model, inner = nested_network()
    inner.name = "backbone"
    assert "last" in ktr.trainable_summary(model)


@pytest.mark.parametrize("names", [3, [4], None])
def test_names_of_blocks_are_strings(classifier, names):
    with pytest.raises(TypeError, match="`names` must be names of blocks"):
        ktr.freeze(classifier, names)
