"""The networks of `keras.applications`: one table, one builder."""

from __future__ import annotations

import warnings
from typing import Any

import keras

from keras_transfer.backbones._spec import BackboneSpec

_GOOGLE = "Apache-2.0 (Google); trained on ImageNet-1k, research use"
_OXFORD = "CC BY 4.0 (University of Oxford); trained on ImageNet-1k"
_MICROSOFT = "MIT (Microsoft Research); trained on ImageNet-1k"
_DENSENET = "BSD 3-clause (Liu et al.); trained on ImageNet-1k"
_CHOLLET = "MIT (F. Chollet); trained on ImageNet-1k"
_META = "Apache-2.0 (Meta, converted by Keras); trained on ImageNet-1k"
_META_22K = "Apache-2.0 (Meta, converted by Keras); trained on ImageNet-22k"

# name: normalization, built in, default size, smallest size, features, licence
_TABLE: dict[str, tuple[str, bool, int, int, int, str]] = {
    "ConvNeXtTiny": ("torch", True, 224, 32, 768, _META),
    "ConvNeXtSmall": ("torch", True, 224, 32, 768, _META),
    "ConvNeXtBase": ("torch", True, 224, 32, 1024, _META),
    "ConvNeXtLarge": ("torch", True, 224, 32, 1536, _META),
    "ConvNeXtXLarge": ("torch", True, 224, 32, 2048, _META_22K),
    "DenseNet121": ("torch", False, 224, 32, 1024, _DENSENET),
    "DenseNet169": ("torch", False, 224, 32, 1664, _DENSENET),
    "DenseNet201": ("torch", False, 224, 32, 1920, _DENSENET),
    "EfficientNetB0": ("torch", True, 224, 32, 1280, _GOOGLE),
    "EfficientNetB1": ("torch", True, 240, 32, 1280, _GOOGLE),
    "EfficientNetB2": ("torch", True, 260, 32, 1408, _GOOGLE),
    "EfficientNetB3": ("torch", True, 300, 32, 1536, _GOOGLE),
    "EfficientNetB4": ("torch", True, 380, 32, 1792, _GOOGLE),
    "EfficientNetB5": ("torch", True, 456, 32, 2048, _GOOGLE),
    "EfficientNetB6": ("torch", True, 528, 32, 2304, _GOOGLE),
    "EfficientNetB7": ("torch", True, 600, 32, 2560, _GOOGLE),
    "EfficientNetV2B0": ("torch", True, 224, 32, 1280, _GOOGLE),
    "EfficientNetV2B1": ("torch", True, 240, 32, 1280, _GOOGLE),
    "EfficientNetV2B2": ("torch", True, 260, 32, 1408, _GOOGLE),
    "EfficientNetV2B3": ("torch", True, 300, 32, 1536, _GOOGLE),
    "EfficientNetV2S": ("scale128", True, 384, 32, 1280, _GOOGLE),
    "EfficientNetV2M": ("scale128", True, 480, 32, 1280, _GOOGLE),
    "EfficientNetV2L": ("scale128", True, 480, 32, 1280, _GOOGLE),
    "InceptionResNetV2": ("tf", False, 299, 75, 1536, _GOOGLE),
    "InceptionV3": ("tf", False, 299, 75, 2048, _GOOGLE),
    "MobileNet": ("tf", False, 224, 32, 1024, _GOOGLE),
    "MobileNetV2": ("tf", False, 224, 32, 1280, _GOOGLE),
    "MobileNetV3Large": ("tf", True, 224, 32, 960, _GOOGLE),
    "MobileNetV3Small": ("tf", True, 224, 32, 576, _GOOGLE),
    "NASNetLarge": ("tf", False, 331, 32, 4032, _GOOGLE),
    "NASNetMobile": ("tf", False, 224, 32, 1056, _GOOGLE),
    "ResNet50": ("caffe", False, 224, 32, 2048, _MICROSOFT),
    "ResNet101": ("caffe", False, 224, 32, 2048, _MICROSOFT),
    "ResNet152": ("caffe", False, 224, 32, 2048, _MICROSOFT),
    "ResNet50V2": ("tf", False, 224, 32, 2048, _MICROSOFT),
    "ResNet101V2": ("tf", False, 224, 32, 2048, _MICROSOFT),
    "ResNet152V2": ("tf", False, 224, 32, 2048, _MICROSOFT),
    "VGG16": ("caffe", False, 224, 32, 512, _OXFORD),
    "VGG19": ("caffe", False, 224, 32, 512, _OXFORD),
    "Xception": ("tf", False, 299, 71, 2048, _CHOLLET),
}
# Keras picks (MobileNet, MobileNetV2) or wants (MobileNetV3) one weights file
# for each image size. The one for 224 serves at every size.
_PRETRAINED_SIZE = {
    "MobileNet": 224,
    "MobileNetV2": 224,
    "MobileNetV3Large": 224,
    "MobileNetV3Small": 224,
}
# Their graphs depend on the image size.
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
    )
    for name, (
        normalization,
        built_in,
        default_size,
        min_size,
        num_features,
        licence,
    ) in _TABLE.items()
}


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
        A functional model from pixels scaled as the family wants them to a
        feature map.
    """
    function = getattr(keras.applications, spec.name)
    if spec.built_in and input_shape[-1] != 3 and _can_switch_off(spec.name):
        options = {**options, "include_preprocessing": False}
    with warnings.catch_warnings():
        # Keras warns of channel counts other than 1 and 3, which are what
        # the caller asked for.
        warnings.filterwarnings("ignore", message="This model usually expects")
        return function(
            include_top=False,
            weights=weights,
            input_shape=input_shape,
            **options,
        )


def _can_switch_off(name: str) -> bool:
    # EfficientNet v1 has its scaling in the graph for good.
    return not name.startswith("EfficientNetB")
