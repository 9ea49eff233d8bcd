r"""Image classification, from a folder to a model and a report.

    python recipes/classify_images.py --data FOLDER --backbone MobileNetV2 \
        --alpha 0.35 --image-size 160 --from-scratch

The folder has one sub-folder per class, or `train/` and `test/` with these. The
default is a linear probe: each image passes the frozen backbone once, and a new
softmax layer is trained on its features, once for each seed. `--depth 2` then
fine-tunes the last two blocks; `--from-scratch` also trains the same
architecture from random weights, for comparison. Writes report.md, model.keras,
predictions.csv, confusion.png and, if the data has bad files, skipped.txt.

flowers12 (12 species of Oxford flowers, 60 + 20 images each; research use),
MobileNetV2 0.35 with ImageNet weights at 160 pixels: see README.md.
"""

import argparse
import dataclasses
import json
import math
import tempfile
import time
from pathlib import Path

import keras
from _smoke import write_network, write_noise

import keras_transfer as ktr
from keras_transfer.evaluation.intervals import mean_interval
from keras_transfer.reports.plots import plot_confusion_matrix
from keras_transfer.reports.tables import write_predictions


@dataclasses.dataclass(frozen=True)
class Config:
    """The recipe's settings."""

    data: str
    backbone: str = "MobileNetV2"
    weights: str = "pretrained"
    alpha: float | None = None  # width, for the MobileNets
    image_size: int | None = None  # None: that of the backbone's pretraining
    depth: int = 0
    epochs: int = 50
    seeds: int = 5
    from_scratch: bool = False
    output: str = "runs/classify_images"


def main(config: Config) -> dict[str, object]:
    """Trains over seeds, writes the files, returns the results."""
    started = time.time()
    folder = Path(config.output)
    folder.mkdir(parents=True, exist_ok=True)
    data = load_data(config)
    print(f"{data}\n{data.report}")
    if data.report.skipped:
        (folder / "skipped.txt").write_text(str(data.report), "utf-8")

    backbone = load_backbone(config, data, config.weights)
    prefix, _ = ktr.split(ktr.build_classifier(backbone, data=data), 0)
    features = prefix.predict(data.train.batches(), verbose=0)
    probe = "linear probe" if config.depth == 0 else "fine-tuning"
    accuracies: dict[str, list[float]] = {probe: []}
    for seed in range(config.seeds):
        model = transfer(config, data, backbone, features, seed)
        probabilities = model.predict(data.test.batches(), verbose=0)
        record(accuracies, probe, probabilities, data)
        if seed == 0:
            model.save(folder / "model.keras")
            report_images(folder, data, probabilities)
    for seed in range(config.seeds if config.from_scratch else 0):
        model = scratch(config, data, seed)
        probabilities = model.predict(data.test.batches(), verbose=0)
        record(accuracies, "from scratch", probabilities, data)
    table = {name: mean_interval(runs) for name, runs in accuracies.items()}
    report_table(folder, config, data, table)
    return {
        "accuracy": {name: round(mean, 4) for name, (mean, _) in table.items()},
        "half_width": {
            name: round(half, 4) for name, (_, half) in table.items()
        },
        "seconds": round(time.time() - started),
    }


def load_data(config: Config):
    """Loads the user's images; unreadable ones are listed and skipped."""
    size = config.image_size
    if size is None:
        size = ktr.list_backbones()[config.backbone].default_size
    return ktr.load_images(
        config.data, image_size=size, split=(0.8, 0.0, 0.2), on_error="skip"
    )


def load_backbone(config: Config, data, weights):
    """Loads the backbone for the images of the data."""
    options = {} if config.alpha is None else {"alpha": config.alpha}
    shape = (*data.image_size, data.channels)
    return ktr.load_backbone(
        config.backbone, weights=weights, input_shape=shape, **options
    )


