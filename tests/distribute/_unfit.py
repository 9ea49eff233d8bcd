"""`python -m distribute._unfit WHAT`: a worker with something wrong."""

import json
import os
import sys
import time

import keras

import keras_transfer as ktr


def main(what, out=""):
    """Ends in an error."""
    if what == "late":
        import tensorflow as tf

        tf.constant(0)
    devices = ktr.connect_workers(
        timeout=2 if what == "peer" else 200,
        patience=15 if what == "caught" else 3600,
    )
    rank = json.loads(os.environ["TF_CONFIG"])["task"]["index"]
    from training._tiny import make_images, make_model

    if what == "raises" and rank == 1:
        raise FileNotFoundError("there are no images here")
    if what == "caught" and rank == 0:
        time.sleep(600)  # As if an error had been caught.
    other = rank if what == "arguments" else 0

    def fine_tune(data, **arguments):
        common = {"batch_size": 8, "epochs": 1, "verbose": 0}
        ktr.fine_tune(make_model(), data, devices=devices, **common | arguments)

    if what == "arguments":
        import tensorflow as tf

        # Each worker has an order of its own.
        dataset = tf.data.Dataset.from_tensor_slices(make_images(24))
        dataset = dataset.shuffle(24).batch(8)
        save = keras.callbacks.ModelCheckpoint
        for call in (
            lambda: make_model(devices=devices),
            lambda: fine_tune(make_images(24), batch_size=1),
            lambda: fine_tune(dataset),
            lambda: fine_tune(
                make_images(24), callbacks=[save(f"{out}/{rank}.keras")]
            ),
        ):
            try:
                call()
            except (ValueError, TypeError) as err:
                print(err, flush=True)
    fine_tune(
        make_images(24, other),
        epochs=1 + other,
        store=False if other else "memory",
        callbacks=[]
        if other or what != "arguments"
        else [keras.callbacks.ModelCheckpoint(f"{out}/last.keras")],
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
