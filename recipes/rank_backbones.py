r"""Ranking of pretrained networks for your images, before training.

    python recipes/rank_backbones.py                        # digits, offline
    python recipes/rank_backbones.py --data FOLDER \
        --backbones MobileNetV2 ResNet50 EfficientNetV2B0 --budget 600
    python recipes/rank_backbones.py --data FOLDER \
        --backbones MobileNetV2:0.35=FILE.weights.h5 random/MobileNetV2

Each image is decoded once and passes each network once; later runs read the
store. A backbone is a name from `list_backbones()`, optionally with `:ALPHA`
for its width and `=FILE` for weights of your own. The prefix `random/` stands
for random weights, a baseline. Prints the table, writes it as CSV, and draws
accuracy over operations. The default is the embedded ResNet20 (CIFAR-10) and
random weights of two networks on 600 of scikit-learn's digits (BSD-3-Clause):
linear probes of 90 %, 93 % and 79 %. Digits are unlike photos, and random
weights of the same network give better features. Two cores, 15 seconds.
"""

import argparse
import dataclasses
import json
import tempfile
import time
from pathlib import Path

import keras
from _smoke import write_noise

import keras_transfer as ktr


@dataclasses.dataclass(frozen=True)
class Config:
    """The recipe's settings."""

    data: str | None = None  # a folder of images; None for the digits
    backbones: tuple[str, ...] = (
        "ResNet20",
        "random/ResNet20",
        "random/MobileNetV2:0.35",
    )
    image_size: int = 32
    scores: tuple[str, ...] = ("logme", "h_score")
    by: str = "probe"
    budget: float | None = None  # approximate seconds
    output: str = "runs/rank_backbones"
    seed: int = 0


def main(config: Config) -> dict[str, object]:
    """Ranks, prints the table, writes table and plot."""
    started = time.time()
    data = load_data(config)
    print(data)
    keras.utils.set_random_seed(config.seed)
    backbones = {
        text.partition("=")[0]: load(text, data) for text in config.backbones
    }
    ranking = ktr.rank_backbones(
        backbones,
        data,
        scores=config.scores,
        by=config.by,
        budget=config.budget,
        seed=config.seed,
    )
    print(f"\n{ranking.table()}\n")
    print(f"Pareto-optimal: {', '.join(ranking.pareto())}")
    folder = Path(config.output)
    folder.mkdir(parents=True, exist_ok=True)
    ranking.save_table(folder / "ranking.csv")
    ranking.plot(folder / "ranking.png")
    print(f"Written to {folder}: ranking.csv, ranking.png")
    return {
        "best": ranking.best,
        "probe": {
            row.name: round(row.probe.accuracy, 4) for row in ranking.rows
        },
        "passes": ranking.computed,
        "seconds": round(time.time() - started),
    }


def load(text: str, data) -> ktr.Backbone:
    """Loads `random/NAME:ALPHA=FILE`, of which only NAME is required."""
    name, _, file = text.partition("=")
    name, _, alpha = name.partition(":")
    random = name.startswith("random/")
    weights = file or "pretrained"
    return ktr.load_backbone(
        name.removeprefix("random/"),
        weights=None if random else weights,
        input_shape=(*data.image_size, data.channels),
        **({"alpha": float(alpha)} if alpha else {}),
    )


def load_data(config: Config):
    """Loads the user's images, or some digits, without a test split."""
    if config.data is not None:
        return ktr.load_images(
            config.data,
            image_size=config.image_size,
            split=(1.0, 0.0, 0.0),
            on_error="skip",
        )
    from sklearn import datasets

    digits = datasets.load_digits()
    images = (digits.images * 255 / 16).astype("uint8")[:600, ..., None]
    return ktr.load_images(
        (images.repeat(3, axis=-1), digits.target[:600]),
        image_size=config.image_size,
        split=(1.0, 0.0, 0.0),
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", help="folder of images; default: digits")
    parser.add_argument(
        "--backbones",
        nargs="+",
        default=Config.backbones,
        help="NAME, NAME:ALPHA, NAME=FILE of weights, random/NAME",
    )
    parser.add_argument("--image-size", type=int, default=Config.image_size)
    parser.add_argument("--scores", nargs="*", default=Config.scores)
    parser.add_argument("--by", default=Config.by, help="probe or a score")
    parser.add_argument("--budget", type=float, help="approximate seconds")
    parser.add_argument("--output", default=Config.output)
    parser.add_argument("--seed", type=int, default=Config.seed)
    parser.add_argument("--smoke", action="store_true", help="run on noise")
    arguments = vars(parser.parse_args())
    if arguments.pop("smoke"):
        with tempfile.TemporaryDirectory() as noise:
            arguments |= {
                "data": write_noise(noise),
                "output": f"{noise}/output",
                "backbones": ("ResNet20", "random/ResNet20"),
            }
            print(json.dumps(main(Config(**arguments))))
    else:
        print(json.dumps(main(Config(**arguments))))
