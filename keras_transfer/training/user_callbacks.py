"""Callbacks of the user, to which all phases of a run are one training."""

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
    """Presents the whole model to callbacks as the model being fitted.

    It comes before the callbacks that look at it.

    Args:
        model: The whole model, over the same variables.
        metrics: Function that makes the metrics for its compile.
        labels: Labels of one example, used to build the metrics.
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
        # Builds the metrics, as a first batch does: callbacks look them up by
        # name.
        guess = np.zeros((1, *whole.output_shape[1:]), np.float32)
        whole.compute_metrics(None, self._labels, guess, None)
        whole.reset_metrics()


class UserCallbacks:
    """The callbacks of a user, over all phases of a run.

    They see one training: `on_train_begin` before the first epoch,
    `on_train_end` after the last one, so that a log or a curve is one. Those
    that compare epochs begin anew in each phase, whose loss is another, and
    see its epochs counted from 0.

    Args:
        callbacks: The callbacks.
    """

    def __init__(self, callbacks: Sequence[keras.callbacks.Callback]) -> None:
        self._shown = [_Shown(callback) for callback in callbacks]

    def __bool__(self) -> bool:
        """Tells whether there is a callback."""
        return bool(self._shown)

    def for_phase(
        self, whole: keras.Model | None, first_epoch: int
    ) -> Sequence[keras.callbacks.Callback]:
        """Returns the callbacks for the `fit` of a phase.

        Args:
            whole: The model to show them, or `None` for the fitted one.
            first_epoch: Number of the first epoch of the phase in the run.
        """
        for shown in self._shown:
            shown.whole = whole
            shown.first_epoch = first_epoch
        return self._shown

    def finish(self) -> None:
        """Ends the training of the callbacks, after the last phase."""
        for shown in self._shown:
            shown.finish()


_RESTARTED = keras.callbacks.EarlyStopping, keras.callbacks.ReduceLROnPlateau


class _Shown(keras.callbacks.Callback):
    """Calls another callback, as one training in which it sees one model."""

    def __init__(self, callback: keras.callbacks.Callback) -> None:
        super().__init__()
        self.whole: keras.Model | None = None
        self.first_epoch = 0
        self._callback = callback
        self._restarts = isinstance(callback, _RESTARTED)
        self._began = False
        self._logs: Any = None
        self._seen: Any = None
        for name in ("async_safe", "_supports_tf_logs"):
            if hasattr(callback, name):
                setattr(self, name, getattr(callback, name))
        for name in _HOOKS:
            setattr(self, name, self._forwarding(getattr(callback, name)))
        if self._restarts:
            for name in ("on_epoch_begin", "on_epoch_end"):
                setattr(self, name, self._counting_anew(getattr(self, name)))
        self.on_train_begin = self._begin_once(callback.on_train_begin)
        self.on_train_end = self._end_once(callback.on_train_end)

    def _forwarding(self, hook: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> None:
            hook(*arguments, **named)
            if self.whole is not None and self.whole.stop_training:
                self.model.stop_training = True

        return call

    def _counting_anew(self, hook: Callable[..., Any]) -> Callable[..., Any]:
        def call(epoch: int, logs: Any = None) -> None:
            hook(epoch - self.first_epoch, logs)

        return call

    def _begin_once(self, hook: Callable[..., Any]) -> Callable[..., Any]:
        def begin(logs: Any = None) -> None:
            if self._restarts or not self._began:
                hook(logs)
            self._began = True

        return begin

    def _end_once(self, hook: Callable[..., Any]) -> Callable[..., Any]:
        def end(logs: Any = None) -> None:
            self._logs = logs
            if self._restarts:
                hook(logs)

        return end

    def finish(self) -> None:
        """Forwards the end of training."""
        if self._began and not self._restarts:
            self._callback.on_train_end(self._logs)

    def set_params(self, params: Any) -> None:
        """Forwards the parameters."""
        super().set_params(params)
        self._callback.set_params(params)

    def set_model(self, model: keras.Model) -> None:
        """Stores the fitted model, and passes on the one to be seen."""
        super().set_model(model)
        seen = model if self.whole is None else self.whole
        seen.stop_training = False
        # Some callbacks open files for a new model.
        if seen is not self._seen:
            self._callback.set_model(seen)
            self._seen = seen
