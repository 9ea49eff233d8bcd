"""Opens saved models."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import keras

if TYPE_CHECKING:
    pass


def load_model(path: str | Path) -> keras.Model:
    """Opens a saved model, whatever its backbone was.

    `keras.models.load_model` does it alone where the model is made of Keras'
    own layers. Transformers of KerasHub, models of TF-Hub and tokenizers are
    layers of this package, which Keras has to know before.

    Args:
        path: A `.keras` file.

    Returns:
        The model, not compiled.

    Raises:
        ImportError: If it needs KerasHub, which is not installed.
        ValueError: If there is no such file.

    Example:

    >>> build_classifier(backbone, num_classes=3).save("model.keras")
    >>> load_model("model.keras").output_shape
    (None, 3)
    """
    # Importing this module has made the layers known.
    return keras.models.load_model(path, compile=False)
