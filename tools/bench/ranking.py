r"""Correlation of transfer scores with accuracy after fine-tuning.

    python tools/bench/ranking.py --images IMAGES --mobilenet FILE \
        --mobilenet-v2-035 FILE --mobilenet-v2-100 FILE --saved-model FOLDER \
        --output ranking.jsonl
    python tools/bench/ranking.py --table --output ranking.jsonl

Eight sources: MobileNet 0.25, MobileNetV2 0.35 and 1.0 (a model with its own
1,001 classes), a SavedModel, the embedded ResNet20, and random weights of three
networks (with random classifiers, so that LEEP and NCE compare four sources).
Four targets: flowers12, photos and sketches of PACS in IMAGES at 96 pixels, and
scikit-learn's digits at 64. Every score is compared with the test accuracy of
`fine_tune` with its defaults over 6 epochs (random weights: from scratch over
20), by SciPy's weighted Kendall tau: 1 for the correct order of all sources,
about 0 for a random one. Baselines that do not use the images are the accuracy
on ImageNet (0.1 % for random weights; without the embedded backbone, which was
not trained on it), the number of parameters, and a random order (mean over
1,000). Each result is written as a JSON line; the same command resumes after an
interruption.
"""

import argparse
import time
from pathlib import Path

import keras
import numpy as np
from _lines import read, write
from scipy.stats import weightedtau

import keras_transfer as ktr
from keras_transfer.evaluation.intervals import mean_interval

SCORES = ("logme", "h_score", "parc", "nleep", "leep", "nce")
CHANCE = 0.001  # Accuracy of random weights on 1,000 classes.
# ImageNet accuracies of the published weights.
TOP1 = {
    "MobileNet 0.25": 0.506,
    "MobileNetV2 0.35": 0.603,
    "MobileNetV2 1.0": 0.713,
    "MobileNetV2 0.35 SavedModel": 0.603,
    "ResNet20": None,
}
SOURCES = (*TOP1, "random MobileNet 0.25", "random MobileNetV2 0.35")
SOURCES = (*SOURCES, "random MobileNetV2 1.0")


def load_source(name: str, options: argparse.Namespace, size: int, seed: int):
    """Loads a source backbone."""
    shape = (size, size, 3)
    if name == "ResNet20":
        return ktr.load_backbone("ResNet20", input_shape=shape)
    if name.endswith("SavedModel"):
        return ktr.load_backbone(
            f"hub:{options.saved_model}", input_shape=shape
        )
    keras.utils.set_random_seed(seed)
    family, alpha = name.removeprefix("random ").split()
    whole = None
    if name.startswith("random "):
        function = getattr(keras.applications, family)
        whole = function((224, 224, 3), alpha=float(alpha), weights=None)
    elif name == "MobileNetV2 1.0":
        whole = keras.applications.MobileNetV2(weights=None, classes=1001)
        whole.load_weights(options.mobilenet_v2_100)
    if whole is not None:  # With a classifier, for LEEP and NCE.
        return ktr.load_backbone(
            whole, pixel_range="[-1, 1]", input_shape=shape
        )
    files = {
        "MobileNet": options.mobilenet,
        "MobileNetV2": options.mobilenet_v2_035,
    }
    return ktr.load_backbone(
        family, alpha=float(alpha), weights=files[family], input_shape=shape
    )


def load_task(name: str, images: Path):
    """Returns the images of a target task, and their size."""
    if name == "flowers12":
        folder = images / "flowers12"
        data = ktr.load_images(folder, image_size=96, split=(1.0, 0.0, 0.0))
        return data, 96
    if name in ("photo", "sketch"):
        folder = images / "pacs_small" / name
        split = (2 / 3, 0.0, 1 / 3)
        return ktr.load_images(folder, image_size=96, split=split), 96
    from sklearn import datasets

    digits = datasets.load_digits()
    arrays = np.repeat(digits.images[..., None] * 255 / 16, 3, axis=-1)
    data = ktr.load_images(
        (arrays.astype("uint8"), digits.target),
        image_size=64,
        split=(1 / 3, 0.0, 2 / 3),
    )
    return data, 64


TASKS = ("flowers12", "photo", "sketch", "digits")


def main(options: argparse.Namespace) -> None:
    """Runs everything that the output does not contain yet."""
    path = Path(options.output)
    done = {(row["task"], row["source"], row["seed"]) for row in read(path)}
    for task in TASKS:
        data, size = load_task(task, Path(options.images))
        if (task, None, None) not in done:
            write(path, rank(options, task, data, size))
        for seed in options.seeds:
            for source in SOURCES:
                if (task, source, seed) in done:
                    continue
                backbone = load_source(source, options, size, seed=0)
                keras.utils.set_random_seed(seed)
                model = ktr.build_classifier(backbone, data=data)
                started = time.time()
                settings = {"epochs": 6}
                if source.startswith("random "):
                    settings = {"strategy": "from-scratch", "epochs": 20}
                ktr.fine_tune(model, data, seed=seed, verbose=0, **settings)
                seconds = round(time.time() - started, 1)
                arrays, _ = data.test.arrays()
                guesses = model.predict(arrays, verbose=0).argmax(-1)
                accuracy = float(np.mean(guesses == data.test.labels))
                row = {"task": task, "source": source, "seed": seed}
                write(path, row | {"accuracy": accuracy, "seconds": seconds})
                keras.backend.clear_session()


