"""`python -m distribute._several OUT [N ...]`: `fine_tune` on several devices.

With numbers: on one device and on N logical CPUs each; else as one of the
workers of `TF_CONFIG`. The table and the weights of each run go to OUT.
"""

import json
import os
import sys
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

import keras_transfer as ktr

ALL = {"depth": "all", "epochs": 2, "learning_rate": 1e-3}
# One phase, since each is traced anew on each number of devices.
ONE_PHASE = {
    "strategy": [ktr.Phase("last", depth=1, epochs=2, learning_rate=1e-3)]
}


def squared(labels, outputs):
    """A loss that is one number for a batch."""
    return keras.ops.mean(keras.ops.square(labels - outputs))


# What is independent shares a case.
CASES = {
    "linear-probe": {"strategy": "linear-probe"},
    "layer-decay": {
        "strategy": [ktr.Phase(layer_decay=0.5, **ALL)],
        "penalty": ktr.L2SP(0.3, 0.1),
        "class_weight": "balanced",
        "store": False,
        "batch_size": 14,
    },
    "cached": {
        "strategy": "fine-tune",
        "depth": 2,
        "store": "memory",
        "penalty": ktr.L2SP(0.3, 0.1),
        "ema_momentum": 0.9,
    },
    "accumulation": ONE_PHASE | {"gradient_accumulation_steps": 2},
    # 48 examples: two batches of 23, and one of 2, fewer than four replicas.
    "last-two": ONE_PHASE | {"global_clipnorm": 1e-3, "batch_size": 23},
    "activations": ONE_PHASE
    | {"penalty": ktr.FeatureMap(0.1), "batch_size": 14},
    "probed-each-pass": {"strategy": "lp-ft", "depth": 1, "store": False},
    "regression-loss": ONE_PHASE
    | {"loss": squared, "class_weight": "balanced"},
    # Steps of Adam do not shrink with gradients that ought to be zero.
    # One batch of 45, and one of 3: fewer than four replicas.
    "batch-norm": {
        "strategy": [ktr.Phase(train_batch_norm=True, **ALL)],
        "optimizer": "sgd",
        "batch_size": 45,
    },
    "per-replica": {
        "strategy": [ktr.Phase(train_batch_norm="per-replica", **ALL)],
        "optimizer": "sgd",
        "batch_size": 45,
    },
    # With a loss that is scaled, as on a GPU.
    "half-accumulation": ONE_PHASE
    | {"mixed_precision": "mixed_float16", "gradient_accumulation_steps": 2},
}
# What runs on four devices, and on two processes, as well.
FEW = {
    "4": ["layer-decay", "last-two", "batch-norm"],
    "workers": [
        "linear-probe", "layer-decay", "cached", "batch-norm",
        "probed-each-pass",
    ],
}  # fmt: skip


def main(out, counts):
    """Runs the cases."""
    if counts:
        split_cpu(max(counts))
        places = {f"{count}": count for count in counts}
    else:
        places = {"workers": ktr.connect_workers(timeout=200)}
    from training._tiny import arrays_of, make_data, make_model

    data = make_data()
    for name, case in CASES.items():
        arguments = {"batch_size": 16, "verbose": 0, **case}
        if isinstance(arguments["strategy"], str):
            arguments["epochs"] = 2
        for place, devices in places.items():
            if name not in FEW.get(place, CASES):
                continue
            # Heads of workers differ, unless somebody sees to it.
            rank = json.loads(os.environ.get("TF_CONFIG", "{}"))
            model = make_model(rank.get("task", {}).get("index", 0))
            run = ktr.fine_tune(model, data, devices=devices, **arguments)
            path = Path(out) / f"{name}-{place}"
            if counts or not rank["task"]["index"]:
                np.savez(path.with_suffix(".npz"), *arrays_of(model))
                rows = [losses_of(row) for row in run.rows]
                path.with_suffix(".json").write_text(json.dumps(rows))
            keras.backend.clear_session()


def split_cpu(count):
    """Makes logical CPUs of the one that there is."""
    (cpu,) = tf.config.list_physical_devices("CPU")
    tf.config.set_logical_device_configuration(
        cpu, [tf.config.LogicalDeviceConfiguration()] * count
    )


def losses_of(row):
    """The numbers of an epoch; the exact probe has no training loss."""
    names = ("loss", "accuracy", "val_loss", "val_accuracy")
    return [row.get(name) or 0.0 for name in names]


if __name__ == "__main__":
    main(sys.argv[1], [int(argument) for argument in sys.argv[2:]])
