"""Quick start: transfer with few labels, against training from scratch.

    python recipes/quickstart.py                             # digits, offline
    python recipes/quickstart.py --data FOLDER --backbone MobileNetV2

Compares training from scratch, a linear probe and fine-tuning over seeds, which
determine the labelled images and the new weights. Writes learning curves, a
confusion matrix and a model, and loads the model with plain Keras. The default
is the embedded ResNet20, pretrained on CIFAR-10, with 10 labelled images for
each of the handwritten digits of scikit-learn.
"""

import argparse
import dataclasses
import json
import time
from pathlib import Path

import keras
import numpy as np

import keras_transfer as ktr
from keras_transfer.evaluation.intervals import mean_interval
from keras_transfer.reports.curves import plot_learning_curves
from keras_transfer.reports.plots import plot_confusion_matrix


@dataclasses.dataclass(frozen=True)
class Config:
    """The recipe's settings."""

    data: str | None = None  # a folder of images; None for the digits
    backbone: str = "ResNet20"
    weights: str = "pretrained"
    shots: int | None = 10  # labelled images for each class; None for all
    seeds: int = 5
    epochs: int = 20
    batch_size: int = 20
    output: str = "runs/quickstart"


# name: pretrained, trainable blocks, learning rate
METHODS = {
    "from scratch": (False, "all", 3e-3),
    "linear probe": (True, 0, 1e-2),
    "fine-tuning": (True, "all", 1e-3),
}


def main(config: Config) -> dict[str, object]:
    """Runs the comparison, writes the files, returns the results."""
    folder = Path(config.output)
    folder.mkdir(parents=True, exist_ok=True)
    data = load_digits() if config.data is None else load(config)
    print(data)
    test = data.test.arrays()
    curves = {method: [] for method in METHODS}
    saved_model = None
    started = time.time()
    for seed in range(config.seeds):
        for method in METHODS:
            model, curve = train(method, data, test, seed, config)
            curves[method].append(curve)
            print(f"seed {seed}  {method:<12}  {curve[-1]:6.1%}", flush=True)
            if saved_model is None and method == "fine-tuning":
                # The first, not the best, which test images would choose.
                saved_model = model
    table = {
        method: mean_interval([curve[-1] for curve in of_method])
        for method, of_method in curves.items()
    }
    shots = "all" if config.shots is None else config.shots
    print(f"\n{config.backbone}, {shots} labels per class, accuracy on")
    print(f"{len(data.test)} test images, mean and 95 % interval over seeds")
    for method, (mean, half_width) in table.items():
        print(f"  {method:<12}  {mean:6.1%} +- {half_width:.1%}")

    plot_learning_curves(curves, folder / "learning_curves.png")
    saved_model.save(folder / "model.keras")
    predicted = reload_and_predict(folder, test)
    print(f"Files in {folder}: model.keras, learning_curves.png, confusion.png")
    return {
        "accuracy": {m: round(mean, 4) for m, (mean, _) in table.items()},
        "half_width": {m: round(half, 4) for m, (_, half) in table.items()},
        "reloaded_accuracy": round(predicted, 4),
        "seconds": round(time.time() - started),
    }


def train(method: str, data, test, seed: int, config: Config):
    """Trains one method on one draw of labelled images."""
    keras.utils.set_random_seed(seed)
    shots = config.shots
    few = data.train if shots is None else data.train.shots(shots, seed)
    train = few.arrays()
    pretrained, depth, learning_rate = METHODS[method]
    backbone = ktr.load_backbone(
        config.backbone,
        weights=config.weights if pretrained else None,
        input_shape=(*data.image_size, data.channels),
    )
    model = ktr.build_classifier(backbone, data=data)
    if pretrained:
        # Compute the frozen part once, and train the new head on it.
        # Fine-tuning starts this way, too, since gradients of a random head
        # would distort the pretrained features.
        prefix, head = ktr.split(model, 0)
        features = [
            (prefix.predict(images, batch_size=256, verbose=0), labels)
            for images, labels in (train, test)
        ]
        history = fit(head, *features, 1e-2, config)
    if depth:
        # From scratch, statistics of BatchNormalization have to be learned.
        ktr.unfreeze(model, depth, train_batch_norm=not pretrained)
        history = fit(model, train, test, learning_rate, config)
    return model, history["val_accuracy"]


def fit(model, train, test, learning_rate: float, config: Config):
    """Trains a model; accuracy on the test images is only recorded."""
    steps = -(-len(train[0]) // config.batch_size) * config.epochs
    schedule = keras.optimizers.schedules.CosineDecay(learning_rate, steps)
    model.compile(
        keras.optimizers.Adam(schedule),
        "categorical_crossentropy",
        metrics=["accuracy"],
    )
    return model.fit(
        *train,
        batch_size=config.batch_size,
        epochs=config.epochs,
        validation_data=test,
        validation_batch_size=256,
        verbose=0,
    ).history


def reload_and_predict(folder: Path, test) -> float:
    """Loads the model with plain Keras, and predicts the test images."""
    images, labels = test[0], test[1].argmax(-1)
    model = keras.models.load_model(folder / "model.keras")
    predicted = model.predict(images, batch_size=256, verbose=0).argmax(-1)
    names = ktr.class_names(model)
    path = folder / "confusion.png"
    plot_confusion_matrix(labels, predicted, names, path)
    print(
        f"Reloaded: the first test image is {names[labels[0]]!r}, predicted "
        f"{names[predicted[0]]!r}"
    )
    return float(np.mean(predicted == labels))


def load_digits():
    """Loads scikit-learn's 1,797 digits, resized from 8 x 8 to 32 x 32."""
    from sklearn import datasets

    digits = datasets.load_digits()
    images = (digits.images * 255 / 16).astype("uint8")[..., None]
    return ktr.load_images(
        (images, digits.target),
        class_names=[str(name) for name in digits.target_names],
        image_size=32,
        split=(0.9, 0.0, 0.1),
    )


def load(config: Config):
    """Loads the user's images, at the size of the backbone's pretraining."""
    spec = ktr.list_backbones(config.backbone)[config.backbone]
    return ktr.load_images(
        config.data,
        image_size=spec.default_size,
        split=(0.8, 0.0, 0.2),
        on_error="skip",
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    for field in dataclasses.fields(Config):
        kind = int if field.name in ("shots", "seeds", "epochs") else str
        kind = int if field.name == "batch_size" else kind
        parser.add_argument(
            f"--{field.name.replace('_', '-')}",
            type=kind,
            default=field.default,
            help=f"default: {field.default}",
        )
    parser.add_argument("--smoke", action="store_true", help="seconds only")
    arguments = vars(parser.parse_args())
    if arguments.pop("smoke"):
        arguments |= {"seeds": 1, "epochs": 1, "shots": 2}
    arguments["shots"] = arguments["shots"] or None  # 0: all
    print(json.dumps(main(Config(**arguments))))
