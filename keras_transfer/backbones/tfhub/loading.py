"""Backbones from TF-Hub: SavedModels of TensorFlow 2."""

from __future__ import annotations

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


# Where the SavedModel takes images of any size.
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
    """Makes a backbone of a SavedModel that takes images.

    Args:
        handle: A folder, an archive, or the address of a model on tfhub.dev or
            Kaggle.
        input_shape: `(height, width, channels)`, or `None` for that of the
            SavedModel, 224 x 224 where it takes any.
        pixel_range: A key of `NORMALIZATIONS`. Defaults to `"[0, 1]"`, TF-Hub's
            convention for images.
        signature: Name of the signature to run. Defaults to `None`, `__call__`.
        output: Key of the output, where there are several. Defaults to `None`.
        training_mode: Whether BatchNormalization moves where it trains.
            Defaults to `False`.

    Returns:
        The functional model and what is known about it.

    Raises:
        ValueError: If it cannot be found or run, or takes no images.
        ConnectionError: If it has to be fetched and cannot be.
    """
    if pixel_range not in NORMALIZATIONS:
        raise ValueError(
            "`pixel_range` must be what the SavedModel takes, one of "
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
    taken = layer.takes
    own = tuple(taken.shape[1:]) if taken.shape.rank is not None else ()
    if len(own) != 3 or not taken.dtype.is_floating:
        raise ValueError(
            "`source` must take images: floating-point numbers of shape "
            "(batch, height, width, channels). Received: source="
            f"{PREFIX + handle!r}, which takes {taken.dtype.name} of shape "
            f"{tuple(taken.shape)}."
        )
    shape = input_shape or tuple(
        size or other
        for size, other in zip(own, (_SIZE, _SIZE, 3), strict=True)
    )
    fits = len(shape) == 3 and all(
        wanted is None or wanted == given
        for wanted, given in zip(own, shape, strict=True)
    )
    if not fits:
        raise ValueError(
            f"`input_shape` must fit source {PREFIX + handle!r}, which takes "
            f"{own}. Received: input_shape={input_shape}"
        )
    inputs = keras.Input(shape, name="image")
    features = layer(inputs)
    network = keras.Model(inputs, features, name="backbone")
    spec = spec_of_own(
        layer.name,
        "tensorflow_hub",
        pixel_range,
        shape[0],
        int(features.shape[-1]),
    )
    return network, spec


def find(handle: str) -> Path:
    """Returns the folder or archive of a handle, fetching it where need be.

    Args:
        handle: A folder, a `.tar.gz` file or an address.

    Returns:
        Where it is: of what was fetched, TF-Hub's cache (`TFHUB_CACHE_DIR`).

    Raises:
        ValueError: If there is nothing there.
        ConnectionError: If it cannot be fetched.
    """
    if Path(handle).exists():
        return Path(handle)
    if "://" not in handle:
        raise ValueError(
            f"`source` must be {PREFIX!r} and an existing folder, a `.tar.gz` "
            "file or the address of a model (https://...). Received: "
            f"source={PREFIX + handle!r}, where there is nothing."
        )
    import tensorflow_hub

    try:
        return Path(tensorflow_hub.resolve(handle))
    except Exception as err:  # Resolvers raise what their transport raises.
        raise ConnectionError(
            f"Model {handle!r} is not in TF-Hub's cache and could not be "
            f"fetched ({str(err).splitlines()[0]}). Ways out: connect to the "
            "internet once; point TFHUB_CACHE_DIR to a cache that has it; "
            f"`load_backbone({PREFIX!r} + folder)` with a copy of it."
        ) from err
