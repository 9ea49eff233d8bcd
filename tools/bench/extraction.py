r"""Speed and memory of feature extraction, and of reading features back.

    python tools/bench/extraction.py --weights FILE [--files FOLDER]

All use MobileNetV2 0.35 at 96 pixels.

- `engines`: speed of OpenVINO in float32 (if installed) relative to TensorFlow,
  for the network alone, compiled beforehand; claim 1.3.
- `loop`: speed of `extract_features` on arrays relative to a bare `tf.function`
  on slices of the same arrays; claim 1.0.
- `files`: the same, from the JPEG files of FOLDER (one sub-folder per class),
  relative to a bare loop over decoded arrays, to measure the cost of decoding.
- `read`: examples per second read from the store after block_12, shuffled,
  relative to training of the layers above; claim 5.
- `memory`: peak memory of a process that extracts `--many` files of FOLDER to
  disk, at most 2 GB, and the speed of the last quarter relative to the first.

Ratios are medians over paired rounds. Prints a JSON line for each, and fails if
a claim does not hold.
"""

import argparse
import importlib.util
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SIZE = 96


def main(options: argparse.Namespace) -> None:
    """Runs the selected benchmarks."""
    failed = []
    for what in options.what:
        if what in ("files", "memory") and options.files is None:
            continue
        if what == "engines" and importlib.util.find_spec("openvino") is None:
            print("engines: OpenVINO is not installed")
            continue
        if what == "memory":
            command = [sys.executable, __file__, "--what", "child"]
            command += ["--weights", options.weights]
            command += ["--files", options.files, "--many", str(options.many)]
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode:
                sys.exit(done.stderr)
            row = json.loads(done.stdout.splitlines()[-1])
        else:
            row = {
                "child": child,
                "loop": loop,
                "engines": engines,
                "files": files,
                "read": read,
            }[what](options)
        print(json.dumps(row), flush=True)
        if what != "child" and not row.get("holds", True):
            failed.append(what)
    if failed:
        sys.exit(f"below the claim: {', '.join(failed)}")


def backbone_of(options):
    """Returns the backbone under test."""
    import keras_transfer as ktr

    return ktr.load_backbone(
        "MobileNetV2",
        alpha=0.35,
        weights=options.weights,
        input_shape=(SIZE, SIZE, 3),
    )


def bare_loop(backbone, images):
    """Returns a hand-written loop: a compiled function on slices."""
    import keras
    import numpy as np
    import tensorflow as tf

    pixels = keras.Input((SIZE, SIZE, 3))
    x = backbone.model(backbone.preprocessing(pixels))
    network = keras.Model(pixels, keras.layers.GlobalAveragePooling2D()(x))

    @tf.function(
        input_signature=[tf.TensorSpec((None, SIZE, SIZE, 3), tf.uint8)]
    )
    def compute(batch):
        return network(tf.cast(batch, tf.float32), training=False)

    def run():
        features = [
            compute(images[start : start + 32]).numpy()
            for start in range(0, len(images), 32)
        ]
        return np.concatenate(features)

    compute(images[:32])
    return run


def paired(bare, ours, rounds: int):
    """Returns the median ratio of seconds, and the seconds of each round."""
    ratios, seconds = [], []
    for _ in range(rounds):
        times = []
        for function in (bare, ours):
            started = time.perf_counter()
            function()
            times.append(time.perf_counter() - started)
        ratios.append(times[0] / times[1])
        seconds.append([round(t, 2) for t in times])
    return statistics.median(ratios), seconds


def loop(options) -> dict:
    """Compares extraction from arrays with a bare loop."""
    import numpy as np

    import keras_transfer as ktr

    backbone = backbone_of(options)
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (2000, SIZE, SIZE, 3), "uint8")
    quiet = {"store": "memory", "verbose": 0}
    # The bare loop is compiled beforehand, so subtract compilation from ours.
    compiling = min(
        timed(lambda: ktr.extract_features(backbone, images[:32], **quiet))
        for _ in range(2)
    )
    bare = bare_loop(backbone, images)
    ratio, seconds = paired(
        bare,
        lambda: ktr.extract_features(backbone, images, **quiet),
        options.rounds,
    )
    adjusted = statistics.median(a / (b - compiling) for a, b in seconds)
    return {
        "what": "loop",
        "ratio": round(adjusted, 3),
        "with_compiling": round(ratio, 3),
        "compiling_seconds": round(compiling, 2),
        "seconds": seconds,
        "claim": 1.0,
        "holds": adjusted >= 1.0,
    }


