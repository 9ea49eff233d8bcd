r"""Speed-up of a search over a plain Keras-Tuner script, in total seconds.

    python tools/bench/search.py --images FOLDER --weights FILE

FOLDER holds `train/<class>/*.jpg`, FILE the weights of MobileNetV2 0.35. Both
sides search the same grid at 160 pixels: depths 0, 1, 2, 4, three learning
rates, lambda 0 and 0.01, 24 trials of 5 epochs. The plain script follows
Keras-Tuner's guide: a function `build(hp)`, decoded images cached in memory, a
model for each trial. Each side is a separate process, and its time includes
everything after the import of TensorFlow: reading, building, extraction,
training and the files of the tuner. The sides alternate; the ratio is the
median over pairs.

- `grid`: the ratio of seconds.
- `memory`: 100 trials of ours; resident memory at the end must not exceed that
  after 20 trials by more than a tenth.

Prints a JSON line for each, and fails if a claim does not hold.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

# Trials cannot share training steps, which take most of our time.
CLAIMS = {"grid": 6.0, "memory": 1.1}
SIZE = 160
EPOCHS = 5
DEPTHS, RATES, LAMBDAS = [0, 1, 2, 4], [1e-4, 3e-4, 1e-3], [0.0, 0.01]
MANY = 100


def main(options: argparse.Namespace) -> None:
    """Runs all pairs, and prints their ratios."""
    failed = []
    for what in options.what:
        row = {"grid": compare, "memory": grow}[what](options)
        row |= {"what": what, "claim": CLAIMS[what]}
        print(json.dumps(row), flush=True)
        good = row["measured"] >= CLAIMS[what]
        if what == "memory":
            good = row["measured"] <= CLAIMS[what]
        if not good:
            failed.append(what)
    if failed:
        sys.exit(f"claims that do not hold: {', '.join(failed)}")


def compare(options) -> dict:
    """Returns the ratios of pairs of baseline and ours."""
    pairs = [
        [child(options, side) for side in ("ours", "baseline")]
        for _ in range(options.rounds)
    ]
    ratios = [b["seconds"] / a["seconds"] for a, b in pairs]
    return {
        "measured": round(statistics.median(ratios), 2),
        "ratios": [round(ratio, 2) for ratio in ratios],
        "seconds": [round(a["seconds"], 1) for a, _ in pairs],
        "baseline_seconds": [round(b["seconds"], 1) for _, b in pairs],
        "megabytes": [a["megabytes"] for a, _ in pairs],
        "baseline_megabytes": [b["megabytes"] for _, b in pairs],
        "best": pairs[0][0]["best"],
        "baseline_best": pairs[0][1]["best"],
    }


def grow(options) -> dict:
    """Returns the growth of memory over many trials."""
    row = child(options, "many")
    early, late = row["resident"]
    return {"measured": round(late / early, 3), "megabytes": [early, late]}


def child(options, side: str) -> dict:
    """Runs one side in a separate process."""
    arguments = [
        sys.executable, __file__, "--side", side,
        "--images", options.images, "--weights", options.weights,
    ]  # fmt: skip
    done = subprocess.run(arguments, capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def baseline(options, folder: Path) -> dict:
    """Runs a plain Keras-Tuner script."""
    import keras
    import keras_tuner
    import tensorflow as tf

    train, validation = (
        split.cache().prefetch(tf.data.AUTOTUNE)
        for split in keras.utils.image_dataset_from_directory(
            Path(options.images) / "train",
            label_mode="categorical",
            image_size=(SIZE, SIZE),
            batch_size=32,
            validation_split=1 / 9,
            subset="both",
            seed=0,
            verbose=False,
        )
    )

    def build(hp):
        depth = hp.Choice("depth", DEPTHS)
        rate = hp.Choice("learning_rate", RATES)
        strength = hp.Choice("lambda", LAMBDAS)
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
        outputs = keras.layers.Dense(
            12,
            activation="softmax",
            kernel_regularizer=keras.regularizers.L2(strength / 2),
        )(x)
        model = keras.Model(inputs, outputs)
        model.compile(
            keras.optimizers.Adam(rate),
            "categorical_crossentropy",
            metrics=["accuracy"],
        )
        return model

    tuner = keras_tuner.GridSearch(
        build,
        objective="val_accuracy",
        directory=str(folder),
        project_name="plain",
        max_trials=None,
    )
    tuner.search(train, validation_data=validation, epochs=EPOCHS, verbose=0)
    (best,) = tuner.oracle.get_best_trials(1)
    return {"best": best.score, "trials": len(tuner.oracle.trials)}


def open_last(base, depth: int) -> None:
    """Unfreezes the last blocks, except for BatchNormalization."""
    import keras

    names = [f"block_{number}_" for number in range(17 - depth, 17)]
    base.trainable = True
    for layer in base.layers:
        norm = isinstance(layer, keras.layers.BatchNormalization)
        last = layer.name.startswith((*names, "Conv_1"))
        layer.trainable = last and not norm


def ours(options, folder: Path, space=None, oracle="grid", trials=24) -> dict:
    """Runs the same search with keras_transfer."""
    import keras_transfer as ktr

    data = ktr.load_images(options.images, image_size=SIZE)
    backbone = ktr.load_backbone(
        "MobileNetV2",
        alpha=0.35,
        weights=options.weights,
        input_shape=(SIZE, SIZE, 3),
    )
    phase = ktr.Phase(epochs=EPOCHS, schedule="constant")
    space = space or ktr.SearchSpace(
        learning_rate=RATES, lambda_=LAMBDAS, depth=DEPTHS, strategy=(phase,)
    )
    result = ktr.search(
        backbone,
        data,
        space=space,
        oracle=oracle,
        max_trials=trials,
        directory=folder / "ours",
        verbose=0,
    )
    return {
        "best": result.rows[0]["val_accuracy"],
        "trials": len(result.rows),
    }


def many(options, folder: Path) -> dict:
    """Runs many random trials, and measures memory after 20 and at the end."""
    import keras_transfer as ktr
    from keras_transfer.tuning.trial_runner import TrialRunner

    resident = {}
    run = TrialRunner.run

    def measured(self, trial):
        metrics = run(self, trial)
        resident[int(trial.trial_id)] = megabytes()
        return metrics

    TrialRunner.run = measured
    phase = ktr.Phase(epochs=1)
    space = ktr.SearchSpace(depth=[0, 1, 2], strategy=(phase,))
    row = ours(options, folder, space, "random", MANY)
    return {**row, "resident": [resident[19], resident[MANY - 1]]}


def megabytes() -> int:
    """Returns the resident memory of this process."""
    pages = Path("/proc/self/statm").read_text().split()[1]
    return int(pages) * resource.getpagesize() // 2**20


def run_side(options: argparse.Namespace) -> None:
    """Measures one side."""
    import keras
    import keras_tuner  # noqa: F401, imports it before timing starts
    import tensorflow as tf

    import keras_transfer as ktr

    ktr.search  # noqa: B018, imports it before timing starts
    tf.constant(0.0)
    keras.utils.set_random_seed(0)
    side = {"baseline": baseline, "ours": ours, "many": many}[options.side]
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        row = side(options, Path(folder))
        row["seconds"] = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(json.dumps({**row, "megabytes": peak // 1024}))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--images", required=True)
    parser.add_argument("--weights", required=True)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--what", nargs="*", default=list(CLAIMS), choices=list(CLAIMS)
    )
    parser.add_argument("--side", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side:
        run_side(options)
    else:
        main(options)
