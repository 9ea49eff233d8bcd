"""Folds are fair, nothing held out leaks into training, runs go on."""

import dataclasses
import random

import keras
import numpy as np
import pytest
from scipy import stats
from training._tiny import CLASSES, make_images, make_model

import keras_transfer as ktr
from keras_transfer.evaluation.evaluation import evaluate_outputs
from keras_transfer.experiments import cross_validation
from keras_transfer.experiments.cross_validation import cross_validate
from keras_transfer.experiments.cross_validation_result import CrossValidation

ARGUMENTS = {
    "strategy": (
        ktr.Phase("one", depth=1, epochs=2, learning_rate=1e-2),
        ktr.Phase("all", depth="all", epochs=1, learning_rate=1e-3),
    ),
    "verbose": 0,
}


def build():
    """Another head each time; the weights are seeded by `cross_validate`."""
    inputs = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(4, 3, name="block_1_conv")(inputs)
    x = keras.layers.Conv2D(6, 3, name="block_2_conv")(x)
    network = keras.Model(inputs, x, name="small")
    backbone = ktr.load_backbone(network, pixel_range="[0, 1]")
    return ktr.build_classifier(backbone, CLASSES, dropout=0.2)


@pytest.fixture(scope="module")
def found(data):
    """One real cross-validation, undisturbed."""
    return cross_validate(build, data, 3, **ARGUMENTS)


def cheap(units=1):
    """A new model for the tests that train nothing."""
    return keras.Sequential([keras.Input((2,)), keras.layers.Dense(units)])


class Spy:
    """Takes the place of `fine_tune`: keeps its data, trains nothing."""

    def __init__(self):
        self.data = []
        self.arguments = []
        self.outputs = CLASSES
        self.kind = "classification"

    def __call__(self, model, data, **arguments):
        self.data.append(data)
        self.arguments.append(arguments)
        return self

    history = {"loss": [1.0]}

    def evaluate(self):
        test = self.data[-1]
        test = test["test"] if isinstance(test, dict) else test.test
        labels = test[1] if isinstance(test, tuple) else test.labels
        outputs = np.full((len(labels), self.outputs), 1 / self.outputs)
        return evaluate_outputs(outputs, labels, kind=self.kind)

    def ids(self, name):
        return [getattr(data, name).ids for data in self.data]


@pytest.fixture
def spy(monkeypatch):
    made = Spy()
    monkeypatch.setattr(cross_validation, "fine_tune", made)
    return made


def flat(lists):
    return [item for part in lists for item in part]


# --- Folds ---


def test_folds_are_stratified_disjoint_and_complete(data, spy):
    cross_validate(cheap, data, 5, verbose=0)

    pool = {*data.train.ids, *data.validation.ids}
    held_out = spy.ids("test")
    assert len(held_out) == 5
    assert sorted(flat(held_out)) == sorted(pool)
    for fold in spy.data:
        assert {*fold.train.ids} == pool - {*fold.test.ids}
        assert not len(fold.validation)
        counts = np.bincount(fold.test.labels)
        assert counts.max() - counts.min() <= 1


def test_test_examples_are_not_looked_at(data, spy):
    cross_validate(cheap, data, 3, verbose=0, validation_fraction=0.2)
    seen = flat(spy.ids("train") + spy.ids("validation") + spy.ids("test"))
    assert not {*seen} & {*data.test.ids}


def test_labels_and_pixels_follow_their_ids(data, spy):
    cross_validate(cheap, data, 3, verbose=0)
    where = {name: i for i, name in enumerate(data.train.ids)}
    for split in (spy.data[0].train, spy.data[0].test):
        for i in range(len(split)):
            if split.ids[i] in where:
                k = where[split.ids[i]]
                assert split.labels[i] == data.train.labels[k]
                assert np.array_equal(split.image(i), data.train.image(k))


def test_folds_follow_from_seed_and_ids_alone(data, spy):
    moved = dataclasses.replace(
        data,
        train=dataclasses.replace(data.validation, name="train"),
        validation=dataclasses.replace(data.train, name="validation"),
    )
    for source, seed in ((data, 0), (moved, 0), (data, 1)):
        cross_validate(cheap, source, 3, seed=seed, verbose=0)
    held_out = spy.ids("test")
    assert held_out[:3] == held_out[3:6]
    assert held_out[:3] != held_out[6:]
    # Each fold has a seed of its own.
    assert [a["seed"] for a in spy.arguments] == [0, 1, 2, 0, 1, 2, 1, 2, 3]


