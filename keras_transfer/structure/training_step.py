"""Custom training steps: models that override a method of `fit`."""

from __future__ import annotations

import keras

_TRAINING_METHODS = ("train_step", "compute_loss")
_MEASURING_METHODS = ("test_step", "compute_metrics")


def has_own_training(model: keras.Model) -> bool:
    """Tells whether the model overrides a method of training or evaluation."""
    return any(
        getattr(type(model), name) is not getattr(keras.Model, name)
        for name in (*_TRAINING_METHODS, *_MEASURING_METHODS)
    )


def check_own_training(model: keras.Model) -> None:
    """Raises if the model overrides a method of training."""
    for name in _TRAINING_METHODS:
        if getattr(type(model), name) is not getattr(keras.Model, name):
            raise ValueError(
                f"`model` must train by the `{name}` of Keras, since another "
                "model over the same layers is trained here. Received: a "
                f"{type(model).__name__}, which overrides it."
            )
