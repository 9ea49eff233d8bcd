"""What `fine_tune` does to weights, and what it gives back."""

import functools
import zipfile

import keras
import numpy as np
import pytest

import keras_transfer as ktr

from ._tiny import CLASSES, arrays_of, make_images, make_model

QUIET = {"verbose": 0}
ONE = (ktr.Phase("one", depth=1, epochs=1),)


def moved(model, before):
    """Paths of the variables that are not the same to the bit."""
    return {
        variable.path
        for variable, array in zip(model.variables, before, strict=True)
        if not np.array_equal(np.array(variable), array)
    }


# --- What trains ---


def test_frozen_is_bit_identical(data, model):
    """Law 1, BatchNormalization statistics included."""
    before = arrays_of(model)

    run = ktr.fine_tune(model, data, depth=1, epochs=2, **QUIET)

    assert moved(model, before) == set(run.trainable[-1])
    assert "block_3_conv/kernel" in run.trainable[-1]
    assert not any("norm" in path for path in run.trainable[-1])


def test_each_phase_says_what_was_trainable(data, model):
    run = ktr.fine_tune(
        model, data, strategy="gradual-unfreezing", depth=2, epochs=1, **QUIET
    )
    assert [len(paths) for paths in run.trainable] == [2, 4, 6]
    assert run.history["depth"] == [0, 1, 2]
    assert run.history["phase"] == [0, 1, 2]
    assert "depth 2" in run.summary()


def test_what_the_user_froze_stays_frozen(data, model):
    ktr.freeze(model, "block_2")
    before = arrays_of(model)

    run = ktr.fine_tune(model, data, depth="all", epochs=1, **QUIET)

    assert not any("block_2" in path for path in moved(model, before))
    assert any("block_1" in path for path in run.trainable[-1])


def test_a_layer_frozen_by_hand_in_an_open_block_stays_frozen(data):
    model = make_model(hidden_units=(4,))
    model.get_layer("head").get_layer("hidden_1").trainable = False
    before = arrays_of(model)

    ktr.fine_tune(model, data, depth=1, epochs=1, **QUIET)

    assert "hidden_1/kernel" not in moved(model, before)
    assert "predictions/kernel" in moved(model, before)


def test_depth_of_frozen_blocks_raises(data, model):
    ktr.freeze(model)
    with pytest.raises(ValueError, match="frozen by `freeze`"):
        ktr.fine_tune(model, data, depth=2, **QUIET)
    ktr.unfreeze(model, 2)
    ktr.fine_tune(model, data, strategy=ONE, **QUIET)


@pytest.mark.parametrize("how", ["backbone", "opened", "whole", "loaded"])
def test_a_backbone_closed_as_a_whole_is_not_opened(data, model, how, tmp_path):
    """`model.get_layer("backbone").trainable = False`, as Keras users do."""
    if how == "opened":
        ktr.unfreeze(model, "all")
    closed = model if how == "whole" else model.get_layer("backbone")
    closed.trainable = False
    if how == "loaded":
        model.save(tmp_path / "model.keras")
        model = keras.models.load_model(tmp_path / "model.keras")
    for arguments in ({}, {"depth": "all"}, {"strategy": ktr.Surgical("*")}):
        with pytest.raises(ValueError, match=r"Open them with `unfreeze"):
            ktr.fine_tune(model, data, epochs=None, **arguments, **QUIET)
    with pytest.raises(ValueError, match="must not reinitialize frozen"):
        ktr.fine_tune(model, data, strategy="from-scratch", **QUIET)
    if how != "whole":  # That closes the head as well.
        before = arrays_of(model)
        ktr.fine_tune(model, data, strategy="linear-probe", **QUIET)
        assert {path.split("/")[0] for path in moved(model, before)} == {
            "predictions"
        }
    # The advice of the error. What it does not name stays closed.
    ktr.unfreeze(model, 1)
    run = ktr.fine_tune(model, data, strategy=ONE, **QUIET)
    trained = {path.split("/")[0] for path in run.trainable[-1]}
    assert trained - {"predictions"} == {"block_3_conv"}
    # Keras passes a flag on to the layers only where it changes.
    for flag in (False, True):
        model.get_layer("backbone").trainable = flag
    strategy = [ktr.Phase(depth="all")]
    run = ktr.fine_tune(model, data, strategy=strategy, **QUIET)
    assert any("block_1_conv" in path for path in run.trainable[-1])


def test_freezing_a_block_keeps_what_was_closed_as_a_whole(data, model):
    model.get_layer("backbone").trainable = False
    ktr.freeze(model, "block_2")
    ktr.unfreeze(model, 0)
    with pytest.raises(ValueError, match="frozen by `freeze` or by hand"):
        ktr.fine_tune(model, data, depth="all", **QUIET)