@pytest.mark.parametrize("kind", ["images", "arrays", "numbers"])
def test_copies_stay_together(spy, kind):
    images, labels = make_images(36)
    images[18:27] = images[9:18]  # nine pairs, of the same class
    if kind == "images":
        source = ktr.load_images((images, labels), split=(0.8, 0.2, 0.0))
        assert source.report.copies
    else:
        source = (images.astype("float32"), labels)
    if kind == "numbers":
        source = (source[0], labels + 0.5)
        spy.outputs, spy.kind = 1, "regression"
    for fraction in (0.0, 0.3):
        cross_validate(
            cheap, source, 4, validation_fraction=fraction, verbose=0
        )
    for fold in spy.data:
        if kind != "images":
            sides = [{row.tobytes() for row in x} for x, _ in fold.values()]
        else:
            sides = [
                {split.image(i).tobytes() for i in range(len(split))}
                for split in (fold.train, fold.validation, fold.test)
            ]
        assert len(set.union(*sides)) == 27 == sum(map(len, sides))


def test_leaks_between_train_and_validation_end_in_one_fold(spy):
    images, labels = make_images(24)
    with pytest.warns(UserWarning, match="in different splits"):
        data = ktr.load_images(
            {"train": (images, labels), "validation": (images[:6], labels[:6])}
        )
    cross_validate(cheap, data, 3, verbose=0)
    for fold in spy.data:
        held_out = {name.split("/")[1] for name in fold.test.ids}
        assert not held_out & {name.split("/")[1] for name in fold.train.ids}


def test_several_labels_and_numbers_are_divided_too(spy):
    generator = np.random.default_rng(0)
    x = generator.normal(size=(20, 4)).astype("float32")
    for outputs, kind, y in (
        (2, "multi-label", generator.integers(0, 2, (20, 2))),
        (1, "regression", generator.normal(size=20)),
    ):
        spy.outputs, spy.kind = outputs, kind
        found = cross_validate(
            cheap, (x, y), 4, validation_fraction=0.2, verbose=0
        )
        assert sorted(map(int, found.pooled().ids)) == [*range(20)]
        for fold in spy.data[-4:]:
            assert [len(fold[name][0]) for name in ("train", "test")] == [12, 5]


def test_validation_is_split_off_the_training_part(data, spy):
    cross_validate(cheap, data, 3, validation_fraction=0.25, verbose=0)
    for fold in spy.data:
        assert len(fold.validation) == 11  # of 44
        assert np.bincount(fold.validation.labels).min() >= 3
        ids = [*fold.train.ids, *fold.validation.ids, *fold.test.ids]
        assert len(set(ids)) == len(ids) == 66


# --- Runs ---


def test_what_is_held_out_does_not_choose(found):
    for history in found.histories:
        assert not any(name.startswith("val_") for name in history)
        assert history["epoch"] == [1, 2, 1]


def test_pooled_holds_each_example_once(found, data):
    pooled = found.pooled()
    known = dict(zip(data.train.ids, data.train.labels, strict=True))
    known |= zip(data.validation.ids, data.validation.labels, strict=True)
    assert dict(zip(pooled.ids, pooled.labels, strict=True)) == known
    assert len(pooled.ids) == len(known) == 66
    sizes = [len(part.ids) for part in found.evaluations]
    assert pooled["accuracy"] == pytest.approx(
        np.average(found.scores(), weights=sizes)
    )
    assert pooled.class_names == data.class_names


def test_the_same_seed_gives_the_same_numbers(found, data):
    random.seed(7)
    np.random.seed(7)
    expected = random.random(), np.random.random()
    random.seed(7)
    np.random.seed(7)

    again = cross_validate(build, data, 3, **ARGUMENTS)

    np.testing.assert_allclose(
        again.scores("loss"), found.scores("loss"), rtol=0, atol=1e-6
    )
    # The user's own generators are where they were.
    assert (random.random(), np.random.random()) == expected


def test_goes_on_after_a_stop(found, data, tmp_path):
    class Stop(keras.callbacks.Callback):
        def __init__(self, epochs):
            super().__init__()
            self.epochs = 0
            self._most = epochs

        def on_epoch_begin(self, epoch, logs=None):
            if self.epochs == self._most:
                raise KeyboardInterrupt
            self.epochs += 1

    def run(epochs):
        stop = Stop(epochs)
        arguments = {**ARGUMENTS, "callbacks": [stop]}
        try:
            return stop, cross_validate(
                build, data, 3, directory=tmp_path / "runs", **arguments
            )
        except KeyboardInterrupt:
            return stop, None

    assert run(4)[1] is None  # the second epoch of the second fold
    assert (tmp_path / "runs" / "fold-1" / "run.json").exists()
    assert not (tmp_path / "runs" / "fold-3").exists()
    stop, again = run(9)
    assert stop.epochs == 5
    np.testing.assert_allclose(
        again.scores("loss"), found.scores("loss"), rtol=0, atol=1e-6
    )
    assert [h["epoch"] for h in again.histories] == [[1, 2, 1]] * 3

    # Finished folds are read.
    stop, read = run(0)
    np.testing.assert_array_equal(read.scores("loss"), again.scores("loss"))

    for arguments, match in (
        ({"folds": 4}, "cross_validation: 3 there, 4 here"),
        ({"seed": 1}, "seed: 0 there, 1 here"),
        ({"validation_fraction": 0.2}, "validation_fraction: 0.0 there"),
        ({"batch_size": 8}, "batch_size: 32 there, 8 here"),
    ):
        with pytest.raises(ValueError, match=match):
            cross_validate(
                build,
                data,
                **{"folds": 3, **ARGUMENTS, **arguments},
                directory=tmp_path / "runs",
            )


