"""Cache policy: the limits set by the user and by the model."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import keras

from keras_transfer.auxiliary.auxiliary_loss import AuxiliaryLoss
from keras_transfer.data import Augmentation
from keras_transfer.structure.training_step import has_own_training


class Ineligible(NamedTuple):
    """The reason that something cannot be cached, or trained together.

    Attributes:
        reason: Clause that follows "because".
    """

    reason: str


@dataclasses.dataclass(frozen=True)
class CachePolicy:
    """Cache settings of a run, and how its examples are read.

    Attributes:
        store: A `FeatureStore`, a `Choice` to be made, or `False` for none.
        batch_size: Number of examples in a batch.
        augment: Changes of the training images. Defaults to `None`.
        views: Fixed views of each training example. Defaults to `None`: the
            images change in each pass where `augment` is given.
        seed: Seed of the views. Defaults to `0`.
        ineligible: Reason that nothing may be cached. Defaults to `None`.
        must_fit: Whether activations that exceed the store are an error.
            Defaults to `False`: they are computed in each pass.
        verbose: `2` for a progress bar of the extraction. Defaults to `0`.
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
    """Returns the reason that the whole model must be computed, if it must.

    Args:
        model: The model.
        losses: The auxiliary losses, penalties among them.

    Returns:
        The reason, or `None` where the part above a cut can train alone.
    """
    if any(loss.reads == "activations" for loss in losses):
        return Ineligible("the penalty reads activations of the whole network")
    if has_own_training(model):
        return Ineligible("the model has a training step of its own")
    return None
