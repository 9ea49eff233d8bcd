"""Training steps of the user's own."""

from __future__ import annotations

import keras

_TRAINING_METHODS = ("train_step", "compute_loss")


_MEASURING_METHODS = ("test_step", "compute_metrics")


def has_own_training(model: keras.Model) -> bool:
    """Whether the model has a training step that another would not take."""
    return any(
        getattr(type(model), name) is not getattr(keras.Model, name)
        for name in (*_TRAINING_METHODS, *_MEASURING_METHODS)
    )


def check_own_training(model: keras.Model) -> None:
    """Raises if the model has a training step that another would not take."""
    for name in _TRAINING_METHODS:
        if getattr(type(model), name) is not getattr(keras.Model, name):
            raise ValueError(
                f"`model` must train by the `{name}` of Keras, since another "
                "model over the same layers is what trains here. Received: a "
                f"{type(model).__name__}, with its own."
            )
