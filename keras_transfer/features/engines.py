"""What computes a frozen network: TensorFlow, or OpenVINO on a CPU."""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from keras_transfer import _graph
from keras_transfer._errors import nearest
from keras_transfer.features.cost import time_of
from keras_transfer.features.filling import FOLDED, Compute, compiled

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
            f"Received: engine={engine!r}.{nearest(str(engine), ENGINES)}"
        )
    if engine.startswith("openvino"):
        _openvino()


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
    texts = _graph.takes_texts(network)
    if count < _MANY or texts or not _may_translate():
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


def translated(network: keras.Model, bfloat16: bool) -> Compute:
    """Translates a network for OpenVINO, when it is first called.

    Args:
        network: From inputs to tensors.
        bfloat16: Whether to compute with 8 bits of mantissa: two to three
            decimal digits.

    Returns:
        Function of float32 inputs `(batch, ...)`.
    """

    @functools.cache
    def model() -> Any:
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "network.xml"
            network.export(str(file), format="openvino", verbose=False)
            return (
                _openvino()
                .Core()
                .compile_model(
                    file,
                    "CPU",
                    {
                        "INFERENCE_PRECISION_HINT": "bf16"
                        if bfloat16
                        else "f32",
                        "PERFORMANCE_HINT": "LATENCY",
                    },
                )
            )

    def compute(inputs: Any) -> list[Any]:
        found = model()(np.asarray(inputs, np.float32))
        # Views of buffers that the next call writes to.
        return [np.array(found[index]) for index in range(len(found))]

    return compute


def _may_translate() -> bool:
    import tensorflow as tf

    if tf.config.list_logical_devices("GPU"):
        return False
    try:
        _openvino()
    except ImportError:
        return False
    return True


def _openvino() -> Any:
    try:
        import openvino
    except ImportError as err:
        raise ImportError(
            "`engine` needs OpenVINO. Install it: pip install "
            '"keras_transfer[openvino]".'
        ) from err
    return openvino
