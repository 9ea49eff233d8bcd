import io
import os
import threading

import numpy as np
import pytest
from PIL import Image, ImageFile

from keras_transfer.data.images import decoding
from keras_transfer.data.images.decoding import decode, header_size, read_image


def encoded(image, file_format, **options):
    file = io.BytesIO()
    image.save(file, file_format, **options)
    return file.getvalue()


@pytest.fixture
def pixels():
    return np.random.default_rng(0).integers(0, 256, (6, 5, 3), dtype=np.uint8)


@pytest.mark.parametrize("file_format", ["PNG", "BMP", "TIFF", "PPM", "TGA"])
def test_lossless_formats_are_exact(pixels, file_format):
    image = decode(encoded(Image.fromarray(pixels), file_format))
    np.testing.assert_array_equal(image, pixels)
    assert image.dtype == np.uint8


@pytest.mark.parametrize("file_format", ["JPEG", "WEBP", "GIF", "AVIF"])
def test_lossy_formats_are_near(file_format):
    pixels = np.full((32, 32, 3), (200, 100, 50), np.uint8)
    image = decode(encoded(Image.fromarray(pixels), file_format))
    assert np.abs(image.astype(int) - pixels).max() <= 4


def test_content_decides_not_the_extension(tmp_path, pixels):
    path = tmp_path / "really_a_png.jpg"
    path.write_bytes(encoded(Image.fromarray(pixels), "PNG"))
    np.testing.assert_array_equal(read_image(path), pixels)


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_grey(channels):
    grey = np.arange(12, dtype=np.uint8).reshape(3, 4)
    image = decode(encoded(Image.fromarray(grey), "PNG"), channels=channels)
    expected = np.repeat(grey[..., None], channels, axis=2)
    if channels == 4:
        expected[..., 3] = 255
    np.testing.assert_array_equal(image, expected)


def test_rgb_to_grey_is_luma():
    red = np.zeros((2, 2, 3), np.uint8)
    red[..., 0] = 255
    image = decode(encoded(Image.fromarray(red), "PNG"), channels=1)
    np.testing.assert_array_equal(image, np.full((2, 2, 1), 76))


def test_one_bit():
    bits = np.array([[0, 255], [255, 0]], np.uint8)
    image = decode(encoded(Image.fromarray(bits).convert("1"), "PNG"))
    np.testing.assert_array_equal(image[..., 0], bits)


def test_rgba_is_composited_over_white_or_kept():
    rgba = np.array([[[255, 0, 0, 255], [255, 0, 0, 0], [0, 0, 0, 51]]])
    data = encoded(Image.fromarray(rgba.astype(np.uint8)), "PNG")
    np.testing.assert_array_equal(decode(data, channels=4), rgba)
    # 51 / 255 = 20 % black over white.
    expected = [[[255, 0, 0], [255, 255, 255], [204, 204, 204]]]
    np.testing.assert_array_equal(decode(data), expected)


def test_grey_with_alpha():
    la = np.array([[[10, 255], [10, 0]]], np.uint8)
    data = encoded(Image.fromarray(la, mode=None), "PNG")
    np.testing.assert_array_equal(decode(data, channels=1), [[[10], [255]]])
    expected = [[[10, 10, 10, 255], [10, 10, 10, 0]]]
    np.testing.assert_array_equal(decode(data, channels=4), expected)


def palette_image():
    image = Image.new("P", (2, 1))
    image.putpalette([255, 0, 0, 0, 0, 255])
    image.putdata([0, 1])
    return image


def test_palette_with_and_without_transparency():
    data = encoded(palette_image(), "PNG")
    np.testing.assert_array_equal(decode(data), [[[255, 0, 0], [0, 0, 255]]])
    # As bytes, which makes Pillow's own conversion to RGB warn.
    data = encoded(palette_image(), "PNG", transparency=b"\x00\xff")
    expected = [[[255, 255, 255], [0, 0, 255]]]
    np.testing.assert_array_equal(decode(data), expected)
    data = encoded(palette_image(), "GIF", transparency=0)
    np.testing.assert_array_equal(decode(data), expected)


def test_cmyk_tiff_and_inverted_jpeg():
    cmyk = Image.new("CMYK", (16, 16), (0, 255, 255, 0))  # Red.
    for file_format in ("TIFF", "JPEG"):
        data = encoded(cmyk, file_format)
        image = decode(data)
        expected = np.broadcast_to([255, 0, 0], (16, 16, 3))
        assert np.abs(image.astype(int) - expected).max() <= 3
    # What the JPEG holds is the inverse: Adobe's convention.
    assert Image.open(io.BytesIO(data)).mode == "CMYK"


