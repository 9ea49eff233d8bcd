"""`Recorder`: the callback that keeps the table of a run."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import keras
import numpy as np

from keras_transfer.auxiliary.attached_losses import AttachedLosses
from keras_transfer.tasks.multi_label import put_in_force
from keras_transfer.training.history import Row

# Steps between checks of the loss: reading it waits for the device.
_STEPS_PER_NAN_CHECK = 50


class Recorder(keras.callbacks.Callback):
    """Records each epoch, keeps the best one and stops training.

    Args:
        describe: Function from the number of an epoch and its logs to a row.
        record: Function from a row to whether training continues.
        begin_epoch: Function called with the index of an epoch in its phase.
        losses: Auxiliary losses, active in training and not in validation, as
            are weights of columns: a penalty on weights grows with the number
            of trainable weights, so that validation losses of two phases would
            not be comparable.
        first_epoch: Number of the first epoch of the phase, as callbacks count
            epochs: over all phases. Defaults to `0`.
    """

    def __init__(
        self,
        describe: Callable[[int, Row], Row],
        record: Callable[[Row], bool],
        begin_epoch: Callable[[int], None],
        losses: AttachedLosses,
        first_epoch: int = 0,
    ) -> None:
        super().__init__()
        self._losses = losses
        self._first_epoch = first_epoch
        self._describe = describe
        self._record = record
        self._begin_epoch = begin_epoch
        self._started = 0.0
        self._epoch = 0

    def on_epoch_begin(self, epoch: int, logs: Row | None = None) -> None:
        """Called by Keras.

        Args:
            epoch: Index of the epoch in the run.
            logs: Not used. Defaults to `None`.
        """
        self._started = time.monotonic()
        self._epoch = epoch - self._first_epoch
        self._begin_epoch(self._epoch)

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
        put_in_force(self.model.loss, False)

    def on_test_end(self, logs: Row | None = None) -> None:
        """Called by Keras.

        Args:
            logs: Not used. Defaults to `None`.
        """
        self._losses.resume()
        put_in_force(self.model.loss, True)

    def on_epoch_end(self, epoch: int, logs: Row | None = None) -> None:
        """Called by Keras.

        Args:
            epoch: Index of the epoch in the run.
            logs: Metrics of the epoch. Defaults to `None`.

        Raises:
            FloatingPointError: If the loss is NaN or infinite.
        """
        self._check(None, logs)
        values = {name: float(value) for name, value in (logs or {}).items()}
        values["seconds"] = round(time.monotonic() - self._started, 3)
        if not self._record(self._describe(self._epoch + 1, values)):
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