def _own_frozen(kind):
    """A frozen base with a dense layer on top, as Keras' tutorial builds it."""
    base = make_model().get_layer("backbone")
    base.trainable = False
    if kind == "wrapped":
        inner = make_model()
        return keras.Sequential(
            [keras.Input((8, 8, 3)), keras.layers.RandomFlip(), inner]
        )
    top = [keras.layers.GlobalAveragePooling2D()]
    if kind == "hidden":
        top.append(keras.layers.Dense(4))
    top.append(keras.layers.Dense(3, activation="softmax"))
    if kind == "sequential":
        first = [keras.Input((8, 8, 3)), keras.layers.Rescaling(1 / 255)]
        return keras.Sequential([*first, base, *top])
    inputs = base.input if kind == "flat" else keras.Input((8, 8, 3))
    x = base.output if kind == "flat" else base(inputs, training=False)
    for layer in top:
        x = layer(x)
    return keras.Model(inputs, x)


@pytest.mark.parametrize(
    "kind", ["nested", "hidden", "flat", "sequential", "wrapped"]
)
def test_a_depth_that_opens_nothing_raises(kind):
    images, labels = make_images(24)
    pair = images.astype("float32"), labels
    model = _own_frozen(kind)
    open_before = len(model.trainable_variables)
    depth = len(ktr.blocks(model))
    ignore = ("pixel-range", "augmentation-in-model")
    for arguments in (
        {"depth": depth},
        {"strategy": [ktr.Phase(depth=depth)]},
        {"strategy": [ktr.Phase(blocks=("*",))]},
    ):
        with pytest.raises(ValueError, match="not trainable already"):
            ktr.fine_tune(model, pair, ignore=ignore, **arguments, **QUIET)
    with pytest.raises(ValueError, match="not trainable already"):
        ktr.plan(model, pair, depth=depth)
    # Without a depth what is open trains, and the run says so.
    run = ktr.fine_tune(model, pair, epochs=1, ignore=ignore, **QUIET)
    assert len(run.trainable[-1]) == open_before
    assert "frozen-layers" in [finding.name for finding in run.diagnosis]
    for at, told in ((None, False), (depth, True)):
        names = [f.name for f in ktr.check(model, pair, depth=at)]
        assert ("frozen-layers" in names) is told
    # The advice of the error.
    ktr.unfreeze(model, depth)
    run = ktr.fine_tune(
        model, pair, depth=depth, epochs=1, ignore=ignore, **QUIET
    )
    assert len(run.trainable[-1]) > open_before
    assert "frozen-layers" not in [finding.name for finding in run.diagnosis]


def test_depth_none_takes_the_model_as_it_is(data, model):
    ktr.unfreeze(model, 2)
    phase = ktr.Phase("as it is", epochs=1)
    run = ktr.fine_tune(model, data, strategy=[phase], **QUIET)
    assert len(run.trainable[0]) == 6


def test_surgical_trains_chosen_blocks(data, model):
    before = arrays_of(model)
    strategy = ktr.Surgical("block_1", epochs=1, head_epochs=0)
    ktr.fine_tune(model, data, strategy=strategy, **QUIET)
    assert moved(model, before) == {
        "block_1_conv/kernel",
        "block_1_conv/bias",
        "predictions/kernel",
        "predictions/bias",
    }


def test_from_scratch_gives_new_weights(data):
    model, other = make_model(), make_model()
    before = arrays_of(model)
    strategy = ktr.FromScratch(epochs=1, learning_rate=1e-12)

    ktr.fine_tune(model, data, strategy=strategy, seed=1, **QUIET)
    ktr.fine_tune(other, data, strategy=strategy, seed=1, **QUIET)

    assert "block_1_conv/kernel" in moved(model, before)
    # The same seed draws the same weights, whatever was there.
    np.testing.assert_allclose(
        model.get_layer("backbone").get_layer("block_1_conv").kernel,
        other.get_layer("backbone").get_layer("block_1_conv").kernel,
        atol=1e-6,
    )
    norm = model.get_layer("backbone").get_layer("block_1_norm")
    assert norm.momentum == 0.9


def test_layer_decay_slows_the_lower_blocks():
    """With SGD and one step, each block moves by its multiple."""
    images, labels = make_images(16)
    moves = []
    for decay in (1.0, 0.5):
        model = make_model()
        before = arrays_of(model)
        phase = ktr.Phase(
            "all",
            depth="all",
            learning_rate=0.1,
            schedule="constant",
            layer_decay=decay,
        )
        run = ktr.fine_tune(
            model,
            (images, labels),
            strategy=[phase],
            optimizer="sgd",
            batch_size=16,
            **QUIET,
        )
        moves.append(
            [
                np.array(variable) - array
                for variable, array in zip(model.variables, before, strict=True)
                if variable.path in run.trainable[0]
            ]
        )
    factors = [0.125] * 2 + [0.25] * 2 + [0.5] * 2 + [1.0] * 2
    for plain, decayed, factor in zip(*moves, factors, strict=True):
        np.testing.assert_allclose(decayed, factor * plain, atol=1e-6)


