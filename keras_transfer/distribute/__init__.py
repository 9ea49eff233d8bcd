"""Which devices a computation runs on, and what their processes share."""

from keras_transfer.distribute.connecting import connect_workers
from keras_transfer.distribute.devices import (
    check_batch_size,
    choose_devices,
    local_devices,
    scope_of,
    split_over,
)
from keras_transfer.distribute.team import Team, lost, lost_errors

__all__ = [
    "Team",
    "check_batch_size",
    "choose_devices",
    "connect_workers",
    "local_devices",
    "lost",
    "lost_errors",
    "scope_of",
    "split_over",
]
