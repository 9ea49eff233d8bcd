"""The backbone that ships inside the package."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

from keras_transfer.backbones._spec import BackboneSpec

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
