"""One row for each backbone: what the architecture's papers and Keras say.

The facts are written out here and not read from the package, which is tested
against them. A new backbone is one line.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import keras
import numpy as np
import pytest
from keras import layers

from keras_transfer import Backbone, load_backbone

USER_MODEL = "user's model"
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Row(NamedTuple):
    """What is known about a backbone without keras_transfer.

    `module` is the one of `keras.applications` whose `preprocess_input` feeds
    the network (`None`: not from there). `scaling` names the arithmetic that
    its paper prescribes, one of `SCALINGS`; where the network does that itself,
    `built_in` is true. `num_blocks` counts the stem. `mark` is that of its
    tests: the smallest network of each family runs in CI, the others are
    `exhaustive`, and the largest of the smallest is.
    """

    name: str
    module: str | None
    scaling: str
    built_in: bool
    size: int
    num_features: int
    num_blocks: int
    last_block: str
    mark: str

    @property
    def marks(self) -> list[pytest.MarkDecorator]:
        """The marks of tests of this row."""
        return [getattr(pytest.mark, self.mark)] if self.mark else []

    def make(self, channels: int = 3, weights: str | None = None) -> Backbone:
        """The backbone at its smallest size, at random unless `weights`."""
        if self.name == USER_MODEL:
            return load_backbone(user_model(), pixel_range="[0, 1]")
        shape = (self.size, self.size, channels)
        return load_backbone(self.name, weights=weights, input_shape=shape)

    def images(self, number: int = 2, channels: int = 3) -> np.ndarray:
        """Pixels in `[0, 255]`; the images differ in colour and contrast."""
        rng = np.random.default_rng(self.size + channels)
        colours = rng.uniform(0, 255, (number, 1, 1, channels))
        shape = (number, self.size, self.size, channels)
        return (colours * rng.uniform(0.2, 1, shape)).astype("float32")

    def preprocess(self, pixels: np.ndarray) -> np.ndarray:
        """The family's own preprocessing."""
        if self.module is None:
            return SCALINGS[self.scaling](pixels)
        module = getattr(keras.applications, self.module)
        return module.preprocess_input(pixels.copy())


def _in_mode(mode: str) -> Callable[[np.ndarray], np.ndarray]:
    utils = keras.applications.imagenet_utils
    return lambda pixels: utils.preprocess_input(pixels.copy(), mode=mode)


SCALINGS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "caffe": _in_mode("caffe"),
    "tf": _in_mode("tf"),
    "torch": _in_mode("torch"),
    "128": lambda pixels: (pixels - 128.0) / 128.0,
    "255": lambda pixels: pixels / 255.0,
}


def user_model() -> keras.Model:
    """A network nobody has seen before, with a classifier of its own.

    A Sequential inside, a branch that joins again, Flatten and Dense on top.
    """
    images = keras.Input((24, 24, 3), name="photo")
    x = layers.Conv2D(8, 3, padding="same", name="first")(images)
    x = keras.Sequential(
        [
            layers.Conv2D(12, 3, strides=2, padding="same", name="inner_conv"),
            layers.BatchNormalization(name="inner_bn"),
            layers.ReLU(name="inner_relu"),
        ],
        name="inner",
    )(x)
    branch = layers.Conv2D(12, 3, padding="same", name="branch")(x)
    x = layers.Add(name="join")([x, branch])
    x = layers.Conv2D(16, 3, strides=2, activation="relu", name="last")(x)
    x = layers.Flatten(name="flat")(x)
    outputs = layers.Dense(3, activation="softmax", name="answer")(x)
    return keras.Model(images, outputs, name="users_net")


def _rows(text: str) -> list[Row]:
    found = []
    for line in text.strip().splitlines():
        name, module, scaling, where, *numbers, last_block, speed = line.split()
        found.append(
            Row(
                name,
                module,
                scaling,
                {"inside": True, "outside": False}[where],
                *map(int, numbers),
                last_block,
                "" if speed == "fast" else speed,
            )
        )
    return found


