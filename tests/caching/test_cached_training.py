"""Training from kept activations equals training from pixels, and is less."""

import keras
import numpy as np
import pytest
from features._counting import Counting, passed
from training._networks import build
from training._tiny import (
    SAME,
    arrays_of,
    assert_law,
    assert_same,
    make_images,
    make_model,
)

import keras_transfer as ktr
from keras_transfer.caching.cuts import Cut, width
from keras_transfer.caching.networks import networks_for
from keras_transfer.caching.store import FeatureStore
from keras_transfer.caching.store.entry import Tensor
from keras_transfer.caching.store.reader import Reader
from keras_transfer.caching.views import make_views
from keras_transfer.training import compiling


def both(data, make=make_model, **arguments):
    """Trains from kept activations and from pixels; returns both runs."""
    runs = []
    for store in ("memory", False):
        model = make()
        before = arrays_of(model)
        run = ktr.fine_tune(
            model, data, store=store, **{"verbose": 0, **arguments}
        )
        runs.append((run, before))
    (kept, before), (direct, _) = runs
    assert_law(kept.model, direct.model)
    assert any(
        not np.array_equal(a, b)
        for a, b in zip(arrays_of(kept.model), before, strict=True)
    )
    for row, other in zip(kept.rows, direct.rows, strict=True):
        assert row.keys() == other.keys()
        for name in row.keys() - {"name", "seconds"}:
            assert row[name] == pytest.approx(other[name], abs=1e-4), name
    return kept, direct


def phase(depth, epochs=3, **options):
    return ktr.Phase(
        f"depth {depth}",
        depth=depth,
        epochs=epochs,
        learning_rate=1e-2,
        **options,
    )


@pytest.mark.parametrize(
    ("name", "depth"),
    [
        ("chain", 0),
        pytest.param("chain", 2, marks=pytest.mark.exhaustive),
        ("residual", 1),
        pytest.param("branches", 1, marks=pytest.mark.exhaustive),
        ("branches", 2),
        pytest.param("reaching_back", 1, marks=pytest.mark.exhaustive),
        ("reaching_back", 2),
    ],
)
def test_equals_training_from_pixels(data, name, depth):
    kept, direct = both(
        data, lambda: build(name), strategy=[phase(depth)], global_clipnorm=1.0
    )
    assert kept.plan.phases[0].cut.depth == depth
    assert kept.plan.phases[0].tier == "memory"
    assert direct.plan.phases[0].cut is None
    several = 2 if name == "reaching_back" else 1
    assert width(kept.model, kept.plan.phases[0].cut) == several


@pytest.mark.parametrize(
    "arguments",
    [
        {
            "penalty": ktr.L2SP(0.1, beta=0.01),
            "class_weight": "balanced",
            "label_smoothing": 0.1,
        },
        {
            "penalty": ktr.L2(0.01, decoupled=True),
            "class_weight": {0: 2.0},
            "global_clipnorm": 0.1,
        },
        {"ema_momentum": 0.8, "gradient_accumulation_steps": 2},
        {
            "optimizer": keras.optimizers.SGD(momentum=0.9),
            "batch_size": 7,
            "patience": 1,
        },
    ],
    ids=lambda a: "-".join(a),
)
def test_every_setting_acts_the_same(data, arguments):
    strategy = [phase(0, layer_decay=0.5), phase(2, layer_decay=0.5)]
    both(data, strategy=strategy, **arguments)


@pytest.mark.parametrize(
    "strategy",
    [
        ktr.LinearProbe(exact=True),
        ktr.LPFT(depth=2, epochs=2),
        ktr.GradualUnfreezing(depth=2),
        [phase(2), phase(0)],
        [phase("all"), phase(1)],
        ktr.Surgical("block_3", epochs=2),
        pytest.param(
            ktr.Surgical("block_1", epochs=2), marks=pytest.mark.exhaustive
        ),
    ],
    ids=lambda s: "-".join(str(p.depth or p.blocks) for p in s),
)
def test_every_strategy(data, strategy):
    both(data, lambda: make_model(dropout=0.2), strategy=strategy)


