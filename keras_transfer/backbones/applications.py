"""The networks of `keras.applications`: one table, one builder."""

from __future__ import annotations

import warnings
from typing import Any

import keras

from keras_transfer.backbones.spec import BackboneSpec

_GOOGLE = "Apache-2.0 (Google); trained on ImageNet-1k, research use"


_OXFORD = "CC BY 4.0 (University of Oxford); trained on ImageNet-1k"


_MICROSOFT = "MIT (Microsoft Research); trained on ImageNet-1k"


_DENSENET = "BSD 3-clause (Liu et al.); trained on ImageNet-1k"


_CHOLLET = "MIT (F. Chollet); trained on ImageNet-1k"


_META = "Apache-2.0 (Meta, converted by Keras); trained on ImageNet-1k"


_META_22K = "Apache-2.0 (Meta, converted by Keras); trained on ImageNet-22k"


# name: normalization, built in, default size, smallest size, features, licence,
# accuracy on ImageNet's validation images, according to Keras' documentation
_TABLE: dict[str, tuple[str, bool, int, int, int, str, float]] = {
    "ConvNeXtTiny": ("torch", True, 224, 32, 768, _META, 0.813),
    "ConvNeXtSmall": ("torch", True, 224, 32, 768, _META, 0.823),
    "ConvNeXtBase": ("torch", True, 224, 32, 1024, _META, 0.853),
    "ConvNeXtLarge": ("torch", True, 224, 32, 1536, _META, 0.863),
    "ConvNeXtXLarge": ("torch", True, 224, 32, 2048, _META_22K, 0.867),
    "DenseNet121": ("torch", False, 224, 32, 1024, _DENSENET, 0.750),
    "DenseNet169": ("torch", False, 224, 32, 1664, _DENSENET, 0.762),
    "DenseNet201": ("torch", False, 224, 32, 1920, _DENSENET, 0.773),
    "EfficientNetB0": ("torch", True, 224, 32, 1280, _GOOGLE, 0.771),
    "EfficientNetB1": ("torch", True, 240, 32, 1280, _GOOGLE, 0.791),
    "EfficientNetB2": ("torch", True, 260, 32, 1408, _GOOGLE, 0.801),
    "EfficientNetB3": ("torch", True, 300, 32, 1536, _GOOGLE, 0.816),
    "EfficientNetB4": ("torch", True, 380, 32, 1792, _GOOGLE, 0.829),
    "EfficientNetB5": ("torch", True, 456, 32, 2048, _GOOGLE, 0.836),
    "EfficientNetB6": ("torch", True, 528, 32, 2304, _GOOGLE, 0.840),
    "EfficientNetB7": ("torch", True, 600, 32, 2560, _GOOGLE, 0.843),
    "EfficientNetV2B0": ("torch", True, 224, 32, 1280, _GOOGLE, 0.787),
    "EfficientNetV2B1": ("torch", True, 240, 32, 1280, _GOOGLE, 0.798),
    "EfficientNetV2B2": ("torch", True, 260, 32, 1408, _GOOGLE, 0.805),
    "EfficientNetV2B3": ("torch", True, 300, 32, 1536, _GOOGLE, 0.820),
    "EfficientNetV2S": ("scale128", True, 384, 32, 1280, _GOOGLE, 0.839),
    "EfficientNetV2M": ("scale128", True, 480, 32, 1280, _GOOGLE, 0.853),
    "EfficientNetV2L": ("scale128", True, 480, 32, 1280, _GOOGLE, 0.857),
    "InceptionResNetV2": ("tf", False, 299, 75, 1536, _GOOGLE, 0.803),
    "InceptionV3": ("tf", False, 299, 75, 2048, _GOOGLE, 0.779),
    "MobileNet": ("tf", False, 224, 32, 1024, _GOOGLE, 0.704),
    "MobileNetV2": ("tf", False, 224, 32, 1280, _GOOGLE, 0.713),
    "MobileNetV3Large": ("tf", True, 224, 32, 960, _GOOGLE, 0.756),
    "MobileNetV3Small": ("tf", True, 224, 32, 576, _GOOGLE, 0.681),
    "NASNetLarge": ("tf", False, 331, 32, 4032, _GOOGLE, 0.825),
    "NASNetMobile": ("tf", False, 224, 32, 1056, _GOOGLE, 0.744),
    "ResNet50": ("caffe", False, 224, 32, 2048, _MICROSOFT, 0.749),
    "ResNet101": ("caffe", False, 224, 32, 2048, _MICROSOFT, 0.764),
    "ResNet152": ("caffe", False, 224, 32, 2048, _MICROSOFT, 0.766),
    "ResNet50V2": ("tf", False, 224, 32, 2048, _MICROSOFT, 0.760),
    "ResNet101V2": ("tf", False, 224, 32, 2048, _MICROSOFT, 0.772),
    "ResNet152V2": ("tf", False, 224, 32, 2048, _MICROSOFT, 0.780),
    "VGG16": ("caffe", False, 224, 32, 512, _OXFORD, 0.713),
    "VGG19": ("caffe", False, 224, 32, 512, _OXFORD, 0.713),
    "Xception": ("tf", False, 299, 71, 2048, _CHOLLET, 0.790),
}