@pytest.mark.parametrize("file_format", ["PNG", "TIFF"])
def test_16_bit_ramp(file_format):
    ramp = np.arange(0, 65536, 257, dtype=np.uint16)[None]
    image = decode(encoded(Image.fromarray(ramp), file_format), channels=1)
    np.testing.assert_array_equal(image[0, :, 0], np.arange(256))


def test_16_bit_rounds_and_does_not_clip():
    values = np.array([[0, 128, 129, 300, 40000, 65535]], np.uint16)
    image = decode(encoded(Image.fromarray(values), "PNG"), channels=1)
    np.testing.assert_array_equal(image[0, :, 0], [0, 0, 1, 1, 156, 255])


def test_16_bit_pgm_and_32_bit_tiff():
    pgm = b"P5 2 1 65535\n" + np.array([65535, 257], ">u2").tobytes()
    np.testing.assert_array_equal(decode(pgm, channels=1), [[[255], [1]]])
    integers = np.array([[0, 65535]], np.int32)
    data = encoded(Image.fromarray(integers), "TIFF")
    np.testing.assert_array_equal(decode(data, channels=1), [[[0], [255]]])
    data = encoded(Image.fromarray(integers * 2), "TIFF")
    with pytest.raises(ValueError, match=r"integer pixels must be in \[0, 655"):
        decode(data)


def test_float_tiff():
    for scale in (1.0, 255.0):
        floats = np.array([[0.0, 0.2, 1.0]], np.float32) * scale
        data = encoded(Image.fromarray(floats), "TIFF")
        image = decode(data, channels=1)
        np.testing.assert_array_equal(image[0, :, 0], [0, 51, 255])
    for bad in (-1.0, 256.0, np.nan):
        floats = np.array([[0.0, bad]], np.float32)
        with pytest.raises(ValueError, match="float pixels must be in"):
            decode(encoded(Image.fromarray(floats), "TIFF"))


