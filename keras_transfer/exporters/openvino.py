"""Networks that OpenVINO runs."""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np


def translated(
    network: keras.Model, bfloat16: bool
) -> Callable[[Any], list[Any]]:
    """Returns a function that runs a network in OpenVINO.

    The network is translated when the function is first called.

    Args:
        network: Model from inputs to tensors.
        bfloat16: Whether to compute with 8 bits of mantissa, which is two to
            three decimal digits.

    Returns:
        Function from float32 inputs `(batch, ...)` to a list of arrays.
    """

    @functools.cache
    def model() -> Any:
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "network.xml"
            network.export(str(file), format="openvino", verbose=False)
            return (
                import_openvino()
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
        outputs = model()(np.asarray(inputs, np.float32))
        # Copied, since they are views of buffers that the next call reuses.
        return [np.array(outputs[index]) for index in range(len(outputs))]

    return compute


def may_translate() -> bool:
    """Returns `True` if OpenVINO is installed and TensorFlow has no GPU."""
    import tensorflow as tf

    if tf.config.list_logical_devices("GPU"):
        return False
    try:
        import_openvino()
    except ImportError:
        return False
    return True


def import_openvino() -> Any:
    """Imports OpenVINO; the error explains the installation."""
    try:
        import openvino
    except ImportError as err:
        raise ImportError(
            "`engine` needs OpenVINO. Install it: pip install "
            '"keras_transfer[openvino]".'
        ) from err
    return openvino
