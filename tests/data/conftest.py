"""Small folders of real image files, made in a temporary place."""

import numpy as np
import pytest
from PIL import Image


@pytest.fixture
def make_image():
    """Returns a function that makes a noise image that `key` decides."""

    def make(key=0, size=(10, 8), mode="RGB"):
        generator = np.random.default_rng(key)
        depth = {"L": (), "RGB": (3,), "RGBA": (4,)}[mode]
        shape = (size[0], size[1], *depth)
        return Image.fromarray(
            generator.integers(0, 256, shape, dtype=np.uint8), mode=None
        )

    return make


@pytest.fixture
def make_folder(tmp_path, make_image):
    """Returns a function that writes `{class: count}` PNG files."""
    counter = iter(range(100_000))

    def make(classes, name="images", size=(10, 8)):
        root = tmp_path / name
        for class_name, count in classes.items():
            folder = root / class_name
            folder.mkdir(parents=True)
            for i in range(count):
                image = make_image(next(counter), size)
                image.save(folder / f"{i:03d}.png")
        return root

    return make


@pytest.fixture
def arrays():
    """40 noise images of 4 classes, 10 each."""
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (40, 8, 8, 3), dtype=np.uint8)
    return images, np.arange(40) % 4
