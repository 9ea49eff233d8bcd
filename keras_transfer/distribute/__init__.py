"""Which devices a computation runs on, and what their processes share."""

from keras_transfer.distribute.connecting import connect_workers
from keras_transfer.distribute.devices import (
    check_batch_size,
    choose_devices,
    local_devices,
    scope_of,
    split_over,
)
from keras_transfer.distribute.scaling import Scale, Scaling, predict_scaling
from keras_transfer.distribute.team import ProcessGroup, together

__all__ = [
    "Scale",
    "Scaling",
    "ProcessGroup",
    "check_batch_size",
    "choose_devices",
    "connect_workers",
    "local_devices",
    "predict_scaling",
    "scope_of",
    "split_over",
    "together",
]
