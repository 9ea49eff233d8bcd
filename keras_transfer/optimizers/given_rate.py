"""The learning rate that a user gave to an optimizer."""

from __future__ import annotations

import inspect
import math
from typing import Any, TypeAlias

import keras
import numpy as np

from keras_transfer._utils.checks import check_is_described

OptimizerRate: TypeAlias = (
    float | keras.optimizers.schedules.LearningRateSchedule | None
)


def rate_of(optimizer: keras.optimizers.Optimizer) -> OptimizerRate:
    """Returns the learning rate that a user gave to an optimizer.

    Args:
        optimizer: A Keras optimizer.

    Returns:
        A number, or a schedule of Keras; `None` for the default rate of its
        class, since an optimizer does not tell whether that was given.

    Raises:
        TypeError: If the rate is a function, or a schedule without a
            configuration.

    Example:

    >>> rate_of(keras.optimizers.Adam(1e-5))
    1e-05
    >>> rate_of(keras.optimizers.Adam()) is None
    True
    """
    given: Any = getattr(optimizer, "_learning_rate", None)
    if isinstance(given, keras.optimizers.schedules.LearningRateSchedule):
        check_is_described("optimizer", given)
        return given
    if given is None:
        return None
    if callable(given):
        raise TypeError(
            "`optimizer` must have a number or a Keras schedule as its "
            f"learning rate. Received: a {type(given).__name__}. Pass it as "
            "`Phase(schedule=...)`."
        )
    rate = np.asarray(keras.ops.convert_to_numpy(given)).item()
    default = _default_rate(type(optimizer))
    if default is not None and math.isclose(rate, default, rel_tol=1e-6):
        return None
    # The variable is float32: the shortest number that rounds to it is what
    # the user wrote.
    return float(str(np.float32(rate)))


def _default_rate(kind: type) -> float | None:
    """Returns the default rate of a class, or of the class it is made of."""
    for base in kind.__mro__:
        function = vars(base).get("__init__")
        if not inspect.isfunction(function):
            continue
        parameters = inspect.signature(function).parameters
        if "learning_rate" in parameters:
            default = parameters["learning_rate"].default
            return default if isinstance(default, int | float) else None
    return None
