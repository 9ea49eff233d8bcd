r"""Test accuracy of transfer methods, compared seed by seed.

    python tools/bench/transfer_accuracy.py --images IMAGES --weights FILE \
        --output accuracy.jsonl
    python tools/bench/transfer_accuracy.py --table --output accuracy.jsonl

IMAGES holds `flowers12/` and `pacs_small/{photo,sketch}/`. The backbone is
MobileNetV2 0.35 at 96 pixels. The seed determines the labelled images (5 or 20
per class, or all training images) and the randomness of training, for all
methods alike. There are no validation images: all labelled images are used for
training. Each result is written as a JSON line; the same command resumes after
an interruption. Seed 0 is excluded, since the default learning rate of LP-FT
was chosen on it.

`keras_guide` is the recipe of the Keras guide, in plain Keras:
https://keras.io/guides/transfer_learning/
"""

import argparse
import dataclasses
import time
from pathlib import Path

import keras
import numpy as np
from _lines import read, write

import keras_transfer as ktr
from keras_transfer.evaluation.intervals import mean_interval, paired_interval

SHOTS = (5, 20, None)
QUIET = {"verbose": 0}


@dataclasses.dataclass(frozen=True)
class Task:
    """Images for training, and test sets by name."""

    name: str
    train: object
    tests: dict


def load_tasks(folder: Path, size: int) -> list[Task]:
    """Loads the three data sets, with fixed splits."""
    flowers = ktr.load_images(
        folder / "flowers12", image_size=size, split=(1.0, 0.0, 0.0)
    )
    domains = {
        name: ktr.load_images(
            folder / "pacs_small" / name,
            image_size=size,
            split=(2 / 3, 0.0, 1 / 3),
        )
        for name in ("photo", "sketch")
    }
    photo, sketch = domains["photo"], domains["sketch"]
    return [
        Task("flowers12", flowers, {"flowers12": flowers.test}),
        Task(
            "photo",
            photo,
            {"photo -> photo": photo.test, "photo -> sketch": sketch.test},
        ),
        Task("sketch", sketch, {"sketch -> sketch": sketch.test}),
    ]


def keras_guide(weights: str, arrays, num_classes: int, size: int):
    """Trains in two phases: the new layer, then all layers at 1e-5."""
    images, labels = arrays
    base = keras.applications.MobileNetV2(
        input_shape=(size, size, 3), alpha=0.35, include_top=False, weights=None
    )
    base.load_weights(weights)
    base.trainable = False
    inputs = keras.Input((size, size, 3))
    x = keras.layers.RandomFlip("horizontal")(inputs)
    x = keras.layers.RandomRotation(0.1)(x)
    x = keras.layers.Rescaling(1 / 127.5, offset=-1)(x)
    x = base(x, training=False)
    x = keras.layers.GlobalAveragePooling2D()(x)
    x = keras.layers.Dropout(0.2)(x)
    outputs = keras.layers.Dense(num_classes, activation="softmax")(x)
    model = keras.Model(inputs, outputs)
    for trainable, rate, epochs in ((False, 1e-3, 20), (True, 1e-5, 10)):
        base.trainable = trainable
        model.compile(keras.optimizers.Adam(rate), "categorical_crossentropy")
        model.fit(images, labels, epochs=epochs, batch_size=32, **QUIET)
    return model


def with_ktr(weights: str, data, size: int, seed: int, **arguments):
    """Trains with `fine_tune`, with defaults except for `arguments`."""
    backbone = ktr.load_backbone(
        "MobileNetV2", alpha=0.35, weights=weights, input_shape=(size, size, 3)
    )
    model = ktr.build_classifier(backbone, data=data)
    ktr.fine_tune(model, data, seed=seed, **arguments, **QUIET)
    return model


METHODS = {
    "from scratch": {"strategy": "from-scratch", "epochs": 20},
    "linear probe": {"strategy": ktr.LinearProbe(exact=True)},
    "Keras guide": None,
    "random head": {"strategy": "fine-tune"},
    "fine_tune (LP-FT)": {},
    "fine_tune + L2-SP": {"penalty": ktr.L2SP()},
}
DEFAULT = "fine_tune (LP-FT)"


