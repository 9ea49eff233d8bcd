"""What the user and the model allow to be cached."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import keras

from keras_transfer.auxiliary.auxiliary_loss import AuxiliaryLoss
from keras_transfer.data import Augmentation
from keras_transfer.structure.training_step import has_own_training


class Ineligible(NamedTuple):
    """Why something cannot be cached, or computed together.

    Attributes:
        reason: Words that follow "since".
    """

    reason: str


@dataclasses.dataclass(frozen=True)
class CachePolicy:
    """What a run allows to be cached, and how its examples are read.

    Attributes:
        store: A `FeatureStore`, a `Choice` to be made, or `False` for none.
        batch_size: Examples in a batch.
        augment: Changes of the training images. Defaults to `None`.
        views: Fixed views of each training example. Defaults to `None`: the
            images change in each pass where `augment` is given.
        seed: Of the views. Defaults to `0`.
        ineligible: Why nothing may be cached. Defaults to `None`.
        must_fit: Whether what does not fit into the store is an error. Defaults
            to `False`: it is computed in each pass.
        verbose: `2` for a bar of what is computed. Defaults to `0`.
    """

    store: Any
    batch_size: int
    augment: Augmentation | None = None
    views: int | None = None
    seed: int = 0
    ineligible: Ineligible | None = None
    must_fit: bool = False
    verbose: int = 0


def needs_whole_model(
    model: keras.Model, losses: Sequence[AuxiliaryLoss]
) -> Ineligible | None:
    """Says why the model must be computed whole, if it must.

    Args:
        model: The model.
        losses: The auxiliary losses, penalties among them.

    Returns:
        The reason, or `None` where its upper part alone may train.
    """
    if any(loss.reads == "activations" for loss in losses):
        return Ineligible(
            "the penalty looks at activations of the whole network"
        )
    if has_own_training(model):
        return Ineligible("the model has a training step of its own")
    return None
