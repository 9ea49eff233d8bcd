"""Pretraining of the embedded backbone, a ResNet20, on CIFAR-10.

    python recipes/pretrain_source.py --data FOLDER --output FOLDER

FOLDER is any folder of images with `train/` and `test/`, or "tfds:cifar10".
Writes `resnet20.weights.h5`, without its classifier, and a model card; the
package ships both. `--start FILE` adds another one-cycle run to an earlier one.
The shipped file was trained on the 60,000 images of CIFAR-10, as strongly
compressed JPEG files (research use).
"""

import argparse
import dataclasses
import functools
import hashlib
import json
import tempfile
import time
from pathlib import Path

import keras
import tensorflow as tf
from _smoke import write_noise
from keras import layers

import keras_transfer as ktr
from keras_transfer.schedules.callback import ScheduledLearningRate
from keras_transfer.schedules.schedules import one_cycle


@dataclasses.dataclass(frozen=True)
class Config:
    """The recipe's settings."""

    data: str
    output: str = "runs/pretrain_source"
    description: str = "the folder given as --data"  # for the model card
    start: str | None = None  # weights of an earlier run, for another cycle
    epochs: int = 40
    batch_size: int = 128
    learning_rate: float = 0.15
    momentum: float = 0.9
    weight_decay: float = 3e-3  # decoupled: w <- w - rate * weight_decay * w
    seed: int = 0


def main(config: Config) -> dict[str, object]:
    """Trains, writes the weights, returns the accuracies."""
    keras.utils.set_random_seed(config.seed)
    data = ktr.load_images(config.data, image_size=32, split=(1.0, 0.0, 0.0))
    images, labels = data.train.arrays()
    test_images, test_labels = data.test.arrays()
    batches = (
        tf.data.Dataset.from_tensor_slices((images, labels))
        .shuffle(len(images), seed=config.seed)
        .batch(config.batch_size, drop_remainder=True)
        .map(augmentation(config.seed), tf.data.AUTOTUNE)
        .prefetch(tf.data.AUTOTUNE)
    )
    backbone = ktr.load_backbone(
        "ResNet20", weights=config.start, input_shape=(32, 32, 3)
    )
    model = ktr.build_classifier(backbone, data=data)
    ktr.unfreeze(model, "all", train_batch_norm=True)
    optimizer = keras.optimizers.SGD(
        config.learning_rate,
        momentum=config.momentum,
        nesterov=True,
        weight_decay=config.weight_decay,
    )
    optimizer.exclude_from_weight_decay(var_names=["gamma", "beta", "bias"])
    model.compile(optimizer, "categorical_crossentropy", metrics=["accuracy"])
    schedule = functools.partial(
        one_cycle,
        total_steps=len(batches) * config.epochs,
        learning_rate=config.learning_rate,
    )
    started = time.time()
    history = model.fit(
        batches,
        epochs=config.epochs,
        callbacks=[ScheduledLearningRate(schedule)],
        shuffle=False,  # The batches are shuffled already.
        verbose=2,
    )
    minutes = (time.time() - started) / 60
    test = model.evaluate(
        test_images, test_labels, batch_size=500, verbose=0, return_dict=True
    )
    result = {
        "train_accuracy": round(history.history["accuracy"][-1], 4),
        "test_accuracy": round(test["accuracy"], 4),
        "minutes": round(minutes, 1),
    }
    write(model, config, result, data)
    return result


def augmentation(seed: int):
    """Returns flips and shifts by whole pixels, which do not blur."""
    layer = keras.Sequential(
        [
            layers.RandomFlip("horizontal", seed=seed),
            layers.RandomTranslation(
                0.125, 0.125, "reflect", interpolation="nearest", seed=seed
            ),
        ]
    )
    return lambda image, label: (
        layer(tf.cast(image, "float32"), training=True),
        label,
    )


def write(model, config: Config, result: dict, data):
    """Writes the weights of the backbone, and the model card."""
    folder = Path(config.output)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "resnet20.weights.h5"
    backbone = model.get_layer("backbone")
    backbone.save_weights(path)
    checksum = hashlib.sha256(path.read_bytes()).hexdigest()
    settings = {
        key: value
        for key, value in dataclasses.asdict(config).items()
        if key not in ("data", "output", "description", "start")
    }
    again = ", from the weights of an earlier run" if config.start else ""
    (folder / "resnet20.md").write_text(
        f"""# Model card: ResNet20

- Architecture: CIFAR-style ResNet20 without classifier,
  {backbone.count_params():,} parameters; He et al., 2016.
- Data: {config.description}; {len(data.train):,} training and
  {len(data.test):,} test images of 32 x 32 pixels, {data.num_classes} classes.
- Recipe: `recipes/pretrain_source.py`{again},
  {json.dumps(settings)}.
- Accuracy of the classifier it was trained with: {result["test_accuracy"]:.2%}
  on the test images, {result["train_accuracy"]:.2%} on the augmented training
  images of the last epoch.
- Training time: {result["minutes"]:.0f} minutes.
- Input: red, green, blue in [0, 255], scaled to [-1, 1] by `load_backbone`.
- Licence: the weights are ours, Apache-2.0; see the data's own terms.
- Intended use: to try keras_transfer offline, in seconds. For real work choose
  a backbone that was trained on ImageNet.
- SHA-256 of `{path.name}`: `{checksum}`
""",
        "utf-8",
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", help='folder or "tfds:name"')
    parser.add_argument("--output", default=Config.output)
    parser.add_argument("--description", default=Config.description)
    parser.add_argument("--start", help="weights of an earlier run")
    parser.add_argument("--epochs", type=int, default=Config.epochs)
    parser.add_argument(
        "--learning-rate", type=float, default=Config.learning_rate
    )
    parser.add_argument("--seed", type=int, default=Config.seed)
    parser.add_argument("--smoke", action="store_true", help="run on noise")
    arguments = vars(parser.parse_args())
    if arguments.pop("smoke"):
        with tempfile.TemporaryDirectory() as noise:
            arguments |= {"data": write_noise(noise), "epochs": 1}
            print(json.dumps(main(Config(**arguments, batch_size=8))))
    elif arguments["data"] is None:
        parser.error("--data is needed: a folder with train/ and test/")
    else:
        print(json.dumps(main(Config(**arguments))))
