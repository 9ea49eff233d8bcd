"""A run that was stopped goes on, and ends where it would have ended."""

import functools
import json
import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

import keras_transfer as ktr

from ._tiny import arrays_of, assert_same, make_images, make_model

PHASES = (
    ktr.Phase("head", depth=0, epochs=2, learning_rate=1e-2),
    ktr.Phase("two", depth=2, epochs=2, learning_rate=1e-2),
)
QUIET = {"verbose": 0, "strategy": PHASES}


class StopAfter(keras.callbacks.Callback):
    """Interrupts a run after so many epochs over all phases."""

    def __init__(self, epochs):
        super().__init__()
        self.left = epochs

    def on_epoch_begin(self, epoch, logs=None):
        if not self.left:
            raise KeyboardInterrupt
        self.left -= 1


def interrupted(data, directory, epochs, **arguments):
    with pytest.raises(KeyboardInterrupt):
        ktr.fine_tune(
            make_model(dropout=0.2),
            data,
            directory=directory,
            callbacks=[StopAfter(epochs)],
            **QUIET,
            **arguments,
        )


@pytest.fixture(scope="module")
def uninterrupted(data):
    """Runs to the end, by the dropout of the model; only read."""

    @functools.cache
    def run(dropout=0.0):
        return ktr.fine_tune(make_model(dropout=dropout), data, **QUIET)

    return run


@pytest.fixture
def stopped(_stopped, tmp_path):
    """A function that copies the folder of a run stopped after some epochs."""

    def copy(epochs):
        shutil.copytree(_stopped(epochs), tmp_path / "run")
        return tmp_path / "run"

    return copy


@pytest.fixture(scope="module")
def _stopped(data, tmp_path_factory):
    @functools.cache
    def run(epochs):
        folder = tmp_path_factory.mktemp("stopped") / "run"
        interrupted(data, folder, epochs)
        return folder

    return run


# Each moment, within a phase and between two, and each kind of state once.
@pytest.mark.parametrize(
    ("epochs", "arguments"),
    [
        (1, {"penalty": ktr.FeatureMap(0.01)}),
        (2, {}),
        (
            3,
            {
                "ema_momentum": 0.8,
                "penalty": ktr.L2SP(0.1),
                "gradient_accumulation_steps": 2,
            },
        ),
    ],
    ids=["feature-map", "plain", "ema-l2sp-accumulation"],
)
def test_goes_on_and_ends_the_same(
    data, tmp_path, uninterrupted, epochs, arguments
):
    if arguments:
        expected = ktr.fine_tune(
            make_model(dropout=0.2), data, **QUIET, **arguments
        )
    else:
        expected = uninterrupted(0.2)

    interrupted(data, tmp_path / "run", epochs, **arguments)
    # Another head and other dropout seeds: the run's own come back.
    model = make_model(dropout=0.2)
    model.get_layer("head").get_layer("predictions").kernel.assign(
        np.ones((8, 3))
    )
    run = ktr.fine_tune(
        model, data, directory=tmp_path / "run", **QUIET, **arguments
    )

    assert_same(model, arrays_of(expected.model), atol=1e-6)
    for row, other in zip(run.rows, expected.rows, strict=True):
        for name in ("phase", "epoch", "learning_rate"):
            assert row[name] == other[name]
        assert row["val_loss"] == pytest.approx(other["val_loss"], abs=1e-6)
    assert run.best == expected.best
    assert run.trainable == expected.trainable


def test_lp_ft_and_scratch_go_on(data, tmp_path):
    strategies = {
        "lp-ft": ktr.LPFT(epochs=2),
        "scratch": ktr.FromScratch(epochs=2),
    }
    for name, strategy in strategies.items():
        arguments = {"strategy": strategy, "verbose": 0}
        peace, model = make_model(), make_model()
        ktr.fine_tune(peace, data, **arguments)
        with pytest.raises(KeyboardInterrupt):
            ktr.fine_tune(
                make_model(),
                data,
                directory=tmp_path / name,
                callbacks=[StopAfter(1)],
                **arguments,
            )
        ktr.fine_tune(model, data, directory=tmp_path / name, **arguments)
        assert_same(model, arrays_of(peace), atol=1e-6)


def test_many_steps_in_one_call_go_on(data, tmp_path, monkeypatch):
    monkeypatch.setattr("keras_transfer.training.compiling._MIN_STEPS", 1)
    strategy = [
        ktr.Phase("top", depth=1, epochs=3, learning_rate=1e-2),
        ktr.Phase("head", depth=0, epochs=2, learning_rate=1e-2),
    ]
    arguments = {"strategy": strategy, "ema_momentum": 0.8, "verbose": 0}
    peace, model = make_model(), make_model()
    ktr.fine_tune(peace, data, **arguments)
    for epochs in (1, 3):  # Within the first phase, and the second.
        with pytest.raises(KeyboardInterrupt):
            ktr.fine_tune(
                make_model(),
                data,
                directory=tmp_path / "run",
                callbacks=[StopAfter(epochs)],
                **arguments,
            )
    ktr.fine_tune(model, data, directory=tmp_path / "run", **arguments)
    assert_same(model, arrays_of(peace), atol=1e-6)


