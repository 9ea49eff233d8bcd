"""The optimizer of the user inside a `LearningRateMultiplier`."""

from __future__ import annotations

import warnings
from typing import Any

import keras

# What the base class of all Keras optimizers does around the step itself, each
# with the value that switches it off.
OFF = {
    "weight_decay": None,
    "clipnorm": None,
    "clipvalue": None,
    "global_clipnorm": None,
    "use_ema": False,
    "ema_momentum": 0.99,
    "ema_overwrite_frequency": None,
    "loss_scale_factor": None,
    "gradient_accumulation_steps": None,
}


def without_rates(
    kind: type[keras.optimizers.Optimizer], config: dict[str, Any]
) -> keras.optimizers.Optimizer:
    """An optimizer that does nothing but its step."""
    optimizer = kind.from_config(dict(config))
    for key, value in OFF.items():
        setattr(optimizer, key, value)
    return optimizer


def overrides(kind: type, method: str) -> bool:
    """Tells whether a class of optimizers has its own version of a method."""
    return getattr(kind, method) is not getattr(
        keras.optimizers.Optimizer, method
    )


def learning_rate_of(optimizer: keras.optimizers.Optimizer) -> Any:
    """The float, schedule or callable that an optimizer was made with."""
    rate = optimizer._learning_rate
    return rate if callable(rate) else float(keras.ops.convert_to_numpy(rate))


def config_of(optimizer: keras.optimizers.Optimizer) -> dict[str, Any]:
    """Returns the config of an optimizer, without a warning."""
    with warnings.catch_warnings():
        # A rate that is a lambda is of no concern until somebody saves it.
        warnings.simplefilter("ignore")
        config = optimizer.get_config()
    rate = learning_rate_of(optimizer)
    # Adafactor asks whether its rate can be called; nobody calls it.
    is_function = callable(rate) and not isinstance(
        rate, keras.optimizers.schedules.LearningRateSchedule
    )
    config["learning_rate"] = not_called if is_function else rate
    return config


def not_called() -> float:
    """Stands for a rate that nothing reads."""
    return 0.0


def check_optimizer(
    optimizer: Any, wrapper: type[keras.optimizers.Optimizer]
) -> keras.optimizers.Optimizer:
    """Returns an optimizer, also by its name; raises if none can be wrapped."""
    if isinstance(optimizer, str):
        optimizer = keras.optimizers.get(optimizer)
    if not isinstance(optimizer, keras.optimizers.Optimizer):
        raise TypeError(
            "`optimizer` must be a Keras optimizer or the name of one. "
            f"Received: optimizer={optimizer!r:.100}"
        )
    kind = type(optimizer)
    reason = ""
    if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
        reason = "Wrap the other way round: LossScaleOptimizer(Learning...)."
    elif isinstance(optimizer, keras.optimizers.MultiOptimizer):
        reason = "Pass one optimizer: `multipliers` tells its rates apart."
    elif isinstance(optimizer, wrapper):
        reason = "Pass its optimizer, with the products of the multipliers."
    elif optimizer.built:
        reason = (
            "It belongs to the variables it was built with. Pass a new one: "
            "`type(optimizer).from_config(optimizer.get_config())`."
        )
    elif overrides(kind, "apply") or (
        overrides(kind, "_apply_weight_decay")
        and not isinstance(optimizer, keras.optimizers.Muon)
    ):
        reason = (
            "It changes more than the step: `apply` or the weight decay, which "
            "would act in the wrapper's place or not at all."
        )
    if reason:
        raise ValueError(
            "`optimizer` must be a single optimizer that was not used yet. "
            f"Received: {kind.__name__}. {reason}"
        )
    return optimizer
