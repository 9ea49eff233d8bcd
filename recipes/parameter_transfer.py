r"""Parameter transfer: a comparison of all strategies, with few labels.

    python recipes/parameter_transfer.py --data FOLDER --shots 10 \
        --backbone MobileNetV2 --alpha 0.35 --image-size 160

Compares the exact linear probe, training from scratch, fine-tuning, LP-FT,
gradual unfreezing and surgical fine-tuning of the first block, the last four
also with L2-SP, a penalty on the distance to the pretrained weights. The seed
determines the labelled images (`--shots` per class) and the new weights, for
all methods alike. The epoch is chosen on validation images, and test images are
only used for evaluation. Prints test accuracies and paired differences to the
probe, with intervals over seeds; writes report.md and learning_curves.png.
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
from keras_transfer.evaluation.intervals import mean_interval, paired_interval
from keras_transfer.reports.curves import plot_learning_curves

PROBE = "linear probe"


@dataclasses.dataclass(frozen=True)
class Config:
    """The recipe's settings."""

    data: str
    backbone: str = "MobileNetV2"
    weights: str = "pretrained"
    alpha: float | None = None  # width, for the MobileNets
    image_size: int = 160
    shots: int | None = None  # labelled images for each class; None for all
    epochs: int = 20
    scratch_epochs: int = 60
    l2sp: float = 0.1
    seeds: int = 5
    output: str = "runs/parameter_transfer"


def main(config: Config) -> dict[str, object]:
    """Runs all methods over seeds, writes the files, returns the results."""
    started = time.time()
    size = config.image_size
    data = ktr.load_images(config.data, image_size=size, on_error="skip")
    options = {} if config.alpha is None else {"alpha": config.alpha}
    options |= {"input_shape": (size, size, data.channels)}
    options |= {"weights": config.weights}
    backbone = ktr.load_backbone(config.backbone, **options)
    blocks = ktr.blocks(ktr.build_classifier(backbone, data=data))
    scores: dict[str, list[float]] = {}
    curves: dict[str, list[list[float]]] = {}
    for seed in range(config.seeds):
        few = data
        if config.shots is not None:
            shots = data.train.shots(config.shots, seed)
            few = dataclasses.replace(data, train=shots)
        for name, (strategy, penalty) in methods(blocks, config).items():
            keras.utils.set_random_seed(seed)
            options = {"strategy": strategy, "penalty": penalty, "seed": seed}
            options |= {"augment": ktr.Augmentation(), "verbose": 0}
            model = ktr.build_classifier(backbone, data=data)
            run = ktr.fine_tune(model, few, **options)
            accuracy = run.evaluate(data.test)["accuracy"]
            scores.setdefault(name, []).append(accuracy)
            curves.setdefault(name, []).append(run.history["val_accuracy"])
            print(f"seed {seed}  {name:<28}{accuracy:8.2%}", flush=True)
    folder = Path(config.output)
    folder.mkdir(parents=True, exist_ok=True)
    # The exact probe has no epochs: draw it as a horizontal line.
    longest = max(len(runs[0]) for runs in curves.values())
    curves[PROBE] = [run * longest for run in curves[PROBE]]
    path = folder / "learning_curves.png"
    plot_learning_curves(curves, path, "validation accuracy")
    rows, means, gains = "", {}, {}
    for name, runs in scores.items():
        # One seed gives no interval.
        mean, half = runs[0], math.nan
        gain, width = runs[0] - scores[PROBE][0], math.nan
        if config.seeds > 1:
            mean, half = mean_interval(runs)
            gain, width = paired_interval(runs, scores[PROBE])
        rows += f"| {name} | {mean:.2%} +- {half:.2%} "
        rows += f"| {gain:+.2%} +- {width:.2%} |\n"
        means[name], gains[name] = round(mean, 4), round(gain, 4)
    text = (
        f"# {config.backbone} on {Path(config.data).name}\n\n{few}\n\nTest "
        f"accuracy over {config.seeds} seeds with 95 % intervals, and the "
        f"difference to the {PROBE} seed by seed:\n\n"
        f"| method | accuracy | difference |\n|---|---|---|\n{rows}\n"
        "![validation accuracy over epochs](learning_curves.png)\n"
    )
    (folder / "report.md").write_text(text, "utf-8")
    print(f"\n{text}")
    seconds = round(time.time() - started)
    return {"accuracy": means, "difference": gains, "seconds": seconds}


def methods(blocks, config: Config):
    """Returns the strategy and penalty of each method, by name."""
    epochs, stem, depth = config.epochs, blocks[0].name, min(3, len(blocks))
    table = {
        PROBE: (ktr.LinearProbe(exact=True), None),
        "from scratch": (ktr.FromScratch(epochs=config.scratch_epochs), None),
    }
    for name, strategy in {
        "fine-tune": ktr.FineTune(epochs=epochs),
        "LP-FT": ktr.LPFT(epochs=epochs),
        "gradual": ktr.GradualUnfreezing(depth=depth, epochs=epochs),
        f"surgical ({stem})": ktr.Surgical(stem, epochs=epochs),
    }.items():
        table[name] = (strategy, None)
        table[f"{name}, L2-SP"] = (strategy, ktr.L2SP(alpha=config.l2sp))
    return table


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    for field in dataclasses.fields(Config):
        kinds = [k for k in (int, float) if k.__name__ in str(field.type)]
        default = None if field.name == "data" else field.default
        flag = f"--{field.name.replace('_', '-')}"
        parser.add_argument(flag, type=(*kinds, str)[0], default=default)
    parser.add_argument("--smoke", action="store_true", help="run on noise")
    arguments = vars(parser.parse_args())
    if arguments.pop("smoke"):
        small = {"image_size": 32, "epochs": 1, "scratch_epochs": 1}
        with tempfile.TemporaryDirectory() as folder:
            arguments |= small | {"backbone": write_network(folder), "seeds": 1}
            arguments["data"] = write_noise(f"{folder}/images")
            print(json.dumps(main(Config(**arguments))))
    elif arguments["data"] is None:
        parser.error("--data is needed: a folder of images")
    else:
        print(json.dumps(main(Config(**arguments))))