def test_patience_is_counted_over_the_stop(data, tmp_path):
    phases = [ktr.Phase("stuck", depth=0, epochs=9, learning_rate=1e-12)]
    arguments = {"strategy": phases, "patience": 3, "verbose": 0}
    with pytest.raises(KeyboardInterrupt):
        ktr.fine_tune(
            make_model(),
            data,
            directory=tmp_path / "run",
            callbacks=[StopAfter(2)],
            **arguments,
        )
    run = ktr.fine_tune(
        make_model(), data, directory=tmp_path / "run", **arguments
    )
    assert len(run.rows) == 4


@pytest.fixture(scope="module")
def finished(data, tmp_path_factory):
    """A run to its end, with its folder; only read."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    return ktr.fine_tune(make_model(), data, directory=folder, **QUIET), folder


def test_a_finished_run_is_read(data, finished):
    (one, folder), second = finished, make_model()
    epochs = []

    class Count(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            epochs.append(epoch)

    two = ktr.fine_tune(
        second, data, directory=folder, callbacks=[Count()], **QUIET
    )

    assert not epochs
    assert two.rows == one.rows
    assert_same(second, arrays_of(one.model))
    assert not list(folder.glob(".*partial"))
    assert len(list(folder.glob("best-*.npz"))) == 1


def test_the_same_model_goes_on_after_an_interrupt(
    data, tmp_path, uninterrupted
):
    """In a notebook the model is the one that was interrupted."""
    peace, model = uninterrupted().model, make_model()
    with pytest.raises(KeyboardInterrupt):
        ktr.fine_tune(
            model,
            data,
            directory=tmp_path / "run",
            callbacks=[StopAfter(3)],
            **QUIET,
        )
    for _ in range(2):  # Once to the end, and once more to read it.
        ktr.fine_tune(model, data, directory=tmp_path / "run", **QUIET)
        assert_same(model, arrays_of(peace), atol=1e-6)


class Own(keras.optimizers.Adam):
    """An optimizer of the user's."""


@pytest.mark.parametrize(
    "arguments",
    [
        {
            "augment": ktr.Augmentation(mixup=0.3),
            "batch_size": 7,
            "optimizer": Own(),
        },
        {
            # Steps that no epoch ends with.
            "gradient_accumulation_steps": 3,
            "batch_size": 10,
            "mixed_precision": "mixed_float16",
            "class_weight": {0: 2.0},
        },
    ],
    ids=["mixup-own-optimizer", "accumulation-float16"],
)
def test_more_that_has_a_state(data, tmp_path, arguments):
    peace, model = make_model(), make_model()
    ktr.fine_tune(peace, data, **QUIET, **arguments)
    with pytest.raises(KeyboardInterrupt):
        ktr.fine_tune(
            make_model(),
            data,
            directory=tmp_path / "run",
            callbacks=[StopAfter(3)],
            **QUIET,
            **arguments,
        )
    ktr.fine_tune(model, data, directory=tmp_path / "run", **QUIET, **arguments)
    assert_same(model, arrays_of(peace), atol=1e-6)


def test_a_call_that_fails_at_once_leaves_the_directory_free(tmp_path):
    images, labels = make_images(12)
    with pytest.raises(ValueError, match="one-hot"):
        ktr.fine_tune(
            make_model(),
            (images, labels),
            augment=ktr.Augmentation(mixup=0.2),
            directory=tmp_path / "run",
            **QUIET,
        )
    ktr.fine_tune(
        make_model(),
        (images, labels),
        directory=tmp_path / "run",
        **QUIET | {"strategy": PHASES[:1]},
    )


def test_numpy_numbers_are_numbers(data, tmp_path):
    def phases(epochs):
        return [ktr.Phase("p", depth=0, epochs=epochs)]

    arguments = {"directory": tmp_path / "run", "verbose": 0}
    ktr.fine_tune(make_model(), data, strategy=phases(np.int64(1)), **arguments)
    ktr.fine_tune(make_model(), data, strategy=phases(1), **arguments)
    with pytest.raises(ValueError, match=r"phases\[0\]\.epochs: 1 there, 2"):
        ktr.fine_tune(
            make_model(), data, strategy=phases(np.int64(2)), **arguments
        )


def test_a_frozen_backbone_is_written_once(data, tmp_path):
    ktr.fine_tune(
        make_model(),
        data,
        strategy=[ktr.Phase("head", depth=0)],
        directory=tmp_path / "run",
        verbose=0,
    )
    with np.load(tmp_path / "run" / "state.npz") as file:
        kept = [name for name in file.files if name.startswith("variable")]
    assert len(kept) == 2


