"""Ranges of pixels at every door, 16-bit files, HEIC, files without ending."""

import sys
import types

import numpy as np
import pytest
from PIL import Image

from keras_transfer import (
    FeatureExtractor,
    FeatureStore,
    extract_features,
    load_backbone,
    load_images,
)
from keras_transfer.data.images import decoding

ALL = (1.0, 0.0, 0.0)


def raises(message):
    return pytest.raises(ValueError, match=message)


# --- Arrays ---


@pytest.fixture(scope="module")
def backbone():
    return load_backbone("ResNet20", input_shape=(16, 16, 3))


def doors(backbone):
    labels = np.arange(8) % 2

    def extract(data):
        return extract_features(backbone, data, store="memory", verbose=0)

    return {
        "load_images": lambda x: load_images((x, labels)),
        "extract": extract,
        "extract pair": lambda x: extract((x, labels)),
        "extract dict": lambda x: extract({"train": (x, labels)}),
        "fit": lambda x: FeatureExtractor(backbone, store=FeatureStore()).fit(
            x
        ),
    }


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x: x / 255, r"look like \[0, 1\]. Multiply them by 255"),
        (lambda x: x / 250, r"look like \[0, 1\]"),
        (lambda x: x / 127.5 - 1, r"from -1 to .* Undo the scaling"),
        (lambda x: x * 257, "to 6.* Undo the scaling"),
        (lambda x: np.where(x > 250, np.nan, x), "Received: NaN"),
    ],
    ids=["unit", "over 1", "signed", "16 bits", "NaN"],
)
def test_pixels_in_another_range_are_refused(backbone, change, message):
    images = np.random.default_rng(0).integers(0, 256, (8, 16, 16, 3))
    changed = change(images.astype("float32"))
    for door in doors(backbone).values():
        with raises(message):
            door(changed)


def test_pixels_in_their_range_pass_every_door(backbone):
    images = np.random.default_rng(0).integers(0, 256, (8, 16, 16, 3))
    dark = images // 200  # integers of at most 1 are dark, not scaled
    for array in (images.astype("float32"), dark.astype("uint8")):
        for door in doors(backbone).values():
            assert door(array) is not None


# --- Files ---


def write_grey(root, scale, count=3):
    generator = np.random.default_rng(0)
    for name in "ab":
        (root / name).mkdir(parents=True)
        for i in range(count):
            pixels = generator.integers(0, scale, (8, 8)).astype("uint16")
            Image.fromarray(pixels).save(root / name / f"{i}.png")
    return root


def test_images_of_12_bits_are_told(tmp_path):
    root = write_grey(tmp_path / "x", 4096)
    with pytest.warns(UserWarning, match="look like 12 bits.* values by 16"):
        data = load_images(root, split=ALL)
    assert "nearly black" in str(data.report)
    for path in root.glob("*/*.png"):  # that advice works:
        pixels = np.asarray(Image.open(path)).astype("uint16")
        Image.fromarray(pixels * 16).save(path)
    data = load_images(root, split=ALL)
    assert data.train.image(0).max() > 200
    assert str(data.report) == "Nothing to report."


def test_dark_images_among_16_bits_are_fine(tmp_path):
    root = write_grey(tmp_path / "x", 65536)
    dark = np.full((8, 8), 900, "uint16")
    Image.fromarray(dark).save(root / "a" / "dark.png")
    assert len(load_images(root, split=ALL).train) == 7


@pytest.mark.parametrize("high", [1.3, 300.0, np.nan])
def test_float_files_outside_both_ranges_are_told(tmp_path, high):
    root = write_grey(tmp_path / "x", 65536)
    pixels = np.linspace(0, 1, 64, dtype="float32").reshape(8, 8)
    Image.fromarray(pixels).save(root / "a" / "whole.tif")
    pixels[0, 1] = high
    Image.fromarray(pixels).save(root / "a" / "odd.tif")
    with raises(r"a/odd.tif: its float pixels must be in \[0, 1\] or"):
        load_images(root)
    data = load_images(root, on_error="skip", split=ALL)
    assert len(data.train) == 7


HEIC = bytes.fromhex("0000001c66747970686569630000000068656963") + bytes(200)


@pytest.mark.skipif("HEIF" in Image.OPEN, reason="pillow-heif is installed")
def test_heic_names_its_plugin(tmp_path):
    root = write_grey(tmp_path / "x", 65536)
    (root / "a" / "IMG_1.HEIC").write_bytes(HEIC)
    (root / "b" / "renamed.jpg").write_bytes(HEIC + b"b")
    with raises("renamed.jpg: it is a HEIC image.* pip install pillow-heif"):
        load_images(root)


def test_heic_plugin_is_registered(monkeypatch):
    calls = []
    plugin = types.ModuleType("pillow_heif")
    plugin.register_heif_opener = lambda: calls.append(1)
    monkeypatch.setitem(sys.modules, "pillow_heif", plugin)
    decoding._register_heif.cache_clear()
    with pytest.raises(ValueError, match="not in an image format"):
        decoding.read_image(b"nonsense")
    decoding._register_heif.cache_clear()
    assert calls == [1]


def test_files_without_an_ending_are_counted(make_folder):
    root = make_folder({"a": 3, "b": 3})
    for i in range(2):
        (root / "a" / f"{i:03d}.png").rename(root / "a" / f"{i:03d}")
    with pytest.warns(UserWarning, match="2 files have no ending .* a/000"):
        data = load_images(root, split=ALL)
    assert len(data.train) == 4
    for i in range(2):  # that advice works: any ending
        (root / "a" / f"{i:03d}").rename(root / "a" / f"{i:03d}.jpg")
    assert len(load_images(root, split=ALL).train) == 6