def test_batch_norm_that_trains(data):
    """By SGD: the gradient of a bias before it is zero but for rounding.

    Adam makes steps of full length of that, in whichever direction.
    """
    strategy = [phase(1, train_batch_norm=True)]
    both(
        data,
        lambda: make_model(dropout=0.2),
        strategy=strategy,
        optimizer="sgd",
    )


def test_arrays_and_yes_or_no(data):
    images, labels = make_images(40)
    both((images, keras.utils.to_categorical(labels)), strategy=[phase(1)])

    def make():
        network = make_model().get_layer("backbone")
        backbone = ktr.load_backbone(network, pixel_range="[0, 1]")
        keras.utils.set_random_seed(0)
        return ktr.build_classifier(backbone, 1, activation="sigmoid")

    yes = (labels == 1).astype("float32")[:, None]
    both({"train": (images, yes)}, make, strategy=[phase(0)])


def test_what_the_user_froze_counts_as_frozen(data):
    def make():
        model = make_model()
        ktr.unfreeze(model, "all")
        ktr.freeze(model, ["block_1", "block_2"])
        return model

    kept, _ = both(data, make, strategy=[phase("all")])
    assert kept.plan.phases[0].cut.depth == 1


def test_mixed_precision_is_kept_in_its_precision(data):
    runs = [
        ktr.fine_tune(
            make_model(),
            data,
            strategy=[phase(1)],
            mixed_precision="mixed_bfloat16",
            store=store,
            verbose=0,
        )
        for store in ("memory", False)
    ]
    assert runs[0].plan.phases[0].cut is not None
    assert_same(runs[0].model, arrays_of(runs[1].model), atol=1e-2)


# --- Once ---


@pytest.mark.parametrize(
    ("strategy", "passes"),
    [
        ([phase(0, epochs=5)], 1),
        (ktr.LPFT(depth=2, epochs=3), 1),
        (ktr.GradualUnfreezing(depth=2), 1),
        # What trained below the second cut is computed again, from the first.
        ([phase(2), phase(0)], 1),
    ],
    ids=["probe", "lp-ft", "gradual", "back"],
)
def test_each_image_passes_the_prefix_once(strategy, passes):
    parts = {"train": make_images(30), "validation": make_images(12, seed=1)}
    model = build("chain", first=Counting())
    images = np.concatenate([images for images, _ in parts.values()])
    passed(images)
    ktr.fine_tune(
        model,
        ktr.load_images(parts, split=(1.0, 0.0, 0.0)),
        strategy=strategy,
        store="memory",
        verbose=0,
    )
    assert passed(images) == [passes] * len(images)


def test_from_pixels_it_passes_in_each_epoch():
    """What the counting layer says where nothing is kept."""
    images, labels = make_images(12)
    model = build("chain", first=Counting())
    passed(images)
    ktr.fine_tune(
        model,
        {"train": (images, keras.utils.to_categorical(labels))},
        strategy=[phase(0, epochs=5)],
        store=False,
        verbose=0,
    )
    assert passed(images) == [5] * len(images)


def test_a_second_run_on_one_store_computes_nothing(data, tmp_path):
    images, labels = make_images(30)
    data = ktr.load_images(
        {"train": (images, labels), "validation": make_images(12, seed=1)},
        split=(1.0, 0.0, 0.0),
    )
    runs = [
        ktr.fine_tune(
            build("chain", seed=0),
            data,
            strategy=[phase(1)],
            store=FeatureStore(tmp_path / "store"),
            verbose=0,
        )
        for _ in range(2)
    ]
    assert [run.plan.extracted[0] for run in runs] == [42, 0]
    assert_same(runs[1].model, arrays_of(runs[0].model))


# --- Callbacks, views, plans ---


class Looking(keras.callbacks.Callback):
    """Uses the model as one would that knows nothing of cuts."""

    def __init__(self, images, stop_at):
        super().__init__()
        self.images, self.stop_at = images, stop_at
        self.seen = []

    def on_epoch_end(self, epoch, logs=None):
        self.seen.append(self.model.predict(self.images, verbose=0))
        rate = float(self.model.optimizer.learning_rate)
        assert rate == pytest.approx(logs.get("learning_rate", rate))
        if epoch + 1 == self.stop_at:
            self.model.stop_training = True