# name, module of keras.applications, scaling, inside or outside the network,
# smallest size, features, blocks, last block, mark (slow: above 6 s on 2 cores)
TABLE: list[Row] = [
    *_rows("""
ConvNeXtTiny      convnext         torch inside  32  768 19 convnext_tiny_stage_3_block_2   fast
ConvNeXtSmall     convnext         torch inside  32  768 37 convnext_small_stage_3_block_2  exhaustive
ConvNeXtBase      convnext         torch inside  32 1024 37 convnext_base_stage_3_block_2   exhaustive
ConvNeXtLarge     convnext         torch inside  32 1536 37 convnext_large_stage_3_block_2  exhaustive
ConvNeXtXLarge    convnext         torch inside  32 2048 37 convnext_xlarge_stage_3_block_2 exhaustive
DenseNet121       densenet         torch outside 32 1024 59 conv5_block16    slow
DenseNet169       densenet         torch outside 32 1664 83 conv5_block32    exhaustive
DenseNet201       densenet         torch outside 32 1920 99 conv5_block32    exhaustive
EfficientNetB0    efficientnet     torch inside  32 1280 17 block7a          fast
EfficientNetB1    efficientnet     torch inside  32 1280 24 block7b          exhaustive
EfficientNetB2    efficientnet     torch inside  32 1408 24 block7b          exhaustive
EfficientNetB3    efficientnet     torch inside  32 1536 27 block7b          exhaustive
EfficientNetB4    efficientnet     torch inside  32 1792 33 block7b          exhaustive
EfficientNetB5    efficientnet     torch inside  32 2048 40 block7c          exhaustive
EfficientNetB6    efficientnet     torch inside  32 2304 46 block7c          exhaustive
EfficientNetB7    efficientnet     torch inside  32 2560 56 block7d          exhaustive
EfficientNetV2B0  efficientnet_v2  torch inside  32 1280 22 block6h          fast
EfficientNetV2B1  efficientnet_v2  torch inside  32 1280 28 block6i          exhaustive
EfficientNetV2B2  efficientnet_v2  torch inside  32 1408 29 block6j          exhaustive
EfficientNetV2B3  efficientnet_v2  torch inside  32 1536 33 block6l          exhaustive
EfficientNetV2S   efficientnet_v2  128   inside  32 1280 41 block6o          exhaustive
EfficientNetV2M   efficientnet_v2  128   inside  32 1280 58 block7e          exhaustive
EfficientNetV2L   efficientnet_v2  128   inside  32 1280 80 block7g          exhaustive
InceptionResNetV2 inception_resnet_v2 tf outside 75 1536 44 block8_10        exhaustive
InceptionV3       inception_v3     tf    outside 75 2048 12 mixed10          slow
MobileNet         mobilenet        tf    outside 32 1024 14 conv_13          fast
MobileNetV2       mobilenet_v2     tf    outside 32 1280 18 block_16         fast
MobileNetV3Large  mobilenet_v3     tf    inside  32  960 16 expanded_conv_14 exhaustive
MobileNetV3Small  mobilenet_v3     tf    inside  32  576 12 expanded_conv_10 fast
NASNetLarge       nasnet           tf    outside 32 4032 23 normal_concat_18 exhaustive
NASNetMobile      nasnet           tf    outside 32 1056 17 normal_concat_12 fast
ResNet50          resnet           caffe outside 32 2048 17 conv5_block3     fast
ResNet101         resnet           caffe outside 32 2048 34 conv5_block3     exhaustive
ResNet152         resnet           caffe outside 32 2048 51 conv5_block3     exhaustive
ResNet50V2        resnet_v2        tf    outside 32 2048 17 conv5_block3     fast
ResNet101V2       resnet_v2        tf    outside 32 2048 34 conv5_block3     exhaustive
ResNet152V2       resnet_v2        tf    outside 32 2048 51 conv5_block3     exhaustive
VGG16             vgg16            caffe outside 32  512  5 block5           fast
VGG19             vgg19            caffe outside 32  512  5 block5           exhaustive
Xception          xception         tf    outside 71 2048 14 block14          fast
"""),  # noqa: E501
    Row("ResNet20", None, "tf", False, 8, 64, 10, "stage3_block3", ""),
    Row(USER_MODEL, None, "255", False, 24, 16, 4, "last", ""),
]
BY_NAME = {row.name: row for row in TABLE}


def enliven(backbone: Backbone, images: np.ndarray) -> None:
    """Gives a backbone weights that hide no mistake.

    Keras' initial ones do: biases are zero, residual branches of ConvNeXt are
    scaled by 1e-6, and 50 layers of BatchNormalization at mean 0 and variance
    1 shrink the features of MobileNet to 1e-21, where all models agree.
    EfficientNet v1, whose scaling is learned, gets that of its paper.
    """
    rng = np.random.default_rng(0)
    network = backbone.model
    for weight in network.weights:
        if weight.name == "bias":
            weight.assign(rng.normal(0.0, 0.1, weight.shape))
        elif weight.name == "beta":
            # Most units active: a random network of many rectifiers is chaotic
            # otherwise, and blows rounding errors up by 100 and more.
            weight.assign(rng.normal(1.0, 0.1, weight.shape))
        elif weight.name.startswith(("gamma", "variable")):  # LayerScale
            weight.assign(rng.uniform(0.5, 1.5, weight.shape))
    for layer in network.layers:
        if isinstance(layer, layers.Normalization) and layer.weights:
            variance = np.square(IMAGENET_STD)
            layer.set_weights([np.array(IMAGENET_MEAN), variance, np.array(0)])
            layer.finalize_state()
    norms = [
        layer
        for layer in network.layers
        if isinstance(layer, layers.BatchNormalization)
    ]
    momenta = [layer.momentum for layer in norms]
    for layer in norms:
        layer.momentum = 0.0  # the statistics of these images, as they are
    network(backbone.preprocessing(images), training=True)
    for layer, momentum in zip(norms, momenta, strict=True):
        layer.momentum = momentum
        # One variance for all channels: by chance some hardly vary in a few
        # images, and would drown the others in those of the test.
        variance = np.array(layer.moving_variance)
        layer.moving_variance.assign(np.full_like(variance, variance.mean()))
