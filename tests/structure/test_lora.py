"""Low-rank adapters: what they compute, what they train, how they are saved."""

import keras
import numpy as np
import pytest
from conformance._kerashub import IMAGES, enliven

import keras_transfer as ktr

hub = pytest.importorskip("keras_hub")

GENERATOR = np.random.default_rng(0)
IMAGES_IN = GENERATOR.integers(0, 256, (48, 32, 32, 3), "uint8")
LABELS = np.arange(48) % 3


def make(family="ViT", seed=0):
    keras.utils.set_random_seed(seed)
    network = getattr(hub.models, f"{family}Backbone")(**IMAGES[family][0])
    enliven(network)
    return ktr.build_classifier(
        ktr.load_backbone(network, pixel_range="[0, 1]"), 3
    )


@pytest.fixture
def data():
    return ktr.load_images((IMAGES_IN, LABELS), split=(0.75, 0.25, 0.0))


def child_arrays(model):
    child = model.get_layer("backbone")
    return {w.path: np.array(w) for w in child.weights}


def test_changes_nothing_at_first():
    model = make()
    before = np.asarray(model(IMAGES_IN))
    paths = ktr.add_lora(model, 4)
    np.testing.assert_array_equal(model(IMAGES_IN), before)
    ends = {path.rpartition("/")[2] for path in paths}
    assert ends == {"bias", "lora_kernel_a", "lora_kernel_b"}
    layers = {path.rpartition("/")[0].rpartition("/")[2] for path in paths}
    assert layers == {"query", "value"}
    trained = {v.path for v in model.trainable_variables}
    head = {v.path for v in model.get_layer("head").trainable_variables}
    assert trained == {*paths, *head}


def test_one_dense_layer_by_hand():
    inputs = keras.Input((3,))
    outputs = keras.layers.Dense(2, name="last")(
        keras.layers.Dense(4, name="first")(inputs)
    )
    model = keras.Model(inputs, outputs)
    ktr.add_lora(model, 2, depth=1, names="last")
    layer = model.get_layer("last")
    by_name = {v.name: v for v in layer.variables}
    by_name["lora_kernel_b"].assign(GENERATOR.normal(size=(2, 2)))
    a, b = (np.array(by_name[f"lora_kernel_{x}"]) for x in "ab")
    kernel = np.array(by_name["kernel"]) + a @ b
    x = GENERATOR.normal(size=(5, 3)).astype("float32")
    below = np.asarray(model.get_layer("first")(x))
    np.testing.assert_allclose(model(x), below @ kernel, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("depth", [1, "all"])
def test_only_adapters_train(data, depth):
    model = make()
    ktr.add_lora(model, 2)
    before = child_arrays(model)
    ktr.fine_tune(
        model,
        data,
        strategy="fine-tune",
        depth=depth,
        epochs=2,
        learning_rate=1e-2,
        verbose=0,
    )
    after = child_arrays(model)
    moved = {p for p in before if not np.array_equal(before[p], after[p])}
    last = {w.path for w in ktr.blocks(model)[-1].weights}
    assert moved
    assert all(
        path.endswith(("lora_kernel_a", "lora_kernel_b", "bias"))
        for path in moved
    )
    assert (moved <= last) == (depth == 1)


def test_closing_and_opening_again(data):
    """Keras itself would train the kernels after this."""
    model = make()
    opened = set(ktr.add_lora(model, 2))
    ktr.freeze(model)
    assert not any(
        v.trainable for v in model.get_layer("backbone").trainable_variables
    )
    assert set(ktr.unfreeze(model, "all")) == opened
    before = child_arrays(model)
    model.compile("adam", "sparse_categorical_crossentropy")
    model.fit(IMAGES_IN, LABELS, verbose=0)
    for path, old in before.items():
        if path not in opened:
            np.testing.assert_array_equal(child_arrays(model)[path], old)


def test_cached_training_equals_direct(data):
    found = []
    for store in ("memory", False):
        model = make()
        ktr.add_lora(model, 2)
        run = ktr.fine_tune(
            model,
            data,
            strategy="fine-tune",
            depth=1,
            epochs=3,
            store=store,
            seed=0,
            verbose=0,
        )
        found.append(model.get_weights())
        if store:
            assert "after" in run.plan.explain()
    for one, other in zip(*found, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


@pytest.mark.parametrize("family", ["ViT", "ResNet"])
def test_saved_and_loaded(family, tmp_path):
    """KerasHub's own network, and one that is plain Keras."""
    model = make(family)
    names = ("query", "value") if family == "ViT" else "*_conv"
    ktr.add_lora(model, 2, depth=1, names=names)
    model.compile("adam", "sparse_categorical_crossentropy")
    model.fit(IMAGES_IN, LABELS, verbose=0)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(again(IMAGES_IN), model(IMAGES_IN), atol=1e-5)
    trains = [v.path.rpartition("/")[2] for v in again.trainable_variables]
    assert trains == [
        v.path.rpartition("/")[2] for v in model.trainable_variables
    ]


def test_a_name_that_matches_nothing():
    """KerasHub's own `enable_lora` would freeze all and go on."""
    model = make("ResNet")
    trained = [v.path for v in model.trainable_variables]
    with pytest.raises(ValueError, match="_conv.*Received: names="):
        ktr.add_lora(model)
    assert [v.path for v in model.trainable_variables] == trained
    with pytest.raises(ValueError, match="must match layers"):
        ktr.add_lora(make(), names="qeury")
    adapted = make()
    ktr.add_lora(adapted)
    with pytest.raises(ValueError, match="which have one already"):
        ktr.add_lora(adapted)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rank": 0}, "`rank` must be an integer above 0"),
        ({"rank": 2.0}, "`rank` must be an integer above 0"),
        ({"depth": 0}, r"an integer in \[1, 3\]"),
        ({"depth": 4}, r"an integer in \[1, 3\]"),
    ],
    ids=str,
)
def test_wrong_arguments(options, message):
    with pytest.raises(ValueError, match=message):
        ktr.add_lora(make(), **options)