def test_callbacks_see_the_whole_model(data, tmp_path):
    images, _ = data.validation.arrays()
    seen = []
    for store in ("memory", False):
        looking = Looking(images, stop_at=2)
        file = str(tmp_path / f"{store}.keras")
        ktr.fine_tune(
            make_model(),
            data,
            strategy=[phase(1, epochs=4)],
            callbacks=[looking, keras.callbacks.ModelCheckpoint(file)],
            store=store,
            verbose=0,
        )
        seen.append(looking.seen)
        loaded = keras.models.load_model(file)
        np.testing.assert_allclose(
            loaded.predict(images, verbose=0), looking.seen[-1], atol=1e-5
        )
    assert len(seen[0]) == len(seen[1]) == 2
    np.testing.assert_allclose(seen[0], seen[1], atol=1e-5)


def test_fixed_views_take_turns():
    """Each epoch shows another view of an image, each view equally often."""
    images, labels = make_images(24)
    held_out, answers = make_images(6, seed=1)
    one_hot = keras.utils.to_categorical
    model = build("chain", first=Counting())
    views = make_views(3, ktr.Augmentation(crop=0.2), seed=0)
    passed(images)
    run = ktr.fine_tune(
        model,
        {
            "train": (images, one_hot(labels)),
            "validation": (held_out, one_hot(answers)),
        },
        strategy=[phase(1, epochs=6)],
        augment=views[0].augment,
        views=3,
        verbose=0,
    )
    planned = run.plan.phases[0]
    assert (planned.views, planned.tier) == (3, "memory")
    assert "fixed views" in planned.why
    assert run.plan.extracted[0] == 3 * 24 + 6
    assert passed(images) == [1] * 24  # clean; the others are other pixels


def test_each_view_of_an_example_once_in_as_many_epochs():
    store = FeatureStore()
    digests = np.random.default_rng(0).integers(0, 256, (10, 16), "uint8")
    entries = [
        store.open(str(view), {}, [Tensor((1,), "float32")]) for view in "abc"
    ]
    for view, entry in enumerate(entries):
        rows = 100 * view + np.arange(10, dtype="float32")[:, None]
        entry.append(digests, [rows])
    reader = Reader(entries, digests, np.arange(10))
    for mixup in (0.0, 1e-9):  # gathered by TensorFlow, and by NumPy
        epochs = []
        for epoch in range(3):
            batches = reader.batches(4, shuffle=True, epoch=epoch, mixup=mixup)
            found = [(x.numpy()[:, 0], y.numpy()) for x, y in batches]
            x, y = (np.concatenate(parts) for parts in zip(*found, strict=True))
            if not mixup:
                np.testing.assert_array_equal(x % 100, y)
                epochs.append(x[np.argsort(y)] // 100)
                assert not np.array_equal(y, np.sort(y))
        if not mixup:
            np.testing.assert_array_equal(
                np.sort(epochs, axis=0), [[0] * 10, [1] * 10, [2] * 10]
            )
            assert len(set(epochs[0])) == 3


def test_mixup_weighs_activations_and_labels_alike():
    store = FeatureStore()
    digests = np.random.default_rng(0).integers(0, 256, (64, 16), "uint8")
    entry = store.open("key", {}, [Tensor((2,), "float32")])
    labels = np.eye(2, dtype="float32")[np.arange(64) % 2]
    entry.append(digests, [labels])  # so that both must stay equal
    batches = Reader([entry], digests, labels).batches(16, mixup=1.0)
    for x, y in batches:
        np.testing.assert_allclose(x, y, atol=1e-6)
        np.testing.assert_allclose(np.sum(y, axis=1), 1, atol=1e-6)
        assert ((y > 0.05) & (y < 0.95)).numpy().any()


def test_mixup_mixes_activations(data):
    runs = [
        ktr.fine_tune(
            make_model(),
            data,
            strategy=[phase(1)],
            augment=ktr.Augmentation(horizontal_flip=False, mixup=mixup),
            views=1,
            verbose=0,
        )
        for mixup in (0.0, 1.0, 1.0)
    ]
    plain, mixed, again = (arrays_of(run.model) for run in runs)
    assert not np.allclose(plain[-1], mixed[-1])
    for one, other in zip(mixed, again, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ({"store": False}, "`store` is False"),
        ({"augment": ktr.Augmentation()}, "images change in each pass"),
        ({"strategy": [phase("all")]}, "its first block trains"),
        ({"strategy": ktr.FromScratch(epochs=1)}, "new weights"),
        ({"penalty": ktr.FeatureMap(0.1)}, "reads activations"),
        ({"store": FeatureStore(limit=10)}, "are free in the store"),
    ],
    ids=lambda a: a if isinstance(a, str) else "-".join(a),
)
def test_the_plan_says_why_nothing_is_kept(data, arguments, why):
    run = ktr.fine_tune(
        make_model(),
        data,
        **{"strategy": [phase(0, epochs=1)], "verbose": 0, **arguments},
    )
    assert run.plan.phases[0].cut is None
    assert why in run.plan.phases[0].why
    assert why in run.plan.explain()


