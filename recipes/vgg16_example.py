"""The classic example of transfer learning, with VGG16.

    python recipes/vgg16_example.py --data FOLDER

VGG16 with ImageNet weights and no top, GlobalAveragePooling2D, a new
Dense(10, softmax); Adam, categorical cross-entropy, accuracy; ten epochs with
validation data. The pretrained layers are frozen, and the new one is trained.
(Common versions of this example overwrite the pooling layer by the dense one,
and never freeze the base. This one avoids both mistakes.)

The folder has ten classes, such as CIFAR-10 (research use); "tfds:cifar10"
works too. Use `--weights FILE` if the published weights cannot be downloaded;
`--smoke` runs on noise, without weights.
"""

import argparse
import dataclasses
import json

import numpy as np

import keras_transfer as ktr


@dataclasses.dataclass(frozen=True)
class Config:
    """The recipe's settings."""

    data: str | None = None  # None: noise
    weights: str | None = "pretrained"
    epochs: int = 10
    image_size: int = 32


def main(config: Config) -> dict[str, float]:
    """Runs the example and returns the last epoch's numbers."""
    x_train, y_train, x_val, y_val = load(config)

    backbone = "VGG16"
    if config.weights != "pretrained":
        backbone = ktr.load_backbone("VGG16", weights=config.weights)
    model = ktr.build_classifier(backbone, num_classes=10)
    model.compile("adam", "categorical_crossentropy", metrics=["accuracy"])
    history = model.fit(
        x_train,
        y_train,
        epochs=config.epochs,
        validation_data=(x_val, y_val),
    )

    frozen = sum(
        w.value.shape.num_elements() for w in model.non_trainable_weights
    )
    trained = sum(w.value.shape.num_elements() for w in model.trainable_weights)
    print(f"{frozen:,} frozen and {trained:,} trained parameters")
    last = {name: values[-1] for name, values in history.history.items()}
    return last | {"frozen": frozen, "trained": trained}


def load(config: Config):
    """Returns images in [0, 255] and one-hot labels, train and validation."""
    if config.data is None:
        generator = np.random.default_rng(0)
        images = generator.uniform(0, 255, (16, 32, 32, 3)).astype("float32")
        labels = np.eye(10, dtype="float32")[generator.integers(0, 10, 16)]
        return images[:8], labels[:8], images[8:], labels[8:]
    data = ktr.load_images(config.data, image_size=config.image_size)
    if data.num_classes != 10:
        raise SystemExit(f"The data must have ten classes. Received: {data}")
    return (*data.train.arrays(), *data.validation.arrays())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", help='folder or "tfds:name"')
    parser.add_argument("--weights", default=Config.weights)
    parser.add_argument("--epochs", type=int, default=Config.epochs)
    parser.add_argument("--image-size", type=int, default=Config.image_size)
    parser.add_argument("--smoke", action="store_true", help="noise, seconds")
    arguments = vars(parser.parse_args())
    if arguments.pop("smoke"):
        arguments |= {"data": None, "weights": None, "epochs": 1}
    elif arguments["data"] is None:
        parser.error("--data is needed (or --smoke)")
    print(json.dumps(main(Config(**arguments))))