# Keras chooses (MobileNet, MobileNetV2) or requires (MobileNetV3) a weights
# file for each image size. The one for 224 works at every size.
_PRETRAINED_SIZE = {
    "MobileNet": 224,
    "MobileNetV2": 224,
    "MobileNetV3Large": 224,
    "MobileNetV3Small": 224,
}


# Accuracies of other widths than 1, at 224 pixels, from the papers.
_TOP1_BY_ALPHA = {
    "MobileNet": {0.75: 0.684, 0.5: 0.637, 0.25: 0.506},
    "MobileNetV2": {
        1.4: 0.750,
        1.3: 0.744,
        0.75: 0.698,
        0.5: 0.654,
        0.35: 0.603,
    },
    "MobileNetV3Large": {0.75: 0.733},
    "MobileNetV3Small": {0.75: 0.654},
}


# Networks whose graph depends on the image size.
_FIXED_SIZE = {"NASNetLarge", "NASNetMobile"}


SPECS: dict[str, BackboneSpec] = {
    name: BackboneSpec(
        name=name,
        source="keras.applications",
        normalization=normalization,
        built_in=built_in,
        default_size=default_size,
        min_size=min_size,
        num_features=num_features,
        weights="imagenet",
        licence=licence,
        pretrained_size=_PRETRAINED_SIZE.get(name),
        fixed_size=name in _FIXED_SIZE,
        imagenet_top1=top1,
    )
    for name, (
        normalization,
        built_in,
        default_size,
        min_size,
        num_features,
        licence,
        top1,
    ) in _TABLE.items()
}


def imagenet_top1(spec: BackboneSpec, options: dict[str, Any]) -> float | None:
    """Returns the accuracy of the published weights of a variant.

    Args:
        spec: A row of `SPECS`.
        options: Further arguments of the `keras.applications` function.

    Returns:
        A fraction, or `None` if unknown.
    """
    others = {name: value for name, value in options.items() if name != "alpha"}
    alpha = options.get("alpha", 1.0)
    if others:
        return None
    if alpha == 1:
        return spec.imagenet_top1
    return _TOP1_BY_ALPHA.get(spec.name, {}).get(alpha)


def build(
    spec: BackboneSpec,
    input_shape: tuple[int | None, int | None, int],
    weights: str | None,
    options: dict[str, Any],
) -> keras.Model:
    """Builds a network of `keras.applications` without its classifier.

    Args:
        spec: A row of `SPECS`.
        input_shape: `(height, width, channels)`.
        weights: `"imagenet"` or `None`.
        options: Further arguments of the `keras.applications` function, such
            as `alpha`.

    Returns:
        A functional model from pixels in the range of the family to a feature
        map.
    """
    function = getattr(keras.applications, spec.name)
    if spec.built_in and input_shape[-1] != 3 and _can_switch_off(spec.name):
        options = {**options, "include_preprocessing": False}
    with warnings.catch_warnings():
        # Keras warns of channel counts other than 1 and 3, which are
        # intentional here.
        warnings.filterwarnings("ignore", message="This model usually expects")
        return function(
            include_top=False,
            weights=weights,
            input_shape=input_shape,
            **options,
        )


def _can_switch_off(name: str) -> bool:
    # The scaling of EfficientNet v1 is always in the graph.
    return not name.startswith("EfficientNetB")