def test_a_dataset_is_computed_in_each_pass():
    import tensorflow as tf

    images, labels = make_images(12)
    dataset = tf.data.Dataset.from_tensor_slices(
        (images.astype("float32"), keras.utils.to_categorical(labels))
    ).batch(4)
    run = ktr.fine_tune(
        make_model(), dataset, strategy=[phase(0, epochs=1)], verbose=0
    )
    assert "read by index" in run.plan.phases[0].why


def test_a_random_layer_below_the_cut_is_not_kept(data):
    def noisy(x):
        return keras.layers.GaussianNoise(0.1, name="block_0_noise")(x)

    run = ktr.fine_tune(
        build("chain", first=noisy),
        data,
        strategy=[phase(0, epochs=1)],
        verbose=0,
    )
    planned = run.plan.phases[0]
    assert planned.cut is None
    assert "block_0_noise of its first blocks is random" in planned.why


def test_a_random_layer_above_the_cut_does_no_harm(data):
    kept, _ = both(data, lambda: make_model(dropout=0.4), strategy=[phase(1)])
    assert kept.plan.phases[0].cut.depth == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"views": 0}, "`views` must be None or an integer"),
        ({"views": 2}, "None where `augment` is None"),
        (
            {"views": 1, "augment": ktr.Augmentation()},
            "the first view is the image as it is",
        ),
        (
            {
                "views": 2,
                "augment": ktr.Augmentation(horizontal_flip=False, mixup=0.2),
            },
            "1 where `augment` only mixes",
        ),
        (
            {"views": 2, "augment": ktr.Augmentation(), "store": False},
            "None where `store` is False",
        ),
        (
            {"views": 2, "augment": ktr.Augmentation(), "depth": "all"},
            "its first block trains. Choose a smaller `depth`",
        ),
        (
            {"views": 2, "augment": ktr.Augmentation(cutmix=0.5)},
            "which needs pixels",
        ),
    ],
)
def test_views_that_cannot_be(data, arguments, message):
    with pytest.raises(ValueError, match=message):
        ktr.fine_tune(make_model(), data, verbose=0, **arguments)


def test_a_store_that_cannot_be(data, tmp_path):
    (tmp_path / "file.txt").write_text("mine")
    with pytest.raises(ValueError, match=r"holds file\.txt"):
        ktr.fine_tune(make_model(), data, store=tmp_path, verbose=0)
    with pytest.raises(TypeError, match="`store` must be"):
        ktr.fine_tune(make_model(), data, store=3, depth="all", verbose=0)
    with pytest.raises(ValueError, match="`store` must name a folder"):
        ktr.plan(make_model(), data, store="disk")
    assert [file.name for file in tmp_path.iterdir()] == ["file.txt"]


# --- plan ---


