r"""Folder in, model and report out.

    python recipes/classify_images.py --data FOLDER --backbone MobileNetV2 \
        --alpha 0.35 --image-size 160 --from-scratch

The folder has one sub-folder a class, or `train/` and `test/` with these. A
linear probe by default: the frozen backbone sees each image once, and a new
softmax layer is trained on its features, once for each seed. `--depth 2`
fine-tunes the last two blocks after that; `--from-scratch` trains the same
architecture from random weights beside it. Writes report.md, model.keras,
predictions.csv, confusion.png and, if the data has bad files, skipped.txt.

flowers12 (12 species of Oxford flowers, 60 + 20 images each; research use),
MobileNetV2 0.35 with ImageNet weights at 160 pixels: see README.md.
"""

import argparse
import csv
import dataclasses
import json
import time
from pathlib import Path

import keras
import numpy as np

import keras_transfer as ktr
from keras_transfer.reports import mean_interval, plot_confusion_matrix


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
    """Trains over seeds, writes the files, returns the numbers."""
    started = time.time()
    folder = Path(config.output)
    folder.mkdir(parents=True, exist_ok=True)
    spec = ktr.list_backbones(config.backbone).get(config.backbone)
    size = config.image_size or (spec.default_size if spec else None)
    data = ktr.load_images(config.data, image_size=size, on_error="skip")
    print(f"{data}\n{data.report}")
    if data.report.skipped:
        (folder / "skipped.txt").write_text(str(data.report), "utf-8")

    pretrained = load(config, data, config.weights)
    prefix, _ = ktr.split(ktr.build_classifier(pretrained, data=data), 0)
    features = {
        "train": prefix.predict(data.train.batches(), verbose=0),
        "test": prefix.predict(data.test.batches(), verbose=0),
    }
    probes, predictions, kept = [], None, None
    for seed in range(config.seeds):
        model = transfer(config, data, pretrained, features, seed)
        accuracy, predicted = evaluate(model, data)
        probes.append(accuracy)
        print(f"seed {seed}  {method(config)}  {accuracy:.2%}", flush=True)
        if seed == 0:
            kept, predictions = model, predicted
    results = {method(config): probes}
    if config.from_scratch:
        results["from scratch"] = []
        for seed in range(config.seeds):
            model = scratch(config, data, seed)
            accuracy, _ = evaluate(model, data)
            results["from scratch"].append(accuracy)
            print(f"seed {seed}  from scratch  {accuracy:.2%}", flush=True)
    kept.save(folder / "model.keras")
    write_report(folder, config, data, results, predictions)
    return {
        name: {
            "mean": round(mean_interval(values)[0], 4),
            "half_width": round(mean_interval(values)[1], 4),
            "accuracies": [round(value, 4) for value in values],
        }
        for name, values in results.items()
    } | {"seconds": round(time.time() - started)}


def method(config: Config) -> str:
    """The name of what was asked for."""
    if config.depth == 0:
        return "linear probe"
    return f"fine-tuning, depth {config.depth}"


def load(config: Config, data, weights):
    """Loads the backbone for the images of the data."""
    options = {} if config.alpha is None else {"alpha": config.alpha}
    return ktr.load_backbone(
        config.backbone,
        weights=weights,
        input_shape=(*data.image_size, data.channels),
        **options,
    )


def transfer(config: Config, data, backbone, features, seed: int):
    """A new head on stored features, then, with a depth, fine-tuning."""
    keras.utils.set_random_seed(seed)
    model = ktr.build_classifier(backbone, data=data)
    _, head = ktr.split(model, 0)  # shares the model's own layers
    targets = np.eye(data.num_classes, dtype="float32")[data.train.labels]
    fit(head, features["train"], targets, 3e-3, config.epochs)
    if config.depth:
        ktr.unfreeze(model, config.depth)
        images = data.train.batches(
            shuffle=True, seed=seed, augment=ktr.Augmentation(), cache=True
        )
        fit(model, images, None, 1e-4, max(1, config.epochs // 5))
    return model


def scratch(config: Config, data, seed: int):
    """The same architecture with new weights, all of it trained."""
    keras.utils.set_random_seed(seed)
    model = ktr.build_classifier(load(config, data, None), data=data)
    ktr.unfreeze(model, "all", train_batch_norm=True)
    images = data.train.batches(
        shuffle=True, seed=seed, augment=ktr.Augmentation(), cache=True
    )
    fit(model, images, None, 3e-3, config.epochs)
    return model


def fit(model, inputs, targets, learning_rate: float, epochs: int):
    """Adam under a cosine, without looking at the test images."""
    steps = epochs * (len(inputs) if targets is None else len(inputs) // 32)
    schedule = keras.optimizers.schedules.CosineDecay(learning_rate, steps)
    model.compile(
        keras.optimizers.Adam(schedule),
        "categorical_crossentropy",
        metrics=["accuracy"],
    )
    in_memory = targets is not None
    model.fit(inputs, targets, epochs=epochs, verbose=0, shuffle=in_memory)


def evaluate(model, data) -> tuple[float, np.ndarray]:
    """Accuracy on the test images, and the probabilities."""
    probabilities = model.predict(data.test.batches(), verbose=0)
    correct = probabilities.argmax(-1) == data.test.labels
    return float(correct.mean()), probabilities


def write_report(folder: Path, config, data, results, probabilities):
    """Writes the table, each image's prediction and the confusion matrix."""
    names = data.class_names
    predicted = probabilities.argmax(-1)
    plot_confusion_matrix(
        data.test.labels, predicted, names, folder / "confusion.png"
    )
    with open(
        folder / "predictions.csv", "w", newline="", encoding="utf-8"
    ) as f:
        writer = csv.writer(f)
        writer.writerow(["image", "label", "predicted", "confidence"])
        writer.writerows(
            (image, names[label], names[guess], f"{row[guess]:.4f}")
            for image, label, guess, row in zip(
                data.test.ids,
                data.test.labels,
                predicted,
                probabilities,
                strict=True,
            )
        )
    rows = "".join(
        f"| {name} | {mean_interval(values)[0]:.2%} | "
        f"{mean_interval(values)[1]:.2%} |\n"
        for name, values in results.items()
    )
    (folder / "report.md").write_text(
        f"# {config.backbone} on {Path(config.data).name}\n\n{data}\n\n"
        f"Test accuracy, mean and 95 % interval over {config.seeds} seeds:\n\n"
        f"| method | mean | +- |\n|---|---|---|\n{rows}\n"
        "![confusion matrix of seed 0](confusion.png)\n",
        "utf-8",
    )
    print((folder / "report.md").read_text("utf-8"))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", required=True, help="folder of images")
    parser.add_argument("--backbone", default=Config.backbone)
    parser.add_argument("--weights", default=Config.weights, help="or a file")
    parser.add_argument("--alpha", type=float)
    parser.add_argument("--image-size", type=int)
    parser.add_argument("--depth", type=int, default=Config.depth)
    parser.add_argument("--epochs", type=int, default=Config.epochs)
    parser.add_argument("--seeds", type=int, default=Config.seeds)
    parser.add_argument("--from-scratch", action="store_true")
    parser.add_argument("--output", default=Config.output)
    print(json.dumps(main(Config(**vars(parser.parse_args())))))
