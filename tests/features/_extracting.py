"""A network that counts what passes it, and extraction in other processes.

`python -m features._extracting COMMAND ...` in `tests/` prints a line of JSON.
TensorFlow is imported once and not used before a fork.
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
from keras_transfer.caching import filling
from keras_transfer.caching.store import FeatureStore
from keras_transfer.features import extract_features

from . import _counting


def make_images(count, seed=0, size=8):
    generator = np.random.default_rng(seed)
    return generator.integers(0, 256, (count, size, size, 3), dtype="uint8")


def make_network(seed=0, swap=False, name="tiny", bias=0.5, size=8):
    """Three blocks: a counter, BatchNormalization, a constant, a join.

    Args:
        seed: Of the weights.
        swap: Whether two inputs of a subtraction change places.
        name: Of the network.
        bias: A constant in the graph, no weight.
        size: Of the images.
    """
    generator = np.random.default_rng(seed)
    inputs = keras.Input((size, size, 3))
    x = _counting.Counting(name="block_1_count")(inputs)
    for number, filters in enumerate((4, 6), start=1):
        x = keras.layers.Conv2D(
            filters, 3, padding="same", name=f"block_{number}_conv"
        )(x)
        x = keras.layers.BatchNormalization(name=f"block_{number}_norm")(x)
        x = keras.layers.ReLU(name=f"block_{number}_relu")(x)
    # Layers that nobody named: Keras numbers them by process.
    pair = [keras.layers.Conv2D(5, 1) for _ in range(2)]
    ends = [layer(x) for layer in pair]
    x = keras.layers.Subtract(name="block_3_join")(ends[::-1] if swap else ends)
    network = keras.Model(inputs, x + bias, name=name)
    named = [
        layer for layer in network.layers if layer.name.startswith("block")
    ]
    for layer in (*named, *pair):
        for variable in layer.weights:
            variable.assign(generator.uniform(0.1, 0.5, variable.shape))
    return network


def make_backbone(pixel_range="[0, 1]", **options):
    return ktr.load_backbone(make_network(**options), pixel_range=pixel_range)


def passed():
    """How often each image passed since the last call, by content."""
    counts = list(_counting.COUNTS.values())
    _counting.COUNTS.clear()
    return counts


def extract(data, store, backbones=None, **options):
    """Returns features, and how many images passed a network."""
    _counting.COUNTS.clear()
    features = extract_features(
        make_backbone() if backbones is None else backbones,
        data,
        store=store,
        **{"verbose": 0, **options},
    )
    return features, sum(passed())


def elsewhere(directory):
    """Extracts in another process, where Keras counts layers from elsewhere."""
    for _ in range(7):
        keras.layers.Conv2D(2, 3)(keras.Input((8, 8, 3)))
    store = FeatureStore(directory)
    _, passes = extract(make_images(10), store, layers="*")
    keys = sorted(info.key for info in store.ls())
    return {"passes": passes, "keys": keys}


def mirrored(directory):
    """Two devices, under one strategy: as one."""
    import tensorflow as tf

    cpus = tf.config.list_physical_devices("CPU")
    parts = [tf.config.LogicalDeviceConfiguration()] * 2
    tf.config.set_logical_device_configuration(cpus[0], parts)
    with tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]).scope():
        found, passes = extract(make_images(10), directory, views=3)
        _, again = extract(make_images(10), directory, views=3)
    expected, _ = extract(make_images(10), "memory", views=3)
    _, outside = extract(make_images(10), directory, views=3)
    gap = np.abs(found.all_views - expected.all_views).max()
    return {"passes": [passes, again, outside], "difference": float(gap)}


# --- Killed and racing ---

KILLED = {"count": 48, "views": 2}


class Log(_counting.Counting):
    """Writes down what passes, so that it outlives the process; not fast."""

    file = os.devnull

    def call(self, x):
        import tensorflow as tf

        def note(examples):
            with open(Log.file, "a") as file:
                file.write("x" * len(examples))
            time.sleep(0.02)
            return np.int64(0)

        noted = tf.numpy_function(note, [x], tf.int64)
        with tf.control_dependencies([noted]):
            return tf.identity(x)


def start(directory, result):
    """Forks an extraction; its features are in `result` when it is done."""
    child = os.fork()
    if child:
        return child
    try:
        Log.file = str(result.with_suffix(".log"))
        Path(Log.file).touch()
        _counting.Counting = Log
        filling._SHARD_BYTES = 200  # A shard for each batch.
        found, _ = extract(
            make_images(KILLED["count"]),
            directory,
            views=KILLED["views"],
            layers="*",
            batch_size=4,
        )
        partial = result.with_suffix(".partial.npy")
        np.save(partial, found.all_views)
        os.replace(partial, result)
        os._exit(0)
    except BaseException:
        traceback.print_exc()
        os._exit(1)


def finish(child, result):
    """Waits; returns the features, and how many images passed."""
    _, status = os.waitpid(child, 0)
    if status:
        sys.exit(f"an extraction to {result} failed")
    return np.load(result), result.with_suffix(".log").stat().st_size


def rows_left(directory):
    """(image, view) pairs that all three blocks are stored of."""
    rows = {}
    for info in FeatureStore(directory).ls():
        kind = info.description["view"]["kind"]
        rows.setdefault(kind, []).append(info.rows)
    return sum(min(some) for some in rows.values() if len(some) == 3)


def wait_for(file, size):
    """Until so many images have passed; how fast the machine is is no matter.

    Raises:
        TimeoutError: If they have not after two minutes.
    """
    end = time.monotonic() + 120
    while not file.exists() or file.stat().st_size < size:
        if time.monotonic() > end:
            raise TimeoutError(f"{file} has not grown to {size} bytes")
        time.sleep(0.001)


def kill(folder, kills, seed):
    """Kills extractions at random moments and lets others finish them."""
    folder = Path(folder)
    result = folder / "peace.npy"
    expected, passes = finish(start(folder / "peace", result), result)
    generator = random.Random(int(seed))
    killed = []
    for number in range(int(kills)):
        directory = folder / f"store{number}"
        child = start(directory, folder / f"first{number}.npy")
        # One in each of as many parts of the extraction.
        moment = int((number + generator.random()) / int(kills) * passes)
        wait_for(folder / f"first{number}.log", moment)
        time.sleep(generator.uniform(0, 0.03))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        left = rows_left(directory)
        result = folder / f"second{number}.npy"
        found, again = finish(start(directory, result), result)
        killed.append(
            {
                "moment": moment,
                "left": left,
                "passes": again,
                "damaged": FeatureStore(directory).verify(),
                "difference": float(np.abs(found - expected).max()),
            }
        )
    return {"passes": passes, "killed": killed}


def race(folder, runners):
    """Lets several processes extract the same to one store at once."""
    folder = Path(folder)
    results = [folder / f"runner{i}.npy" for i in range(int(runners))]
    children = [start(folder / "store", result) for result in results]
    found = [finish(*pair) for pair in zip(children, results, strict=True)]
    gap = max(float(np.abs(f - found[0][0]).max()) for f, _ in found)
    return {"passes": [passes for _, passes in found], "difference": gap}


if __name__ == "__main__":
    keras.config.disable_interactive_logging()
    answer = globals()[sys.argv[1]](*sys.argv[2:])
    print(json.dumps(answer), flush=True)
