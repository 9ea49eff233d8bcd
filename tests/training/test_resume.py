"""A run that was stopped goes on, and ends where it would have ended."""

import json
import os
import resource
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
    ktr.Phase("two", depth=2, epochs=3, learning_rate=1e-2),
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


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {
            "ema_momentum": 0.8,
            "penalty": ktr.L2SP(0.1),
            "gradient_accumulation_steps": 2,
        },
        {"penalty": ktr.FeatureMap(0.01)},
    ],
    ids=["plain", "ema-l2sp-accumulation", "feature-map"],
)
@pytest.mark.parametrize("epochs", [1, 2, 3])
def test_goes_on_and_ends_the_same(data, tmp_path, epochs, arguments):
    peace = make_model(dropout=0.2)
    expected = ktr.fine_tune(peace, data, **QUIET, **arguments)

    interrupted(data, tmp_path / "run", epochs, **arguments)
    # Another head and other dropout seeds: the run's own come back.
    model = make_model(dropout=0.2)
    model.get_layer("head").get_layer("predictions").kernel.assign(
        np.ones((8, 3))
    )
    run = ktr.fine_tune(
        model, data, directory=tmp_path / "run", **QUIET, **arguments
    )

    assert_same(model, arrays_of(peace), atol=1e-6)
    for row, other in zip(run.rows, expected.rows, strict=True):
        for name in ("phase", "epoch", "learning_rate"):
            assert row[name] == other[name]
        assert row["val_loss"] == pytest.approx(other["val_loss"], abs=1e-6)
    assert run.best == expected.best
    assert run.trainable == expected.trainable


def test_lp_ft_and_scratch_go_on(data, tmp_path):
    strategies = {
        "lp-ft": ktr.LPFT(epochs=3),
        "scratch": ktr.FromScratch(epochs=3),
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
                callbacks=[StopAfter(2)],
                **arguments,
            )
        ktr.fine_tune(model, data, directory=tmp_path / name, **arguments)
        assert_same(model, arrays_of(peace), atol=1e-6)


def test_many_steps_in_one_call_go_on(data, tmp_path, monkeypatch):
    monkeypatch.setattr("keras_transfer.training.compiling._LONG", 1)
    strategy = [
        ktr.Phase("top", depth=1, epochs=4, learning_rate=1e-2),
        ktr.Phase("head", depth=0, epochs=2, learning_rate=1e-2),
    ]
    arguments = {"strategy": strategy, "ema_momentum": 0.8, "verbose": 0}
    peace, model = make_model(), make_model()
    ktr.fine_tune(peace, data, **arguments)
    for epochs in (1, 2, 2):
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


def test_a_finished_run_is_read(data, tmp_path):
    first, second = make_model(), make_model()
    one = ktr.fine_tune(first, data, directory=tmp_path / "run", **QUIET)
    epochs = []

    class Count(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            epochs.append(epoch)

    two = ktr.fine_tune(
        second, data, directory=tmp_path / "run", callbacks=[Count()], **QUIET
    )

    assert not epochs
    assert two.rows == one.rows
    assert_same(second, arrays_of(first))
    assert not list((tmp_path / "run").glob(".*partial"))
    assert len(list((tmp_path / "run").glob("best-*.npz"))) == 1


def test_the_same_model_goes_on_after_an_interrupt(data, tmp_path):
    """In a notebook the model is the one that was interrupted."""
    peace, model = make_model(), make_model()
    ktr.fine_tune(peace, data, **QUIET)
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


def test_an_optimizer_of_ones_own_goes_on(data, tmp_path):
    class Own(keras.optimizers.Adam):
        pass

    peace, model = make_model(), make_model()
    ktr.fine_tune(peace, data, optimizer=Own(), **QUIET)
    with pytest.raises(KeyboardInterrupt):
        ktr.fine_tune(
            make_model(),
            data,
            optimizer=Own(),
            directory=tmp_path / "run",
            callbacks=[StopAfter(3)],
            **QUIET,
        )
    ktr.fine_tune(
        model, data, optimizer=Own(), directory=tmp_path / "run", **QUIET
    )
    assert_same(model, arrays_of(peace), atol=1e-6)


@pytest.mark.parametrize(
    "arguments",
    [
        {"augment": ktr.Augmentation(mixup=0.3), "batch_size": 7},
        {"gradient_accumulation_steps": 3, "batch_size": 10},
        {"mixed_precision": "mixed_float16", "class_weight": {0: 2.0}},
    ],
    ids=["mixup", "unaligned accumulation", "float16"],
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
        make_model(), (images, labels), directory=tmp_path / "run", **QUIET
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
def test_other_settings_are_refused(data, tmp_path, arguments, match):
    interrupted(data, tmp_path / "run", 1)
    files = {p: p.read_bytes() for p in (tmp_path / "run").glob("*.npz")}
    with pytest.raises(ValueError, match=match):
        ktr.fine_tune(
            make_model(dropout=0.2),
            data,
            directory=tmp_path / "run",
            **{**QUIET, **arguments},
        )
    assert files == {
        p: p.read_bytes() for p in (tmp_path / "run").glob("*.npz")
    }


def test_other_data_and_models_are_refused(data, tmp_path):
    folder = tmp_path / "run"
    interrupted(data, folder, 1)
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
    refused = []

    class Second(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            try:
                ktr.fine_tune(make_model(), data, directory=folder, **QUIET)
            except ValueError as err:
                refused.append(str(err))

    ktr.fine_tune(model, data, directory=folder, callbacks=[Second()], **QUIET)
    assert len(refused) == 5
    assert "another one is training in" in refused[0]


@pytest.mark.parametrize("name", ["run.json", "state.npz", "start.npz"])
def test_a_broken_file_is_named(data, tmp_path, name):
    folder = tmp_path / "run"
    interrupted(data, folder, 3)
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


def test_a_full_disk_leaves_the_last_state_whole(data, tmp_path):
    """The system refuses files above a size, in the middle of a write."""
    folder = tmp_path / "run"
    peace = make_model(dropout=0.2)
    ktr.fine_tune(peace, data, **QUIET)
    interrupted(data, folder, 2)
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


def test_states_hold_no_pickles(data, tmp_path):
    interrupted(data, tmp_path / "run", 1)
    for path in (tmp_path / "run").glob("*.npz"):
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


def test_killed_run_goes_on(tmp_path):
    for killed in kill_runs(tmp_path, 2, seed=1):
        assert killed["difference"] <= 1e-6, killed


@pytest.mark.slow
def test_killed_at_20_moments(tmp_path):
    found = kill_runs(tmp_path, 20, seed=0)
    assert len(found) == 20
    # The moments fell before, within and after the first saved epoch.
    assert {"state.npz" in killed["left"] for killed in found} == {True, False}
    for killed in found:
        assert killed["difference"] <= 1e-6, killed


def test_says_what_differs_by_its_place(data, tmp_path):
    ktr.fine_tune(make_model(), data, directory=tmp_path / "run", **QUIET)
    other = (PHASES[0], ktr.Phase("two", depth=2, epochs=7, learning_rate=1e-2))
    with pytest.raises(
        ValueError, match=r"phases\[1\]\.epochs: 3 there, 7 here"
    ) as error:
        ktr.fine_tune(
            make_model(),
            data,
            directory=tmp_path / "run",
            **QUIET | {"strategy": other},
        )
    assert "phases[0]" not in str(error.value)
