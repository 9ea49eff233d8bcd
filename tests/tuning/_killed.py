"""Kills searches with SIGKILL at random moments and lets others finish them.

Run as `python -m tuning._killed FOLDER KILLS SEED` in `tests/`. TensorFlow is
imported once and not used here, so that each search can be a fork. A moment is
a number of epochs, so that the speed of the machine is no matter. Prints a line
of JSON for each kill: the moment, what the killed search left, and the largest
difference of the numbers of the table in the end to those of one in peace.
"""

import csv
import json
import os
import random
import signal
import sys
import time
import traceback
from pathlib import Path

import keras

import keras_transfer as ktr
from keras_transfer.training.loop import TrainingLoop

SPACE = {
    "learning_rate": (1e-3, 1e-1),
    "lambda_": [0, (1e-2, 1.0)],
    "depth": [0, 1, 2],
}
TRIALS, EPOCHS = 6, 2
NUMBERS = ("learning_rate", "lambda", "depth", "val_loss", "val_accuracy")


def search(directory, log):
    """A search that writes down each epoch."""
    from training._tiny import make_data, make_model

    record = TrainingLoop._record

    def noting(self, run, row):
        continues = record(self, run, row)
        with open(log, "a") as file:
            file.write("x")
        return continues

    TrainingLoop._record = noting
    ktr.search(
        make_model(),
        make_data(),
        space=SPACE,
        max_trials=TRIALS,
        epochs=EPOCHS,
        oracle="bayesian",
        directory=directory,
        store=f"{directory}-store",
        verbose=0,
    )


def start(directory, log):
    """Forks a search."""
    child = os.fork()
    if child:
        return child
    try:
        search(directory, log)
        os._exit(0)
    except BaseException:
        traceback.print_exc()
        os._exit(1)


def finish(directory, log):
    """Searches to the end; returns the table."""
    _, status = os.waitpid(start(directory, log), 0)
    if status:
        sys.exit(f"a search in {directory} failed")
    with open(directory / "table.csv", newline="") as file:
        return {row["trial"]: row for row in csv.DictReader(file)}


def wait_for(file, size):
    """Until so many epochs have passed."""
    end = time.monotonic() + 120
    while (file.stat().st_size if file.exists() else 0) < size:
        if time.monotonic() > end:
            raise TimeoutError(f"{file} has not grown to {size} bytes")
        time.sleep(0.001)


def main(folder, kills, seed):
    """Kills `kills` searches."""
    expected = finish(folder / "peace", folder / "peace.log")
    epochs = (folder / "peace.log").stat().st_size
    generator = random.Random(seed)
    for number in range(kills):
        directory, log = folder / f"search{number}", folder / f"{number}.log"
        child = start(directory, log)
        # One in each of as many parts of the search.
        moment = int((number + generator.random()) / kills * epochs)
        wait_for(log, moment)
        time.sleep(generator.uniform(0, 0.1))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        left = len(list(directory.glob("trials/*.json")))
        again = folder / f"{number}-again.log"
        table = finish(directory, again)
        gap = max(
            abs(float(table[trial][name] or 0) - float(row[name] or 0))
            for trial, row in expected.items()
            for name in NUMBERS
        )
        print(
            json.dumps(
                {
                    "moment": moment,
                    "left": left,
                    "again": again.stat().st_size if again.exists() else 0,
                    "same_trials": sorted(table) == sorted(expected),
                    "difference": gap,
                    "epochs": epochs,
                }
            ),
            flush=True,
        )


if __name__ == "__main__":
    keras.config.disable_interactive_logging()
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
