r"""Accuracy and time with fixed augmented views, against new ones per epoch.

    python tools/bench/views.py --images FOLDER --weights FILE

The last two blocks and the head of MobileNetV2 0.35 at 96 pixels train on 20
labelled images per class of FOLDER (`train/` and `test/`), for 24 epochs after
the exact probe, with 1, 2, 4 and 8 fixed views of each image, and with new
views in each epoch (mirrored, cropped, rotated). The seed determines labelled
images and views. Reports test accuracy as mean and 95 % interval over seeds,
the paired difference to new views in each epoch, and the median of total
seconds.
"""

import argparse
import dataclasses
import json
import statistics
import time

import keras
import numpy as np

import keras_transfer as ktr
from keras_transfer.evaluation.intervals import mean_interval, paired_interval

SIZE = 96
AUGMENT = ktr.Augmentation(crop=0.25, rotation=10.0)
METHODS = {
    "no augmentation": {},
    "2 views": {"augment": AUGMENT, "views": 2},
    "4 views": {"augment": AUGMENT, "views": 4},
    "8 views": {"augment": AUGMENT, "views": 8},
    "new in each epoch": {"augment": AUGMENT},
}
DIRECT = "new in each epoch"
STRATEGY = (
    ktr.Phase("probe", depth=0, epochs=0, exact_probe=True),
    ktr.Phase("top", depth=2, epochs=24, learning_rate=3e-4),
)


def main(options: argparse.Namespace) -> None:
    """Trains all methods, prints a JSON line and a table."""
    data = ktr.load_images(
        options.images, image_size=SIZE, split=(1.0, 0.0, 0.0)
    )
    images, _ = data.test.arrays()
    backbone = ktr.load_backbone(
        "MobileNetV2",
        alpha=0.35,
        weights=options.weights,
        input_shape=(SIZE, SIZE, 3),
    )
    accuracies: dict[str, list[float]] = {name: [] for name in METHODS}
    seconds: dict[str, list[float]] = {name: [] for name in METHODS}
    for seed in range(options.seeds):
        few = dataclasses.replace(data, train=data.train.shots(20, seed))
        for name, arguments in METHODS.items():
            keras.utils.set_random_seed(seed)
            model = ktr.build_classifier(backbone, data=data)
            started = time.perf_counter()
            ktr.fine_tune(
                model, few, strategy=STRATEGY, seed=seed, verbose=0, **arguments
            )
            seconds[name].append(time.perf_counter() - started)
            guesses = model.predict(images, verbose=0).argmax(-1)
            accuracy = 100 * float(np.mean(guesses == data.test.labels))
            accuracies[name].append(accuracy)
            print(seed, name, f"{accuracy:.1f} %", flush=True)
    print(json.dumps({"accuracies": accuracies, "seconds": seconds}))
    print("| views | accuracy | difference to new views | seconds |")
    print("|---|---|---|---|")
    for name, values in accuracies.items():
        mean, half = mean_interval(values)
        difference, width = paired_interval(values, accuracies[DIRECT])
        print(
            f"| {name} | {mean:.1f} % +- {half:.1f} | "
            + ("" if name == DIRECT else f"{difference:+.1f} +- {width:.1f}")
            + f" | {statistics.median(seconds[name]):.0f} |"
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--images", required=True)
    parser.add_argument("--weights", required=True)
    parser.add_argument("--seeds", type=int, default=5)
    main(parser.parse_args())
