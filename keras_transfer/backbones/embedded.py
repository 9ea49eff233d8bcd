"""The backbone that ships inside the package."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

import keras
from keras import layers

from keras_transfer.backbones.spec import BackboneSpec

SPECS: dict[str, BackboneSpec] = {
    "ResNet20": BackboneSpec(
        name="ResNet20",
        source="keras_transfer",
        normalization="tf",
        built_in=False,
        default_size=32,
        min_size=8,
        num_features=64,
        weights="cifar10",
        licence="Apache-2.0 (keras_transfer); trained on CIFAR-10",
    )
}


def weights_path(name: str) -> Path:
    """Returns the weights file of an embedded backbone.

    Args:
        name: A key of `SPECS`.

    Returns:
        Path of a `.weights.h5` file inside the installed package.
    """
    package = resources.files("keras_transfer.backbones")
    return Path(str(package / "weights" / f"{name.lower()}.weights.h5"))


FILTERS = (16, 32, 64)


BLOCKS_PER_STAGE = 3


def resnet20(
    input_shape: tuple[int | None, int | None, int] = (32, 32, 3),
    name: str = "resnet20",
) -> keras.Model:
    """Builds the 20-layer residual network for small images, without a top.

    A 3x3 stem, then three stages of three basic blocks with 16, 32 and 64
    filters; stages two and three halve the resolution. Where the shape
    changes, the shortcut is a 1x1 convolution with batch normalization
    (He et al. call it option B). 0.27 million parameters.

    Args:
        input_shape: `(height, width, channels)` of the images; height and
            width may be `None`. Values are expected in `[-1, 1]`. Defaults to
            `(32, 32, 3)`.
        name: Name of the model. Defaults to `"resnet20"`.

    Returns:
        A functional `keras.Model` from `(batch, height, width, channels)` to
        `(batch, height / 4, width / 4, 64)`, randomly initialised.

    Example:

    >>> resnet20((32, 32, 3)).output_shape
    (None, 8, 8, 64)

    Reference:
        - He et al., 2016, https://arxiv.org/abs/1512.03385 (section 4.2)
    """
    inputs = keras.Input(input_shape, name="image")
    x = _convolution(inputs, FILTERS[0], 3, 1, "stem")
    x = layers.ReLU(name="stem_relu")(x)
    for stage, filters in enumerate(FILTERS, start=1):
        for block in range(1, BLOCKS_PER_STAGE + 1):
            strides = 2 if stage > 1 and block == 1 else 1
            x = _basic_block(x, filters, strides, f"stage{stage}_block{block}")
    return keras.Model(inputs, x, name=name)


def _basic_block(
    x: keras.KerasTensor, filters: int, strides: int, name: str
) -> keras.KerasTensor:
    residual = _convolution(x, filters, 3, strides, f"{name}_1")
    residual = layers.ReLU(name=f"{name}_1_relu")(residual)
    residual = _convolution(residual, filters, 3, 1, f"{name}_2")
    if x.shape[-1] != filters:
        x = _convolution(x, filters, 1, strides, f"{name}_0")
    x = layers.Add(name=f"{name}_add")([x, residual])
    return layers.ReLU(name=f"{name}_out")(x)


def _convolution(
    x: keras.KerasTensor, filters: int, size: int, strides: int, name: str
) -> keras.KerasTensor:
    x = layers.Conv2D(
        filters,
        size,
        strides,
        padding="same",
        use_bias=False,
        kernel_initializer="he_normal",
        name=f"{name}_conv",
    )(x)
    # Lower than Keras' 0.99, so that statistics adapt within tens of steps, in
    # the short trainings on little data that this network is meant for.
    return layers.BatchNormalization(momentum=0.9, name=f"{name}_bn")(x)
