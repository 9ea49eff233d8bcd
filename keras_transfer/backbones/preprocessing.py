"""The `preprocessing` layer of a model, which scales pixels for the network.

It is made of built-in Keras layers, so that a saved model loads anywhere.
"""

from __future__ import annotations

import keras
from keras import layers

from keras_transfer.backbones.spec import Normalization, normalization_of


def build_preprocessing(
    normalization: str | Normalization | None,
    input_shape: tuple[int | None, int | None, int],
    name: str = "preprocessing",
) -> keras.Model:
    """Builds the layers that scale pixels in `[0, 255]` for a backbone.

    A single channel is repeated three times, so that a grey image gives exactly
    the same as its RGB version, also if channel means differ. With 2, 4 or more
    channels the first three are scaled as red, green and blue, and the others
    by the average of these.

    Args:
        normalization: A key of `NORMALIZATIONS` or a `Normalization`, or `None`
            if the network scales pixels itself.
        input_shape: `(height, width, channels)` of the images; height and
            width may be `None`.
        name: Name of the model. Defaults to `"preprocessing"`.

    Returns:
        A functional model without weights, in float32. Height and width are
        unchanged; one channel becomes three.

    Example:

    >>> model = build_preprocessing("tf", (None, None, 3))
    >>> float(model(np.full((1, 2, 2, 3), 255.0))[0, 0, 0, 0])
    1.0
    """
    channels = input_shape[-1]
    inputs = keras.Input(input_shape, name="pixels")
    x = inputs
    if channels == 1:
        x = layers.Concatenate(dtype="float32", name="grey_to_rgb")([x] * 3)
    if normalization is None:
        x = layers.Identity(dtype="float32", name="raw_pixels")(x)
        return keras.Model(inputs, x, name=name)
    mean, std, bgr = normalization_of(normalization)
    if bgr and channels in (1, 3):
        x = keras.ops.flip(x, axis=-1)
        mean, std = mean[::-1], std[::-1]
    if len(set(mean)) == 1 and len(set(std)) == 1:
        # `x * scale + offset`, the form of Keras' function for families that
        # scale all channels alike.
        x = layers.Rescaling(
            1.0 / std[0], -mean[0] / std[0], dtype="float32", name="scale"
        )(x)
    else:
        x = layers.Normalization(
            mean=for_channels(mean, channels),
            variance=[s**2 for s in for_channels(std, channels)],
            dtype="float32",
            name="scale",
        )(x)
    return keras.Model(inputs, x, name=name)


def for_channels(values: tuple[float, ...], channels: int) -> list[float]:
    """Extends or cuts values for red, green and blue to `channels` values.

    Args:
        values: Three values.
        channels: Number of channels; `1` means grey, repeated to three.

    Returns:
        List of `channels` values (three for `1`); those beyond the third are
        the average of the three.
    """
    average = sum(values) / 3
    count = 3 if channels == 1 else channels
    return [*values, *[average] * count][:count]
