"""Specs: facts about a backbone that are known before it is built."""

from __future__ import annotations

import re
from typing import NamedTuple


class Normalization(NamedTuple):
    """Pixel scaling of a family: `(pixel - mean) / std`, per channel.

    `mean` and `std` are in the order red, green, blue and in units of
    `[0, 255]` pixels; `bgr` families take blue first.
    """

    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    bgr: bool = False


_IMAGENET_MEAN = (123.675, 116.28, 103.53)


_IMAGENET_STD = (58.395, 57.12, 57.375)


# The names are those of `keras.applications.imagenet_utils`, plus two.
NORMALIZATIONS: dict[str, Normalization] = {
    "caffe": Normalization((123.68, 116.779, 103.939), (1.0,) * 3, bgr=True),
    "tf": Normalization((127.5,) * 3, (127.5,) * 3),
    "torch": Normalization(_IMAGENET_MEAN, _IMAGENET_STD),
    "scale128": Normalization((128.0,) * 3, (128.0,) * 3),
    "[0, 1]": Normalization((0.0,) * 3, (255.0,) * 3),
    "[-1, 1]": Normalization((127.5,) * 3, (127.5,) * 3),
    "[0, 255]": Normalization((0.0,) * 3, (1.0,) * 3),
}


def normalization_of(value: str | Normalization) -> Normalization:
    """Returns a `Normalization`, given it or its name."""
    return NORMALIZATIONS[value] if isinstance(value, str) else value


def name_of(handle: str) -> str:
    """Returns a name for a network: the last non-numeric part of its handle."""
    parts = re.split(r"[/\\:]", handle.partition("?")[0])
    words = [part for part in parts if part and not part.isdigit()]
    name = re.sub(r"\.(tar\.gz|tgz|tar)$", "", words[-1] if words else "hub")
    return re.sub(r"\W+", "_", name).strip("_") or "hub"


class BackboneSpec(NamedTuple):
    """Facts about one backbone.

    Attributes:
        name: Name, as for `load_backbone`.
        source: Origin: `"keras.applications"`, `"keras_transfer"`,
            `"tensorflow_hub"`, `"keras_hub"` or `"user"`.
        normalization: Scaling of pixels in `[0, 255]` before the network: a key
            of `NORMALIZATIONS`, or another `Normalization`. `None` for text.
        built_in: Whether the first layers of the network do the scaling.
        default_size: Height and width of the images in pretraining, or `None`
            if unknown.
        min_size: Smallest height and width that the network accepts.
        num_features: Number of channels of the feature map.
        weights: Name of the published weights, or `None`.
        licence: Licence of the weights, according to their publisher.
        pretrained_size: Image size of the weights file to use at all sizes, if
            Keras has one file per size. Defaults to `None`.
        fixed_size: Whether height and width must be given when it is built.
            Defaults to `False`.
        imagenet_top1: Top-1 accuracy of the published weights on the validation
            images of ImageNet-1k, if known. Defaults to `None`.
    """

    name: str
    source: str
    normalization: str | Normalization | None
    built_in: bool
    default_size: int | None
    min_size: int
    num_features: int
    weights: str | None
    licence: str
    pretrained_size: int | None = None
    fixed_size: bool = False
    imagenet_top1: float | None = None

    @property
    def pixel_range(self) -> str | None:
        """Pixel range of the built model; `None` for text."""
        return None if self.normalization is None else "[0, 255]"


def spec_of_own(
    name: str,
    source: str,
    pixel_range: str | Normalization | None,
    size: int | None,
    features: int,
) -> BackboneSpec:
    """Returns the spec of a network that is not in our tables.

    Args:
        name: Name of the network.
        source: Origin of the network.
        pixel_range: A key of `NORMALIZATIONS`, a `Normalization`, or `None` for
            text.
        size: Height of the images in pretraining, if known.
        features: Number of output channels.

    Returns:
        A `BackboneSpec`.
    """
    return BackboneSpec(
        name=name,
        source=source,
        normalization=pixel_range,
        built_in=False,
        default_size=size,
        min_size=1,
        num_features=features,
        weights=None,
        licence="as the model's",
    )
