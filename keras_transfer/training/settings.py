"""The arguments of `fine_tune` beside model, data and strategy, checked."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import keras

from keras_transfer._utils.checks import is_integer
from keras_transfer._utils.plain import plain
from keras_transfer.caching.policy import CachePolicy, Ineligible
from keras_transfer.caching.store.store import Choice, open_store
from keras_transfer.data import Augmentation
from keras_transfer.optimizers.multiplier import LearningRateMultiplier

# What `exclude_from_weight_decay` leaves on an optimizer.
_EXCLUDED = (
    "_exclude_from_weight_decay",
    "_exclude_from_weight_decay_pattern",
)


_POLICIES = ("mixed_float16", "mixed_bfloat16")


@dataclasses.dataclass(frozen=True)
class Settings:
    """How a run trains; the fields are arguments of `fine_tune`."""

    batch_size: int = 32
    optimizer: str | keras.optimizers.Optimizer = "adam"
    loss: str | keras.losses.Loss | Callable[..., Any] | None = None
    augment: Augmentation | None = None
    class_weight: Mapping[int, float] | str | None = None
    label_smoothing: float = 0.0
    clip_norm: float | None = None
    accumulation_steps: int | None = None
    ema: float | None = None
    patience: int | None = None
    monitor: str | None = None
    mixed_precision: bool | str | None = None
    callbacks: Sequence[keras.callbacks.Callback] = ()
    tensorboard: bool | str | Path = False
    cache: bool | None = None
    store: Any = None
    views: int | None = None
    seed: int = 0
    verbose: int = 0

    def __post_init__(self) -> None:
        if self.store is None:
            object.__setattr__(self, "store", Choice())
        elif self.store is not False and not isinstance(self.store, Choice):
            object.__setattr__(self, "store", open_store(self.store))
        for name, least in (("batch_size", 1), ("seed", 0), ("verbose", 0)):
            value = getattr(self, name)
            if not is_integer(value) or value < least:
                _refuse(name, f"an integer of at least {least}", value)
        for name, least in (
            ("accumulation_steps", 2),
            ("patience", 1),
            ("views", 1),
        ):
            value = getattr(self, name)
            if value is not None and (not is_integer(value) or value < least):
                _refuse(name, f"None or an integer of at least {least}", value)
        if self.augment is not None and not isinstance(
            self.augment, Augmentation
        ):
            raise TypeError(
                "`augment` must be an `Augmentation` or None. Received: "
                f"augment={self.augment!r:.100}"
            )
        self._check_views()
        if self.clip_norm is not None and not self.clip_norm > 0:
            _refuse("clip_norm", "None or a number above 0", self.clip_norm)
        if self.ema is not None and not 0 < self.ema < 1:
            _refuse("ema", "None or a momentum in (0, 1)", self.ema)
        choices = (None, True, False, *_POLICIES)
        if self.mixed_precision not in choices:
            names = " or ".join(f'"{name}"' for name in _POLICIES)
            _refuse("mixed_precision", f"a bool, {names}", self.mixed_precision)
        if not isinstance(self.callbacks, Sequence) or not all(
            isinstance(c, keras.callbacks.Callback) for c in self.callbacks
        ):
            raise TypeError(
                "`callbacks` must be a sequence of Keras callbacks. Received: "
                f"callbacks={self.callbacks!r:.100}"
            )
        weights = self.class_weight
        if isinstance(weights, str) and weights != "balanced":
            _refuse("class_weight", '"balanced" or a dict', weights)
        if isinstance(weights, Mapping) and not all(
            is_integer(label) and math.isfinite(weight) and weight >= 0
            for label, weight in weights.items()
        ):
            _refuse("class_weight", "indices with weights from 0", weights)
        self.make_optimizer(1e-3)

    def _check_views(self) -> None:
        if self.views is None:
            return
        if self.store is False:
            _refuse("views", "None where `store` is False", self.views)
        if self.augment is None:
            _refuse("views", "None where `augment` is None", self.views)
        if self.augment.cutmix:
            rule = "None where `augment` has `cutmix`, which needs pixels"
            _refuse("views", rule, self.views)
        changes = self.augment.changes_pixels
        if changes and self.views < 2:
            _refuse(
                "views",
                "2 or more where `augment` changes images: the first view is "
                "the image as it is",
                self.views,
            )
        if not changes and self.views != 1:
            _refuse("views", "1 where `augment` only mixes", self.views)

    @property
    def policy(self) -> str | None:
        """Name of the mixed-precision policy, if any."""
        if self.mixed_precision is True:
            import tensorflow as tf

            # A GPU computes in float16; a TPU and most CPUs in bfloat16.
            has_gpu = bool(tf.config.list_logical_devices("GPU"))
            return _POLICIES[0] if has_gpu else _POLICIES[1]
        return self.mixed_precision or None

    def cache_policy(
        self, ineligible: Ineligible | None, must_fit: bool = False
    ) -> CachePolicy:
        """Returns what may be cached.

        Args:
            ineligible: Why nothing may be, or `None`.
            must_fit: Whether what does not fit is an error. Defaults to
                `False`.
        """
        return CachePolicy(
            store=self.store,
            batch_size=self.batch_size,
            augment=self.augment,
            views=self.views,
            seed=self.seed,
            ineligible=ineligible,
            must_fit=must_fit,
            verbose=self.verbose,
        )

    def make_optimizer(
        self, learning_rate: float
    ) -> keras.optimizers.Optimizer:
        """Makes a new optimizer after the one that was asked for.

        Args:
            learning_rate: Its rate.

        Returns:
            A Keras optimizer, not built.

        Raises:
            ValueError: If there is no such optimizer, or it has settings that
                are arguments as well.
            TypeError: If it is none.
        """
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
        config = template.get_config()
        if isinstance(config.get("learning_rate"), dict):
            raise ValueError(
                "`optimizer` must have a number as its learning rate, since "
                "each phase sets it. Received: a schedule. Pass it as "
                "`Phase(schedule=...)`, or use a callback with "
                '`schedule="constant"`.'
            )
        config["learning_rate"] = float(learning_rate)
        config.update(self._overrides())
        config.pop("name", None)
        made = type(template).from_config(config)
        for name in _EXCLUDED:  # No part of Keras' config.
            if hasattr(template, name):
                setattr(made, name, getattr(template, name))
        return made

    def _overrides(self) -> dict[str, Any]:
        given = {
            "global_clipnorm": self.clip_norm,
            "gradient_accumulation_steps": self.accumulation_steps,
            "ema_momentum": self.ema,
        }
        given = {
            key: value for key, value in given.items() if value is not None
        }
        if "ema_momentum" in given:
            given["use_ema"] = True
        return given

    def identity(self) -> dict[str, Any]:
        """Returns what makes a run another run, as plain values."""
        optimizer = self.make_optimizer(1.0)
        config = optimizer.get_config() | {"class": type(optimizer).__name__}
        for name in ("name", "learning_rate"):  # of the object, of the phases
            config.pop(name)
        return {
            "batch_size": int(self.batch_size),
            "optimizer": {k: plain(v) for k, v in config.items()},
            "loss": plain(self.loss),
            "augment": plain(self.augment),
            "views": self.views,
            "class_weight": plain(self.class_weight),
            "label_smoothing": self.label_smoothing,
            "patience": self.patience,
            "monitor": self.monitor,
            "mixed_precision": self.policy,
            "seed": int(self.seed),
        }


def _refuse(name: str, rule: str, value: object) -> NoReturn:
    raise ValueError(f"`{name}` must be {rule}. Received: {name}={value!r}")
