"""CIFAR-10 by feature extraction, with a prediction for each test image.

    python recipes/cifar10.py --data FOLDER --alpha 0.35 --weights FILE

The folder holds `train/<class>/` and `test/<class>/` (or pass "tfds:cifar10").
Each image passes MobileNetV2 with ImageNet weights once, at 96 pixels; a new
softmax layer is trained on the features. Writes predictions.csv, with a row for
each of the 10,000 test images, and prints the accuracy of each class.
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
from keras_transfer.evaluation.intervals import proportion_interval
from keras_transfer.reports.tables import write_predictions


@dataclasses.dataclass(frozen=True)
class Config:
    """The recipe's settings."""

    data: str
    backbone: str = "MobileNetV2"
    weights: str | None = "pretrained"
    alpha: float | None = None  # width, for the MobileNets
    image_size: int = 96
    epochs: int = 20
    seed: int = 0
    output: str = "runs/cifar10"


def main(config: Config) -> dict[str, object]:
    """Loads, extracts, trains and predicts; returns the results."""
    started = time.time()
    keras.utils.set_random_seed(config.seed)
    data = ktr.load_images(
        config.data, image_size=config.image_size, split=(1.0, 0.0, 0.0)
    )
    print(data)
    options = {} if config.alpha is None else {"alpha": config.alpha}
    backbone = ktr.load_backbone(
        config.backbone,
        weights=config.weights,
        input_shape=(*data.image_size, data.channels),
        **options,
    )
    model = ktr.build_classifier(backbone, data=data)

    # Compute the frozen part once. A probe needs only pooled features.
    prefix, _ = ktr.split(model, 0)
    pool = keras.layers.GlobalAveragePooling2D()
    extractor = keras.Model(prefix.input, pool(prefix.output))
    train = extractor.predict(data.train.batches(256), verbose=2)
    test = extractor.predict(data.test.batches(256), verbose=2)

    # Train the model's own last layer on the features.
    vectors = keras.Input(train.shape[1:])
    last = model.get_layer("head").get_layer("predictions")
    probe = keras.Model(vectors, last(vectors))
    probe.compile(
        keras.optimizers.Adam(3e-3),
        "sparse_categorical_crossentropy",
        metrics=["accuracy"],
    )
    probe.fit(
        train,
        data.train.labels,
        batch_size=256,
        epochs=config.epochs,
        verbose=2,
    )
    probabilities = probe.predict(test, 256, verbose=0)
    predicted = probabilities.argmax(-1)
    correct = predicted == data.test.labels
    low, high = proportion_interval(int(correct.sum()), len(correct))
    for index, name in enumerate(data.class_names):
        of_class = data.test.labels == index
        print(f"  {name:<12} {correct[of_class].mean():6.1%}")
    print(
        f"{correct.sum():,} of {len(correct):,} test images are correct: "
        f"{correct.mean():.2%}, 95 % interval {low:.2%} to {high:.2%}"
    )
    folder = Path(config.output)
    folder.mkdir(parents=True, exist_ok=True)
    write_predictions(
        folder / "predictions.csv",
        data.test.ids,
        data.test.labels,
        probabilities,
        data.class_names,
    )
    model.save(folder / "model.keras")
    return {
        "accuracy": round(float(correct.mean()), 4),
        "images": len(correct),
        "seconds": round(time.time() - started),
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", help='folder or "tfds:name"')
    parser.add_argument("--backbone", default=Config.backbone)
    parser.add_argument("--weights", default=Config.weights)
    parser.add_argument("--alpha", type=float, default=Config.alpha)
    parser.add_argument("--image-size", type=int, default=Config.image_size)
    parser.add_argument("--epochs", type=int, default=Config.epochs)
    parser.add_argument("--output", default=Config.output)
    parser.add_argument("--smoke", action="store_true", help="run on noise")
    arguments = vars(parser.parse_args())
    if arguments.pop("smoke"):
        arguments |= {"weights": None, "image_size": 64, "epochs": 1}
        with tempfile.TemporaryDirectory() as noise:
            arguments["data"] = write_noise(noise)
            print(json.dumps(main(Config(**arguments))))
    elif arguments["data"] is None:
        parser.error("--data is needed: a folder with train/ and test/")
    else:
        print(json.dumps(main(Config(**arguments))))