def test_places_of_the_folds(data, spy, tmp_path):
    cross_validate(
        cheap,
        data,
        2,
        directory=tmp_path / "runs",
        tensorboard=str(tmp_path / "boards"),
        verbose=0,
    )
    for index, arguments in enumerate(spy.arguments, start=1):
        assert arguments["directory"] == tmp_path / "runs" / f"fold-{index}"
        assert arguments["tensorboard"] == tmp_path / "boards" / f"fold-{index}"


def test_lines(data, spy, capsys):
    diagnosis = ktr.check(make_model(), data)
    spy.diagnosis = diagnosis.without("new-batch-norm")
    cross_validate(cheap, data, 2, verbose=1)
    assert [a["verbose"] for a in spy.arguments] == [0, 0]
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines] == ["fold 1/2", "fold 2/2"]
    cross_validate(cheap, data, 2, verbose=2)
    assert spy.arguments[-1]["verbose"] == 1


# --- Numbers ---


def made(accuracies):
    """A result of four examples a fold, of which so many are right."""
    outputs = np.eye(2)[[0, 0, 0, 0]]
    return CrossValidation(
        evaluations=tuple(
            evaluate_outputs(outputs, [0] * right + [1] * (4 - right))
            for right in accuracies
        ),
        histories=({},) * len(accuracies),
    )


def test_interval_by_hand():
    found = made([4, 3, 2])  # mean 3/4, standard deviation 1/4
    np.testing.assert_array_equal(found.scores(), [1, 0.75, 0.5])
    student = 4.302652729911275  # t(2) at 0.975
    mean, half_width = found.interval()
    assert mean == 0.75
    # 1/k + n_test / n_train, with 4 to test and 8 to train
    assert half_width == pytest.approx(student / 4 * np.sqrt(1 / 3 + 4 / 8))
    _, half_width = found.interval("accuracy", corrected=False)
    assert half_width == pytest.approx(student / 4 * np.sqrt(1 / 3))
    narrow = found.interval("accuracy", 0.5)[1]
    assert narrow < found.interval("accuracy", 0.9)[1]


def test_table():
    found = made([4, 3, 2])
    lines = str(found).splitlines()
    assert lines[0].startswith("3 folds, 12 examples")
    assert lines[1].split() == ["fold", "examples", "loss", "accuracy"]
    assert lines[2].split()[:2] == ["1", "4"]
    assert lines[-2].split()[-1] == "0.7500"
    assert lines[-1].split()[-1] == "0.9819"
    assert repr(found).endswith("accuracy 0.75, 3 folds>")


def test_unknown_metric_raises():
    with pytest.raises(ValueError, match=r"one of loss, accuracy.*Did you"):
        made([4, 3]).interval("acuracy")
    with pytest.raises(ValueError, match="`confidence` must be"):
        made([4, 3]).interval(confidence=95)


# --- Errors ---


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"folds": 1}, "`folds` must be an integer of at least 2"),
        ({"folds": 2.0}, "`folds` must be an integer"),
        ({"folds": 23}, "`folds` must be at most 22.*different"),
        ({"seed": -1}, "`seed` must be"),
        ({"verbose": None}, "`verbose` must be"),
        ({"validation_fraction": 1}, r"fraction in \[0, 1\)"),
        ({"validation_fraction": 0.001}, "at least one of the"),
        ({"patience": 3}, "`patience` needs validation examples"),
    ],
)
def test_bad_arguments_raise(data, spy, arguments, match):
    with pytest.raises(ValueError, match=match):
        cross_validate(cheap, data, **arguments)
    assert not spy.data


def test_folds_count_different_examples(spy):
    images, labels = make_images(30)
    images[labels == 2] = images[2]
    images[2] += 1
    data = ktr.load_images((images, labels), split=(1.0, 0.0, 0.0))
    with pytest.raises(ValueError, match='most 2.* of class "2".*folds=5'):
        cross_validate(cheap, data)


