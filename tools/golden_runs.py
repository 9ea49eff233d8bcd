"""Weights of ten small runs, to compare a refactoring with what was before.

    python tools/golden_runs.py record before.npz
    python tools/golden_runs.py compare before.npz

Run `record` twice at the commit before the change, `compare` in between, to see
that the runs repeat themselves to the bit on this machine: another processor
may add numbers in another order. `compare` prints one line a run and fails
unless every array is the same. Each run is a process of its own, on one
thread, about two minutes in all.
"""

import argparse
import inspect
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]


def _arrays(model):
    return [np.array(variable) for variable in model.variables]


def _fine_tune(model, data, **arguments):
    """Calls `fine_tune` with the names that its arguments have today."""
    import keras_transfer as ktr

    known = inspect.signature(ktr.fine_tune).parameters
    for new, old in (
        ("ema_momentum", "ema"),
        ("global_clipnorm", "clip_norm"),
        ("gradient_accumulation_steps", "accumulation_steps"),
    ):
        if new in arguments and new not in known:
            arguments[old] = arguments.pop(new)
    ktr.fine_tune(model, data, verbose=0, epochs=3, **arguments)
    return _arrays(model)


def _one(**arguments):
    def run(tiny, data):
        return _fine_tune(tiny.make_model(), data, **arguments)

    return run


def _resumed(tiny, data):
    import keras

    class Stop(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 2:
                raise KeyboardInterrupt

    with tempfile.TemporaryDirectory() as folder:
        arguments = {
            "strategy": "lp-ft",
            "depth": 2,
            "ema_momentum": 0.8,
            "directory": Path(folder) / "run",
        }
        try:
            _fine_tune(tiny.make_model(), data, callbacks=[Stop()], **arguments)
        except KeyboardInterrupt:
            pass
        else:
            raise RuntimeError("the run was not stopped")
        return _fine_tune(tiny.make_model(), data, **arguments)


def _two_replicas(tiny, data):
    return _fine_tune(
        tiny.make_model(),
        data,
        strategy="fine-tune",
        depth=2,
        devices=2,
        batch_size=14,
        store=False,
    )


def _search(tiny, data):
    import keras_transfer as ktr

    known = inspect.signature(ktr.search).parameters
    count = "max_trials" if "max_trials" in known else "trials"
    result = ktr.search(
        tiny.make_model(),
        data,
        space={
            "learning_rate": [1e-3, 1e-2],
            "lambda_": 0.1,
            "depth": [0, 1, 2],
        },
        oracle="grid",
        epochs=2,
        parallel=1,
        verbose=0,
        **{count: 6},
    )
    scores = [float(row["val_loss"]) for row in result.rows]
    return [*_arrays(result.best_model), np.array(scores)]


RUNS = {
    "linear-probe": _one(strategy="linear-probe"),
    "lp-ft": _one(strategy="lp-ft", depth=1),
    "fine-tune": _one(strategy="fine-tune", depth=2, class_weight="balanced"),
    "gradual-unfreezing": _one(
        strategy="gradual-unfreezing", global_clipnorm=1.0
    ),
    "from-scratch": _one(strategy="from-scratch"),
    "cached": _one(strategy="fine-tune", depth=1, store="memory"),
    "direct": _one(
        strategy="fine-tune",
        depth=1,
        store=False,
        gradient_accumulation_steps=2,
    ),
    "resumed": _resumed,
    "two-replicas": _two_replicas,
    "search": _search,
}


def _run(name, out):
    """Runs one, in a process that was started for it."""
    sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    (cpu,) = tf.config.list_physical_devices("CPU")
    count = 2 if name == "two-replicas" else 1
    tf.config.set_logical_device_configuration(
        cpu, [tf.config.LogicalDeviceConfiguration()] * count
    )
    import keras
    from training import _tiny as tiny

    keras.utils.set_random_seed(0)
    np.savez(out, *RUNS[name](tiny, tiny.make_data()))


def _run_all():
    found = {}
    for name in RUNS:
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder) / "weights.npz"
            command = [sys.executable, __file__, "run", name, str(out)]
            environment = os.environ | {
                "KERAS_TRANSFER_CACHE": folder,
                "TF_CPP_MIN_LOG_LEVEL": "3",
            }
            subprocess.run(command, check=True, env=environment)
            with np.load(out) as file:
                found |= {f"{name}/{key}": file[key] for key in file.files}
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("action", choices=("record", "compare", "run"))
    parser.add_argument("names", nargs="+")
    options = parser.parse_args()
    if options.action == "run":
        _run(*options.names)
        return None
    found = _run_all()
    path = options.names[0]
    if options.action == "record":
        np.savez(path, **found)
        return None
    with np.load(path) as file:
        known = {key: file[key] for key in file.files}
    different = known.keys() ^ found.keys() | {
        key
        for key in known.keys() & found.keys()
        if known[key].tobytes() != found[key].tobytes()
    }
    for name in RUNS:
        own = [key for key in different if key.startswith(f"{name}/")]
        count = sum(key.startswith(f"{name}/") for key in known)
        print(f"{name}: {len(own)} of {count} arrays differ")
    return 1 if different else None


if __name__ == "__main__":
    sys.exit(main())
