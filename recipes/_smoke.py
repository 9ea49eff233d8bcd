"""Noise images and a small network: `--smoke` runs a recipe in seconds."""

from pathlib import Path

import keras
import numpy as np
from PIL import Image

import keras_transfer as ktr


def write_noise(folder: str | Path) -> str:
    """Writes two classes of 32 x 32 noise, 16 training and 8 test images."""
    noise = np.random.default_rng(0).integers(0, 256, (24, 32, 32, 3), "uint8")
    for index, image in enumerate(noise):
        split = "test" if index % 3 == 0 else "train"
        path = Path(folder) / split / "ab"[index % 2] / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)
    return str(folder)


def write_network(folder: str | Path) -> str:
    """Writes a classifier of four blocks, which serves as a backbone."""
    names = [f"block_{number}_conv" for number in (1, 2, 3, 4)]
    blocks = [keras.layers.Conv2D(4, 3, 2, "same", name=n) for n in names]
    network = keras.Sequential([keras.Input((32, 32, 3)), *blocks])
    backbone = ktr.load_backbone(network, pixel_range="[0, 1]")
    path = Path(folder) / "network.keras"
    ktr.build_classifier(backbone, 2).save(path)
    return str(path)
