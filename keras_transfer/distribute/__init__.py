"""Devices, strategies, and the processes of a distributed training."""

from keras_transfer.distribute.connecting import connect_workers
from keras_transfer.distribute.devices import (
    check_batch_size,
    choose_devices,
    local_devices,
    refuse_open_scope,
    scope_of,
    split_over,
)
from keras_transfer.distribute.process_group import ProcessGroup, together
from keras_transfer.distribute.speed_up_prediction import (
    Scale,
    Scaling,
    predict_scaling,
)

__all__ = [
    "ProcessGroup",
    "Scale",
    "Scaling",
    "check_batch_size",
    "choose_devices",
    "connect_workers",
    "local_devices",
    "predict_scaling",
    "refuse_open_scope",
    "scope_of",
    "split_over",
    "together",
]
