r"""Clustering of unlabelled images: k-means on frozen features.

    python recipes/cluster_images.py --data FOLDER --backbone MobileNetV2 \
        --alpha 0.35 --image-size 160

Each image passes the backbone once. Its features are cached, so that another
number of clusters takes seconds. If the folder has one sub-folder per class,
classes are compared with clusters, and a linear probe on the same features
shows the value of labels. Writes clusters.png (the first two principal
components) and clusters.csv (id, cluster), and prints typical images of each
cluster.

flowers12 (12 species of Oxford flowers, 60 + 20 images each; research use),
MobileNetV2 0.35 with ImageNet weights at 160 pixels: NMI of the 720 training
images 0.78 / 0.81 / 0.83, silhouette 0.15 / 0.16 / 0.16, accuracy of the probe
95.4 / 95.8 / 95.8 % (min / median / max over 5 seeds); without labels the
silhouette chooses 12 clusters. Two cores, 25 seconds. 2026-11-21.
"""

import argparse
import csv
import dataclasses
import json
import tempfile
import time
from pathlib import Path

from _smoke import write_noise

import keras_transfer as ktr


@dataclasses.dataclass(frozen=True)
class Config:
    """The recipe's settings."""

    data: str
    backbone: str = "MobileNetV2"
    weights: str = "pretrained"
    alpha: float | None = None  # width, for the MobileNets
    image_size: int | None = None  # None: that of the backbone's pretraining
    clusters: int | None = None  # None: the number of classes
    seed: int = 0
    store: str | None = None  # None: the user's
    output: str = "runs/cluster_images"


def main(config: Config) -> dict[str, object]:
    """Extracts, clusters, writes the files, returns the results."""
    started = time.time()
    folder = Path(config.output)
    folder.mkdir(parents=True, exist_ok=True)
    data = load_data(config)
    print(data)
    options = {} if config.alpha is None else {"alpha": config.alpha}
    backbone = ktr.load_backbone(
        config.backbone,
        weights=config.weights,
        input_shape=(*data.image_size, data.channels),
        **options,
    )
    features = ktr.extract_features(backbone, data, store=config.store)
    extracted = time.time()
    clusters = ktr.cluster(features, config.clusters, seed=config.seed)
    print(clusters)
    for number in range(len(clusters)):
        rows = clusters.typical(number, count=3)
        print(f"  {number}: {', '.join(clusters.ids[row] for row in rows)}")
    clusters.plot(folder / "clusters.png")
    with open(folder / "clusters.csv", "w", newline="", encoding="utf-8") as f:
        csv.writer(f).writerows(
            [
                ("id", "cluster"),
                *zip(clusters.ids, clusters.labels, strict=True),
            ]
        )
    numbers = {
        "clusters": len(clusters),
        "silhouette": round(clusters.silhouette, 4),
        "nmi": None if clusters.nmi is None else round(clusters.nmi, 4),
        "seconds_to_extract": round(extracted - started, 1),
        "seconds_after": round(time.time() - extracted, 1),
    }
    if features.test is not None:
        probe = ktr.fit_probe(features, seed=config.seed)
        print(probe.summary())
        evaluation = probe.evaluate(features.test)
        numbers["probe_accuracy"] = round(evaluation["accuracy"], 4)
    return numbers


def load_data(config: Config):
    """Loads the user's images; unreadable ones are listed and skipped."""
    size = config.image_size
    if size is None:
        size = ktr.list_backbones()[config.backbone].default_size
    return ktr.load_images(
        config.data, image_size=size, split=(0.8, 0.0, 0.2), on_error="skip"
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", help="folder of images")
    parser.add_argument("--backbone", default=Config.backbone)
    parser.add_argument("--weights", default=Config.weights, help="or a file")
    parser.add_argument("--alpha", type=float)
    parser.add_argument("--image-size", type=int)
    parser.add_argument("--clusters", type=int, help="default: the classes")
    parser.add_argument("--seed", type=int, default=Config.seed)
    parser.add_argument("--store", help='folder of features, or "memory"')
    parser.add_argument("--output", default=Config.output)
    parser.add_argument("--smoke", action="store_true", help="run on noise")
    arguments = vars(parser.parse_args())
    if arguments.pop("smoke"):
        tiny = {"backbone": "ResNet20", "image_size": 32, "store": "memory"}
        with tempfile.TemporaryDirectory() as noise:
            arguments |= tiny | {"data": write_noise(noise)}
            print(json.dumps(main(Config(**arguments))))
    elif arguments["data"] is None:
        parser.error("--data is needed: a folder of images")
    else:
        print(json.dumps(main(Config(**arguments))))
