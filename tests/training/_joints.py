"""`python -m training._joints OUT`: what the package does not know, trained.

A task and an auxiliary loss of the tests, each from pixels, from cached
activations, interrupted and resumed, and on two logical CPUs. The weights go to
OUT, `NAME-WAY.npz`, and what was cached to OUT, `cached.json`.
"""

import json
import sys
from pathlib import Path

import keras
import numpy as np
from auxiliary import _consistency
from distribute._several import split_cpu
from tasks import _two_heads

import keras_transfer as ktr


class Stop(keras.callbacks.Callback):
    def on_epoch_begin(self, epoch, logs=None):
        if epoch == 1:
            raise KeyboardInterrupt


def task(**arguments):
    model = _two_heads.make_model()
    data = _two_heads.make_data()
    made = _two_heads.ClassAndNumber()
    return ktr.fine_tune(model, data, task=made, **arguments)


def loss(weight=1.0, **arguments):
    made = _consistency.Consistency(_consistency.make_unlabelled(), weight)
    model, data = _consistency.make_model(), _consistency.make_data()
    return ktr.fine_tune(model, data, auxiliary=[made], **arguments)


def main(out):
    split_cpu(2)
    plain = {
        "strategy": "fine-tune",
        "depth": 1,
        "epochs": 3,
        "batch_size": 14,
        "learning_rate": 1e-2,
        "verbose": 0,
    }
    cached = {}
    for train in (task, loss):
        ways = {
            "direct": {"store": False},
            "cached": {"store": "memory"},
            "replicas": {"store": False, "devices": 2},
            "cached-replicas": {"store": "memory", "devices": 2},
        }
        if train is loss:
            ways["off"] = {"store": "memory", "weight": 0.0}
        for way, arguments in ways.items():
            run = train(**plain, **arguments)
            save(out, f"{train.__name__}-{way}", run.model)
            cuts = [p.cut and p.cut.name for p in run.plan.phases]
            cached[f"{train.__name__}-{way}"] = cuts
        kept = {**plain, "store": "memory", "directory": out / train.__name__}
        try:
            train(**kept, callbacks=[Stop()])
        except KeyboardInterrupt:
            run = train(**kept)
        save(out, f"{train.__name__}-resumed", run.model)
    without = _consistency.make_model()
    data = _consistency.make_data()
    ktr.fine_tune(without, data, **plain, store="memory")
    save(out, "loss-without", without)
    (out / "cached.json").write_text(json.dumps(cached))


def save(out, name, model):
    arrays = [np.array(variable) for variable in model.variables]
    np.savez(out / f"{name}.npz", *arrays)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
