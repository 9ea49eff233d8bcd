"""Backbones from TF-Hub: SavedModels of TensorFlow 2."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import keras

from keras_transfer.backbones.spec import (
    NORMALIZATIONS,
    BackboneSpec,
    name_of,
    spec_of_own,
)
from keras_transfer.backbones.tfhub.layer import SavedModelLayer

PREFIX = "hub:"


# Default image size for a SavedModel that takes any size.
_SIZE = 224


def build(
    handle: str,
    input_shape: tuple[int | None, int | None, int] | None,
    *,
    pixel_range: str = "[0, 1]",
    signature: str | None = None,
    output: str | None = None,
    training_mode: bool = False,
) -> tuple[keras.Model, BackboneSpec]:
    """Makes a backbone from a SavedModel that takes images.

    Args:
        handle: A folder, an archive, or the address of a model on tfhub.dev or
            Kaggle.
        input_shape: `(height, width, channels)`, or `None` for that of the
            SavedModel (224 x 224 if it takes any size).
        pixel_range: A key of `NORMALIZATIONS`. Defaults to `"[0, 1]"`, TF-Hub's
            convention for images.
        signature: Name of the signature to run. Defaults to `None`, `__call__`.
        output: Key of the output, if there are several. Defaults to `None`.
        training_mode: Whether BatchNormalization statistics update where it
            trains. Defaults to `False`.

    Returns:
        The functional model, and its spec.

    Raises:
        ValueError: If it cannot be found or run, or does not take images.
        ConnectionError: If a download fails.
    """
    if pixel_range not in NORMALIZATIONS:
        raise ValueError(
            "`pixel_range` must be that of the SavedModel, one of "
            f"{', '.join(map(repr, NORMALIZATIONS))}. "
            f"Received: pixel_range={pixel_range!r}"
        )
    layer = SavedModelLayer(
        find(handle),
        signature=signature,
        output=output,
        training_mode=training_mode,
        name=name_of(handle),
    )
    input_spec = layer.takes
    own: tuple[int | None, ...] = ()
    if input_spec.shape.rank is not None:
        own = tuple(input_spec.shape[1:])
    if len(own) != 3 or not input_spec.dtype.is_floating:
        raise ValueError(
            "`source` must take images: floating-point numbers of shape "
            "(batch, height, width, channels). Received: source="
            f"{PREFIX + handle!r}, which takes {input_spec.dtype.name} of "
            f"shape {tuple(input_spec.shape)}."
        )
    shape = input_shape or tuple(
        size or other
        for size, other in zip(own, (_SIZE, _SIZE, 3), strict=True)
    )
    fits = len(shape) == 3 and all(
        side is None or side == size
        for side, size in zip(own, shape, strict=True)
    )
    if not fits:
        raise ValueError(
            f"`input_shape` must fit source {PREFIX + handle!r}, which takes "
            f"{own}. Received: input_shape={input_shape}"
        )
    if _is_channels_first(own):
        raise ValueError(
            "`source` must take images with the channels last: (batch, height, "
            f"width, channels). Received: source={PREFIX + handle!r}, which "
            f"takes {own}. Export it again with a transposition in front."
        )
    inputs = keras.Input(shape, name="image")
    features = layer(inputs)
    _check_features(tuple(features.shape), handle)
    network = keras.Model(inputs, features, name="backbone")
    spec = spec_of_own(
        layer.name,
        "tensorflow_hub",
        pixel_range,
        shape[0],
        int(features.shape[-1]),
    )
    return network, spec


def _is_channels_first(shape: Sequence[int | None]) -> bool:
    """Tells whether a shape is (channels, height, width), as in PyTorch."""
    few = (1, 3, 4)
    return shape[0] in few and shape[2] not in few


def _check_features(shape: tuple[int | None, ...], handle: str) -> None:
    """Raises unless the output is vectors, tokens or feature maps."""
    received = (
        f"Received: source={PREFIX + handle!r}, with output shape {shape}."
    )
    if len(shape) not in (2, 3, 4) or shape[-1] is None:
        raise ValueError(
            "`source` must return features of shape (batch, channels), (batch, "
            "tokens, channels) or (batch, height, width, channels), with a "
            f"known number of channels. {received}"
        )
    if len(shape) == 4:
        _, first, height, width = shape
        if height == width and first != height and (first or 0) > (width or 0):
            raise ValueError(
                "`source` must return feature maps with the channels last. "
                f"{received}"
            )


def find(handle: str) -> Path:
    """Returns the folder or archive of a handle, downloaded if necessary.

    Args:
        handle: A folder, a `.tar.gz` file or an address.

    Returns:
        The path; for downloads, in TF-Hub's cache (`TFHUB_CACHE_DIR`).

    Raises:
        ValueError: If it does not exist.
        ConnectionError: If the download fails.
    """
    if Path(handle).exists():
        return Path(handle)
    if "://" not in handle:
        raise ValueError(
            f"`source` must be {PREFIX!r} and an existing folder, a `.tar.gz` "
            "file or the address of a model (https://...). Received: "
            f"source={PREFIX + handle!r}, which does not exist."
        )
    import tensorflow_hub

    try:
        return Path(tensorflow_hub.resolve(handle))
    except Exception as err:  # Any error of the download clients.
        raise ConnectionError(
            f"Model {handle!r} is not in TF-Hub's cache and could not be "
            f"fetched ({str(err).splitlines()[0]}). Either connect to the "
            "internet once, or set TFHUB_CACHE_DIR to a cache that has it, or "
            f"call `load_backbone({PREFIX!r} + folder)` with a copy."
        ) from err
