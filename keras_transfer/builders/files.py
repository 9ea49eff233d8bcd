"""Loading of saved models."""

from __future__ import annotations

from pathlib import Path

import keras


def load_model(path: str | Path) -> keras.Model:
    """Loads a saved model with any backbone.

    `keras.models.load_model` is enough for a model of built-in layers.
    Transformers of KerasHub, models of TF-Hub and tokenizers are layers of this
    package, which have to be registered first.

    Args:
        path: A `.keras` file.

    Returns:
        The model, not compiled.

    Raises:
        ImportError: If it needs KerasHub and that is not installed.
        ValueError: If there is no such file.

    Example:

    >>> build_classifier(backbone, num_classes=3).save("model.keras")
    >>> load_model("model.keras").output_shape
    (None, 3)
    """
    # Importing this module has registered the layers.
    return keras.models.load_model(path, compile=False)