def test_two_phases_are_one_where_nothing_changes(data):
    """Moments and step counts of Adam carry over."""
    one, two = make_model(), make_model()
    constant = {"depth": 1, "schedule": "constant", "learning_rate": 1e-2}
    ktr.fine_tune(
        two,
        data,
        strategy=[
            ktr.Phase("a", epochs=1, **constant),
            ktr.Phase("b", epochs=3, **constant),
        ],
        monitor="loss",
        **QUIET,
    )
    ktr.fine_tune(
        one,
        data,
        strategy=[ktr.Phase("a", epochs=4, **constant)],
        monitor="loss",
        **QUIET,
    )
    for left, right in zip(one.variables, two.variables, strict=True):
        np.testing.assert_allclose(left, right, atol=1e-6)


def test_what_was_open_is_open_again(data, model):
    ktr.unfreeze(model, 1)
    states = [layer.trainable for layer in model._flatten_layers()]
    variables = [v.trainable for v in model.variables]
    ktr.fine_tune(model, data, strategy=ktr.LPFT(epochs=1), **QUIET)
    assert states == [layer.trainable for layer in model._flatten_layers()]
    assert variables == [v.trainable for v in model.variables]


def test_what_you_opened_is_what_trains_by_default(data, model):
    ktr.unfreeze(model, 1)
    run = ktr.fine_tune(model, data, epochs=1, **QUIET)
    assert len(run.trainable[-1]) == 4
    run = ktr.fine_tune(model, data, epochs=1, depth="all", **QUIET)
    assert len(run.trainable[-1]) == 8


def test_batch_norm_of_a_frozen_block_stays(data, model):
    ktr.freeze(model, "block_2")
    before = arrays_of(model)
    phase = ktr.Phase("all", depth="all", train_batch_norm=True)
    ktr.fine_tune(model, data, strategy=[phase], **QUIET)
    paths = moved(model, before)
    assert "block_1_norm/moving_mean" in paths
    assert not any("block_2" in path for path in paths)


def test_from_scratch_refuses_to_replace_what_is_frozen(data, model):
    ktr.freeze(model, "block_2")
    with pytest.raises(ValueError, match="must not reinitialize frozen"):
        ktr.fine_tune(model, data, strategy="from-scratch", **QUIET)


def test_a_variable_frozen_by_itself_stays(data, model):
    """In an open layer, as LoRA does."""
    ktr.unfreeze(model, 1)
    layer = model.get_layer("backbone").get_layer("block_3_conv")
    layer.kernel.trainable = False
    before = arrays_of(model)
    phases = [ktr.Phase("a", depth=0), ktr.Phase("b", depth=1)]
    ktr.fine_tune(model, data, strategy=phases, **QUIET)
    paths = moved(model, before)
    assert "block_3_conv/bias" in paths
    assert "block_3_conv/kernel" not in paths
    assert not layer.kernel.trainable


# --- What is kept ---


def test_validation_loss_is_that_of_the_data(data, model):
    """A penalty grows with what trains: phases could not be compared."""
    run = ktr.fine_tune(
        model,
        data,
        strategy=[ktr.Phase("p", depth="all", epochs=1)],
        penalty=ktr.L2(1.0),
        **QUIET,
    )
    found = run.evaluate(data.validation)["loss"]
    assert run.history["val_loss"][0] == pytest.approx(found, abs=1e-5)
    assert run.history["loss"][0] > 2 * found


def test_the_best_epoch_over_all_phases_is_restored(data, model):
    """The second phase destroys the model; the first one's weights stay."""
    run = ktr.fine_tune(
        model,
        data,
        strategy=[
            ktr.Phase("good", depth=1, epochs=6, learning_rate=1e-2),
            ktr.Phase("bad", depth="all", epochs=2, learning_rate=50.0),
        ],
        optimizer="sgd",
        global_clipnorm=1.0,
        **QUIET,
    )
    row = run.rows[run.best]
    assert row["phase"] == 0
    found = run.evaluate(data.validation)
    assert found["accuracy"] == pytest.approx(row["val_accuracy"])
    assert found["loss"] == pytest.approx(row["val_loss"], abs=1e-5)
    best = max(run.history["val_accuracy"])
    assert row["val_accuracy"] == best


def test_without_validation_the_last_epoch_stays(model):
    images, labels = make_images(30)
    run = ktr.fine_tune(model, (images, labels), depth=1, epochs=3, **QUIET)
    assert run.best == len(run.rows) - 1
    assert "val_loss" not in run.history


def test_monitor_decides_what_is_best(data, model):
    run = ktr.fine_tune(
        model, data, depth=1, epochs=4, monitor="val_loss", **QUIET
    )
    assert run.best == int(np.argmin(run.history["val_loss"]))


