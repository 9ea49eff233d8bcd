r"""Comparison of transfer with training from scratch, with intervals.

    python recipes/does_transfer_help.py                    # digits, offline
    python recipes/does_transfer_help.py --data FOLDER \
        --backbone MobileNetV2 --image-size 96 --labels 5 20 all
    python recipes/does_transfer_help.py --shuffled         # harmful weights

Trains the same network from scratch (long enough), as a linear probe and by
fine-tuning, on the same folds and labels. Prints a table and a verdict, and
draws learning curves. `--shuffled` first pretrains the weights on test images
with shuffled labels. Memorized labels do not generalize, so the verdict should
be that transfer hurts. The default is the embedded ResNet20 (CIFAR-10) on 500
of scikit-learn's digits (BSD-3-Clause). With `--directory` the same command
resumes after an interruption.
"""

import argparse
import dataclasses
import json
import tempfile
import time
from pathlib import Path

import keras
import numpy as np
from _smoke import write_network, write_noise

import keras_transfer as ktr


@dataclasses.dataclass(frozen=True)
class Config:
    """The recipe's settings."""

    data: str | None = None  # a folder of images; None for the digits
    backbone: str = "ResNet20"
    alpha: float | None = None
    weights: str = "pretrained"
    image_size: int = 16
    labels: tuple[str, ...] = ("2", "10", "all")
    folds: int = 5
    epochs: int | None = None  # for fine-tuning; None: the strategy's own
    scratch_epochs: int | None = None  # None: 30, or 500 steps
    shuffled: bool = False
    source_epochs: int = 40
    directory: str | None = None
    output: str = "runs/does_transfer_help"
    seed: int = 0


def main(config: Config) -> dict[str, object]:
    """Compares, prints table and verdict, draws learning curves."""
    started = time.time()
    data = load_data(config)
    print(data)
    backbone = ktr.load_backbone(
        config.backbone,
        weights=config.weights,
        input_shape=(*data.image_size, data.channels),
        **({"alpha": config.alpha} if config.alpha else {}),
    )
    if config.shuffled:
        backbone = train_on_shuffled_labels(config, backbone, data)
    scratch = None
    if config.scratch_epochs is not None:
        scratch = ktr.FromScratch(epochs=config.scratch_epochs)
    result = ktr.compare_transfer(
        backbone,
        data,
        [None if n == "all" else int(n) for n in config.labels],
        folds=config.folds,
        epochs=config.epochs,
        from_scratch=scratch,
        directory=config.directory,
        seed=config.seed,
    )
    print(f"\n{result}\n")
    folder = Path(config.output)
    folder.mkdir(parents=True, exist_ok=True)
    result.save_table(folder / "folds.csv")
    result.plot(folder / "learning_curve.png")
    print(f"Written to {folder}: folds.csv, learning_curve.png")
    return {
        "verdict": result.verdict,
        "effects": {
            "all" if labels is None else str(labels): result.effect(labels)
            for labels in result.labels_per_class
        },
        "seconds": round(time.time() - started),
    }


def train_on_shuffled_labels(config: Config, backbone, data):
    """Returns a backbone that has memorized images with random labels."""
    images, labels = data.test.arrays()
    shuffled = np.random.default_rng(config.seed).permutation(labels)
    keras.utils.set_random_seed(config.seed)
    model = ktr.build_classifier(backbone, data.num_classes)
    run = ktr.fine_tune(
        model,
        (images.astype("float32"), shuffled),
        strategy=ktr.FromScratch(epochs=config.source_epochs),
        verbose=0,
    )
    print(f"Memorized: {run.history['accuracy'][-1]:.1%}")
    backbone = backbone.copy()
    backbone.model.set_weights(model.get_layer("backbone").get_weights())
    return backbone


def load_data(config: Config):
    """Loads training images; only `--shuffled` uses the test images."""
    if config.data is not None:
        return ktr.load_images(
            config.data,
            image_size=config.image_size,
            split=(0.6, 0.0, 0.4) if config.shuffled else (1.0, 0.0, 0.0),
            on_error="skip",
        )
    from sklearn import datasets

    digits = datasets.load_digits()
    images = (digits.images * 255 / 16).astype("uint8")[..., None]
    return ktr.load_images(
        {
            "train": (images[:500], digits.target[:500]),
            "test": (images[500:1500], digits.target[500:1500]),
        },
        image_size=config.image_size,
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", help="folder of images; default: digits")
    parser.add_argument("--backbone", default=Config.backbone)
    parser.add_argument("--alpha", type=float, help="width of a MobileNet")
    parser.add_argument("--weights", default=Config.weights, help="or a file")
    parser.add_argument("--image-size", type=int, default=Config.image_size)
    parser.add_argument("--labels", nargs="+", default=Config.labels)
    parser.add_argument("--folds", type=int, default=Config.folds)
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--scratch-epochs", type=int)
    parser.add_argument("--shuffled", action="store_true")
    parser.add_argument("--directory", help="folder to save the runs in")
    parser.add_argument("--output", default=Config.output)
    parser.add_argument("--seed", type=int, default=Config.seed)
    parser.add_argument("--smoke", action="store_true", help="run on noise")
    arguments = vars(parser.parse_args())
    if arguments.pop("smoke"):
        with tempfile.TemporaryDirectory() as folder:
            arguments |= {
                "backbone": write_network(folder),
                "data": write_noise(f"{folder}/images"),
                "output": f"{folder}/output",
                "labels": ("2",),
                "folds": 2,
                "epochs": 1,
                "scratch_epochs": 1,
            }
            print(json.dumps(main(Config(**arguments))))
    else:
        print(json.dumps(main(Config(**arguments))))