def test_plan_says_what_fine_tune_does(data):
    model = make_model()
    before = arrays_of(model)
    arguments = {
        "strategy": ktr.GradualUnfreezing(depth=2),
        "store": "memory",
    }
    planned = ktr.plan(model, data, **arguments)
    assert_same(model, before)
    assert not model.get_layer("backbone").trainable_variables
    run = ktr.fine_tune(model, data, **arguments, verbose=0)
    for one, other in zip(planned.phases, run.plan.phases, strict=True):
        assert (one.cut, one.tier, one.num_bytes) == (
            other.cut,
            other.tier,
            other.num_bytes,
        )
    assert planned.took == {}
    assert set(run.plan.took) == set(range(len(run.plan.phases)))


def test_explain_is_a_table_with_reasons(data):
    planned = ktr.plan(make_model(), data, strategy=[phase(1), phase("all")])
    lines = planned.explain().splitlines()
    assert lines[0].split()[:3] == ["phase", "passes", "cached"]
    assert "after block_2" in lines[1] and "memory" in lines[1]
    assert "nothing" in lines[2]
    assert lines[3].startswith("1 depth 1: ")
    assert lines[4] == (
        "2 depth all: nothing is cached because its first block trains."
    )
    kept = planned.phases[0]
    # 45 training and 18 validation examples of 8 x 8 x 6 float32.
    count = len(data.train) + len(data.validation)
    assert kept.num_bytes == count * 8 * 8 * 6 * 4
    assert 0 < kept.frozen_flops < kept.flops
    assert kept.seconds > 0 and kept.direct > kept.seconds
    assert 1 < kept.bound < 3


def test_plan_keeps_nothing_where_reading_costs_more(data, monkeypatch):
    from keras_transfer.caching import planning

    monkeypatch.setattr(planning, "measure_memory", lambda: 1.0)
    planned = ktr.plan(make_model(), data, strategy=[phase(1)])
    assert planned.phases[0].cut is None
    assert "computing them in each of 3 passes" in planned.phases[0].why


def test_plan_goes_to_disk_where_memory_is_short(data, monkeypatch, tmp_path):
    from keras_transfer.caching import planning

    monkeypatch.setenv("KERAS_TRANSFER_CACHE", str(tmp_path))
    monkeypatch.setattr(planning, "free_memory", lambda: 1000)
    both_ways = {"strategy": [phase(1)], "verbose": 0}
    run = ktr.fine_tune(make_model(), data, **both_ways)
    assert run.plan.phases[0].tier == "disk"
    assert FeatureStore(tmp_path / "features").size() > 0
    direct = ktr.fine_tune(make_model(), data, store=False, **both_ways)
    assert_same(run.model, arrays_of(direct.model), atol=SAME)


def test_goes_on_with_what_trained_below_the_next_cut(data, tmp_path):
    """The second phase's activations are those of the first one's weights."""

    class Stop(keras.callbacks.Callback):
        epochs = 0

        def on_epoch_begin(self, epoch, logs=None):
            Stop.epochs += 1
            if Stop.epochs == 5:
                raise KeyboardInterrupt

    arguments = {"strategy": [phase(2), phase(0)], "verbose": 0}
    peace = make_model()
    ktr.fine_tune(peace, data, **arguments)
    with pytest.raises(KeyboardInterrupt):
        ktr.fine_tune(
            make_model(),
            data,
            directory=tmp_path / "run",
            callbacks=[Stop()],
            **arguments,
        )
    model = make_model()
    ktr.fine_tune(model, data, directory=tmp_path / "run", **arguments)
    assert_same(model, arrays_of(peace), atol=1e-6)


# --- What only looks frozen ---


@keras.saving.register_keras_serializable("tests")
class Doubling(keras.layers.Layer):
    """Gives twice as much in training."""

    def call(self, x, training=None):
        return 2 * x if training else x


@keras.saving.register_keras_serializable("tests")
class Shaking(keras.layers.Layer):
    """Draws from nobody's generator."""

    def call(self, x):
        return x + keras.random.normal(keras.ops.shape(x), seed=None)


