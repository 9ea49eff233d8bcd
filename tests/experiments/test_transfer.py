"""Transfer is said to help where it does, and to hurt where it hurts."""

import functools
import math

import keras
import numpy as np
import pytest
from scipy import stats

import keras_transfer as ktr
from keras_transfer.evaluation.evaluation import evaluate_outputs
from keras_transfer.experiments import TransferComparison, transfer
from keras_transfer.experiments.cross_validation_result import CrossValidation

CLASSES = 3
CHEAP = {
    "folds": 2,
    "epochs": 1,
    "from_scratch": ktr.FromScratch(epochs=1),
    "verbose": 0,
}


def make_images(count, seed):
    """Noise with a bright square, whose place says the class."""
    generator = np.random.default_rng(seed)
    images = generator.integers(0, 170, (count, 8, 8, 3)).astype("uint8")
    labels = np.arange(count) % CLASSES
    for image, label in zip(images, labels, strict=True):
        image[1:5, 2 * label : 2 * label + 3] += 80
    return images, labels


def make_data(count=96, seed=0):
    return ktr.load_images(make_images(count, seed), split=(0.8, 0.1, 0.1))


def make_backbone():
    keras.utils.set_random_seed(0)
    inputs = keras.Input((8, 8, 3))
    x = inputs
    for number, filters in enumerate((8, 12), start=1):
        x = keras.layers.Conv2D(
            filters, 3, padding="same", name=f"block_{number}_conv"
        )(x)
        x = keras.layers.BatchNormalization(name=f"block_{number}_norm")(x)
        x = keras.layers.ReLU(name=f"block_{number}_relu")(x)
    network = keras.Model(inputs, x, name="tiny")
    return ktr.load_backbone(network, pixel_range="[0, 1]")


@pytest.fixture(scope="module")
def digits():
    """Images 8 x 8, and their labels."""
    from sklearn import datasets

    found = datasets.load_digits()
    images = (found.images * 255 / 16).astype("uint8")[..., None]
    return images.repeat(3, axis=-1), found.target