def test_patience_ends_a_phase_and_goes_on_to_the_next(data, model):
    phases = [
        ktr.Phase("stuck", depth=0, epochs=9, learning_rate=1e-12),
        ktr.Phase("next", depth=1, epochs=1),
    ]
    run = ktr.fine_tune(model, data, strategy=phases, patience=2, **QUIET)
    assert run.history["phase"] == [0, 0, 0, 1]


def test_exact_probe_is_the_first_row(data, model):
    run = ktr.fine_tune(model, data, strategy="lp-ft", epochs=1, **QUIET)
    assert run.history["epoch"] == [0, 1]
    assert run.history["val_accuracy"][0] > 0.5
    assert run.history["loss"][0] is None


def test_exact_probe_equals_scikit_learn(data, model):
    from sklearn.linear_model import LogisticRegression

    prefix, _ = ktr.split(model, 0)
    images, _ = data.train.arrays()
    features = prefix.predict(images, verbose=0).mean((1, 2)).astype("float64")

    ktr.fine_tune(model, data, strategy=ktr.LinearProbe(exact=True), **QUIET)
    from keras_transfer.probes import STRENGTHS

    found = model.predict(images, verbose=0)
    gaps = []
    for strength in STRENGTHS:
        oracle = LogisticRegression(C=1 / strength, max_iter=10_000, tol=1e-9)
        oracle.fit(features, data.train.labels)
        gaps.append(np.abs(oracle.predict_proba(features) - found).max())
    assert min(gaps) < 2e-3


def test_exact_probe_needs_a_simple_head(data):
    model = make_model(hidden_units=(4,))
    before = arrays_of(model)
    with pytest.raises(ValueError, match="one dense layer"):
        ktr.fine_tune(model, data, strategy="lp-ft", **QUIET)
    assert not moved(model, before)


def test_saved_model_is_plain_keras(data, model, tmp_path, in_fresh_process):
    ktr.fine_tune(
        model,
        data,
        depth=1,
        epochs=1,
        penalty=ktr.L2SP(0.1),
        ema_momentum=0.9,
        gradient_accumulation_steps=2,
        **QUIET,
    )
    path = tmp_path / "model.keras"
    model.save(path)
    with zipfile.ZipFile(path) as archive:
        text = archive.read("config.json").decode()
    assert "keras_transfer" not in text
    assert "learning_rate_multiplier" not in text.lower()
    images, _ = data.test.arrays()
    assert model.evaluate(
        images, keras.utils.to_categorical(data.test.labels), verbose=0
    )
    images = images.astype("float32")
    answer = in_fresh_process(model, images, model.predict(images, verbose=0))
    assert answer["difference"] < 1e-6


def test_evaluate_takes_splits_arrays_and_datasets(data, model):
    run = ktr.fine_tune(model, data, strategy=ONE, **QUIET)
    images, labels = data.test.arrays()
    found = [
        run.evaluate(),
        run.evaluate(data.test),
        run.evaluate((images, labels)),
        run.evaluate(data.test.batches(7)),
    ]
    assert len({round(f["loss"], 5) for f in found}) == 1
    assert found[0].ids == data.test.ids
    assert found[0].confusion_matrix().sum() == len(data.test)
    assert found[0].class_names == data.class_names
    with pytest.raises(TypeError, match="one split"):
        run.evaluate(data)


def test_plot_writes_a_picture(data, model, tmp_path):
    run = ktr.fine_tune(model, data, depth=1, epochs=1, **QUIET)
    run.plot(tmp_path / "run.png")
    assert (tmp_path / "run.png").read_bytes().startswith(b"\x89PNG")


def test_progress_is_readable(data, model, capsys):
    ktr.fine_tune(model, data, depth=1, epochs=2)
    text = capsys.readouterr().out
    assert "phase 2/2: fine-tune" in text
    assert "solving on frozen features" in text
    assert "epoch 2/2" in text
    assert "val_accuracy" in text
    ktr.fine_tune(model, data, strategy=ONE, **QUIET)
    assert not capsys.readouterr().out


# --- One argument each ---


TWO_EPOCHS = {
    "strategy": [ktr.Phase("p", depth=2, epochs=2, learning_rate=1e-2)],
    "monitor": "loss",
    **QUIET,
}


@pytest.fixture(scope="module")
def plain_model(data):
    """A function that trains with nothing else, once for each optimizer."""

    @functools.cache
    def train(optimizer):
        model = make_model()
        ktr.fine_tune(model, data, optimizer=optimizer, **TWO_EPOCHS)
        return model

    return train