def transfer(config: Config, data, backbone, features, seed: int):
    """Trains a new head on features, then, with a depth, the last blocks."""
    keras.utils.set_random_seed(seed)
    model = ktr.build_classifier(backbone, data=data)
    _, head = ktr.split(model, 0)  # shares the model's own layers
    labels = keras.utils.to_categorical(data.train.labels, data.num_classes)
    compile_model(head, 3e-3, config.epochs * math.ceil(len(labels) / 32))
    head.fit(features, labels, epochs=config.epochs, verbose=0)
    if config.depth:
        ktr.unfreeze(model, config.depth)
        fit_images(model, data, 1e-4, max(1, config.epochs // 5), seed)
    return model


def scratch(config: Config, data, seed: int):
    """Trains the same architecture from random weights."""
    keras.utils.set_random_seed(seed)
    backbone = load_backbone(config, data, None)
    model = ktr.build_classifier(backbone, data=data)
    ktr.unfreeze(model, "all", train_batch_norm=True)
    for layer in model.get_layer("backbone").layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            # MobileNet's 0.999 would take thousands of steps to converge.
            layer.momentum = 0.9
    fit_images(model, data, 3e-3, config.epochs, seed)
    return model


def fit_images(model, data, learning_rate: float, epochs: int, seed: int):
    """Trains on augmented images, which are decoded once."""
    images = data.train.batches(
        shuffle=True, seed=seed, augment=ktr.Augmentation(), cache=True
    )
    compile_model(model, learning_rate, epochs * len(images))
    model.fit(images, epochs=epochs, verbose=0, shuffle=False)


def compile_model(model, learning_rate: float, steps: int):
    """Compiles with Adam and cosine decay; no validation is needed."""
    schedule = keras.optimizers.schedules.CosineDecay(learning_rate, steps)
    model.compile(keras.optimizers.Adam(schedule), "categorical_crossentropy")


def record(accuracies, method: str, probabilities, data):
    """Stores and prints an accuracy."""
    accuracy = float((probabilities.argmax(-1) == data.test.labels).mean())
    runs = accuracies.setdefault(method, [])
    runs.append(accuracy)
    print(f"{method}, seed {len(runs) - 1}: {accuracy:.2%}", flush=True)


def report_images(folder: Path, data, probabilities):
    """Writes the confusion matrix, and a prediction for each image."""
    labels, names = data.test.labels, data.class_names
    path = folder / "confusion.png"
    plot_confusion_matrix(labels, probabilities.argmax(-1), names, path)
    path = folder / "predictions.csv"
    write_predictions(path, data.test.ids, labels, probabilities, names)


def report_table(folder: Path, config: Config, data, table):
    """Writes and prints the table of accuracies."""
    rows = "".join(
        f"| {name} | {mean:.2%} | {half_width:.2%} |\n"
        for name, (mean, half_width) in table.items()
    )
    text = (
        f"# {config.backbone} on {Path(config.data).name}\n\n{data}\n\n"
        f"Test accuracy, mean and 95 % interval over {config.seeds} seeds:\n\n"
        f"| method | mean | +- |\n|---|---|---|\n{rows}\n"
        "![confusion matrix of seed 0](confusion.png)\n"
    )
    (folder / "report.md").write_text(text, "utf-8")
    print(text)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", help="folder of images")
    parser.add_argument("--backbone", default=Config.backbone)
    parser.add_argument("--weights", default=Config.weights, help="or a file")
    parser.add_argument("--alpha", type=float)
    parser.add_argument("--image-size", type=int)
    parser.add_argument("--depth", type=int, default=Config.depth)
    parser.add_argument("--epochs", type=int, default=Config.epochs)
    parser.add_argument("--seeds", type=int, default=Config.seeds)
    parser.add_argument("--from-scratch", action="store_true")
    parser.add_argument("--output", default=Config.output)
    parser.add_argument("--smoke", action="store_true", help="run on noise")
    arguments = vars(parser.parse_args())
    if arguments.pop("smoke"):
        arguments |= {"image_size": 32, "epochs": 1, "depth": 1, "seeds": 1}
        with tempfile.TemporaryDirectory() as folder:
            arguments["backbone"] = write_network(folder)
            arguments |= {"data": write_noise(f"{folder}/images")}
            arguments |= {"from_scratch": True}
            print(json.dumps(main(Config(**arguments))))
    elif arguments["data"] is None:
        parser.error("--data is needed: a folder of images")
    else:
        print(json.dumps(main(Config(**arguments))))
