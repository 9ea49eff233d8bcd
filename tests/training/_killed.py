"""Kills runs with SIGKILL at random moments and lets others finish them.

Run as `python -m training._killed FOLDER KILLS SEED` in `tests/`. TensorFlow is
imported once and not used here, so that each run can be a fork. Prints a line
of JSON for each kill: the moment in seconds, what the killed run left, and the
largest difference of the weights in the end to those of a run in peace.
"""

import json
import os
import random
import signal
import sys
import time
import traceback
from pathlib import Path

import keras
import numpy as np

import keras_transfer as ktr

from . import _tiny

PHASES = (
    ktr.Phase("head", depth=0, epochs=2, learning_rate=1e-2),
    ktr.Phase("two", depth=2, epochs=3, learning_rate=1e-2, layer_decay=0.5),
)


def train(directory):
    """A run with everything that has a state: moments, EMA, dropout, order."""
    parts = {
        name: _tiny.make_images(count, seed)
        for seed, (name, count) in enumerate(
            {"train": 40, "validation": 18}.items()
        )
    }
    model = _tiny.make_model(dropout=0.3)
    ktr.fine_tune(
        model,
        ktr.load_images(parts, split=(1.0, 0.0, 0.0)),
        strategy=PHASES,
        penalty=ktr.L2SP(0.1),
        augment=ktr.Augmentation(),
        batch_size=8,
        ema_momentum=0.9,
        directory=directory,
        verbose=0,
    )
    return _tiny.arrays_of(model)


def start(directory, result):
    """Forks a run; its weights are in `result` when it is done."""
    child = os.fork()
    if child:
        return child
    try:
        arrays = train(directory)
        partial = result.with_suffix(".partial.npz")
        np.savez(partial, *arrays)
        os.replace(partial, result)
        os._exit(0)
    except BaseException:
        traceback.print_exc()
        os._exit(1)


def finish(directory, result):
    """Runs to the end; returns the weights and the seconds."""
    started = time.monotonic()
    _, status = os.waitpid(start(directory, result), 0)
    if status:
        sys.exit(f"a run in {directory} failed")
    with np.load(result) as file:
        arrays = [file[f"arr_{i}"] for i in range(len(file.files))]
    return arrays, time.monotonic() - started


def main(folder, kills, seed):
    """Kills `kills` runs."""
    expected, seconds = finish(folder / "peace", folder / "peace.npz")
    generator = random.Random(seed)
    for number in range(kills):
        directory = folder / f"run{number}"
        result = folder / f"run{number}.npz"
        # One in each of as many parts of the run.
        moment = (number + generator.uniform(0, 1)) / kills * seconds
        child = start(directory, result)
        time.sleep(moment)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        left = sorted(file.name for file in directory.glob("*"))
        arrays, _ = finish(directory, result)
        gap = max(
            float(np.abs(a.astype("float64") - b.astype("float64")).max())
            for a, b in zip(arrays, expected, strict=True)
        )
        print(
            json.dumps({"moment": moment, "left": left, "difference": gap}),
            flush=True,
        )


if __name__ == "__main__":
    keras.config.disable_interactive_logging()
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