# --- A directory that is not this run's ---


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"seed": 1}, "seed: 0 there, 1 here"),
        ({"batch_size": 8}, "batch_size: 32 there"),
        ({"penalty": ktr.L2(0.1)}, "penalty: None there"),
        ({"strategy": PHASES[:1]}, "phases:"),
        ({"optimizer": "sgd"}, "optimizer.class: 'Adam' there, 'SGD' here"),
        ({"augment": ktr.Augmentation()}, "augment: None there"),
    ],
)
def test_other_settings_are_refused(data, stopped, arguments, match):
    folder = stopped(1)
    files = {p: p.read_bytes() for p in folder.glob("*.npz")}
    with pytest.raises(ValueError, match=match):
        ktr.fine_tune(
            make_model(dropout=0.2),
            data,
            directory=folder,
            **{**QUIET, **arguments},
        )
    assert files == {p: p.read_bytes() for p in folder.glob("*.npz")}


def test_other_data_and_models_are_refused(data, stopped):
    folder = stopped(1)
    other = ktr.load_images({"train": make_images(30, seed=5)})
    with pytest.raises(ValueError, match="data:"):
        ktr.fine_tune(make_model(dropout=0.2), other, directory=folder, **QUIET)
    with pytest.raises(ValueError, match="model:"):
        ktr.fine_tune(
            make_model(hidden_units=(4,)), data, directory=folder, **QUIET
        )
    with pytest.raises(ValueError, match="model:"):
        ktr.fine_tune(make_model(dropout=0.5), data, directory=folder, **QUIET)
    with pytest.raises(ValueError, match="run of this backbone"):
        ktr.fine_tune(
            make_model(seed=1, dropout=0.2), data, directory=folder, **QUIET
        )


def test_a_folder_with_other_files_is_refused(data, model, tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.jpg").write_text("meow")
    with pytest.raises(ValueError, match="holds cat.jpg"):
        ktr.fine_tune(model, data, directory=tmp_path / "photos", **QUIET)
    assert (tmp_path / "photos" / "cat.jpg").read_text() == "meow"
    assert not (tmp_path / "photos" / "run.json").exists()


def test_a_directory_in_use_is_refused(data, model, tmp_path):
    folder = tmp_path / "run"
    quiet = QUIET | {"strategy": PHASES[:1]}
    refused = []

    class Second(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            try:
                ktr.fine_tune(make_model(), data, directory=folder, **quiet)
            except ValueError as err:
                refused.append(str(err))

    ktr.fine_tune(model, data, directory=folder, callbacks=[Second()], **quiet)
    assert len(refused) == 2
    assert "another process is using" in refused[0]


@pytest.mark.parametrize("name", ["run.json", "state.npz", "start.npz"])
def test_a_broken_file_is_named(data, stopped, name):
    folder = stopped(3)
    whole = (folder / name).read_bytes()
    (folder / name).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=name):
        ktr.fine_tune(make_model(dropout=0.2), data, directory=folder, **QUIET)


# --- Disks ---


def test_a_directory_that_cannot_be_made_raises_at_once(data, model, tmp_path):
    (tmp_path / "file").write_text("")
    before = arrays_of(model)
    with pytest.raises(OSError, match="folder to write to"):
        ktr.fine_tune(model, data, directory=tmp_path / "file" / "x", **QUIET)
    assert_same(model, before)


def test_a_full_disk_leaves_the_last_state_whole(data, stopped, uninterrupted):
    """The system refuses files above a size, in the middle of a write."""
    folder, peace = stopped(1), uninterrupted(0.2).model
    before = (folder / "state.npz").read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (3000, limits[1]))
    try:
        with pytest.raises(OSError, match="make room and start again"):
            ktr.fine_tune(
                make_model(dropout=0.2), data, directory=folder, **QUIET
            )
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert (folder / "state.npz").read_bytes() == before
    assert not list(folder.glob(".*partial"))

    model = make_model(dropout=0.2)
    ktr.fine_tune(model, data, directory=folder, **QUIET)
    assert_same(model, arrays_of(peace), atol=1e-6)


def test_states_hold_no_pickles(stopped):
    for path in stopped(1).glob("*.npz"):
        with np.load(path, allow_pickle=False) as file:
            assert all(file[name].dtype != object for name in file.files)


# --- Killed ---


def kill_runs(tmp_path, kills, seed):
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    result = subprocess.run(
        [
            sys.executable,
            *("-m", "training._killed"),
            *(str(tmp_path), str(kills), str(seed)),
        ],
        cwd=Path(__file__).parents[1],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    return [json.loads(line) for line in result.stdout.splitlines()]


@pytest.mark.parametrize(
    "kills", [6, pytest.param(20, marks=pytest.mark.exhaustive)]
)
def test_killed_at_any_moment(tmp_path, kills):
    found = kill_runs(tmp_path, kills, seed=0)
    assert len(found) == kills
    # The moments fell before, within and after the first saved epoch.
    assert {"state.npz" in killed["left"] for killed in found} == {True, False}
    for killed in found:
        assert killed["difference"] <= 1e-6, killed


def test_says_what_differs_by_its_place(data, finished):
    other = (PHASES[0], ktr.Phase("two", depth=2, epochs=7, learning_rate=1e-2))
    with pytest.raises(
        ValueError, match=r"phases\[1\]\.epochs: 2 there, 7 here"
    ) as error:
        ktr.fine_tune(
            make_model(),
            data,
            directory=finished[1],
            **QUIET | {"strategy": other},
        )
    assert "phases[0]" not in str(error.value)