@pytest.mark.parametrize("file_format", ["PNG", "TIFF", "JPEG", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(tmp_path, orientation, file_format):
    upright = np.zeros((32, 16, 3), np.uint8)
    upright[:16, :8] = 250
    upright[:16, 8:] = 160
    upright[16:, :8] = 80
    # How a camera that is held this way stores the scene.
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: upright.transpose(1, 0, 2)[::-1],
        7: upright[::-1, ::-1].transpose(1, 0, 2),
        8: upright.transpose(1, 0, 2)[:, ::-1],
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = Image.fromarray(np.ascontiguousarray(stored))
    path = tmp_path / "photo"
    path.write_bytes(encoded(image, file_format, exif=exif))
    decoded = read_image(path)
    assert decoded.shape == upright.shape
    assert np.abs(decoded.astype(int) - upright).max() < 20
    assert header_size(path) == (32, 16)
    assert read_image(path, image_size=(8, 4)).shape == (8, 4, 3)


# Pillow's, with the warnings that it gives anybody.
@pytest.mark.filterwarnings("ignore:Corrupt EXIF data:UserWarning")
def test_damaged_exif_is_no_reason_to_fail(tmp_path):
    data = encoded(
        Image.new("RGB", (16, 16), "red"), "JPEG", exif=b"Exif\0\0MM\0*nonsense"
    )
    path = tmp_path / "photo.jpg"
    path.write_bytes(data)
    image, _ = decoding.decode(data), header_size(path)
    assert image.shape == (16, 16, 3)


@pytest.mark.parametrize("file_format", ["GIF", "WEBP", "PNG", "TIFF"])
def test_animations_give_the_first_frame(file_format):
    frames = [Image.new("RGB", (8, 8), c) for c in ("red", "green", "blue")]
    data = encoded(
        frames[0],
        file_format,
        save_all=True,
        append_images=frames[1:],
        **({"lossless": True} if file_format == "WEBP" else {}),
    )
    expected = np.broadcast_to([255, 0, 0], (8, 8, 3))
    np.testing.assert_array_equal(decode(data), expected)


def test_resizing_is_bilinear_with_antialias():
    pixels = np.zeros((64, 64, 3), np.uint8)
    pixels[:, ::2] = 200  # Without antialias: 0 or 200, never 100.
    data = encoded(Image.fromarray(pixels), "PNG")
    image = decode(data, image_size=(16, 8))
    assert image.shape == (16, 8, 3)
    assert np.abs(image.astype(int) - 100).max() <= 8
    np.testing.assert_array_equal(decoding.resize_array(pixels, (16, 8)), image)


@pytest.mark.parametrize("channels", [1, 2, 4, 5])
def test_channels_of_arrays_are_resized_one_by_one(channels):
    pixels = np.random.default_rng(0).integers(0, 256, (9, 7, channels))
    pixels = pixels.astype(np.uint8)
    whole = decoding.resize_array(pixels, (4, 5))
    assert whole.shape == (4, 5, channels)
    for channel in range(channels):
        one = decoding.resize_array(pixels[..., [channel]], (4, 5))
        np.testing.assert_array_equal(whole[..., [channel]], one)


def test_large_jpeg_is_scaled_while_decoding():
    ramp = np.linspace(0, 255, 512).astype(np.uint8)
    pixels = np.broadcast_to(ramp[None, :, None], (512, 512, 3))
    data = encoded(Image.fromarray(np.ascontiguousarray(pixels)), "JPEG")
    small = decode(data, image_size=(32, 32))
    whole = decoding.resize_array(decode(data), (32, 32))
    assert np.abs(small.astype(int) - whole).max() <= 3


def test_100_megapixels(tmp_path):
    path = tmp_path / "huge.png"
    Image.new("L", (10_000, 10_000), 9).save(path, compress_level=1)
    before = Image.MAX_IMAGE_PIXELS
    image = read_image(path, channels=1, image_size=(20, 30))
    np.testing.assert_array_equal(image, np.full((20, 30, 1), 9))
    assert before == Image.MAX_IMAGE_PIXELS
    with pytest.raises(
        ValueError,
        match=r"huge.png': 10000x10000 pixels are more than `max_pixels`=50",
    ):
        read_image(path, max_pixels=50_000_000)


def test_pillows_settings_are_put_back_after_many_threads(monkeypatch):
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    data = encoded(Image.new("RGB", (64, 64)), "PNG")
    run = [threading.Thread(target=decode, args=(data,)) for _ in range(16)]
    for thread in run:
        thread.start()
    for thread in run:
        thread.join()
    assert ImageFile.LOAD_TRUNCATED_IMAGES is True
    assert Image.MAX_IMAGE_PIXELS == 1000
    # Truncated files are errors whatever the user's setting is.
    with pytest.raises(OSError, match="truncated"):
        decode(encoded(Image.effect_noise((64, 64), 50), "JPEG")[:-200])


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "GIF", "BMP", "WEBP"])
def test_truncated_files_name_the_file(tmp_path, file_format):
    noise = Image.effect_noise((64, 64), 50)
    data = encoded(noise, file_format)
    path = tmp_path / "cut.jpg"
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(ValueError, match="Cannot decode .*cut.jpg': .+"):
        read_image(path)


def write_text(path):
    path.write_text("this is no image, whatever its name says")


def write_link(path):
    path.symlink_to(path.parent / "gone.jpg")


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda path: path.touch(), r"the file is empty \(0 bytes\)"),
        (write_text, "its content is not in an image format that Pillow reads"),
        (lambda path: path.mkdir(), "it is a folder"),
        (write_link, "it is a broken symbolic link"),
        (lambda path: os.mkfifo(path), "it is not a regular file"),
        (lambda path: None, "no such file"),
    ],
)
def test_files_that_are_no_images_say_why(tmp_path, make, reason):
    path = tmp_path / "photo.jpg"
    make(path)
    with pytest.raises(ValueError, match=f"photo.jpg': {reason}"):
        read_image(path)


def test_permission_denied(tmp_path, monkeypatch):
    path = tmp_path / "photo.jpg"
    path.write_bytes(b"x")

    def refuse(*args, **kwargs):
        raise PermissionError(13, "Permission denied", str(path))

    # Removing the permission does not stop a test that runs as root.
    monkeypatch.setattr("builtins.open", refuse)
    with pytest.raises(ValueError, match="photo.jpg': permission denied"):
        read_image(path)


def test_postscript_is_not_run():
    eps = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n"
    with pytest.raises(Image.UnidentifiedImageError):
        decode(eps)