def main(options: argparse.Namespace) -> None:
    """Runs everything that the output does not contain yet, by seed."""
    path = Path(options.output)
    done = {
        tuple(row[k] for k in ("seed", "task", "shots", "method"))
        for row in read(path)
    }
    tasks = load_tasks(Path(options.images), options.size)
    for seed in options.seeds:
        for task in tasks:
            for shots in SHOTS:
                data = labelled(task.train, shots, seed)
                for method in options.methods or METHODS:
                    key = (seed, task.name, shots or "all", method)
                    if key in done:
                        continue
                    row = measure(options, task, data, seed, method)
                    row |= dict(
                        zip(
                            ("seed", "task", "shots", "method"),
                            key,
                            strict=True,
                        )
                    )
                    write(path, row)


def labelled(data, shots: int | None, seed: int):
    """Returns data with only the labelled images of a seed."""
    train = data.train
    if shots is not None:
        train = train.shots(shots, seed=seed)
    empty = data.train.subset([])
    return dataclasses.replace(data, train=train, validation=empty)


def measure(options, task, data, seed: int, method: str) -> dict:
    """Trains once, and evaluates on each test set of the task."""
    keras.utils.set_random_seed(seed)
    started = time.time()
    if METHODS[method] is None:
        model = keras_guide(
            options.weights,
            data.train.arrays(),
            data.num_classes,
            options.size,
        )
    else:
        model = with_ktr(
            options.weights, data, options.size, seed, **METHODS[method]
        )
    seconds = time.time() - started
    accuracy = {}
    for name, split in task.tests.items():
        images, _ = split.arrays()
        guesses = model.predict(images, **QUIET).argmax(-1)
        accuracy[name] = float(np.mean(guesses == split.labels))
    keras.backend.clear_session()
    return {"accuracy": accuracy, "seconds": round(seconds, 1)}


def table(path: Path) -> str:
    """Returns tables of mean accuracies, and of paired differences."""
    runs: dict[tuple, dict[int, float]] = {}
    for row in read(path):
        for test, accuracy in row["accuracy"].items():
            key = (test, str(row["shots"]), row["method"])
            runs.setdefault(key, {})[row["seed"]] = accuracy
    tests = list(dict.fromkeys(key[0] for key in runs))
    lines = []
    for test in tests:
        lines += [
            f"\n**{test}**\n",
            "| method | 5 per class | 20 per class | all |",
            "|---|---|---|---|",
        ]
        for method in METHODS:
            cells = [
                cell(runs, test, shots, method) for shots in ("5", "20", "all")
            ]
            lines.append(f"| {method} | {' | '.join(cells)} |")
    lines.append("\nDefault minus others, points, paired over seeds:\n")
    for test in tests:
        for other in [m for m in METHODS if m != DEFAULT]:
            cells = []
            for shots in ("5", "20", "all"):
                ours = runs.get((test, shots, DEFAULT), {})
                theirs = runs.get((test, shots, other), {})
                seeds = sorted(ours.keys() & theirs.keys())
                if len(seeds) < 2:
                    continue
                mean, half = paired_interval(
                    [100 * ours[s] for s in seeds],
                    [100 * theirs[s] for s in seeds],
                )
                cells.append(f"{shots}: {mean:+.1f} +- {half:.1f}")
            lines.append(f"- {test}, {other}: {'; '.join(cells)}")
    return "\n".join(lines)


def cell(runs: dict, test: str, shots: str, method: str) -> str:
    """Returns a cell of the table, in percent."""
    values = [100 * v for v in runs.get((test, shots, method), {}).values()]
    if len(values) < 2:
        return "-"
    mean, half = mean_interval(values)
    return f"{mean:.1f} +- {half:.1f}"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--images")
    parser.add_argument("--weights")
    parser.add_argument("--size", type=int, default=96)
    parser.add_argument("--seeds", type=int, nargs="*", default=[1, 2, 3, 4, 5])
    parser.add_argument("--methods", nargs="*", choices=list(METHODS))
    parser.add_argument("--output", default="accuracy.jsonl")
    parser.add_argument("--table", action="store_true")
    options = parser.parse_args()
    if options.table:
        print(table(Path(options.output)))
    else:
        main(options)
