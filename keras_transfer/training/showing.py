"""Shows callbacks the whole model where only what is above a cut is fitted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np

_HOOKS = (
    "on_batch_begin",
    "on_batch_end",
    "on_epoch_begin",
    "on_epoch_end",
    *(
        f"on_{what}_{when}"
        for what in ("train", "test", "predict")
        for when in ("begin", "end", "batch_begin", "batch_end")
    ),
)


class ShowWhole(keras.callbacks.Callback):
    """Makes the whole model look as if it were the one that is fitted.

    It comes before the callbacks that `show` wraps.

    Args:
        model: The whole model, over the same variables.
        metrics: Makes the metrics that it is compiled with.
        labels: The labels of one example, which metrics are built with.
    """

    def __init__(
        self,
        model: keras.Model,
        metrics: Callable[[], Sequence[keras.metrics.Metric]],
        labels: np.ndarray,
    ) -> None:
        super().__init__()
        self._whole = model
        self._metrics = metrics
        self._labels = labels

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Compiles the whole model with the optimizer in use."""
        whole = self._whole
        whole.compile(
            self.model.optimizer,
            loss=self.model.loss,
            metrics=self._metrics(),
            auto_scale_loss=False,
        )
        whole.stop_training = False
        # As after a first batch: callbacks look metrics up by name.
        guess = np.zeros((1, *whole.output_shape[1:]), np.float32)
        whole.compute_metrics(None, self._labels, guess, None)
        whole.reset_metrics()

    def show(
        self, callback: keras.callbacks.Callback
    ) -> keras.callbacks.Callback:
        """Wraps a callback of the user.

        Args:
            callback: The callback.

        Returns:
            One that calls it.
        """
        return _Shown(callback, self._whole)


class _Shown(keras.callbacks.Callback):
    """Calls another callback, which knows the whole model alone."""

    def __init__(
        self, callback: keras.callbacks.Callback, whole: keras.Model
    ) -> None:
        super().__init__()
        self._callback = callback
        self._whole = whole
        for name in ("async_safe", "_supports_tf_logs"):
            if hasattr(callback, name):
                setattr(self, name, getattr(callback, name))
        for name in _HOOKS:
            setattr(self, name, self._passing_on(getattr(callback, name)))

    def _passing_on(self, hook: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> None:
            hook(*arguments, **named)
            if self._whole.stop_training:
                self.model.stop_training = True

        return call

    def set_params(self, params: Any) -> None:
        """Passes the parameters on."""
        super().set_params(params)
        self._callback.set_params(params)

    def set_model(self, model: keras.Model) -> None:
        """Keeps the fitted model to itself, and shows the whole one."""
        super().set_model(model)
        self._whole.stop_training = False
        self._callback.set_model(self._whole)
