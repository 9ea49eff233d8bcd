"""Speed of `fine_tune` relative to a bare `model.fit`, in steps per second.

    python tools/bench/overhead.py
    python tools/bench/overhead.py --replicas 2

Both use the same model, images, optimizer and batch size, with random weights
and no files. Their epochs alternate in one process, to expose them to the same
noise. With several replicas both train under `tf.distribute.MirroredStrategy`,
on logical CPUs. Prints a JSON line with the median ratio of paired rounds, and
fails below 0.97, or 0.95 with several replicas.
"""

import argparse
import json
import statistics
import sys
import time

import keras
import numpy as np
import tensorflow as tf

import keras_transfer as ktr


class Clock(keras.callbacks.Callback):
    """Measures the seconds of the training steps of each epoch."""

    def __init__(self):
        super().__init__()
        self.seconds = []

    def on_train_batch_begin(self, batch, logs=None):
        if batch == 0:
            self._started = time.perf_counter()

    def on_train_batch_end(self, batch, logs=None):
        self._stopped = time.perf_counter()

    def on_epoch_end(self, epoch, logs=None):
        self.seconds.append(self._stopped - self._started)


def main(options: argparse.Namespace) -> None:
    """Measures and prints the ratio."""
    (cpu,) = tf.config.list_physical_devices("CPU")
    tf.config.set_logical_device_configuration(
        cpu, [tf.config.LogicalDeviceConfiguration()] * options.replicas
    )
    devices, claim = None, 0.97
    if options.replicas > 1:
        claim = 0.95
        devices = tf.distribute.MirroredStrategy(
            [f"CPU:{number}" for number in range(options.replicas)],
            cross_device_ops=tf.distribute.ReductionToOneDevice(),
        )
    keras.utils.set_random_seed(0)
    generator = np.random.default_rng(0)
    size = options.size
    images = generator.integers(
        0, 256, (options.images, size, size, 3), "uint8"
    )
    labels = np.eye(10, dtype="float32")[np.arange(len(images)) % 10]
    bare, ours = build(size, devices), build(size, devices)
    with bare.distribute_strategy.scope():
        bare.compile("adam", "categorical_crossentropy", metrics=["accuracy"])
    ratios = []
    for _ in range(options.rounds):
        first = Clock()
        bare.fit(
            images,
            labels,
            batch_size=32,
            epochs=2,
            verbose=0,
            callbacks=[first],
        )
        second = Clock()
        phase = ktr.Phase("all", depth="all", epochs=2, schedule="one-cycle")
        ktr.fine_tune(
            ours,
            (images, labels),
            strategy=[phase],
            batch_size=32,
            callbacks=[second],
            verbose=0,
        )
        # The first epoch traces.
        ratios.append(first.seconds[1] / second.seconds[1])
    ratio = statistics.median(ratios)
    print(
        json.dumps(
            {
                "benchmark": "steps per second, fine_tune / model.fit",
                "ratio": round(ratio, 4),
                "rounds": [round(r, 4) for r in ratios],
                "replicas": options.replicas,
                "claim": claim,
            }
        )
    )
    sys.exit(ratio < claim)


def build(size: int, devices: tf.distribute.Strategy | None) -> keras.Model:
    """Builds a classifier whose backbone trains."""
    backbone = ktr.load_backbone(
        "MobileNetV2", alpha=0.35, weights=None, input_shape=(size, size, 3)
    )
    model = ktr.build_classifier(backbone, num_classes=10, devices=devices)
    ktr.unfreeze(model, "all")
    return model


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--images", type=int, default=640)
    parser.add_argument("--size", type=int, default=96)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--replicas", type=int, default=1)
    main(parser.parse_args())
