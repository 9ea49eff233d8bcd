"""Engines that compute a frozen network: TensorFlow, or OpenVINO on a CPU."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import keras
import numpy as np

from keras_transfer._utils.checks import did_you_mean
from keras_transfer.caching.compiled import FOLDED, Compute, compiled
from keras_transfer.caching.cost import time_of
from keras_transfer.exporters.openvino import (
    import_openvino,
    may_translate,
    translated,
)
from keras_transfer.structure import graph

if TYPE_CHECKING:
    import tensorflow as tf


ENGINES = ("tensorflow", "openvino", "openvino-bfloat16", "auto")


# Translating a network takes seconds, which fewer examples do not repay.
_MIN_EXAMPLES = 5000


# OpenVINO is chosen where it is faster by at least this factor.
_MIN_SPEED_UP = 1.15


# Images in a timed batch.
_IMAGES_PER_BATCH = 32


def check_engine(engine: str) -> None:
    """Raises unless the engine exists and is installed.

    Args:
        engine: One of `ENGINES`.

    Raises:
        ValueError: If there is no engine of this name.
        ImportError: If OpenVINO is asked for and not installed.
    """
    if engine not in ENGINES:
        raise ValueError(
            f"`engine` must be one of {', '.join(map(repr, ENGINES))}. "
            f"Received: engine={engine!r}.{did_you_mean(str(engine), ENGINES)}"
        )
    if engine.startswith("openvino"):
        import_openvino()


def choose_engine(
    engine: str,
    network: keras.Model,
    shape: Sequence[int],
    count: int,
    strategy: tf.distribute.Strategy | None = None,
) -> tuple[str, Compute]:
    """Makes the function that computes a network.

    `"auto"` translates the network where there are many examples, OpenVINO is
    installed and TensorFlow has no GPU. It times both engines on noise and
    takes the faster one.

    Args:
        engine: One of `ENGINES`.
        network: Model from inputs to tensors.
        shape: Shape of one input.
        count: Number of examples to compute.
        strategy: Strategy that splits a batch over the devices of this process.
            Defaults to `None`: one device.

    Returns:
        Name of the engine, which is part of the key of its results, and the
        function.
    """
    if engine == "tensorflow":
        return FOLDED, compiled(network, shape, True, strategy)
    if engine != "auto":
        return engine, translated(network, engine == "openvino-bfloat16")
    ours = compiled(network, shape, folded=True)
    texts = graph.takes_texts(network)
    if count < _MIN_EXAMPLES or texts or not may_translate():
        return FOLDED, ours
    theirs = translated(network, bfloat16=False)
    noise = np.random.default_rng(0).uniform(
        0, 255, (_IMAGES_PER_BATCH, *shape)
    )
    images = noise.astype(np.float32)
    seconds = []
    for compute in (ours, theirs):
        compute(images)
        seconds.append(time_of(lambda c=compute: c(images)))  # type: ignore[misc]
    if seconds[0] > _MIN_SPEED_UP * seconds[1]:
        return "openvino", theirs
    return FOLDED, ours
