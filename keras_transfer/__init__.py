"""Transfer learning with Keras 3: adapt a pretrained network to your own data.

Every public name is imported from its module the first time it is used, so that
`import keras_transfer` is instant and imports neither TensorFlow nor Keras.
"""

from importlib import import_module as _import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from keras_transfer.backbones import (
        Backbone,
        list_backbones,
        load_backbone,
    )
    from keras_transfer.builders import (
        build_classifier,
        build_regressor,
        class_names,
    )
    from keras_transfer.data import Augmentation, load_images
    from keras_transfer.depth import (
        blocks,
        freeze,
        split,
        trainable_summary,
        unfreeze,
    )
    from keras_transfer.schedules import one_cycle

__version__ = "0.1.0"

__all__ = [
    "Augmentation",
    "Backbone",
    "blocks",
    "build_classifier",
    "build_regressor",
    "class_names",
    "freeze",
    "list_backbones",
    "load_backbone",
    "load_images",
    "one_cycle",
    "split",
    "trainable_summary",
    "unfreeze",
]

_MODULES = {
    "Augmentation": "data",
    "Backbone": "backbones",
    "blocks": "depth",
    "build_classifier": "builders",
    "build_regressor": "builders",
    "class_names": "builders",
    "freeze": "depth",
    "list_backbones": "backbones",
    "load_backbone": "backbones",
    "load_images": "data",
    "one_cycle": "schedules",
    "split": "depth",
    "trainable_summary": "depth",
    "unfreeze": "depth",
}


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = _import_module(f"{__name__}.{_MODULES[name]}")
    value = globals()[name] = getattr(module, name)
    return value


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
