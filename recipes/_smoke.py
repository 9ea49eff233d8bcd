"""A folder of noise images, with which `--smoke` runs a recipe in seconds."""

from pathlib import Path

import numpy as np
from PIL import Image


def write_noise(folder: str | Path) -> str:
    """Writes two classes of 32 x 32 noise, 16 training and 8 test images."""
    noise = np.random.default_rng(0).integers(0, 256, (24, 32, 32, 3), "uint8")
    for index, image in enumerate(noise):
        split = "test" if index % 3 == 0 else "train"
        path = Path(folder) / split / "ab"[index % 2] / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)
    return str(folder)
