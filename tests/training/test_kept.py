"""Training from kept activations equals training from pixels, and is less."""

import keras
import numpy as np
import pytest
from features._counting import Counting, passed

import keras_transfer as ktr
from keras_transfer.features import FeatureStore

from ._networks import NETWORKS, build
from ._tiny import arrays_of, assert_same, make_images, make_model

# Law 2, in float32.
SAME = 1e-5


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
    assert_same(kept.model, arrays_of(direct.model), atol=SAME)
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


@pytest.mark.parametrize("depth", [0, 1, 2])
@pytest.mark.parametrize("name", NETWORKS)
def test_equals_training_from_pixels(data, name, depth):
    kept, direct = both(
        data, lambda: build(name), strategy=[phase(depth)], clip_norm=1.0
    )
    assert kept.plan.phases[0].cut.depth == depth
    assert kept.plan.phases[0].tier == "memory"
    assert direct.plan.phases[0].cut is None


def test_several_tensors_cross_a_cut(data):
    kept, _ = both(data, lambda: build("reaching_back"), strategy=[phase(2)])
    from keras_transfer.features.cuts import width

    assert width(kept.model, kept.plan.phases[0].cut) == 2


@pytest.mark.parametrize(
    "arguments",
    [
        {"penalty": ktr.L2SP(0.1, beta=0.01)},
        {"penalty": ktr.L2(0.01, decoupled=True)},
        {"ema": 0.8, "accumulation_steps": 2},
        {"class_weight": "balanced", "label_smoothing": 0.1},
        {"class_weight": {0: 2.0}, "clip_norm": 0.1},
        {"optimizer": keras.optimizers.SGD(momentum=0.9), "batch_size": 7},
        {"patience": 1},
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
        ktr.FineTune(depth=1, epochs=2),
        [phase(2), phase(0)],
        [phase("all"), phase(1)],
        ktr.Surgical("block_3", epochs=2),
        ktr.Surgical("block_1", epochs=2),
        [phase(1, train_batch_norm=True)],
    ],
    ids=lambda s: "-".join(str(p.depth or p.blocks) for p in s),
)
def test_every_strategy(data, strategy):
    both(data, lambda: make_model(dropout=0.2), strategy=strategy)


def test_arrays_and_yes_or_no(data):
    images, labels = make_images(40)
    both((images, keras.utils.to_categorical(labels)), strategy=[phase(1)])

    def make():
        keras.utils.set_random_seed(0)
        backbone = ktr.load_backbone("ResNet20", input_shape=(8, 8, 3))
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
    parts = {"train": make_images(24), "validation": make_images(6, seed=1)}
    data = ktr.load_images(parts, split=(1.0, 0.0, 0.0))
    images = parts["train"][0]
    model = build("chain", first=Counting())
    passed(images)
    run = ktr.fine_tune(
        model,
        data,
        strategy=[phase(1, epochs=6)],
        augment=ktr.Augmentation(crop=0.2),
        views=3,
        verbose=0,
    )
    planned = run.plan.phases[0]
    assert (planned.views, planned.tier) == (3, "memory")
    assert "fixed views" in planned.why
    assert run.plan.extracted[0] == 3 * 24 + 6
    assert passed(images) == [1] * 24  # clean; the others are other pixels
    assert np.isfinite(run.history["loss"]).all()


def test_one_view_is_training_without_augmentation(data):
    runs = [
        ktr.fine_tune(
            make_model(), data, strategy=[phase(1)], verbose=0, **arguments
        )
        for arguments in ({"augment": ktr.Augmentation(), "views": 1}, {})
    ]
    assert_same(runs[0].model, arrays_of(runs[1].model), atol=SAME)


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
        ({"penalty": ktr.FeatureMap(0.1)}, "looks at activations"),
        ({"store": FeatureStore(limit=10)}, "may hold"),
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
        ktr.fine_tune(make_model(), data, store=3, verbose=0)
    assert [file.name for file in tmp_path.iterdir()] == ["file.txt"]


# --- plan ---


def test_plan_says_what_fine_tune_does(data):
    model = make_model()
    before = arrays_of(model)
    arguments = {"strategy": ktr.GradualUnfreezing(depth=2)}
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
    assert lines[0].split()[:3] == ["phase", "passes", "kept"]
    assert "after block_2" in lines[1] and "memory" in lines[1]
    assert "nothing" in lines[2]
    assert lines[3].startswith("1 depth 1: ")
    assert lines[4] == (
        "2 depth all: nothing is kept, since its first block trains."
    )
    kept = planned.phases[0]
    # 45 training and 18 validation examples of 8 x 8 x 6 float32.
    count = len(data.train) + len(data.validation)
    assert kept.num_bytes == count * 8 * 8 * 6 * 4
    assert 0 < kept.frozen_flops < kept.flops
    assert kept.seconds > 0 and kept.direct > kept.seconds
    assert 1 < kept.bound < 3


def test_plan_keeps_nothing_where_reading_costs_more(data, monkeypatch):
    from keras_transfer.training import planning

    monkeypatch.setattr(planning, "measure_memory", lambda: 1.0)
    planned = ktr.plan(make_model(), data, strategy=[phase(1)])
    assert planned.phases[0].cut is None
    assert "computing it in each of 3 passes" in planned.phases[0].why


def test_plan_goes_to_disk_where_memory_is_short(data, monkeypatch, tmp_path):
    from keras_transfer.training import planning

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