@keras.saving.register_keras_serializable("tests")
class Drifting(keras.layers.Layer):
    """Counts its calls in training, and gives the number away."""

    def build(self, shape):
        self.calls = self.add_weight(
            shape=(), initializer="zeros", trainable=False
        )

    def call(self, x, training=None):
        if training:
            self.calls.assign_add(1.0)
        return x + self.calls


@pytest.mark.parametrize("layer", [Doubling, Shaking, Drifting])
def test_own_layers_that_act_differently_are_not_kept(data, layer):
    model = build("chain", first=layer())
    before = arrays_of(model)
    planned = ktr.plan(model, data, strategy=[phase(1)]).phases[0]
    assert planned.cut is None
    assert "behaves differently in training" in planned.why
    assert_same(model, before)  # also the state of the layer that was tried


def test_own_layers_that_act_the_same_are_kept(data):
    planned = ktr.plan(build("chain", first=Counting()), data, depth=1)
    assert planned.phases[-1].cut is not None


def test_spectral_normalization_moves_though_frozen():
    inputs = keras.Input((4,))
    x = keras.layers.SpectralNormalization(
        keras.layers.Dense(4), name="block_1"
    )(inputs)
    x = keras.layers.Dense(3, name="block_2")(x)
    outputs = keras.layers.Dense(2, activation="softmax", name="block_3")(x)
    model = keras.Model(inputs, outputs)
    model.get_layer("block_1").trainable = False
    rows = np.random.default_rng(0).normal(size=(12, 4)).astype("float32")
    planned = ktr.plan(
        model, (rows, np.arange(12) % 2), strategy=[ktr.Phase("p", depth=1)]
    )
    assert planned.phases[0].cut is None


def test_tokens_are_no_pixels():
    def make():
        keras.utils.set_random_seed(0)
        tokens = keras.Input((6,), dtype="int32")
        x = keras.layers.Embedding(50, 8, name="block_1")(tokens)
        x = keras.layers.Conv1D(4, 3, name="block_2")(x)
        x = keras.layers.GlobalAveragePooling1D()(x)
        outputs = keras.layers.Dense(2, activation="softmax", name="block_3")(x)
        return keras.Model(tokens, outputs)

    generator = np.random.default_rng(0)
    pair = generator.integers(0, 50, (24, 6)), np.arange(24) % 2
    both(pair, make, strategy=[phase(1)])
    planned = ktr.plan(make(), pair, strategy=[phase(1)]).phases[0]
    assert planned.cut.depth == 1 and planned.seconds is not None


def test_the_exact_probe_is_fitted_to_what_the_last_layer_is_fed(data):
    def make():
        model = make_model()
        head = model.get_layer("head")
        features = keras.Input(head.input_shape[1:])
        x = keras.layers.GlobalAveragePooling2D()(features)
        x = keras.layers.UnitNormalization()(x)
        keras.utils.set_random_seed(1)
        x = keras.layers.Dense(3, activation="softmax", name="predictions")(x)
        new = keras.Model(features, x, name="head")
        images = keras.Input((8, 8, 3), name="image")
        y = model.get_layer("backbone")(
            model.get_layer("preprocessing")(images)
        )
        return keras.Model(images, new(y), name="tiny_classifier")

    both(data, make, strategy=ktr.LinearProbe(exact=True))


# --- Room and time ---


def test_keeps_what_is_worth_most_where_there_is_little_room(data):
    strategy = [phase(0, epochs=5), phase(2)]
    count = len(data.train) + len(data.validation)
    room = count * (8 * 4) + 1000  # the pooled vectors alone
    run = ktr.fine_tune(
        make_model(),
        data,
        strategy=strategy,
        store=FeatureStore(limit=room + 16 * count),
        verbose=0,
    )
    first, second = run.plan.phases
    assert first.cut is not None and second.cut is None
    assert "are free in the store" in second.why


def test_one_pass_keeps_nothing(data):
    planned = ktr.plan(make_model(), data, strategy=[phase(1, epochs=1)])
    assert "each example passes once" in planned.phases[0].why


