"""What computes a frozen network: TensorFlow, or OpenVINO on a CPU."""

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


# Translating a network takes seconds: not for fewer examples than this.
_MANY = 5000


# How much faster OpenVINO must be to be chosen.
_FASTER = 1.15


_BATCH = 32


def check_engine(engine: str) -> None:
    """Raises unless there is such an engine, and it is installed.

    Args:
        engine: One of `ENGINES`.

    Raises:
        ValueError: If there is none of this name.
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

    `"auto"` translates a network for many examples, where OpenVINO is
    installed and TensorFlow has no GPU, times both on noise and takes the
    faster one.

    Args:
        engine: One of `ENGINES`.
        network: From inputs to tensors.
        shape: Of one input.
        count: How many examples there are to compute.
        strategy: What splits a batch over the devices of this process. Defaults
            to `None`: one device.

    Returns:
        The name of the engine, which is part of the key of what it computes,
        and the function.
    """
    if engine == "tensorflow":
        return FOLDED, compiled(network, shape, True, strategy)
    if engine != "auto":
        return engine, translated(network, engine == "openvino-bfloat16")
    ours = compiled(network, shape, folded=True)
    texts = graph.takes_texts(network)
    if count < _MANY or texts or not may_translate():
        return FOLDED, ours
    theirs = translated(network, bfloat16=False)
    noise = np.random.default_rng(0).uniform(0, 255, (_BATCH, *shape))
    images = noise.astype(np.float32)
    seconds = []
    for compute in (ours, theirs):
        compute(images)
        seconds.append(time_of(lambda c=compute: c(images)))  # type: ignore[misc]
    if seconds[0] > _FASTER * seconds[1]:
        return "openvino", theirs
    return FOLDED, ours
