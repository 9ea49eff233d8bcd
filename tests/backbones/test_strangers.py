"""Files of strangers run no code and write nowhere."""

import contextlib
import io
import json
import tarfile
import zipfile

import h5py
import keras
import numpy as np
import pytest

import keras_transfer as ktr


@pytest.fixture(scope="module")
def network():
    inputs = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(2, 3, name="conv")(inputs)
    return keras.Model(inputs, x)


def with_lambda(path):
    """Code in a file, which writes a file where it runs."""
    out = str(path.with_suffix(".ran"))

    def write(x):
        open(out, "w").close()
        return x

    inputs = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(2, 3)(inputs)
    layer = keras.layers.Lambda(lambda x: write(x), output_shape=(6, 6, 2))
    return keras.Model(inputs, layer(x)), path.with_suffix(".ran")


OPENERS = {
    "load_backbone": lambda path: ktr.load_backbone(
        path, pixel_range="[0, 255]"
    ),
    "load_model": ktr.load_model,
    "class_names": ktr.class_names,
}


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("opener", OPENERS)
@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_a_lambda_does_not_run(tmp_path, opener, suffix):
    path = tmp_path / f"model{suffix}"
    model, ran = with_lambda(path)
    model.save(path)
    ran.unlink(missing_ok=True)
    with pytest.raises((ValueError, TypeError)):
        OPENERS[opener](path)
    assert not ran.exists()


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("opener", ["load_backbone", "load_model"])
@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_a_module_of_a_stranger_is_not_imported(
    network, tmp_path, opener, suffix, monkeypatch
):
    module = tmp_path / "stranger_of_tests.py"
    module.write_text(f"open({str(tmp_path / 'ran')!r}, 'w').close()\n")
    monkeypatch.syspath_prepend(tmp_path)
    path = tmp_path / f"model{suffix}"
    network.save(path)

    def change(text):
        config = json.loads(text)
        layers = config["config"]["layers"]
        (conv,) = [x for x in layers if x["class_name"] == "Conv2D"]
        conv.update(
            module="stranger_of_tests",
            class_name="Evil",
            registered_name="stranger>Evil",
        )
        return json.dumps(config)

    if suffix == ".h5":
        with h5py.File(path, "r+") as file:
            config = change(file.attrs["model_config"])
            file.attrs["model_config"] = config
    else:
        rewrite(path, lambda text: change(text))
    with pytest.raises((ValueError, TypeError)):
        OPENERS[opener](path)
    assert not (tmp_path / "ran").exists()


def rewrite(path, change, extra=()):
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    members["config.json"] = change(members["config.json"])
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in (*members.items(), *extra):
            archive.writestr(name, content)


@pytest.mark.filterwarnings("ignore:Skipping invalid path")
@pytest.mark.parametrize("opener", ["load_backbone", "load_model"])
def test_a_model_file_writes_nowhere_else(network, tmp_path, opener):
    folder = tmp_path / "deep" / "deeper"
    folder.mkdir(parents=True)
    path = folder / "model.keras"
    network.save(path)
    extra = [("../escaped", "x"), ("assets/../../escaped", "x")]
    rewrite(path, lambda text: text, extra)
    # To refuse it is right as well.
    with contextlib.suppress(ValueError, OSError):
        OPENERS[opener](path)
    assert not list(tmp_path.rglob("escaped"))


@pytest.mark.parametrize("kind", ["parent", "absolute", "link", "hard link"])
def test_an_archive_writes_nowhere_else(tmp_path, kind):
    path = tmp_path / "deep" / "model.tar.gz"
    path.parent.mkdir()
    outside = tmp_path / "outside"
    outside.write_text("kept")
    with tarfile.open(path, "w:gz") as archive:
        name = {
            "parent": "../escaped",
            "absolute": str(tmp_path / "escaped"),
        }.get(kind, "saved_model.pb")
        member = tarfile.TarInfo(name)
        content = b"x"
        if "link" in kind:
            member.type = tarfile.SYMTYPE if kind == "link" else tarfile.LNKTYPE
            member.linkname = str(outside)
            archive.addfile(member)
        else:
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    with pytest.raises(ValueError, match="`saved_model` must be"):
        ktr.load_backbone("hub:" + str(path))
    assert not list(tmp_path.rglob("escaped"))
    assert outside.read_text() == "kept"


def test_arrays_of_strangers_are_not_unpickled(tmp_path):
    """`weights` and stores are read without pickle."""
    path = tmp_path / "weights.npz"
    np.savez(path, a=np.array([print], dtype=object))
    with pytest.raises(ValueError, match="`weights`"):
        ktr.load_backbone("ResNet20", weights=path)