def test_a_named_store_is_used_whatever_it_costs(data, monkeypatch):
    from keras_transfer.caching import planning

    monkeypatch.setattr(planning, "measure_memory", lambda: 1.0)
    planned = ktr.plan(
        make_model(), data, strategy=[phase(1, epochs=1)], store="memory"
    )
    assert planned.phases[0].cut is not None


def test_trains_from_pixels_where_the_users_store_fails(
    data, monkeypatch, tmp_path, capsys
):
    from keras_transfer.caching import planning

    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("KERAS_TRANSFER_CACHE", str(tmp_path / "file" / "x"))
    monkeypatch.setattr(planning, "free_memory", lambda: 1000)
    monkeypatch.setattr(planning, "measure_disk", lambda folder: 1e9)
    run = ktr.fine_tune(make_model(), data, strategy=[phase(1)])
    assert run.plan.phases[0].cut is None
    assert "nothing is cached because" in run.plan.explain()
    assert "nothing is cached because" in capsys.readouterr().out
    with pytest.raises((OSError, ValueError)):
        ktr.fine_tune(
            make_model(),
            data,
            strategy=[phase(1)],
            store=tmp_path / "file" / "x",
            verbose=0,
        )


def test_folds_share_what_is_computed():
    images, labels = make_images(30)
    data = ktr.load_images((images, labels), split=(1.0, 0.0, 0.0))
    passed(images)
    ktr.cross_validate(
        lambda: build("chain", first=Counting(), seed=0),
        data,
        folds=3,
        strategy=[phase(0, epochs=3)],
        verbose=0,
    )
    # Once for all folds, and once where it was held out and measured.
    assert passed(images) == [2] * 30


def test_planning_leaves_no_traces_in_the_model(data):
    model = make_model()
    layers = [
        part for child in model.layers for part in child._flatten_layers()
    ]

    def nodes():
        return {layer.name: len(layer._inbound_nodes) for layer in layers}

    before = nodes()
    ktr.plan(model, data, strategy=ktr.GradualUnfreezing(depth=2))
    assert nodes() == before


