"""`predict_scaling`: predicted speed-up on more devices."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from keras_transfer._utils.checks import is_integer

if TYPE_CHECKING:
    import keras


_BYTES_PER_FLOAT32 = 4


@dataclasses.dataclass(frozen=True)
class Scale:
    """Predicted speed on a number of devices.

    Attributes:
        replicas: Number of devices.
        step_seconds: Seconds of a step on the same batch, split over them.
        speed_up: Speed-up over one device.
        efficiency: Speed-up divided by the number of devices, in `(0, 1]`.
        grown_speed_up: Speed-up over one device if the batch grows with the
            number of devices.
    """

    replicas: int
    step_seconds: float
    speed_up: float
    efficiency: float
    grown_speed_up: float


@dataclasses.dataclass(frozen=True)
class Scaling:
    """Result of `predict_scaling`.

    Attributes:
        gradient_bytes: Size of the gradients. In each step a device sends and
            receives `2 (n - 1) / n` times as much.
        rows: A `Scale` for each number of devices.
    """

    gradient_bytes: int
    rows: tuple[Scale, ...]

    def summary(self) -> str:
        """Returns the table, as text."""
        lines = [
            f"{self.gradient_bytes / 1e6:.1f} MB of gradients per step",
            "devices  step seconds  speed-up  efficiency  with grown batches",
        ]
        lines += [
            f"{row.replicas:>7}  {row.step_seconds:>12.4f}  "
            f"{row.speed_up:>7.2f}x  {row.efficiency:>10.0%}  "
            f"{row.grown_speed_up:>18.2f}x"
            for row in self.rows
        ]
        return "\n".join(lines)


def predict_scaling(
    model: keras.Model,
    *,
    step_seconds: float,
    bytes_per_second: float,
    fixed_seconds: float = 0.0,
    latency: float = 5e-5,
    replicas: Sequence[int] = (1, 2, 4, 8),
) -> Scaling:
    """Predicts step times on more devices from one measured step.

    With a ring all-reduce that does not overlap with the computation,

        t(n) = fixed + (t(1) - fixed) / n
               + 2 (n - 1) / n * bytes / bandwidth + 2 (n - 1) * latency

    This is a lower bound on the speed, since TensorFlow overlaps some of the
    communication. It does not include reading images: `n` devices need `n`
    times as many per second.

    Args:
        model: The model, unfrozen as it will train. Gradients are those of its
            trainable variables, in float32.
        step_seconds: Measured seconds of a step on one device, excluding the
            first step.
        bytes_per_second: Bandwidth of the slowest link between two devices,
            such as `1.25e9` for 10 Gbit/s Ethernet, `1e10` for PCIe 3.
        fixed_seconds: Share of `step_seconds` that does not shrink with the
            batch: `2 t(b/2) - t(b)` of two measured batch sizes. Defaults to
            `0.0`.
        latency: Seconds per message. Defaults to `5e-5`.
        replicas: Numbers of devices. Defaults to `(1, 2, 4, 8)`.

    Returns:
        A `Scaling`; `summary()` prints it.

    Raises:
        ValueError: If a number is out of range, or the whole model is frozen.

    Example:

    >>> model = build_classifier("ResNet20", num_classes=10)
    >>> paths = unfreeze(model, depth=2)
    >>> scaling = predict_scaling(
    ...     model, step_seconds=0.1, bytes_per_second=1.25e9
    ... )
    >>> scaling.rows[1].replicas, scaling.rows[1].speed_up > 1.9
    (2, True)

    Reference:
        - Patarasuk and Yuan, 2009,
          https://doi.org/10.1016/j.jpdc.2008.09.002 (ring all-reduce)
    """
    for name, value in (
        ("step_seconds", step_seconds),
        ("bytes_per_second", bytes_per_second),
    ):
        if not 0 < value < math.inf:
            raise ValueError(
                f"`{name}` must be a finite number above 0. Received: "
                f"{name}={value!r}"
            )
    if not 0 <= fixed_seconds <= step_seconds or not 0 <= latency < math.inf:
        raise ValueError(
            "`fixed_seconds` must be in [0, step_seconds], and `latency` at "
            f"least 0. Received: fixed_seconds={fixed_seconds!r}, "
            f"latency={latency!r}"
        )
    replicas = (replicas,) if is_integer(replicas) else replicas  # type: ignore
    if not replicas or not all(is_integer(n) and n > 0 for n in replicas):
        raise ValueError(
            "`replicas` must be integers above 0. Received: "
            f"replicas={replicas!r:.100}"
        )
    size = _BYTES_PER_FLOAT32 * sum(
        math.prod(variable.shape) for variable in model.trainable_variables
    )
    if not size:
        raise ValueError(
            "`model` must have something to train. Received: "
            f"{model.name!r}, all of which is frozen. Use `unfreeze`."
        )
    rows = []
    for count in replicas:
        # A ring all-reduce: 2 (n - 1) messages of 1 / n of the gradients.
        communication = 2 * (count - 1) / count * size / bytes_per_second
        communication += 2 * (count - 1) * latency
        computation = fixed_seconds + (step_seconds - fixed_seconds) / count
        seconds = computation + communication
        rows.append(
            Scale(
                count,
                seconds,
                step_seconds / seconds,
                step_seconds / seconds / count,
                count * step_seconds / (step_seconds + communication),
            )
        )
    return Scaling(size, tuple(rows))
