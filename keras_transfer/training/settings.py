"""Settings of a run: the arguments of `fine_tune`, grouped by topic.

Each group checks its own fields; `Settings` checks what groups must agree on.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras

from keras_transfer._utils.checks import is_integer, refuse
from keras_transfer._utils.plain import plain
from keras_transfer.caching.eligibility import CachePolicy, Ineligible
from keras_transfer.caching.store.store import Choice, open_store
from keras_transfer.data import Augmentation
from keras_transfer.optimizers.given_rate import OptimizerRate, rate_of
from keras_transfer.optimizers.learning_rate_multiplier import (
    LearningRateMultiplier,
)
from keras_transfer.tasks.extra_metrics import read_metrics

_POLICIES = ("mixed_float16", "mixed_bfloat16")
# Attributes that `exclude_from_weight_decay` sets on an optimizer, and that its
# config does not contain.
_EXCLUDED = (
    "_exclude_from_weight_decay",
    "_exclude_from_weight_decay_pattern",
)


def _check_integer(name: str, value: Any, minimum: int) -> None:
    if not is_integer(value) or value < minimum:
        refuse(name, f"an integer of at least {minimum}", value)


def _check_optional_integer(name: str, value: Any, minimum: int) -> None:
    if value is not None and (not is_integer(value) or value < minimum):
        refuse(name, f"None or an integer of at least {minimum}", value)


@dataclasses.dataclass(frozen=True)
class DataSettings:
    """Settings of reading examples.

    Attributes:
        batch_size: Examples in a step. Defaults to `32`.
        augment: Changes of the training images. Defaults to `None`.
        cache: Whether decoded images stay in memory. Defaults to `None`.
        seed: Seed of the order, the augmentation and new weights. Defaults to
            `0`.
    """

    batch_size: int = 32
    augment: Augmentation | None = None
    cache: bool | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        _check_integer("batch_size", self.batch_size, 1)
        _check_integer("seed", self.seed, 0)
        if not isinstance(self.augment, Augmentation | None):
            raise TypeError(
                "`augment` must be an `Augmentation` or None. Received: "
                f"augment={self.augment!r:.100}"
            )

    def identity(self) -> dict[str, Any]:
        """Returns the part of the identity of a run, as plain values."""
        return {
            "batch_size": int(self.batch_size),
            "augment": plain(self.augment),
            "seed": int(self.seed),
        }


@dataclasses.dataclass(frozen=True)
class OptimizerSettings:
    """Settings of a training step.

    Attributes:
        optimizer: A Keras optimizer or its name. Defaults to `"adam"`.
        global_clipnorm: Largest norm of the whole gradient. Defaults to `None`.
        gradient_accumulation_steps: Batches whose gradients are averaged into
            one update. Defaults to `None`.
        ema_momentum: Momentum of a moving average of the weights. Defaults to
            `None`.
        mixed_precision: Policy of half precision, or `True`. Defaults to
            `None`.
    """

    optimizer: str | keras.optimizers.Optimizer = "adam"
    global_clipnorm: float | None = None
    gradient_accumulation_steps: int | None = None
    ema_momentum: float | None = None
    mixed_precision: bool | str | None = None

    def __post_init__(self) -> None:
        steps = self.gradient_accumulation_steps
        _check_optional_integer("gradient_accumulation_steps", steps, 2)
        norm = self.global_clipnorm
        if norm is not None and not norm > 0:
            refuse("global_clipnorm", "None or a number above 0", norm)
        momentum = self.ema_momentum
        if momentum is not None and not 0 < momentum < 1:
            refuse("ema_momentum", "None or a momentum in (0, 1)", momentum)
        if self.mixed_precision not in (None, True, False, *_POLICIES):
            names = " or ".join(f'"{name}"' for name in _POLICIES)
            refuse("mixed_precision", f"a bool, {names}", self.mixed_precision)
        _ = self.rate  # Raises where it is a function.
        self.make(1e-3)

    @property
    def policy(self) -> str | None:
        """The name of the mixed-precision policy, if any."""
        if self.mixed_precision is True:
            import tensorflow as tf

            # A GPU computes in float16; a TPU and most CPUs in bfloat16.
            has_gpu = bool(tf.config.list_logical_devices("GPU"))
            return _POLICIES[0] if has_gpu else _POLICIES[1]
        return self.mixed_precision or None

    @property
    def rate(self) -> OptimizerRate:
        """The rate that the user gave to the optimizer.

        A number or a schedule of Keras; `None` where the optimizer has the
        default rate of its class, or was given by name.
        """
        if isinstance(self.optimizer, str):
            return None
        return rate_of(self._template())

    def make(self, learning_rate: float) -> keras.optimizers.Optimizer:
        """Makes a new optimizer from the one that the user passed.

        Args:
            learning_rate: Its learning rate.

        Returns:
            A Keras optimizer, not built.

        Raises:
            ValueError: If there is no such optimizer.
            TypeError: If it is not an optimizer.
        """
        template = self._template()
        config = template.get_config()
        config["learning_rate"] = float(learning_rate)
        config.update(self._overrides())
        config.pop("name", None)
        optimizer = type(template).from_config(config)
        for name in _EXCLUDED:
            if hasattr(template, name):
                setattr(optimizer, name, getattr(template, name))
        return optimizer

    def identity(self) -> dict[str, Any]:
        """Returns the part of the identity of a run, as plain values."""
        optimizer = self.make(1.0)
        config = optimizer.get_config() | {"class": type(optimizer).__name__}
        for name in ("name", "learning_rate"):  # set per object and per phase
            config.pop(name)
        return {
            "optimizer": {k: plain(v) for k, v in config.items()},
            "mixed_precision": self.policy,
        }

    def _template(self) -> keras.optimizers.Optimizer:
        template = self.optimizer
        if isinstance(template, str):
            template = keras.optimizers.get(template)
        if not isinstance(template, keras.optimizers.Optimizer):
            raise TypeError(
                "`optimizer` must be a Keras optimizer or its name. Received: "
                f"optimizer={self.optimizer!r:.100}"
            )
        wrappers = keras.optimizers.LossScaleOptimizer, LearningRateMultiplier
        if isinstance(template, wrappers):
            raise TypeError(
                "`optimizer` must be a plain Keras optimizer: multipliers are "
                "`Phase(layer_decay=...)`, loss scaling is `mixed_precision`. "
                f"Received: a {type(template).__name__}"
            )
        return template

    def _overrides(self) -> dict[str, Any]:
        overrides = {
            "global_clipnorm": self.global_clipnorm,
            "gradient_accumulation_steps": self.gradient_accumulation_steps,
            "ema_momentum": self.ema_momentum,
        }
        overrides = {k: v for k, v in overrides.items() if v is not None}
        return overrides | ({"use_ema": True} if self.ema_momentum else {})


@dataclasses.dataclass(frozen=True)
class LossSettings:
    """Settings of the loss and the metrics.

    Attributes:
        loss: A Keras loss. Defaults to `None`: chosen by the task.
        class_weight: Weight of each class index, or `"balanced"`. Defaults to
            `None`.
        label_smoothing: Fraction of each label that is spread over all classes.
            Defaults to `0.0`.
        metrics: Metrics besides those of the task. Defaults to `()`.
    """

    loss: str | keras.losses.Loss | Callable[..., Any] | None = None
    class_weight: Mapping[int, float] | str | None = None
    label_smoothing: float = 0.0
    metrics: Any = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "metrics", read_metrics(self.metrics))
        weights = self.class_weight
        if isinstance(weights, str) and weights != "balanced":
            refuse("class_weight", '"balanced" or a dict', weights)
        if isinstance(weights, Mapping) and not all(
            is_integer(label) and math.isfinite(weight) and weight >= 0
            for label, weight in weights.items()
        ):
            refuse("class_weight", "indices with weights from 0", weights)

    def identity(self) -> dict[str, Any]:
        """Returns the part of the identity of a run, as plain values."""
        configs = [plain(metric.config) for metric in self.metrics]
        return {
            "loss": plain(self.loss),
            "class_weight": plain(self.class_weight),
            "label_smoothing": self.label_smoothing,
            # Left out without any, as in runs before there were metrics.
            **({"metrics": configs} if configs else {}),
        }


@dataclasses.dataclass(frozen=True)
class CacheSettings:
    """Settings of the cache of activations.

    Attributes:
        store: A `FeatureStore`, a folder, `"memory"`, `False`, or `None` for
            the plan to choose. Defaults to `None`.
        views: Fixed views of each training image. Defaults to `None`.
    """

    store: Any = None
    views: int | None = None

    def __post_init__(self) -> None:
        if self.store is None:
            object.__setattr__(self, "store", Choice())
        elif self.store is not False and not isinstance(self.store, Choice):
            object.__setattr__(self, "store", open_store(self.store))
        _check_optional_integer("views", self.views, 1)

    def identity(self) -> dict[str, Any]:
        """Returns the part of the identity of a run, as plain values."""
        return {"views": self.views}


@dataclasses.dataclass(frozen=True)
class StopSettings:
    """Settings that select the best epoch and end a phase.

    Attributes:
        patience: Epochs without a new best after which a phase ends. Defaults
            to `None`.
        monitor: Column that selects the best epoch, or a pair of it and `"min"`
            or `"max"`. Defaults to `None`.
    """

    patience: int | None = None
    monitor: str | tuple[str, str] | None = None

    def __post_init__(self) -> None:
        _check_optional_integer("patience", self.patience, 1)

    def identity(self) -> dict[str, Any]:
        """Returns the part of the identity of a run, as plain values."""
        return {"patience": self.patience, "monitor": plain(self.monitor)}


@dataclasses.dataclass(frozen=True)
class ReportSettings:
    """Settings of progress reports.

    Attributes:
        callbacks: Keras callbacks. Defaults to `()`.
        tensorboard: Folder for TensorBoard, or `True`. Defaults to `False`.
        verbose: `0`, `1` or `2`. Defaults to `0`.
    """

    callbacks: Sequence[keras.callbacks.Callback] = ()
    tensorboard: bool | str | Path = False
    verbose: int = 0

    def __post_init__(self) -> None:
        _check_integer("verbose", self.verbose, 0)
        if not isinstance(self.callbacks, Sequence) or not all(
            isinstance(c, keras.callbacks.Callback) for c in self.callbacks
        ):
            raise TypeError(
                "`callbacks` must be a sequence of Keras callbacks. Received: "
                f"callbacks={self.callbacks!r:.100}"
            )

    def identity(self) -> dict[str, Any]:
        """Returns `{}`: progress reports do not affect results."""
        return {}


@dataclasses.dataclass(frozen=True)
class Settings:
    """Settings of a run; made by `make_settings`.

    Attributes:
        data: Settings of reading examples.
        optimization: Settings of a training step.
        losses: Settings of the loss.
        caching: Settings of the cache of activations.
        stopping: Settings that select the best epoch and end a phase.
        reporting: Settings of progress reports.
    """

    data: DataSettings
    optimization: OptimizerSettings
    losses: LossSettings
    caching: CacheSettings
    stopping: StopSettings
    reporting: ReportSettings

    def __post_init__(self) -> None:
        views, augment = self.caching.views, self.data.augment
        if views is None:
            return
        if self.caching.store is False:
            refuse("views", "None where `store` is False", views)
        if augment is None:
            refuse("views", "None where `augment` is None", views)
        if augment.cutmix:
            rule = "None where `augment` has `cutmix`, which needs pixels"
            refuse("views", rule, views)
        if augment.changes_pixels and views < 2:
            refuse(
                "views",
                "2 or more where `augment` changes images: the first view is "
                "the image as it is",
                views,
            )
        if not augment.changes_pixels and views != 1:
            refuse("views", "1 where `augment` only mixes", views)

    def cache_policy(
        self, ineligible: Ineligible | None, must_fit: bool = False
    ) -> CachePolicy:
        """Returns the cache policy of a run.

        Args:
            ineligible: Reason that nothing may be cached, or `None`.
            must_fit: Whether activations that exceed the store are an error.
                Defaults to `False`.
        """
        return CachePolicy(
            store=self.caching.store,
            batch_size=self.data.batch_size,
            augment=self.data.augment,
            views=self.caching.views,
            seed=self.data.seed,
            ineligible=ineligible,
            must_fit=must_fit,
            verbose=self.reporting.verbose,
        )

    def identity(self) -> dict[str, Any]:
        """Returns the part of the identity of a run, as plain values."""
        values: dict[str, Any] = {}
        for field in dataclasses.fields(self):
            values |= getattr(self, field.name).identity()
        return values

    def replace(self, **values: Any) -> Settings:
        """Returns the settings with some fields replaced.

        Args:
            **values: Fields of the groups, by name.

        Raises:
            TypeError: If there is no such field.
        """
        return dataclasses.replace(
            self,
            **{
                name: dataclasses.replace(getattr(self, name), **part)
                for name, part in _by_group(values).items()
            },
        )


_GROUPS: dict[str, Any] = {
    "data": DataSettings,
    "optimization": OptimizerSettings,
    "losses": LossSettings,
    "caching": CacheSettings,
    "stopping": StopSettings,
    "reporting": ReportSettings,
}


def make_settings(**values: Any) -> Settings:
    """Makes settings from keyword arguments.

    Args:
        **values: Fields of the groups, by name; those left out have their
            defaults.

    Returns:
        The settings, checked.

    Raises:
        ValueError: If a value is out of range, or values do not fit each other.
        TypeError: If an argument is unknown or of another type.

    Example:

    >>> make_settings(batch_size=8, patience=3).data.batch_size
    8
    """
    parts = _by_group(values)
    return Settings(
        **{name: kind(**parts[name]) for name, kind in _GROUPS.items()}
    )


def _by_group(values: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    parts: dict[str, dict[str, Any]] = {}
    for name, kind in _GROUPS.items():
        names = {field.name for field in dataclasses.fields(kind)}
        parts[name] = {k: v for k, v in values.items() if k in names}
    recognized = {key for part in parts.values() for key in part}
    unknown = [name for name in values if name not in recognized]
    if unknown:
        raise TypeError(f"Unknown argument: {', '.join(unknown)}.")
    return parts