def test_bad_types_raise(data, model, spy):
    with pytest.raises(TypeError, match="`build` must be a function"):
        cross_validate(model, data)
    with pytest.raises(TypeError, match=r"return a `keras.Model`.*NoneType"):
        cross_validate(lambda: None, data)
    with pytest.raises(TypeError, match="pair .* of arrays. Received: dict"):
        cross_validate(cheap, {"train": make_images(9)})
    with pytest.raises(ValueError, match="as many labels as"):
        cross_validate(cheap, (np.zeros((4, 2)), np.zeros(3)))


def test_a_model_that_comes_again_raises(data, model, spy):
    """Before anything trains; so does one that shares its backbone."""
    inputs = keras.Input((8, 8, 3))
    shared = keras.layers.Conv2D(4, 3)

    def share():
        x = keras.layers.GlobalMaxPooling2D()(shared(inputs))
        return keras.Model(inputs, keras.layers.Dense(CLASSES)(x))

    for again in (lambda: model, share):
        with pytest.raises(ValueError, match="must return a new model"):
            cross_validate(again, data)
    assert not spy.data


def test_images_of_two_sources_raise(data, spy):
    other = ktr.load_images({"train": make_images(9, seed=5)}).train
    mixed = dataclasses.replace(data, validation=other)
    with pytest.raises(ValueError, match="images of one source"):
        cross_validate(cheap, mixed)


def test_a_directory_that_is_none_raises_at_once(data, spy, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="folder to write to"):
        cross_validate(cheap, data, directory=tmp_path / "file" / "x")
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.jpg").write_text("meow")
    with pytest.raises(ValueError, match="holds cat.jpg"):
        cross_validate(cheap, data, directory=tmp_path / "photos")
    assert not spy.data


# --- Some labels of each class ---


def test_labels_of_each_class_are_drawn_and_nested(data, monkeypatch):
    drawn = {}
    for count in (2, 4):
        spy = Spy()
        monkeypatch.setattr(cross_validation, "fine_tune", spy)
        cross_validate(cheap, data, 3, labels_per_class=count, verbose=0)
        drawn[count] = [set(part.train.ids) for part in spy.data]
        for part in spy.data:
            assert np.bincount(part.train.labels).tolist() == [count] * 3
            assert not set(part.train.ids) & set(part.test.ids)
    for few, more in zip(drawn[2], drawn[4], strict=True):
        assert few < more
    # Each fold has its own.
    assert len(set.union(*drawn[4])) > 4 * 3 * 1.8


def test_copies_are_one_label():
    images, labels = make_images(30)
    images[labels == 0] = images[0]
    images[3:27:3] = make_images(27, seed=1)[0][3:27:3]  # Nine different ones.
    for seed in range(5):
        spy = Spy()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(cross_validation, "fine_tune", spy)
            cross_validate(
                lambda: cheap(CLASSES), (images, labels), 2,
                labels_per_class=2, seed=seed, verbose=0,
            )  # fmt: skip
        for part in spy.data:
            pixels, _ = part["train"]
            assert len(np.unique(pixels, axis=0)) == len(pixels) == 6


@pytest.mark.parametrize(
    ("count", "message"),
    [
        (0, "must be an integer of at least 1"),
        (30, "that a fold leaves of class"),
    ],
)
def test_labels_that_are_not_there(data, count, message):
    with pytest.raises(ValueError, match=message):
        cross_validate(cheap, data, 3, labels_per_class=count, verbose=0)


def test_numbers_have_no_classes():
    pair = (np.eye(12, 2, dtype="float32"), np.linspace(0, 1, 12))
    pair[0][:, 0] = np.arange(12)
    with pytest.raises(ValueError, match="one class for each example"):
        cross_validate(cheap, pair, 3, labels_per_class=2, verbose=0)


def test_differences_are_over_the_same_folds():
    def made(accuracies, start=0):
        found = []
        for fold, right in enumerate(accuracies):
            outputs = np.tile([0.1, 0.9], (10, 1))
            outputs[right:] = [0.9, 0.1]
            ids = [f"{start + fold}/{i}" for i in range(10)]
            found.append(evaluate_outputs(outputs, np.ones(10, int), ids=ids))
        return CrossValidation(tuple(found), ())

    one, other = made([8, 9, 9]), made([5, 7, 4])
    difference = np.array([0.3, 0.2, 0.5])
    error = difference.std(ddof=1) * np.sqrt(1 / 3 + 1 / 2)
    half = stats.t.ppf(0.95, 2) * error
    np.testing.assert_allclose(
        one.minus(other, confidence=0.9), (difference.mean(), half)
    )
    with pytest.raises(ValueError, match="the same examples, fold by fold"):
        one.minus(made([5, 7, 4], start=1))
