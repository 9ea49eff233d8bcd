r"""Speed-up over the recipe of the Keras guide, in total seconds.

    python tools/bench/frozen_prefix.py --images FOLDER --weights FILE

FOLDER holds `train/<class>/*.jpg` and `test/<class>/*.jpg`, FILE the weights of
MobileNetV2 0.35. Each run is a separate process, and its time includes
everything after the import of TensorFlow: reading and decoding files, building,
compiling, extraction and training. Baseline and ours alternate; the ratio is
the median over pairs.

- `probe`: a linear probe, 20 epochs.
- `exact`: the exact probe against the same baseline; its test accuracy must not
  be lower.
- `large`: 4,000 images (training images in several brightnesses), 30 epochs.
- `depth`: the last 1, 2, 4 or 8 blocks, 10 epochs, against plain Keras with the
  same trainable variables. The claim is 85 % of the bound
  `[f + 3(1-f)] / [f/P + 3(1-f)]`, with f from measured forward passes.

Prints a JSON line for each, and fails if a claim does not hold.

The recipe: https://keras.io/guides/transfer_learning/
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

CLAIMS = {"probe": 7.0, "exact": 9.0, "large": 15.0, "depth": 0.85}
EPOCHS = {"probe": 20, "exact": 20, "large": 30, "depth": 10}
SIZE = 160
MANY = 4000


def main(options: argparse.Namespace) -> None:
    """Runs all pairs, and prints their ratios."""
    failed = []
    with tempfile.TemporaryDirectory() as folder:
        for what in options.what:
            images = Path(options.images)
            if what == "large":
                images = multiply(images, Path(folder))
            for depth in options.depths if what == "depth" else [0]:
                row = compare(options, what, images, depth)
                print(json.dumps(row), flush=True)
                if row["measured"] < row["claim"]:
                    failed.append(f"{what} {depth}")
    if failed:
        sys.exit(f"below the claim: {', '.join(failed)}")


def compare(options, what: str, images: Path, depth: int) -> dict:
    """Returns the ratios of pairs of baseline and ours."""
    pairs = []
    for _ in range(options.rounds):
        pairs.append(
            [
                child(options, what, images, depth, side)
                for side in ("baseline", "ours")
            ]
        )
    ratios = [a["seconds"] / b["seconds"] for a, b in pairs]
    ratio = statistics.median(ratios)
    row = {
        "what": what,
        "depth": depth,
        "ratio": round(ratio, 2),
        "ratios": [round(r, 2) for r in ratios],
        "baseline_seconds": [round(a["seconds"], 1) for a, _ in pairs],
        "seconds": [round(b["seconds"], 1) for _, b in pairs],
        "baseline_accuracy": pairs[0][0]["accuracy"],
        "accuracy": pairs[0][1]["accuracy"],
        "claim": CLAIMS[what],
        "measured": round(ratio, 2),
    }
    if what == "depth":
        shares = [b["frozen_share"] for _, b in pairs]
        share = statistics.median(shares)
        passes = EPOCHS[what]
        above = 3 * (1 - share)
        bound = (share + above) / (share / passes + above)
        row |= {
            "frozen_share": round(share, 3),
            "bound": round(bound, 2),
            "measured": round(ratio / bound, 2),
        }
    if what == "exact" and row["accuracy"] < row["baseline_accuracy"]:
        row["measured"] = 0.0
    return row


def child(options, what: str, images: Path, depth: int, side: str) -> dict:
    """Runs one side in a separate process."""
    arguments = [
        sys.executable, __file__, "--side", side, "--what", what,
        "--images", str(images), "--weights", options.weights,
        "--depths", str(depth),
    ]  # fmt: skip
    done = subprocess.run(arguments, capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def multiply(images: Path, folder: Path) -> Path:
    """Writes more training images, by changing the brightness."""
    from PIL import Image, ImageEnhance

    files = sorted((images / "train").rglob("*.jpg"))
    for number in range(MANY):
        file = files[number % len(files)]
        target = folder / "train" / file.parent.name
        target.mkdir(parents=True, exist_ok=True)
        brightness = 1 - 0.02 * (number // len(files))
        image = ImageEnhance.Brightness(Image.open(file)).enhance(brightness)
        image.save(target / f"{number}.jpg", quality=90)
    (folder / "test").symlink_to((images / "test").resolve())
    return folder


def baseline(options, what: str, depth: int):
    """Runs the recipe in plain Keras, with decoded images cached."""
    import keras
    import tensorflow as tf

    train = keras.utils.image_dataset_from_directory(
        Path(options.images) / "train",
        label_mode="categorical",
        image_size=(SIZE, SIZE),
        batch_size=32,
        verbose=False,
    )
    train = train.cache().prefetch(tf.data.AUTOTUNE)
    base = keras.applications.MobileNetV2(
        input_shape=(SIZE, SIZE, 3),
        alpha=0.35,
        include_top=False,
        weights=None,
    )
    base.load_weights(options.weights)
    base.trainable = False
    if depth:
        open_last(base, depth)
    inputs = keras.Input((SIZE, SIZE, 3))
    x = keras.layers.Rescaling(1 / 127.5, offset=-1)(inputs)
    x = base(x, training=False)
    x = keras.layers.GlobalAveragePooling2D()(x)
    outputs = keras.layers.Dense(12, activation="softmax")(x)
    model = keras.Model(inputs, outputs)
    model.compile(
        keras.optimizers.Adam(1e-3),
        "categorical_crossentropy",
        metrics=["accuracy"],
    )
    model.fit(train, epochs=EPOCHS[what], verbose=0)
    return model, {}


def open_last(base, depth: int) -> None:
    """Unfreezes the last blocks, except for BatchNormalization."""
    import keras

    names = [f"block_{number}_" for number in range(17 - depth, 17)]
    base.trainable = True
    for layer in base.layers:
        norm = isinstance(layer, keras.layers.BatchNormalization)
        last = layer.name.startswith((*names, "Conv_1"))
        layer.trainable = last and not norm


def ours(options, what: str, depth: int):
    """Runs the same training with keras_transfer."""
    import keras_transfer as ktr

    data = ktr.load_images(
        options.images, image_size=SIZE, split=(1.0, 0.0, 0.0)
    )
    backbone = ktr.load_backbone(
        "MobileNetV2",
        alpha=0.35,
        weights=options.weights,
        input_shape=(SIZE, SIZE, 3),
    )
    model = ktr.build_classifier(backbone, data=data)
    strategy = [
        ktr.Phase("train", depth=depth, epochs=EPOCHS[what], learning_rate=1e-3)
    ]
    if what == "exact":
        strategy = ktr.LinearProbe(exact=True)
    run = ktr.fine_tune(model, data, strategy=strategy, verbose=0)
    return model, {"plan": run.plan.explain()}


def frozen_share(model, depth: int) -> float:
    """Returns the share of the time of a forward pass below the cut."""
    import numpy as np
    import tensorflow as tf

    import keras_transfer as ktr
    from keras_transfer.caching.cost import time_of

    prefix, _ = ktr.split(model, depth)
    images = tf.constant(
        np.random.default_rng(0).uniform(0, 255, (32, SIZE, SIZE, 3)),
        tf.float32,
    )
    seconds = []
    for part in (prefix, model):
        function = tf.function(lambda x, part=part: part(x, training=False))
        function(images)
        seconds.append(time_of(lambda f=function: f(images), min_seconds=2.0))
    return min(seconds[0] / seconds[1], 1.0)


def run_side(options: argparse.Namespace) -> None:
    """Measures one side, and its test accuracy."""
    import keras
    import numpy as np
    import tensorflow as tf

    import keras_transfer as ktr

    ktr.fine_tune  # noqa: B018, imports it before timing starts
    tf.constant(0.0)
    keras.utils.set_random_seed(0)
    what, depth = options.what[0], options.depths[0]
    started = time.perf_counter()
    side = {"baseline": baseline, "ours": ours}[options.side]
    model, more = side(options, what, depth)
    row = {"seconds": time.perf_counter() - started, **more}
    test = ktr.load_images(
        Path(options.images) / "test", image_size=SIZE, split=(1.0, 0.0, 0.0)
    ).train
    images, _ = test.arrays()
    guesses = model.predict(images, verbose=0).argmax(-1)
    row["accuracy"] = round(float(np.mean(guesses == test.labels)), 4)
    if what == "depth" and options.side == "ours":
        row["frozen_share"] = frozen_share(model, depth)
    print(json.dumps(row))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--images", required=True)
    parser.add_argument("--weights", required=True)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--what", nargs="*", default=list(CLAIMS), choices=list(CLAIMS)
    )
    parser.add_argument("--depths", nargs="*", type=int, default=[1, 2, 4, 8])
    parser.add_argument("--side", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side:
        run_side(options)
    else:
        main(options)
