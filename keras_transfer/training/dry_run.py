"""`plan`: the caching plan of a run, without training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras

from keras_transfer.caching.eligibility import needs_whole_model
from keras_transfer.caching.plan import Plan
from keras_transfer.caching.planning import make_plan
from keras_transfer.data import Augmentation
from keras_transfer.strategies.phase import Depth, Phase
from keras_transfer.strategies.trainable_sets import TrainableSets
from keras_transfer.training.settings import make_settings
from keras_transfer.training.spec import read_spec


def plan(
    model: keras.Model,
    data: Any,
    *,
    strategy: str | Sequence[Phase] | None = None,
    depth: Depth = None,
    epochs: int | None = None,
    penalty: Any = None,
    batch_size: int = 32,
    augment: Augmentation | None = None,
    store: Any = None,
    views: int | None = None,
) -> Plan:
    """Returns what `fine_tune` would cache, where, and why.

    Nothing is trained and no image is read. The network below the cuts is
    compiled and timed on noise, which takes a second or two. The arguments
    have the same meaning as in `fine_tune`.

    Args:
        model: A model as for `fine_tune`.
        data: The data.
        strategy: A name or phases. Defaults to `None`.
        depth: Blocks to train. Defaults to `None`.
        epochs: Epochs of the main phase. Defaults to `None`.
        penalty: A penalty or `None`. Defaults to `None`.
        batch_size: Examples in a step. Defaults to `32`.
        augment: Changes of the training images. Defaults to `None`.
        store: Store of the activations. Defaults to `None`.
        views: Fixed views of each training image. Defaults to `None`.

    Returns:
        A `Plan`; `explain()` prints it.

    Raises:
        ValueError: If arguments do not fit each other, the model or the data.
        TypeError: If an argument is of another type.

    Example:

    >>> data = load_images((arrays, labels))
    >>> model = build_classifier("ResNet20", data=data)
    >>> plan(model, data, strategy="linear-probe").phases[0].cut.name
    'after pooling'
    """
    settings = make_settings(
        batch_size=batch_size,
        augment=augment,
        cache=False,
        store=store,
        views=views,
    )
    spec = read_spec(
        model,
        data,
        settings,
        strategy=strategy,
        depth=depth,
        epochs=epochs,
        penalty=penalty,
    )
    policy = settings.cache_policy(needs_whole_model(model, spec.losses))
    was_compiled = model.compiled
    try:
        sets = TrainableSets(model, spec.phases)
        planned, _ = make_plan(
            model, spec.data, spec.phases, sets, policy, always_measure=True
        )
    finally:
        model.compiled = was_compiled
    return planned