@pytest.mark.parametrize(
    "arguments",
    [
        {"ema_momentum": 0.5},
        {"global_clipnorm": 1e-3, "optimizer": "sgd"},
        {"gradient_accumulation_steps": 3},
        {"label_smoothing": 0.5},
        {"class_weight": {0: 10.0, 1: 1.0, 2: 1.0}},
        {"augment": ktr.Augmentation(mixup=0.4)},
        {"mixed_precision": "mixed_bfloat16"},
        {"optimizer": keras.optimizers.AdamW(weight_decay=0.5)},
        {"penalty": ktr.L2(1.0)},
        {"penalty": ktr.L2SP(1.0, 1.0, decoupled=True)},
        {"penalty": ktr.FeatureMap(1.0)},
        {"penalty": ktr.BSS(0.1)},
        {"seed": 5},
        {"batch_size": 8},
    ],
    ids=lambda arguments: "-".join(arguments),
)
def test_argument_changes_the_weights(data, plain_model, arguments):
    """None of them is a silent no-op."""
    plain = "sgd" if "global_clipnorm" in arguments else "adam"
    one, other = plain_model(plain), make_model()
    run = ktr.fine_tune(other, data, **TWO_EPOCHS, **arguments)
    gap = max(
        np.abs(np.array(a) - np.array(b)).max()
        for a, b in zip(
            one.trainable_variables, other.trainable_variables, strict=True
        )
    )
    assert gap > 1e-6
    assert np.isfinite(run.history["loss"]).all()


def test_balanced_class_weights(model):
    images, labels = make_images(30)
    labels = np.where(labels == 2, 0, labels)
    labels[:2] = 2
    weights = {0: 30 / (3 * 18), 1: 30 / (3 * 10), 2: 30 / (3 * 2)}
    counts = np.bincount(labels)
    weights = {i: 30 / (3 * n) for i, n in enumerate(counts)}
    other = make_model()
    for network, weight in ((model, "balanced"), (other, weights)):
        ktr.fine_tune(
            network,
            (images, labels),
            strategy=ONE,
            class_weight=weight,
            **QUIET,
        )
    for a, b in zip(model.variables, other.variables, strict=True):
        np.testing.assert_array_equal(a, b)


def test_mixed_precision_leaves_no_trace(data, model):
    policies = [layer.dtype_policy.name for layer in model._flatten_layers()]
    ktr.fine_tune(
        model, data, strategy=ONE, mixed_precision="mixed_float16", **QUIET
    )
    assert policies == [
        layer.dtype_policy.name for layer in model._flatten_layers()
    ]
    assert model.optimizer.__class__.__name__ == "Adam"


def test_a_large_penalty_holds_the_pretrained_weights(data):
    gaps = []
    for alpha in (0.0, 100.0):
        model = make_model()
        start = arrays_of(model)
        ktr.fine_tune(
            model,
            data,
            strategy=[
                ktr.Phase("p", depth="all", epochs=15, learning_rate=1e-2)
            ],
            penalty=ktr.L2SP(alpha, 0.0),
            optimizer=keras.optimizers.SGD(),
            monitor="loss",
            **QUIET,
        )
        kernel = model.get_layer("backbone").get_layer("block_3_conv").kernel
        place = [v is kernel for v in model.variables].index(True)
        gaps.append(np.abs(np.array(kernel) - start[place]).max())
    assert gaps[1] < 0.2 * gaps[0]