def rank(options: argparse.Namespace, task: str, data, size: int) -> dict:
    """Computes the scores of all sources twice, and measures the cost."""
    backbones = [load_source(name, options, size, seed=0) for name in SOURCES]
    store = ktr.FeatureStore()
    costs = []
    for _ in range(2):
        started = time.time()
        ranking = ktr.rank_backbones(
            backbones, data, scores=SCORES, store=store, verbose=0
        )
        costs.append((ranking.computed, round(time.time() - started, 1)))
    # Map names in the ranking, which numbers repeated names, to ours.
    names, seen = {}, {}
    for name, backbone in zip(SOURCES, backbones, strict=True):
        count = seen[backbone.name] = seen.get(backbone.name, 0) + 1
        own = backbone.name + (f" #{count}" if count > 1 else "")
        names[own] = name
    rows = {}
    for row in ranking.rows:
        scores = {"probe": row.probe.accuracy, **row.scores}
        scores = {k: v if np.isfinite(v) else None for k, v in scores.items()}
        rows[names[row.name]] = scores | {"parameters": row.parameters}
    passes = costs[0][0] / (len(SOURCES) * len(data.train))
    return {
        "task": task,
        "source": None,
        "seed": None,
        "scores": rows,
        "passes": round(passes, 4),
        "computed_again": costs[1][0],
        "seconds": [seconds for _, seconds in costs],
    }


def table(path: Path) -> str:
    """Returns a table of accuracies, and one of the tau of each score."""
    rows = read(path)
    scores = {row["task"]: row for row in rows if row["source"] is None}
    runs: dict[tuple, list[float]] = {}
    for row in rows:
        if row["source"] is not None:
            key = (row["task"], row["source"])
            runs.setdefault(key, []).append(row["accuracy"])
    tasks = [task for task in TASKS if (task, SOURCES[-1]) in runs]
    head = f"| | {' | '.join(tasks)} |\n|---|{'---|' * len(tasks)}"
    lines = ["Accuracy after fine-tuning, in percent:\n", head]
    for source in SOURCES:
        cells = []
        for task in tasks:
            mean, half = mean_interval([100 * a for a in runs[task, source]])
            spread = f" ± {half:.1f}" if np.isfinite(half) else ""
            cells.append(f"{mean:.1f}{spread}")
        lines.append(f"| {source} | {' | '.join(cells)} |")
    head = head.replace("| |", "| | mean |", 1)
    head = head.replace("|---|", "|---|---|", 1)
    lines += ["\nWeighted Kendall tau of scores with accuracies:\n", head]
    columns = {
        name: [
            tau(
                {s: v[name] for s, v in scores[task]["scores"].items()},
                {s: float(np.mean(runs[task, s])) for s in SOURCES},
            )
            for task in tasks
        ]
        for name in ("probe", *SCORES, "parameters")
    }
    known = TOP1 | {s: CHANCE for s in SOURCES if s.startswith("random ")}
    generator = np.random.default_rng(0)
    columns["ImageNet top-1"], columns["random order"] = [], []
    for task in tasks:
        truth = {s: float(np.mean(runs[task, s])) for s in SOURCES}
        columns["ImageNet top-1"].append(tau(known, truth))
        samples = [
            tau(
                dict(zip(SOURCES, generator.permutation(8), strict=True)), truth
            )
            for _ in range(1000)
        ]
        columns["random order"].append(float(np.mean(samples)))
    for name, values in columns.items():
        cells = [f"{v:.2f}" if np.isfinite(v) else "-" for v in values]
        mean = f"{np.mean(values):.2f}" if np.isfinite(values).all() else "-"
        lines.append(f"| {name} | {mean} | {' | '.join(cells)} |")
    costs = [
        f"{task}: {scores[task]['passes']} passes per image and source, "
        f"{scores[task]['seconds'][0]} s; second time "
        f"{scores[task]['computed_again']}, {scores[task]['seconds'][1]} s"
        for task in tasks
    ]
    return "\n".join([*lines, "", *costs])


def tau(score: dict, truth: dict) -> float:
    """Returns tau over the sources with a score, NaN for fewer than three."""
    names = [name for name, value in score.items() if value is not None]
    if len(names) < 3:
        return float("nan")
    result = weightedtau(
        [score[name] for name in names], [truth[name] for name in names]
    )
    return float(result.statistic)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--images", help="flowers12/ and pacs_small/")
    parser.add_argument("--mobilenet", help="file, alpha 0.25")
    parser.add_argument("--mobilenet-v2-035", help="file, alpha 0.35")
    parser.add_argument("--mobilenet-v2-100", help="file with 1,001 classes")
    parser.add_argument("--saved-model", help="folder")
    parser.add_argument("--seeds", type=int, nargs="*", default=[1])
    parser.add_argument("--output", default="ranking.jsonl")
    parser.add_argument("--table", action="store_true")
    arguments = parser.parse_args()
    if arguments.table:
        print(table(Path(arguments.output)))
    else:
        main(arguments)
