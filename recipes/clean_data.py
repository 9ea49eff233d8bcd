"""Label errors, duplicates and outliers in a folder of images.

    python recipes/clean_data.py --data FOLDER --backbone MobileNetV2
    python recipes/clean_data.py --data FOLDER --plant 0.05  # measures recall
    python recipes/clean_data.py                             # digits, offline

Computes features once, and lists likely label errors (confident learning on a
cross-validated probe), near-duplicates, outliers, and the most representative
images, which are the ones to label first. Writes a CSV file of ids and a
contact sheet for each; the folder is not changed. `--plant` gives a share of
the images a wrong label in memory, and reports how many of these are found. The
default is the embedded ResNet20 on scikit-learn's 1,797 digits (BSD-3-Clause).
"""

import argparse
import csv
import dataclasses
import json
import tempfile
import time
from pathlib import Path

import numpy as np
from _smoke import write_noise

import keras_transfer as ktr
from keras_transfer import curation


@dataclasses.dataclass(frozen=True)
class Config:
    """The recipe's settings."""

    data: str | None = None  # a folder of images; None for the digits
    backbone: str = "ResNet20"
    alpha: float | None = None
    weights: str = "pretrained"
    image_size: int = 32
    threshold: float = 0.98  # smallest cosine of two duplicates
    count: int = 24  # number of outliers, and of images to label first
    plant: float = 0.0  # share of labels to replace by wrong ones
    output: str = "runs/clean_data"
    seed: int = 0


def main(config: Config) -> dict[str, object]:
    """Finds problems, prints counts, writes lists and contact sheets."""
    started = time.time()
    data = load_data(config)
    print(data)
    backbone = ktr.load_backbone(
        config.backbone,
        weights=config.weights,
        input_shape=(*data.image_size, data.channels),
        **({"alpha": config.alpha} if config.alpha else {}),
    )
    images, planted = plant(config, data.train)
    features = ktr.extract_features(backbone, images, verbose=0)
    findings = {
        "label_errors": curation.find_label_errors(features, seed=config.seed),
        "duplicates": curation.find_duplicates(
            features, threshold=config.threshold
        ),
        "outliers": curation.find_outliers(
            features, min(config.count, len(images))
        ),
        "label_first": curation.select_representative(
            features, min(config.count, len(images))
        ),
    }
    folder = Path(config.output)
    folder.mkdir(parents=True, exist_ok=True)
    for name, examples in findings.items():
        print(f"{name}: {len(examples)}")
        if examples:
            write(folder / f"{name}.csv", examples, data.class_names)
            curation.plot_examples(examples, images, folder / f"{name}.png")
    for error in findings["label_errors"][:10]:
        label, suggested = (
            data.class_names[index] for index in (error.label, error.suggested)
        )
        print(f"  {error.id}: {label}, rather {suggested}")
    print(f"Lists and contact sheets are in {folder}.")
    result = {name: len(examples) for name, examples in findings.items()}
    if planted:
        named = {error.row for error in findings["label_errors"]}
        hits = len(named & planted)
        result["planted"] = len(planted)
        result["recall"] = round(hits / len(planted), 4)
        result["precision"] = round(hits / max(1, len(named)), 4)
    return result | {"seconds": round(time.time() - started)}


def plant(config: Config, split) -> tuple[object, set[int]]:
    """Returns images with some wrong labels, and the rows of these."""
    generator = np.random.default_rng(config.seed)
    count = round(config.plant * len(split))
    rows = generator.choice(len(split), count, replace=False)
    labels = np.array(split.labels)
    classes = len(split.class_names)
    labels[rows] += generator.integers(1, classes, count).astype(labels.dtype)
    labels %= classes
    changed = dataclasses.replace(split, labels=labels)
    return changed, set(rows.tolist())


def write(path: Path, examples, class_names) -> None:
    """Writes a row for each example: ids, class names and numbers."""
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, examples[0]._fields)
        writer.writeheader()
        for example in examples:
            row = example._asdict()
            for name in {"label", "suggested"} & row.keys():
                row[name] = class_names[row[name]]
            writer.writerow(row)


def load_data(config: Config):
    """Loads the user's images, or the digits, without a test split."""
    options = {"image_size": config.image_size, "split": (1.0, 0.0, 0.0)}
    if config.data is not None:
        return ktr.load_images(config.data, on_error="skip", **options)
    from sklearn import datasets

    digits = datasets.load_digits()
    images = (digits.images * 255 / 16).astype("uint8")[..., None]
    return ktr.load_images((images, digits.target), **options)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", help="folder of images; default: digits")
    parser.add_argument("--backbone", default=Config.backbone)
    parser.add_argument("--alpha", type=float, help="width of a MobileNet")
    parser.add_argument("--weights", default=Config.weights, help="or a file")
    parser.add_argument("--image-size", type=int, default=Config.image_size)
    parser.add_argument("--threshold", type=float, default=Config.threshold)
    parser.add_argument("--count", type=int, default=Config.count)
    parser.add_argument("--plant", type=float, default=Config.plant)
    parser.add_argument("--output", default=Config.output)
    parser.add_argument("--seed", type=int, default=Config.seed)
    parser.add_argument("--smoke", action="store_true", help="run on noise")
    arguments = vars(parser.parse_args())
    if arguments.pop("smoke"):
        with tempfile.TemporaryDirectory() as noise:
            arguments |= {
                "data": write_noise(noise),
                "output": f"{noise}/output",
                "plant": 0.1,
            }
            print(json.dumps(main(Config(**arguments))))
    else:
        print(json.dumps(main(Config(**arguments))))