def test_keras_callbacks_work(data, model):
    seen = []

    class Watch(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            seen.append(float(self.model.optimizer.learning_rate))

    phase = ktr.Phase(
        "p", depth=1, epochs=3, schedule="constant", learning_rate=1e-3
    )
    ktr.fine_tune(
        model,
        data,
        strategy=[phase],
        callbacks=[
            keras.callbacks.LearningRateScheduler(lambda epoch, rate: rate / 2),
            Watch(),
        ],
        **QUIET,
    )
    np.testing.assert_allclose(seen, [5e-4, 2.5e-4, 1.25e-4], rtol=1e-6)


def test_one_cycle_ends_low(data, model):
    run = ktr.fine_tune(
        model, data, strategy=[ktr.Phase(epochs=4, depth=1)], **QUIET
    )
    rates = run.history["learning_rate"]
    assert rates[0] > rates[-1]
    assert rates[-1] < 1e-4


def test_a_changing_rate_traces_nothing(data, model):
    traces, counts = [], []

    def loss(labels, outputs):
        traces.append(1)  # Python runs while a step is traced, and not later.
        return keras.losses.categorical_crossentropy(labels, outputs)

    class Watch(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            counts.append(len(traces))

    run = ktr.fine_tune(
        model,
        data,
        strategy=[ktr.Phase(epochs=4, depth=2)],
        loss=loss,
        callbacks=[Watch()],
        **QUIET,
    )
    assert len(set(run.history["learning_rate"])) == 4
    assert counts[0] > 0
    assert len(set(counts)) == 1


def test_default_strategy_starts_from_the_probe_where_it_can(data):
    run = ktr.fine_tune(make_model(), data, epochs=1, **QUIET)
    assert [phase.name for phase in run.phases] == ["linear probe", "fine-tune"]
    run = ktr.fine_tune(make_model(hidden_units=(4,)), data, epochs=1, **QUIET)
    assert [phase.name for phase in run.phases] == ["head", "fine-tune"]


def test_tensorboard_writes_events(data, model, tmp_path):
    ktr.fine_tune(
        model, data, strategy=ONE, tensorboard=tmp_path / "tb", **QUIET
    )
    assert list((tmp_path / "tb").rglob("events.out*"))


# --- Sources ---


@pytest.mark.parametrize("kind", ["pair", "one-hot", "dict", "dataset"])
def test_sources(kind, model):
    import tensorflow as tf

    images, labels = make_images(30)
    one_hot = np.eye(CLASSES, dtype="float32")[labels]
    given = {
        "pair": (images, labels),
        "one-hot": (images, one_hot),
        "dict": {
            "train": (images, labels),
            "validation": (images[:9] // 2, labels[:9]),
        },
        "dataset": tf.data.Dataset.from_tensor_slices(
            (images.astype("float32"), one_hot)
        ).batch(8),
    }[kind]
    run = ktr.fine_tune(model, given, strategy=ONE, **QUIET)
    assert ("val_loss" in run.history) == (kind == "dict")
    assert run.evaluate((images, labels))["accuracy"] >= 0


def test_regression():
    keras.utils.set_random_seed(0)
    images, labels = make_images(48)
    classifier = make_model()
    backbone = ktr.load_backbone(
        classifier.get_layer("backbone"), pixel_range="[0, 1]"
    )
    model = ktr.build_regressor(backbone)
    targets = labels.astype("float32")[:, None]
    run = ktr.fine_tune(
        model, (images, targets), strategy="lp-ft", epochs=2, **QUIET
    )
    assert set(run.evaluate((images, targets))) >= {"mae", "mse", "r2"}


def test_own_model_twice():
    """The first run leaves open what it found open."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [keras.Input((4,)), keras.layers.Dense(5), keras.layers.Dense(1)]
    )
    x = np.random.default_rng(0).normal(size=(20, 4)).astype("float32")
    y = x[:, :1]
    first = ktr.fine_tune(model, (x, y), depth=1, epochs=1, **QUIET)
    second = ktr.fine_tune(model, (x, y), depth="all", epochs=1, **QUIET)
    assert [len(run.trainable[-1]) for run in (first, second)] == [2, 4]


def test_yes_or_no_with_one_sigmoid():
    def part(count, seed):
        images, labels = make_images(count, seed)
        return images, np.where(labels == 0, "no", "yes")

    data = ktr.load_images(
        {"train": part(30, 0), "validation": part(9, 1), "test": part(9, 2)}
    )
    backbone = ktr.load_backbone(
        make_model().get_layer("backbone"), pixel_range="[0, 1]"
    )
    model = ktr.build_classifier(backbone, num_classes=1, activation="sigmoid")
    run = ktr.fine_tune(model, data, epochs=2, **QUIET)
    assert run.evaluate(data.test)["accuracy"] > 0.5
    assert run.history["val_accuracy"][0] > 0.5


def test_numbers_that_look_like_classes():
    images, labels = make_images(30)
    backbone = ktr.load_backbone(
        make_model().get_layer("backbone"), pixel_range="[0, 1]"
    )
    model = ktr.build_regressor(backbone, num_outputs=2)
    targets = np.eye(2, dtype="float32")[labels % 2]
    run = ktr.fine_tune(model, (images, targets), epochs=1, **QUIET)
    assert "mae" in run.history
    model = ktr.build_regressor(backbone)
    run = ktr.fine_tune(model, (images, labels), epochs=1, **QUIET)
    assert "mae" in run.history


def test_softmax_in_a_layer_of_its_own():
    inputs = keras.Input((4,))
    x = keras.layers.Dense(3)(inputs)
    model = keras.Model(inputs, keras.layers.Softmax()(x))
    x = np.random.default_rng(0).normal(size=(20, 4)).astype("float32")
    y = np.arange(20) % 3
    run = ktr.fine_tune(model, (x, y), depth="all", epochs=1, **QUIET)
    found = run.evaluate((x, y))
    np.testing.assert_allclose(
        found.probabilities, model.predict(x, verbose=0), atol=1e-6
    )


def test_own_model_taken_whole():
    keras.utils.set_random_seed(0)
    inputs = keras.Input((4,))
    x = keras.layers.Dense(5, activation="relu")(inputs)
    outputs = keras.layers.Dense(2, activation="softmax")(x)
    model = keras.Model(inputs, outputs)
    generator = np.random.default_rng(0)
    x = generator.normal(size=(20, 4)).astype("float32")
    y = (x[:, 0] > 0).astype(int)
    run = ktr.fine_tune(model, (x, y), depth="all", epochs=2, **QUIET)
    assert len(run.trainable[-1]) == 4


# --- What goes wrong ---


def test_nan_loss_raises_and_keeps_the_best(data, model):
    phases = [
        ktr.Phase("good", depth=1, epochs=1),
        ktr.Phase("bad", depth="all", epochs=3, learning_rate=1e30),
    ]
    with pytest.raises(FloatingPointError, match="Lower `learning_rate`"):
        ktr.fine_tune(
            model,
            data,
            strategy=phases,
            optimizer="sgd",
            penalty=ktr.L2(0.1),
            **QUIET,
        )
    assert all(np.isfinite(array).all() for array in arrays_of(model))
    assert all(v.regularizer is None for v in model.variables)


def test_nan_in_the_first_epoch_leaves_the_model_as_it_was(data, model):
    before = arrays_of(model)
    phase = ktr.Phase("bad", depth="all", epochs=3, learning_rate=1e30)
    with pytest.raises(FloatingPointError):
        ktr.fine_tune(model, data, strategy=[phase], optimizer="sgd", **QUIET)
    assert not moved(model, before)


@pytest.mark.parametrize("error", [KeyboardInterrupt, FloatingPointError])
def test_a_stopped_run_leaves_plain_keras(data, model, tmp_path, error):
    class Stop(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch:
                raise error

    states = [layer.trainable for layer in model._flatten_layers()]
    with pytest.raises(error):
        ktr.fine_tune(
            model,
            data,
            strategy=[ktr.Phase("p", depth=1, epochs=3)],
            callbacks=[Stop()],
            mixed_precision="mixed_bfloat16",
            penalty=ktr.L2SP(),
            **QUIET,
        )
    assert states == [layer.trainable for layer in model._flatten_layers()]
    model.save(tmp_path / "model.keras")
    with zipfile.ZipFile(tmp_path / "model.keras") as archive:
        assert "keras_transfer" not in archive.read("config.json").decode()
    images, labels = data.test.arrays()
    assert np.isfinite(model.evaluate(images, labels, verbose=0)).all()


def test_a_failed_check_leaves_the_compile(data, model):
    model.compile("adam", "categorical_crossentropy")
    optimizer = model.optimizer
    images, labels = make_images(12)
    with pytest.raises(ValueError, match="pixel-range"):
        ktr.fine_tune(model, (images / 255.0, labels), **QUIET)
    assert model.compiled
    assert model.optimizer is optimizer


def test_a_finding_can_be_overruled(model):
    images, labels = make_images(12)
    run = ktr.fine_tune(
        model,
        (images / 255.0, labels),
        strategy=ONE,
        ignore=["pixel-range"],
        **QUIET,
    )
    assert len(run.rows) == 1


def test_class_weights_count_in_the_exact_probe(data):
    models = make_model(), make_model()
    for model, weight in zip(models, (None, {0: 100.0}), strict=True):
        ktr.fine_tune(
            model,
            data,
            strategy=ktr.LinearProbe(exact=True),
            class_weight=weight,
            **QUIET,
        )
    images, _ = make_images(30, seed=9)
    share = [m.predict(images, verbose=0)[:, 0].mean() for m in models]
    assert share[1] > share[0]


def test_exclusions_from_weight_decay_are_kept(data):
    moves = []
    for excluded in (False, True):
        model = make_model()
        optimizer = keras.optimizers.AdamW(weight_decay=5.0)
        if excluded:
            optimizer.exclude_from_weight_decay(var_names=["kernel", "bias"])
        ktr.fine_tune(model, data, strategy=ONE, optimizer=optimizer, **QUIET)
        moves.append(arrays_of(model))
    assert any(not np.array_equal(a, b) for a, b in zip(*moves, strict=True))


@pytest.mark.parametrize(
    ("arguments", "error", "match"),
    [
        ({"strategy": "finetune"}, ValueError, "Did you mean 'fine-tune'"),
        ({"strategy": ()}, ValueError, "must hold a `Phase`"),
        ({"strategy": [1]}, TypeError, "sequence of `Phase`"),
        ({"strategy": ONE, "depth": 2}, ValueError, "must be left out"),
        ({"depth": 9}, ValueError, r"in \[0, 3\]"),
        ({"depth": -1}, ValueError, "`depth` must be"),
        ({"epochs": 0}, ValueError, "`epochs` must be"),
        ({"learning_rate": 0}, ValueError, "`learning_rate` must be"),
        ({"penalty": 0.1}, TypeError, "`penalty` must be"),
        ({"penalty": ktr.L2SP(), "strategy": "from-scratch"}, ValueError,
         "strategy discards"),
        ({"batch_size": 0}, ValueError, "`batch_size` must be"),
        ({"optimizer": "adm"}, ValueError, "adm"),
        ({"optimizer": 3}, TypeError, "`optimizer` must be"),
        ({"optimizer": keras.optimizers.Adam(
            keras.optimizers.schedules.CosineDecay(0.1, 10)),
          "learning_rate": 0.1}, ValueError, "`learning_rate` must be None"),
        ({"optimizer": keras.optimizers.Adam(lambda: 0.1)}, TypeError,
         "number or a Keras schedule"),
        ({"optimizer": keras.optimizers.Adam(1e-5), "strategy": ONE},
         ValueError, r"Use `Phase\(learning_rate=1e-05\)`"),
        ({"callbacks": [keras.callbacks.BackupAndRestore("b")]}, ValueError,
         "Use `directory="),
        ({"augment": True}, TypeError, "`augment` must be"),
        ({"ema_momentum": 1.0}, ValueError, "`ema_momentum` must be"),
        ({"global_clipnorm": -1}, ValueError, "`global_clipnorm` must be"),
        (
            {"gradient_accumulation_steps": 1},
            ValueError,
            "`gradient_accumulation_steps` must",
        ),
        ({"label_smoothing": 1.0}, ValueError, "`label_smoothing` must"),
        ({"patience": 0}, ValueError, "`patience` must"),
        ({"monitor": "val_acc"}, ValueError, "`monitor` must be one of"),
        ({"mixed_precision": "float16"}, ValueError, "`mixed_precision`"),
        ({"callbacks": [1]}, TypeError, "`callbacks` must"),
        ({"tensorboard": True}, ValueError, "`tensorboard` must"),
        ({"class_weight": "equal"}, ValueError, "`class_weight` must"),
        ({"class_weight": {0: -1.0}}, ValueError, "`class_weight` must"),
        ({"strategy": ktr.Surgical("block_9")}, ValueError,
         "must match blocks"),
        ({"callbacks": [keras.callbacks.ReduceLROnPlateau()]}, ValueError,
         "must not set the learning rate"),
        ({"class_weight": {7: 2.0}}, ValueError, "keys from 0 to 2"),
        ({"penalty": ktr.L2(0.1), "strategy": ktr.LinearProbe(exact=True)},
         ValueError, "no phase has gradient steps"),
        ({"loss": "sparse_categorical_crossentropy"}, ValueError,
         "one-hot rows"),
        ({"optimizer": ktr.LearningRateMultiplier("adam")}, TypeError,
         "plain Keras optimizer"),
    ],
)  # fmt: skip
def test_bad_arguments_raise_before_training(
    data, model, arguments, error, match
):
    before = arrays_of(model)
    states = [layer.trainable for layer in model._flatten_layers()]
    with pytest.raises(error, match=match):
        ktr.fine_tune(model, data, **arguments, **QUIET)
    assert not moved(model, before)
    assert states == [layer.trainable for layer in model._flatten_layers()]


def test_patience_needs_a_measure(model):
    with pytest.raises(ValueError, match="`patience` must be None"):
        ktr.fine_tune(model, make_images(12), patience=2, **QUIET)


@pytest.mark.parametrize(
    ("given", "error", "match"),
    [
        ("folder", TypeError, "`data` must be"),
        (np.zeros((3, 8, 8, 3)), TypeError, "`data` must be"),
        ({"val": 1}, ValueError, "keys"),
        ((1, 2, 3), TypeError, "Weights of examples"),
        ((np.zeros((3, 8, 8, 3)), np.zeros(2)), ValueError, "as many labels"),
        ((np.zeros((2, 8, 8, 3)), ["a", "b"]), TypeError, "load_images"),
    ],
)
def test_bad_data_raises(model, given, error, match):
    with pytest.raises(error, match=match):
        ktr.fine_tune(model, given, **QUIET)


def test_endless_dataset_raises(model):
    import tensorflow as tf

    images, labels = make_images(8)
    endless = tf.data.Dataset.from_tensor_slices((images, labels))
    with pytest.raises(ValueError, match=r"finite .* `.take\(n\)`"):
        ktr.fine_tune(model, endless.batch(4).repeat(), **QUIET)


def test_doctor_speaks_up(model):
    images, labels = make_images(12)
    with pytest.raises(ValueError, match="pixel-range"):
        ktr.fine_tune(model, (images / 255.0, labels), **QUIET)


def test_subclassed_model_raises(data):
    class Own(keras.Model):
        def call(self, x):
            return x

    with pytest.raises(TypeError, match="functional"):
        ktr.fine_tune(Own(), data, **QUIET)


def test_the_default_is_fine_tune_where_the_head_drops_features(data):
    """The exact probe's weights are made for all features."""
    names = []
    for dropout in (0.0, 0.2):
        planned = ktr.plan(make_model(dropout=dropout), data)
        names.append([phase.name for phase in planned.phases])
    assert names[0] == [phase.name for phase in ktr.LPFT()]
    assert names[1] == [phase.name for phase in ktr.FineTune()]


def test_a_misspelt_monitor_is_not_a_lack_of_examples(data):
    with pytest.raises(ValueError, match="Did you mean 'val_acc") as error:
        ktr.fine_tune(make_model(), data, monitor="val_acc", verbose=0)
    assert "no validation examples" not in str(error.value)
