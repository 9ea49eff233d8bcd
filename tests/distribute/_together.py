"""`python -m distribute._together OUT`: one of the workers."""

import json
import os
import sys
from pathlib import Path

import keras
import numpy as np

import keras_transfer as ktr


@keras.saving.register_keras_serializable("tests")
class Counter(keras.layers.Layer):
    """Writes down how many examples pass."""

    counted = 0

    def call(self, inputs):
        import tensorflow as tf

        def count(batch):
            Counter.counted += len(batch)
            return batch

        outputs = tf.numpy_function(count, [inputs], inputs.dtype)
        return tf.ensure_shape(outputs, inputs.shape)


def make_backbone(counter):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((8, 8, 3))
    x = counter(inputs)
    x = keras.layers.Conv2D(4, 3, name="block_1_conv")(x)
    network = keras.Model(inputs, x, name="counted")
    return ktr.load_backbone(network, pixel_range="[0, 1]")


def main(out):
    """Extracts, and writes down what and how many passed."""
    devices = ktr.connect_workers(timeout=200)
    rank = json.loads(os.environ["TF_CONFIG"])["task"]["index"]
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (41, 8, 8, 3)).astype("uint8")
    backbone = make_backbone(Counter())
    memory = ktr.FeatureStore()
    if rank == 0:  # One of them knows some already.
        ktr.extract_features(backbone, images[:7], store=memory, verbose=0)
    for place, store in (("folder", Path(out) / "store"), ("memory", memory)):
        Counter.counted = 0
        counts = []
        for number in range(2):  # The second time everything is there.
            features = ktr.extract_features(
                backbone,
                images,
                store=store,
                devices=devices,
                batch_size=4,
                verbose=0,
            )
            counts.append(Counter.counted)
            if number == 0:
                np.save(Path(out) / f"{place}-{rank}.npy", features.values)
        Path(out, f"{place}-{rank}.json").write_text(json.dumps(counts))


if __name__ == "__main__":
    main(*sys.argv[1:])
