"""`python -m distribute._unfit WHAT`: a worker with something wrong."""

import json
import os
import sys

import keras_transfer as ktr


def main(what):
    """Ends in an error."""
    if what == "late":
        import tensorflow as tf

        tf.constant(0)
    devices = ktr.connect_workers(timeout=2 if what == "peer" else 60)
    rank = json.loads(os.environ["TF_CONFIG"])["task"]["index"]
    from training._tiny import make_images, make_model

    if what == "raises" and rank == 1:
        raise FileNotFoundError("there are no images here")
    seed = rank if what == "data" else 0
    ktr.fine_tune(
        make_model(),
        make_images(24, seed),
        batch_size=1 if what == "batch" else 8,
        epochs=2,
        devices=devices,
        verbose=0,
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
