"""Networks translated to OpenVINO."""

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
        found = model()(np.asarray(inputs, np.float32))
        # Views of buffers that the next call writes to.
        return [np.array(found[index]) for index in range(len(found))]

    return compute


def may_translate() -> bool:
    """Tells whether OpenVINO is installed and TensorFlow has no GPU."""
    import tensorflow as tf

    if tf.config.list_logical_devices("GPU"):
        return False
    try:
        import_openvino()
    except ImportError:
        return False
    return True


def import_openvino() -> Any:
    """Imports OpenVINO, or says how to install it."""
    try:
        import openvino
    except ImportError as err:
        raise ImportError(
            "`engine` needs OpenVINO. Install it: pip install "
            '"keras_transfer[openvino]".'
        ) from err
    return openvino
