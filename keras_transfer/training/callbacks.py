"""Callbacks of a run: the recorder, and the user's own on a cached phase."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np

from keras_transfer.auxiliary.attached_losses import AttachedLosses
from keras_transfer.training.history import Row

# Steps between checks of the loss: reading it waits for the device.
_STEPS_PER_NAN_CHECK = 50


class Recorder(keras.callbacks.Callback):
    """Records each epoch, keeps the best one and stops training.

    Args:
        describe: Function from the number of an epoch and its logs to a row.
        record: Function from a row to whether training continues.
        begin_epoch: Function called with the index of an epoch in its phase.
        losses: Auxiliary losses, active in training and not in validation: a
            penalty on weights grows with the number of trainable weights, so
            that validation losses of two phases would not be comparable.
    """

    def __init__(
        self,
        describe: Callable[[int, Row], Row],
        record: Callable[[Row], bool],
        begin_epoch: Callable[[int], None],
        losses: AttachedLosses,
    ) -> None:
        super().__init__()
        self._losses = losses
        self._describe = describe
        self._record = record
        self._begin_epoch = begin_epoch
        self._started = 0.0
        self._epoch = 0

    def on_epoch_begin(self, epoch: int, logs: Row | None = None) -> None:
        """Called by Keras.

        Args:
            epoch: Index of the epoch in its phase.
            logs: Not used. Defaults to `None`.
        """
        self._started = time.monotonic()
        self._epoch = epoch
        self._begin_epoch(epoch)

    def on_train_batch_end(self, batch: int, logs: Row | None = None) -> None:
        """Called by Keras.

        Args:
            batch: Index of the batch in its epoch.
            logs: Running means. Defaults to `None`.

        Raises:
            FloatingPointError: If the loss is NaN or infinite.
        """
        if batch % _STEPS_PER_NAN_CHECK == 0:
            self._check(batch, logs)

    def on_test_begin(self, logs: Row | None = None) -> None:
        """Called by Keras.

        Args:
            logs: Not used. Defaults to `None`.
        """
        self._losses.pause()

    def on_test_end(self, logs: Row | None = None) -> None:
        """Called by Keras.

        Args:
            logs: Not used. Defaults to `None`.
        """
        self._losses.resume()

    def on_epoch_end(self, epoch: int, logs: Row | None = None) -> None:
        """Called by Keras.

        Args:
            epoch: Index of the epoch in its phase.
            logs: Metrics of the epoch. Defaults to `None`.

        Raises:
            FloatingPointError: If the loss is NaN or infinite.
        """
        self._check(None, logs)
        values = {name: float(value) for name, value in (logs or {}).items()}
        values["seconds"] = round(time.monotonic() - self._started, 3)
        if not self._record(self._describe(epoch + 1, values)):
            self.model.stop_training = True

    def _check(self, batch: int | None, logs: Row | None) -> None:
        losses = {
            name: float(value)
            for name, value in (logs or {}).items()
            if name in ("loss", "val_loss")
        }
        names = [n for n, value in losses.items() if not math.isfinite(value)]
        if not names:
            return
        where = f"epoch {self._epoch + 1}"
        if batch is not None:
            where += f", step {batch + 1}"
        rate = float(
            np.asarray(
                keras.ops.convert_to_numpy(self.model.optimizer.learning_rate)
            )
        )
        raise FloatingPointError(
            f"`{names[0]}` became {losses[names[0]]} in {where}, at learning "
            f"rate {rate:g}. Lower `learning_rate` (see `find_learning_rate`), "
            "set `global_clipnorm=1.0`, or look for extreme values with "
            "`check(model, data)`."
        )


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

    It comes before the callbacks that `show` wraps.

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

    def show(
        self, callback: keras.callbacks.Callback
    ) -> keras.callbacks.Callback:
        """Wraps a callback of the user.

        Args:
            callback: The callback.

        Returns:
            A callback that calls it.
        """
        return _Shown(callback, self._whole)


class _Shown(keras.callbacks.Callback):
    """Calls another callback, which sees only the whole model."""

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
            setattr(self, name, self._forwarding(getattr(callback, name)))

    def _forwarding(self, hook: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> None:
            hook(*arguments, **named)
            if self._whole.stop_training:
                self.model.stop_training = True

        return call

    def set_params(self, params: Any) -> None:
        """Forwards the parameters."""
        super().set_params(params)
        self._callback.set_params(params)

    def set_model(self, model: keras.Model) -> None:
        """Stores the fitted model, and passes on the whole one."""
        super().set_model(model)
        self._whole.stop_training = False
        self._callback.set_model(self._whole)