def pretrained(images, labels, epochs):
    """A backbone of three blocks that was trained on these labels."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((8, 8, 3))
    x = inputs
    for number, (filters, strides) in enumerate(
        ((16, 1), (32, 2), (32, 2)), start=1
    ):
        x = keras.layers.Conv2D(
            filters, 3, strides, "same", name=f"block_{number}_conv"
        )(x)
        x = keras.layers.BatchNormalization(name=f"block_{number}_norm")(x)
        x = keras.layers.ReLU(name=f"block_{number}_relu")(x)
    network = keras.Model(inputs, x, name="tiny")
    backbone = ktr.load_backbone(network, pixel_range="[0, 1]")
    model = ktr.build_classifier(backbone, 10)
    ktr.fine_tune(
        model,
        (images.astype("float32"), labels),
        strategy=ktr.FromScratch(epochs=epochs, learning_rate=1e-2),
        verbose=0,
    )
    backbone.model.set_weights(model.get_layer("backbone").get_weights())
    return backbone


def compared(backbone, images, labels):
    """From two labels of each digit."""
    data = ktr.load_images((images, labels), split=(1.0, 0.0, 0.0))
    return ktr.compare_transfer(
        backbone, data, [2], folds=4, epochs=1, verbose=0,
        from_scratch=ktr.FromScratch(epochs=40, learning_rate=1e-2),
    )  # fmt: skip


def test_planted_negative_transfer_is_called_so(digits):
    images, labels = digits
    # Learned by heart: what a digit is, is not in it.
    shuffled = np.random.default_rng(0).permutation(labels[600:])
    harmful = pretrained(images[600:], shuffled, epochs=40)
    result = compared(harmful, images[:600], labels[:600])
    assert result.effect(2) == "hurts", str(result)
    mean, half_width = result.gain(result.best_way(2), 2)
    assert mean + half_width < 0
    assert result.verdict.startswith("Transfer from tiny hurts by ")


@pytest.mark.exhaustive
def test_help_is_called_so_where_labels_are_few(digits):
    images, labels = digits
    helpful = pretrained(images[600:], labels[600:], epochs=8)
    result = compared(helpful, images[:600], labels[:600])
    assert result.effect(2) == "helps", str(result)
    assert result.verdict.startswith("Transfer from tiny helps by ")
    assert " at 2 labels per class (" in result.verdict


def test_all_ways_see_the_same_labels(monkeypatch):
    seen = []
    run = transfer.cross_validate

    def spy(build, data, folds, *, labels_per_class, seed, **arguments):
        result = run(
            build, data, folds, labels_per_class=labels_per_class, seed=seed,
            **arguments
            | {"epochs": None, "strategy": ktr.LinearProbe(exact=True)},
        )  # fmt: skip
        seen.append(
            (labels_per_class, [sorted(e.ids) for e in result.evaluations])
        )
        return result

    monkeypatch.setattr(transfer, "cross_validate", spy)
    data = make_data()
    result = ktr.compare_transfer(make_backbone(), data, [2, None], **CHEAP)
    assert [labels for labels, _ in seen] == 3 * [2] + 3 * [None]
    assert all(folds == seen[0][1] for _, folds in seen)
    held_out = [name for fold in seen[0][1] for name in fold]
    # All of train and validation once, the test images not at all.
    assert sorted(held_out) == sorted(data.train.ids + data.validation.ids)
    count = len(data.train) + len(data.validation)
    assert result.images_per_class == (2, count / 2 / CLASSES)


def cross_validation(accuracies, count=50):
    """Folds with these accuracies, out of 50."""
    found = []
    for fold, accuracy in enumerate(accuracies):
        outputs = np.tile([0.1, 0.9], (count, 1))
        outputs[round(accuracy * count) :] = [0.9, 0.1]
        ids = [f"{fold}/{i}" for i in range(count)]
        found.append(evaluate_outputs(outputs, np.ones(count, int), ids=ids))
    return CrossValidation(tuple(found), ())


def made_up(scratch, probe, tuned):
    ways = zip(transfer.METHODS, (scratch, probe, tuned), strict=True)
    results = {(way, 5): cross_validation(found) for way, found in ways}
    return TransferComparison("Net", (5,), (5.0,), results)


def test_intervals_are_those_of_the_formula():
    scratch, tuned = [0.5, 0.6, 0.52, 0.5], [0.8, 0.86, 0.9, 0.82]
    result = made_up(scratch, [0.6, 0.6, 0.6, 0.6], tuned)
    difference = np.subtract(tuned, scratch)
    # Nadeau and Bengio, 1 / k + n_test / n_train; two ways at once.
    error = difference.std(ddof=1) * math.sqrt(1 / 4 + 1 / 3)
    half = stats.t.ppf(1 - 0.05 / 2 / 2, 3) * error
    np.testing.assert_allclose(
        result.gain("fine-tune", 5), (difference.mean(), half)
    )
    assert result.best_way(5) == "fine-tune"
    assert result.effect(5) == "helps"
    assert result.verdict == (
        f"Transfer from Net helps by {100 * difference.mean():.0f} +- "
        f"{100 * half:.0f} points at 5 labels per class (fine-tune)."
    )
    assert result.verdict in str(result)


def test_what_the_interval_holds():
    # Wide: it may help or hurt by a lot.
    noisy = made_up([0.5, 0.6, 0.7], [0.6, 0.5, 0.72], [0.4, 0.4, 0.4])
    assert noisy.effect(5) == "unclear"
    assert "is unclear (+1 +- " in noisy.verdict
    assert "more folds or images would tell" in noisy.verdict
    close = made_up([0.5] * 5, [0.52] * 5, [0.4] * 5)
    assert close.effect(5) == "no difference"
    assert "makes no difference (+2 +- 2 points)" in close.verdict
    same = made_up([1.0] * 3, [1.0] * 3, [1.0] * 3)
    assert same.effect(5) == "no difference"
    worse = made_up([0.9, 0.9, 0.92], [0.3, 0.3, 0.3], [0.5, 0.52, 0.52])
    assert worse.effect(5) == "hurts"
    assert worse.best_way(5) == "fine-tune"


def test_folds_that_agree_by_chance_are_no_certainty():
    # One image of 50 more, in each of two folds.
    lucky = made_up([0.5, 0.5], [0.52, 0.52], [0.5, 0.5])
    mean, half_width = lucky.gain("linear probe", 5)
    rights = np.repeat([1, 0], [2, 98])
    error = rights.std(ddof=1) / 10
    assert mean == pytest.approx(0.02)
    assert half_width == pytest.approx(stats.t.ppf(0.9875, 99) * error)
    assert lucky.effect(5) == "unclear"
    sure = made_up([0.5, 0.5], [0.9, 0.9], [0.5, 0.5])
    assert sure.effect(5) == "helps"


class Spy:
    """Takes the place of `cross_validate`, and trains nothing."""

    def __init__(self):
        self.calls = []

    def __call__(self, build, data, folds, **arguments):
        self.calls.append(arguments)
        return cross_validation([0.5] * folds)


@pytest.fixture
def spy(monkeypatch):
    made = Spy()
    monkeypatch.setattr(transfer, "cross_validate", made)
    return made


def test_what_each_way_is_given(spy):
    augment = ktr.Augmentation(horizontal_flip=True)
    penalty = ktr.L2SP(alpha=0.1)
    ktr.compare_transfer(
        make_backbone(), make_data(), [2], verbose=0, augment=augment, views=2,
        penalty=penalty, depth=1, batch_size=8,
    )  # fmt: skip
    scratch, probe, tuned = spy.calls
    assert [call["batch_size"] for call in spy.calls] == [8] * 3
    assert scratch["strategy"][0].reinitialize
    # 6 images are 1 step an epoch.
    assert scratch["strategy"][0].epochs == 500
    assert scratch["store"] is False
    assert "views" not in scratch
    assert probe["strategy"][0].exact_probe
    assert "penalty" not in probe
    assert (tuned["penalty"], tuned["depth"]) == (penalty, 1)
    # One store for both, and for all numbers of labels.
    assert probe["store"] is tuned["store"] is not None


def test_no_store_is_no_store(spy):
    ktr.compare_transfer(
        make_backbone(), make_data(), [2], verbose=0, store=False
    )
    assert [call["store"] for call in spy.calls] == [False] * 3


def test_patience_counts_updates():
    def epochs(count, **arguments):
        return transfer._long_enough(count, arguments)[0].epochs

    assert epochs(64) == 250
    assert epochs(64, gradient_accumulation_steps=2) == 500
    assert epochs(64, validation_fraction=0.5) == 500
    assert epochs(3200) == 30


def test_only_classes_that_occur_count(spy):
    images, labels = make_images(60, 0)
    names = np.array(["a", "b", "c"])[labels]
    # A fourth one is in the test images alone.
    data = ktr.load_images(
        {"train": (images, names), "test": (images[:1] + 1, np.array(["d"]))}
    )
    assert data.num_classes == 4
    result = ktr.compare_transfer(
        make_backbone(), data, [8, None], folds=2, verbose=0
    )
    assert result.images_per_class == (8, 10)


def test_copies_are_one_label(spy):
    images, labels = make_images(60, 0)
    images[labels == 0] = images[0]
    images[3:9:3] = make_images(9, 1)[0][3:9:3]  # Three different ones.
    data = ktr.load_images((images, labels), split=(1.0, 0.0, 0.0))
    with pytest.raises(ValueError, match="from 1 to 1, the different images"):
        ktr.compare_transfer(make_backbone(), data, [2], folds=2, verbose=0)
    assert not spy.calls


def test_a_folder_of_something_else_is_refused(tmp_path, spy):
    (tmp_path / "cat.jpg").write_bytes(b"")
    with pytest.raises(ValueError, match="cat.jpg"):
        ktr.compare_transfer(
            make_backbone(), make_data(), [2], directory=tmp_path, verbose=0
        )
    assert not spy.calls


def test_files_are_written(tmp_path):
    result = made_up([0.5, 0.6], [0.6, 0.7], [0.8, 0.9])
    result.save_table(tmp_path / "table.csv")
    lines = (tmp_path / "table.csv").read_text().splitlines()
    assert lines[0] == "way,labels_per_class,fold,accuracy"
    assert lines[1] == "from scratch,5,1,0.500000"
    assert len(lines) == 7
    result.plot(tmp_path / "curve.png")
    assert (tmp_path / "curve.png").stat().st_size > 5000


def test_goes_on_after_a_stop(tmp_path, monkeypatch):
    call = functools.partial(
        ktr.compare_transfer, make_backbone(), make_data(), [2],
        directory=tmp_path / "runs", **CHEAP,
    )  # fmt: skip
    run, calls = transfer.cross_validate, []

    def stops(*arguments, **named):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return run(*arguments, **named)

    monkeypatch.setattr(transfer, "cross_validate", stops)
    with pytest.raises(KeyboardInterrupt):
        call()
    assert sorted(p.name for p in (tmp_path / "runs/2-labels").iterdir()) == [
        "from-scratch",
        "linear-probe",
    ]
    monkeypatch.setattr(transfer, "cross_validate", run)
    resumed = call()
    whole = ktr.compare_transfer(make_backbone(), make_data(), [2], **CHEAP)
    for way in transfer.METHODS:
        np.testing.assert_array_equal(
            resumed.scores(way, 2), whole.scores(way, 2)
        )


@pytest.mark.parametrize(
    ("wrong", "error", "message"),
    [
        ({"labels_per_class": [0]}, ValueError, "must hold integers from 1 to"),
        ({"labels_per_class": [500]}, ValueError, "that 5 folds leave of"),
        ({"labels_per_class": []}, ValueError, "different numbers"),
        ({"labels_per_class": [3, 3]}, ValueError, "different numbers"),
        ({"labels_per_class": 5}, TypeError, "must be a sequence"),
        ({"folds": 1}, ValueError, "`folds` must be an integer"),
        ({"from_scratch": "from-scratch"}, TypeError, "a `FromScratch`"),
        ({"batch_sise": 3}, TypeError, "batch_sise"),
        ({"batch_size": 0}, ValueError, "`batch_size` must be"),
        ({"epochs": 0}, ValueError, "epochs"),
        ({"depth": 99}, ValueError, "`depth` must be"),
        ({"strategy": "lpft"}, ValueError, "Did you mean"),
        ({"strategy": "from-scratch"}, ValueError, "start from the weights"),
        ({"penalty": "l2"}, TypeError, "`penalty` must be"),
        ({"learning_rate": -1}, ValueError, "learning_rate"),
    ],
    ids=[
        "0", "many", "empty", "twice", "number", "folds", "scratch", "typo",
        "batch", "epochs", "depth", "strategy", "again", "penalty", "rate",
    ],
)  # fmt: skip
def test_what_is_no_good_is_said_at_once(wrong, error, message, monkeypatch):
    def trained(*_, **__):
        raise AssertionError("It began to train.")

    monkeypatch.setattr(
        "keras_transfer.training.loop.TrainingLoop.run", trained
    )
    with pytest.raises(error, match=message):
        ktr.compare_transfer(make_backbone(), make_data(), **wrong)


def test_other_data_are_refused():
    with pytest.raises(TypeError, match="an `ImageData`, from `load_images`"):
        ktr.compare_transfer(make_backbone(), make_images(9, 0))


def test_unknown_ways_and_numbers_are_named():
    result = made_up([0.5, 0.6], [0.6, 0.7], [0.8, 0.9])
    with pytest.raises(ValueError, match="Did you mean 'fine-tune'"):
        result.scores("finetune", 5)
    with pytest.raises(ValueError, match="must be one of 5"):
        result.gain("fine-tune", 6)
