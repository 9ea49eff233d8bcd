"""Decoding of image files to uint8 `(height, width, channels)`.

The format is detected from the content, never from the file's extension. The
conventions are:

- Orientation: EXIF rotation is applied. Animations: the first frame.
- Transparency: composited over white for 1 or 3 channels, retained for 4.
- 16-bit grey: divided by 257, so that 65535 becomes 255. 32-bit integers must
  be in `[0, 65535]` and are converted in the same way. Floats must be in
  `[0, 1]` or in `[0, 255]`.
- CMYK is converted by Pillow (also inverted JPEG by Adobe); colour profiles are
  not applied.
- Resizing is bilinear with antialiasing. `"stretch"` changes the proportions;
  `"crop"` cuts both ends of the longer side off, `"pad"` puts black beside the
  shorter one, as `crop_to_aspect_ratio` and `pad_to_aspect_ratio` of Keras.
"""

from __future__ import annotations

import contextlib
import functools
import io
import os
import stat
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np

MAX_PIXELS = 256_000_000

RESIZES = ("stretch", "crop", "pad")

# Floats whose largest is between 1 and this are in neither range.
_LEAST_OF_255 = 2

# Brands of HEIF files, in bytes 8 to 12 of their content.
_HEIF_BRANDS = {b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1"}

# Pillow's mode by number of channels.
MODES = {1: "L", 3: "RGB", 4: "RGBA"}

EXTENSIONS = frozenset(
    ".jpg .jpeg .jpe .jfif .png .apng .gif .bmp .dib .tif .tiff .webp .avif "
    ".jp2 .j2k .jpx .pbm .pgm .ppm .pnm .tga .ico .mpo .pcx .heic .heif".split()
)

# Raster formats only; EPS, for example, would start Ghostscript.
_FORMATS = (
    "JPEG PNG GIF BMP DIB TIFF WEBP AVIF JPEG2000 PPM TGA ICO MPO PCX HEIF"
).split()


def read_image(
    path: str | bytes | os.PathLike[str],
    *,
    channels: int = 3,
    image_size: tuple[int, int] | None = None,
    resize: str = "stretch",
    max_pixels: int = MAX_PIXELS,
) -> np.ndarray:
    """Reads and decodes one image file.

    Args:
        path: Path of the file, or its content as bytes.
        channels: 1 (grey), 3 (RGB) or 4 (RGBA). Defaults to `3`.
        image_size: Size `(height, width)`, or `None` for the size of the file.
            Defaults to `None`.
        resize: A name in `RESIZES`. Defaults to `"stretch"`.
        max_pixels: Largest number of pixels; a larger image raises before its
            pixels are decoded. Defaults to `256_000_000`.

    Returns:
        uint8 array `(height, width, channels)` in `[0, 255]`.

    Raises:
        ValueError: If the file cannot be read or decoded; the message names the
            file.

    Example:

    >>> from PIL import Image
    >>> Image.new("L", (4, 2), 7).save("grey.png")
    >>> read_image("grey.png").shape
    (2, 4, 3)
    """
    try:
        data = read_bytes(path)
        return decode(
            data,
            channels=channels,
            image_size=image_size,
            resize=resize,
            max_pixels=max_pixels,
        )
    except Exception as err:
        raise ValueError(
            f"Cannot decode the image file {name_of(path)}: {reason(err)}."
        ) from err


def name_of(path: str | bytes | os.PathLike[str]) -> str:
    """Returns the name of a file in errors."""
    if isinstance(path, bytes):
        return f"of {len(path)} bytes in the table"
    return repr(os.fspath(path))


def read_bytes(path: str | bytes | os.PathLike[str]) -> bytes:
    """Reads a regular file; raises with the reason for anything else."""
    if isinstance(path, bytes):
        return path
    try:
        status = os.stat(path)
    except FileNotFoundError as err:
        if os.path.islink(path):
            raise ValueError("it is a broken symbolic link") from err
        raise
    if stat.S_ISDIR(status.st_mode):
        raise ValueError("it is a folder")
    if not stat.S_ISREG(status.st_mode):
        # Opening a named pipe would block forever.
        raise ValueError("it is not a regular file")
    with open(path, "rb") as file:
        data = file.read()
    if not data:
        raise ValueError("the file is empty (0 bytes)")
    return data


def decode(
    data: bytes,
    *,
    channels: int = 3,
    image_size: tuple[int, int] | None = None,
    resize: str = "stretch",
    max_pixels: int = MAX_PIXELS,
) -> np.ndarray:
    """Decodes the content of an image file; see `read_image`."""
    with _strict_pillow():
        image = _open(io.BytesIO(data), max_pixels)
        if image_size is not None and image.format in ("JPEG", "MPO"):
            # The codec scales by 1/2, 1/4 or 1/8 while decoding, to no less
            # than twice the final size in any orientation.
            image.draft(None, (2 * max(image_size),) * 2)
        image.load()
        orientation = _orientation(image)
        image = _to_mode(image, MODES[channels])
    image = _apply_orientation(image, orientation)
    if image_size is not None:
        image = _resize(image, image_size, resize)
    return np.asarray(image).reshape(image.height, image.width, channels)


def is_pillow(image: Any) -> bool:
    """Tells whether an object is an image of Pillow, without importing it."""
    return hasattr(image, "getbands") and hasattr(image, "convert")


def convert(image: Any, channels: int) -> np.ndarray:
    """Converts an image of Pillow as `read_image` does a file."""
    orientation = _orientation(image)
    image = _to_mode(image, MODES[channels])
    image = _apply_orientation(image, orientation)
    return np.asarray(image).reshape(image.height, image.width, channels)


def header_size(
    path: str | bytes | os.PathLike[str], max_pixels: int = MAX_PIXELS
) -> tuple[int, int]:
    """Returns `(height, width)` as decoded, without decoding the pixels."""
    file = io.BytesIO(path) if isinstance(path, bytes) else path
    with _strict_pillow(), _open(file, max_pixels) as image:
        width, height = image.size
        # Orientations from 5 swap height and width; Pillow's TIFF reader has
        # done that already.
        swapped = image.format != "TIFF" and _orientation(image) >= 5
    return (width, height) if swapped else (height, width)


def resize_array(
    array: np.ndarray, image_size: tuple[int, int], resize: str = "stretch"
) -> np.ndarray:
    """Resizes uint8 `(height, width, channels)` as `read_image` does."""
    from PIL import Image

    if array.shape[:2] == image_size:
        return array
    # RGB as one image; any other number of channels as grey images.
    planes = [array] if array.shape[2] == 3 else np.moveaxis(array, 2, 0)
    resized = [
        np.asarray(
            _resize(
                Image.fromarray(np.ascontiguousarray(plane)), image_size, resize
            )
        )
        for plane in planes
    ]
    return resized[0] if array.shape[2] == 3 else np.stack(resized, axis=2)


def _resize(image: Any, image_size: tuple[int, int], resize: str) -> Any:
    """Resizes an image of Pillow to `(height, width)`."""
    from PIL import Image

    size = image_size[::-1]  # Pillow has (width, height).
    if image.size == size:
        return image
    bilinear = Image.Resampling.BILINEAR
    width, height = image.size
    if resize == "crop":
        # The largest part in the middle that has the proportions of `size`.
        scale = min(width / size[0], height / size[1])
        across, down = size[0] * scale, size[1] * scale
        left, top = (width - across) / 2, (height - down) / 2
        box = (left, top, left + across, top + down)
        return image.resize(size, bilinear, box=box, reducing_gap=2.0)
    if resize == "pad":
        scale = max(width / size[0], height / size[1])
        inner = (
            min(size[0], max(1, round(width / scale))),
            min(size[1], max(1, round(height / scale))),
        )
        whole = Image.new(image.mode, size)
        place = ((size[0] - inner[0]) // 2, (size[1] - inner[1]) // 2)
        whole.paste(image.resize(inner, bilinear, reducing_gap=2.0), place)
        return whole
    return image.resize(size, bilinear, reducing_gap=2.0)


def reason(err: BaseException) -> str:
    """Returns a short reason why an image could not be read."""
    from PIL import UnidentifiedImageError

    if isinstance(err, UnidentifiedImageError):
        return "its content is not in an image format that Pillow reads"
    if isinstance(err, FileNotFoundError):
        return "no such file"
    if isinstance(err, PermissionError):
        return "permission denied"
    if isinstance(err, ValueError | OSError) and str(err):
        return str(err).rstrip(".")
    return f"{type(err).__name__}: {err}".rstrip(": .")


@functools.cache
def _register_heif() -> None:
    """Registers the plugin for HEIC images where it is installed."""
    with contextlib.suppress(ImportError):
        import pillow_heif

        pillow_heif.register_heif_opener()


def _is_heif(file: Any) -> bool:
    if isinstance(file, str | os.PathLike):
        with open(file, "rb") as content:
            start = content.read(12)
    else:
        file.seek(0)
        start = file.read(12)
    return start[4:8] == b"ftyp" and start[8:] in _HEIF_BRANDS


def peak_of_16_bits(path: str | bytes | os.PathLike[str]) -> int | None:
    """Returns the largest value of a 16-bit image, `None` for others."""
    file = io.BytesIO(path) if isinstance(path, bytes) else path
    with _strict_pillow(), _open(file, MAX_PIXELS) as image:
        if image.mode[:1] != "I":
            return None
        return int(np.asarray(image).max())


def _open(file: Any, max_pixels: int) -> Any:
    from PIL import Image, UnidentifiedImageError

    Image.init()
    _register_heif()
    formats = [name for name in _FORMATS if name in Image.OPEN]
    try:
        image = Image.open(file, formats=formats)
    except UnidentifiedImageError as err:
        if "HEIF" not in formats and _is_heif(file):
            raise ValueError(
                "it is a HEIC image, which needs a plugin of Pillow: pip "
                "install pillow-heif"
            ) from err
        raise
    width, height = image.size
    if width * height > max_pixels:
        image.close()
        raise ValueError(
            f"{width}x{height} pixels are more than `max_pixels`={max_pixels}"
        )
    return image


class _StrictPillow:
    """Number of decodes in progress, and Pillow's settings before them."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.depth = 0
        self.saved: tuple[int | None, bool] = (None, False)


_STRICT = _StrictPillow()


@contextlib.contextmanager
def _strict_pillow() -> Iterator[None]:
    """Makes Pillow raise for truncated files, and not for large ones.

    `max_pixels` limits the size instead. Both settings are globals of Pillow:
    the first decode in progress changes them, and the last one restores the
    user's values.
    """
    from PIL import Image, ImageFile

    with _STRICT.lock:
        if _STRICT.depth == 0:
            _STRICT.saved = (
                Image.MAX_IMAGE_PIXELS,
                ImageFile.LOAD_TRUNCATED_IMAGES,
            )
            Image.MAX_IMAGE_PIXELS = None
            ImageFile.LOAD_TRUNCATED_IMAGES = False
        _STRICT.depth += 1
    try:
        yield
    finally:
        with _STRICT.lock:
            _STRICT.depth -= 1
            if _STRICT.depth == 0:
                (
                    Image.MAX_IMAGE_PIXELS,
                    ImageFile.LOAD_TRUNCATED_IMAGES,
                ) = _STRICT.saved


def _orientation(image: Any) -> int:
    """Returns the EXIF orientation, 1 to 8; 1 if EXIF cannot be read."""
    try:
        value = image.getexif().get(0x0112, 1)
    except Exception:  # Pillow raises many types on damaged EXIF.
        return 1
    return value if value in range(1, 9) else 1


def _apply_orientation(image: Any, orientation: int) -> Any:
    from PIL import Image

    transpose = Image.Transpose
    method = {
        2: transpose.FLIP_LEFT_RIGHT,
        3: transpose.ROTATE_180,
        4: transpose.FLIP_TOP_BOTTOM,
        5: transpose.TRANSPOSE,
        6: transpose.ROTATE_270,
        7: transpose.TRANSVERSE,
        8: transpose.ROTATE_90,
    }.get(orientation)
    return image if method is None else image.transpose(method)


def _to_mode(image: Any, mode: str) -> Any:
    """Converts any of Pillow's modes to `"L"`, `"RGB"` or `"RGBA"`."""
    from PIL import Image

    if image.mode == "F" or image.mode.startswith("I"):
        image = Image.fromarray(_to_8_bit(np.asarray(image)))
    elif image.has_transparency_data:
        image = image.convert("RGBA")
        if mode != "RGBA":
            white = Image.new("RGBA", image.size, "white")
            image = Image.alpha_composite(white, image)
    elif image.mode not in ("L", "RGB", "1"):
        image = image.convert("RGB")
    return image if image.mode == mode else image.convert(mode)


def _to_8_bit(pixels: np.ndarray) -> np.ndarray:
    low, high = pixels.min(), pixels.max()
    if pixels.dtype.kind == "f":
        between = 1 < high < _LEAST_OF_255
        if not np.isfinite(pixels).all() or low < 0 or high > 255 or between:
            raise ValueError(
                "its float pixels must be in [0, 1] or [0, 255], but span "
                f"[{low:g}, {high:g}]"
            )
        return np.rint(pixels * (255 if high <= 1 else 1)).astype(np.uint8)
    if low < 0 or high > 65535:
        raise ValueError(
            "its integer pixels must be in [0, 65535], but span "
            f"[{low}, {high}]"
        )
    # 65535 = 255 * 257; adding half of 257 rounds to the nearest integer.
    return ((pixels.astype(np.uint32) + 128) // 257).astype(np.uint8)