def test_callbacks_find_metrics_by_name(data, tmp_path):
    class Measuring(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            batch = data.validation.batches(32)
            self.found = self.model.evaluate(batch, return_dict=True, verbose=0)

    measuring = Measuring()
    file = tmp_path / "best.keras"
    run = ktr.fine_tune(
        make_model(),
        data,
        strategy=[phase(0, epochs=9)],
        callbacks=[
            keras.callbacks.EarlyStopping("val_accuracy", patience=1),
            keras.callbacks.ModelCheckpoint(
                file, monitor="val_accuracy", save_best_only=True
            ),
            measuring,
        ],
        verbose=0,
    )
    assert run.plan.phases[0].cut is not None
    assert set(measuring.found) == {"accuracy", "loss"}
    assert measuring.found["accuracy"] == pytest.approx(
        run.history["val_accuracy"][-1]
    )
    assert keras.models.load_model(file).output_shape == (None, 3)


def test_a_linear_probe_finds_what_was_extracted(data):
    store = FeatureStore()
    network = make_model().get_layer("backbone")
    backbone = ktr.load_backbone(network, pixel_range="[0, 1]")
    ktr.extract_features(backbone, data, store=store, verbose=0)
    for strategy, passes in (
        (ktr.LinearProbe(exact=True), 0),
        ([phase(0)], 0),
        # Others keep what the model computes, beyond the fifth digit.
        ([phase(0), phase("all")], len(data.train) + len(data.validation)),
    ):
        run = ktr.fine_tune(
            make_model(), data, strategy=strategy, store=store, verbose=0
        )
        assert sum(run.plan.extracted.values()) == passes


@pytest.mark.parametrize(
    "arguments",
    [
        {
            "ema_momentum": 0.8,
            "gradient_accumulation_steps": 2,
            "batch_size": 7,
        },
        {
            "optimizer": keras.optimizers.SGD(momentum=0.9),
            "batch_size": 5,
            "penalty": ktr.L2SP(0.1, beta=0.01),
            "class_weight": "balanced",
        },
    ],
    ids=lambda a: "-".join(a),
)
def test_many_steps_in_one_call(data, monkeypatch, arguments):
    monkeypatch.setattr(compiling, "_MIN_STEPS", 1)
    at_once = []
    compiled = keras.Model.compile

    def compile(self, *args, steps_per_execution=1, **kwargs):
        at_once.append(steps_per_execution)
        compiled(self, *args, steps_per_execution=steps_per_execution, **kwargs)

    monkeypatch.setattr(keras.Model, "compile", compile)
    strategy = [phase(0, layer_decay=0.5), phase(2, schedule="constant")]
    kept, _ = both(data, strategy=strategy, **arguments)
    assert max(at_once) > 1
    # The rates in the table are those that were trained at.
    assert kept.rows[1]["learning_rate"] != kept.rows[2]["learning_rate"]


def test_new_weights_are_not_computed_with_old_ones(data):
    new = ktr.Phase("new", depth=0, epochs=1, reinitialize=True)
    both(data, strategy=[new, phase(0)], seed=3)


def test_a_network_that_changes_is_folded_anew():
    model = make_model()
    images = np.ones((4, 8, 8, 3), np.float32)
    networks = networks_for(model, [phase(0)])
    cuts = [Cut(0, True, "after pooling")]
    assert networks.engine == "tensorflow, folded"
    before = np.array(networks.compiled(model, cuts, (8, 8, 3))(images)[0])
    kernel = model.get_layer("backbone").get_layer("block_1_conv").kernel
    kernel.assign(2 * kernel)
    after = np.array(networks.compiled(model, cuts, (8, 8, 3))(images)[0])
    assert np.abs(after - before).max() > 1e-3


def test_only_a_plain_linear_head_is_trained_on_folded_numbers():
    def engine(model, *phases):
        return networks_for(model, phases).engine

    folded, plain = "tensorflow, folded", "tensorflow"
    assert engine(make_model(), phase(0)) == folded
    assert engine(make_model(dropout=0.2), phase(0), phase(0)) == folded
    assert engine(make_model(), phase(0), phase(1)) == plain
    assert engine(make_model(), phase(None)) == plain
    assert engine(make_model(hidden_units=(4,)), phase(0)) == plain
    new = ktr.Phase("new", depth=0, epochs=1, reinitialize=True)
    assert engine(make_model(), new, phase(0)) == plain
    model = make_model()
    model.get_layer("head").get_layer("predictions").enable_lora(1)
    assert engine(model, phase(0)) == plain


@pytest.fixture(scope="module")
def flowers(assets):
    """A pretrained backbone, and photographs."""
    backbone = ktr.load_backbone(
        "MobileNetV2",
        alpha=0.35,
        weights=assets / "weights/mobilenet_v2_0.35_224_no_top.weights.h5",
        input_shape=(96, 96, 3),
    )
    data = ktr.load_images(
        assets / "images/flowers12", image_size=96, split=(1.0, 0.0, 0.0)
    )
    return backbone, data


@pytest.mark.pretrained
@pytest.mark.slow
@pytest.mark.parametrize(
    "depth", [pytest.param(0, marks=pytest.mark.exhaustive), 2]
)
def test_a_real_network(flowers, depth):
    """By small steps of SGD, which do not amplify the last bits.

    A cache computes activations in other batches than training does, so that
    last bits differ, and a unit at the edge of its ReLU6 passes a gradient in
    one run and none in the other. Adam makes a step of almost full length of
    that gradient, however small it is. Without a cache, other last bits in the
    frozen kernels moved weights by 2e-4 with Adam at this rate, and by 2e-6
    with SGD; at 1e-3 SGD is unstable.
    """
    backbone, data = flowers

    def make():
        keras.utils.set_random_seed(0)
        return ktr.build_classifier(backbone, data=data)

    strategy = [
        ktr.Phase("train", depth=depth, epochs=2, learning_rate=1e-4),
    ]
    both(data, make, strategy=strategy, optimizer="sgd")
