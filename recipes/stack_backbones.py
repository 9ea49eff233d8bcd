r"""Joined features of several pretrained networks, against the best one.

    python recipes/stack_backbones.py --data FOLDER

Fits logistic regression, solved exactly, on the features of each network alone
and on all of them joined, at unit norm, for several numbers of labelled images
per class. The seed determines the labelled images (at "all" only the folds, so
look at the interval by test images). Image sizes may differ: `--backbones
MobileNetV2,size=160,alpha=0.35 ResNet50,size=224`, also `weights=FILE`. For a
single size use `ktr.extract_features(["MobileNetV2", "ResNet50"], data)`.

flowers12 (12 species of Oxford flowers, 60 + 20 images each; research use),
ImageNet weights of 224 pixels; accuracy in %, min / median / max over 5 seeds:
  5 shots: V2 84.6 / 85.4 / 85.4, V1 82.1 / 83.3 / 85.4, ResNet20
    35.8 / 43.8 / 47.1, stacked 85.8 / 87.1 / 87.9: 1.8 +- 0.6 better than V2;
  20: 91.2 / 92.5 / 93.3, 89.6 / 91.2 / 92.1, 57.9 / 62.5 / 66.2, stacked
    91.7 / 93.8 / 94.2: 0.9 +- 0.8, barely; all: 95.4, 92.5, 70.4, stacked 95.0:
    it does not help. Two cores, 2 minutes. 2026-11-21.
"""

import argparse
import dataclasses
import itertools
import json
import tempfile
import time

import numpy as np
from _smoke import write_noise

import keras_transfer as ktr
from keras_transfer.evaluation.intervals import mean_interval, paired_interval


@dataclasses.dataclass(frozen=True)
class Config:
    """The recipe's settings."""

    data: str
    backbones: tuple[str, ...] = (
        "MobileNetV2,size=160,alpha=0.35",
        "MobileNet,size=160,alpha=0.25",
        "ResNet20,size=64",  # slow on large images, and made for small ones
    )
    shots: tuple[int, ...] = (5, 20)  # beside all labelled images
    seeds: int = 5
    store: str | None = None  # folder of the features; None: the user's


def main(config: Config) -> dict[str, object]:
    """Extracts, fits all probes, prints the table, returns the results."""
    if config.seeds < 2:
        raise ValueError(f"`seeds` must be 2 or more. Received: {config.seeds}")
    started = time.time()
    methods = {}
    for text in config.backbones:
        name = text.partition(",weights=")[0]
        # At unit norm also alone, for a fair comparison.
        methods[name] = ktr.stack_features([extract(text, config)])
    methods["stacked"] = ktr.stack_features(list(methods.values()))
    counts = (*config.shots, "all")
    correct = {shots: {name: [] for name in methods} for shots in counts}
    for shots, seed in itertools.product(counts, range(config.seeds)):
        for name, features in methods.items():
            train = features.train
            if shots != "all":
                train = train.shots(shots, seed)
            test = ktr.fit_probe(train, seed=seed).evaluate(features.test)
            correct[shots][name].append(test.predictions == test.labels)
    seconds = round(time.time() - started)
    return {"accuracy": report(correct), "seconds": seconds}


def extract(text: str, config: Config):
    """Returns the features of one network, at its own image size."""
    backbone, *rest = text.split(",")
    options = dict(option.split("=", 1) for option in rest)
    size = int(options.pop("size", 224))
    if "alpha" in options:
        options["alpha"] = float(options["alpha"])
    data = ktr.load_images(
        config.data, image_size=size, split=(0.8, 0.0, 0.2), on_error="skip"
    )
    options["input_shape"] = (size, size, data.channels)
    model = ktr.load_backbone(backbone, **options)
    return ktr.extract_features(model, data, store=config.store)


def report(correct) -> dict[str, list[float]]:
    """Prints accuracies and gains from booleans `(seeds, images)`."""
    table = {"labels per class": list(map(str, correct))}
    spreads = {}  # min, median, max
    for shots, runs in correct.items():
        means = {name: np.mean(run, axis=1) for name, run in runs.items()}
        best = max(list(runs)[:-1], key=lambda name: means[name].mean())
        row = {name: mean_interval(mean) for name, mean in means.items()}
        by_seeds = paired_interval(means["stacked"], means[best])
        images = (np.mean(runs[name], axis=0) for name in ("stacked", best))
        row["stacked - best, by seeds"] = by_seeds
        row["  by test images"] = by_images = paired_interval(*images)
        for name, (mean, half) in row.items():
            cell = f"{100 * mean:.1f} +- {100 * half:.1f}"
            table.setdefault(name, []).append(cell)
        for name, mean in means.items():
            spread = np.quantile(mean, (0, 0.5, 1)).round(4)
            spreads[f"{name}, {shots}"] = spread.tolist()
        effect = "helps" if by_seeds[0] > 0 else "hurts"
        if any(abs(gain) <= half for gain, half in (by_seeds, by_images)):
            effect = "makes no significant difference"
        print(f"{shots}: compared with {best} alone, stacking {effect}.")
    print("\nTest accuracy in %, with 95 % intervals:")
    for name, row in table.items():
        print(f"{name:<33}" + "".join(f"{cell:>15}" for cell in row))
    return spreads


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", help="folder of images")
    parser.add_argument("--backbones", nargs="+", default=Config.backbones)
    parser.add_argument("--shots", nargs="+", type=int, default=Config.shots)
    parser.add_argument("--seeds", type=int, default=Config.seeds)
    parser.add_argument("--store", help="folder of the features")
    parser.add_argument("--smoke", action="store_true", help="run on noise")
    arguments = vars(parser.parse_args())
    if arguments["data"] is None and not arguments["smoke"]:
        parser.error("--data is needed: a folder of images")
    with tempfile.TemporaryDirectory() as folder:
        if arguments.pop("smoke"):
            tiny = ("ResNet20,size=32", "ResNet20,size=48")
            arguments |= {"backbones": tiny, "shots": (3,), "seeds": 2}
            arguments["data"] = write_noise(f"{folder}/images")
            arguments["store"] = f"{folder}/features"
        print(json.dumps(main(Config(**arguments))))
