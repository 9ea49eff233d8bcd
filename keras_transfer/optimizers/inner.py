"""The user's optimizer inside a `LearningRateMultiplier`."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Iterable, Mapping
from typing import Any

import keras

# Settings of the base class of all Keras optimizers that act outside the step
# itself, each with the value that switches it off.
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


@dataclasses.dataclass
class VariableStep:
    """Optimizer of a single variable, and its moments.

    The optimizer of a later phase takes it over, moments and step count
    included.

    Attributes:
        optimizer: Copy of the user's optimizer, built for this variable alone.
        slots: Moments, the variables that `optimizer` made while it was built.
        multiplier: Factor of the learning rate.
        count: Number of steps so far, shared by variables that started
            together.
    """

    optimizer: keras.optimizers.Optimizer
    slots: list[keras.Variable]
    multiplier: float
    count: keras.Variable

    def weight_decay(self, default: float | None) -> float | None:
        """Returns the weight decay of the variable, `None` for none.

        Args:
            default: Weight decay of the wrapper.
        """
        is_muon = isinstance(self.optimizer, keras.optimizers.Muon)
        if is_muon and self.optimizer.adam_velocities[0] is not None:
            # Muon uses Adam for some variables, with a decay of its own.
            return self.optimizer.adam_weight_decay
        return default


class InnerOptimizer:
    """Template from which each variable gets an optimizer of its own.

    It computes the step alone: weight decay, clipping, averages, accumulation
    and loss scaling are switched off, since the wrapper does them once.

    Args:
        optimizer: The user's optimizer, as returned by `check_optimizer`.
    """

    def __init__(self, optimizer: keras.optimizers.Optimizer) -> None:
        self._class = type(optimizer)
        self._config = config_of(optimizer)
        self._template = without_rates(self._class, self._config)

    def step(
        self,
        variable: keras.Variable,
        multiplier: float,
        previous: VariableStep | None,
    ) -> VariableStep:
        """Returns the step of a variable, new or continued.

        One optimizer for each variable, so that a later phase can continue any
        subset of them.

        Args:
            variable: The variable.
            multiplier: Factor of the learning rate.
            previous: The step to continue, or `None` to start with moments
                at 0.
        """
        if previous is not None:
            return dataclasses.replace(previous, multiplier=multiplier)
        optimizer = without_rates(self._class, self._config)
        before = {id(v) for v in optimizer.variables}
        optimizer.build([variable])
        slots = [v for v in optimizer.variables if id(v) not in before]
        return VariableStep(optimizer, slots, multiplier, optimizer.iterations)

    def update_shared(
        self, steps: Iterable[VariableStep], learning_rate: Any
    ) -> None:
        """Updates state that is not per variable, once before each step.

        Only Nadam has such state, the product of its momenta.
        """
        if overrides(self._class, "_backend_update_step"):
            for step in steps:
                step.optimizer._backend_update_step([], [], learning_rate)

    def check_continues(self, previous: InnerOptimizer) -> None:
        """Raises if moments of `previous` mean something else here."""
        before, now = previous._settings(), self._settings()
        if before == now:
            return
        differences = sorted(
            key
            for key in before.keys() | now.keys()
            if before.get(key) != now.get(key)
        )
        raise ValueError(
            "`previous` must wrap an optimizer of the same class and "
            "settings (learning rate, clipping, averaging and weight "
            "decay may differ), since its moments would mean something "
            f"else. Received: {before['class']} for {now['class']}, "
            f"which differ in {', '.join(differences)}."
        )

    def _settings(self) -> dict[str, Any]:
        config = self._template.get_config()
        ignored = {"name", "learning_rate", *OFF}
        settings = {k: v for k, v in config.items() if k not in ignored}
        return {"class": self._class.__name__, **settings}

    def serialize(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        """Returns the user's optimizer, serialized.

        Args:
            settings: Config of the wrapper, which has the learning rate and
                the settings in `OFF`.
        """
        serialized = keras.saving.serialize_keras_object(self._template)
        serialized["config"].update(
            (key, settings[key])
            for key in ("learning_rate", *OFF)
            if key in serialized["config"]
        )
        return serialized


def without_rates(
    kind: type[keras.optimizers.Optimizer], config: dict[str, Any]
) -> keras.optimizers.Optimizer:
    """Returns an optimizer with everything but its step switched off."""
    optimizer = kind.from_config(dict(config))
    for key, value in OFF.items():
        setattr(optimizer, key, value)
    return optimizer


def copy_exclusions(
    source: keras.optimizers.Optimizer, target: keras.optimizers.Optimizer
) -> None:
    """Copies the settings that `exclude_from_weight_decay` left."""
    for key in (
        "_exclude_from_weight_decay",
        "_exclude_from_weight_decay_pattern",
    ):
        if hasattr(source, key):
            setattr(target, key, getattr(source, key))


def overrides(kind: type, method: str) -> bool:
    """Returns `True` if an optimizer class has its own version of a method."""
    return getattr(kind, method) is not getattr(
        keras.optimizers.Optimizer, method
    )


def learning_rate_of(optimizer: keras.optimizers.Optimizer) -> Any:
    """Returns the float, schedule or callable an optimizer was made with."""
    rate = optimizer._learning_rate
    return rate if callable(rate) else float(keras.ops.convert_to_numpy(rate))


def config_of(optimizer: keras.optimizers.Optimizer) -> dict[str, Any]:
    """Returns the config of an optimizer, without a warning."""
    with warnings.catch_warnings():
        # Keras warns of a lambda, which matters only if it is saved.
        warnings.simplefilter("ignore")
        config = optimizer.get_config()
    rate = learning_rate_of(optimizer)
    # Adafactor checks whether its rate is callable, and never calls it here.
    is_function = callable(rate) and not isinstance(
        rate, keras.optimizers.schedules.LearningRateSchedule
    )
    config["learning_rate"] = unused_rate if is_function else rate
    return config


def unused_rate() -> float:
    """Placeholder for a learning rate that is never read."""
    return 0.0


def check_optimizer(
    optimizer: Any, wrapper: type[keras.optimizers.Optimizer]
) -> keras.optimizers.Optimizer:
    """Returns an optimizer, given it or its name, that can be wrapped."""
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