def engines(options) -> dict:
    """Compares OpenVINO with TensorFlow, for the network alone."""
    import keras
    import numpy as np

    from keras_transfer.caching.engines import choose_engine

    backbone = backbone_of(options)
    pixels = keras.Input((SIZE, SIZE, 3))
    x = backbone.model(backbone.preprocessing(pixels))
    network = keras.Model(pixels, keras.layers.GlobalAveragePooling2D()(x))
    images = np.random.default_rng(0).uniform(0, 255, (512, SIZE, SIZE, 3))
    images = images.astype("float32")
    runs = {}
    for engine in ("tensorflow", "openvino", "openvino-bfloat16"):
        _, compute = choose_engine(engine, network, (SIZE, SIZE, 3), 512)

        def run(compute=compute):
            for start in range(0, len(images), 32):
                compute(images[start : start + 32])

        run()
        runs[engine] = run
    ratio, seconds = paired(
        runs["tensorflow"], runs["openvino"], options.rounds
    )
    short, _ = paired(
        runs["tensorflow"], runs["openvino-bfloat16"], options.rounds
    )
    return {
        "what": "engines",
        "ratio": round(ratio, 3),
        "bfloat16": round(short, 3),
        "seconds": seconds,
        "claim": 1.3,
        "holds": ratio >= 1.3,
    }


def timed(function) -> float:
    """Returns the seconds of a call."""
    started = time.perf_counter()
    function()
    return time.perf_counter() - started


def files(options) -> dict:
    """Compares extraction from JPEG files with a loop over decoded arrays."""
    import keras_transfer as ktr

    backbone = backbone_of(options)
    data = ktr.load_images(options.files, image_size=SIZE, split=(1, 0, 0))
    train = data.train.subset(range(min(2000, len(data.train))))
    images, _ = train.arrays()
    ratio, seconds = paired(
        bare_loop(backbone, images),
        lambda: ktr.extract_features(
            backbone, train, store="memory", verbose=0
        ),
        options.rounds,
    )
    return {"what": "files", "ratio": round(ratio, 3), "seconds": seconds}


def read(options) -> dict:
    """Compares reading from the store with training on the features."""
    import keras
    import numpy as np

    import keras_transfer as ktr
    from keras_transfer.caching.compiled import compiled
    from keras_transfer.caching.cuts import Cut, halves, network_to
    from keras_transfer.caching.feeds import feed_inputs
    from keras_transfer.caching.filling import fill, open_entries
    from keras_transfer.caching.store.reader import Reader
    from keras_transfer.caching.store.store import FeatureStore
    from keras_transfer.caching.views import make_views
    from keras_transfer.data.examples import examples_of

    model = ktr.build_classifier(backbone_of(options), 10)
    ktr.unfreeze(model, 4)
    cut = Cut(4, False, "after block_12")
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (1000, SIZE, SIZE, 3), "uint8")
    examples, views = examples_of(images), make_views(1)
    network = network_to(model, [cut])
    suffix = halves(model, cut)[1]
    suffix.compile("adam", "categorical_crossentropy")
    with tempfile.TemporaryDirectory() as folder:
        store = FeatureStore(Path(folder) / "store")
        entries = open_entries(store, [network], examples, views)
        compute = compiled(network, examples.shape)
        feed = feed_inputs(examples, compute, [1], views, 32)
        fill(store, entries, examples.digests, feed)
        labels = keras.utils.to_categorical(np.arange(1000) % 10, 10)
        reader = Reader(entries[0], examples.digests, labels)
        batches = reader.batches(32, shuffle=True)
        suffix.fit(batches, epochs=1, verbose=0, shuffle=False)
        ratio, seconds = paired(
            lambda: suffix.fit(batches, epochs=2, verbose=0, shuffle=False),
            lambda: [None for _ in range(2) for _ in batches],
            options.rounds,
        )
    return {
        "what": "read",
        "ratio": round(ratio, 1),
        "seconds": seconds,
        "claim": 5.0,
        "holds": ratio >= 5.0,
    }


def child(options) -> dict:
    """Extracts many files to disk, and measures memory and speed."""
    import keras_transfer as ktr

    backbone = backbone_of(options)
    data = ktr.load_images(options.files, image_size=SIZE, split=(1, 0, 0))
    train = data.train.subset(range(min(options.many, len(data.train))))
    quarters = []
    with tempfile.TemporaryDirectory() as folder:
        step = len(train) // 4
        for start in range(0, 4 * step, step):
            part = train.subset(range(start, start + step))
            quarters.append(
                timed(
                    lambda part=part: ktr.extract_features(
                        backbone, part, store=folder + "/store", verbose=0
                    )
                )
            )
        started = time.perf_counter()
        features = ktr.extract_features(
            backbone, train, store=folder + "/store", verbose=0
        )
        total = sum(float(chunk.sum()) for chunk in features.chunks(4096))
        again = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {
        "what": "memory",
        "images": 4 * step,
        "peak_gb": round(peak / 1e9, 3),
        "images_per_second": [round(step / s) for s in quarters],
        "last_over_first": round(quarters[0] / quarters[-1], 2),
        "seconds_to_find_all": round(again, 1),
        "sum": total,
        "holds": peak < 2e9 and quarters[0] / quarters[-1] > 0.8,
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--weights", required=True)
    parser.add_argument("--files")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--many", type=int, default=50_000)
    parser.add_argument(
        "--what",
        nargs="*",
        default=["loop", "engines", "files", "read", "memory"],
    )
    main(parser.parse_args())
