"""`python -m distribute._worker DIRECTORY OUT`: one of the workers of a run."""

import sys
import time
from pathlib import Path

import keras
import numpy as np

import keras_transfer as ktr


class Slowly(keras.callbacks.Callback):
    """Leaves time to be killed in."""

    def on_train_batch_end(self, batch, logs=None):
        time.sleep(0.05)


def main(directory, out):
    """Trains for 8 epochs, and writes the weights down."""
    devices = ktr.connect_workers(timeout=200)
    from training._tiny import arrays_of, make_data, make_model

    model = make_model()
    print("begins", flush=True)
    ktr.fine_tune(
        model,
        make_data(),
        strategy=[
            ktr.Phase(depth=1, epochs=4, learning_rate=1e-2),
            ktr.Phase(depth="all", epochs=4, learning_rate=1e-3),
        ],
        penalty=ktr.L2SP(0.1, 0.1),
        batch_size=14,
        directory=directory,
        devices=devices,
        callbacks=[Slowly()],
        verbose=1,
    )
    np.savez(Path(out), *arrays_of(model))
    print("ends", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
