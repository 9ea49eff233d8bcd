"""A network and images so small that a run takes a second or two."""

import keras
import numpy as np

import keras_transfer as ktr

CLASSES = 3
# Law 2, in float32.
SAME = 1e-5


def make_images(count, seed=0):
    """Noise with a bright square, whose place says the class."""
    generator = np.random.default_rng(seed)
    images = generator.integers(0, 120, (count, 8, 8, 3)).astype("uint8")
    labels = np.arange(count) % CLASSES
    for image, label in zip(images, labels, strict=True):
        image[1:5, 2 * label : 2 * label + 3] += 100
    return images, labels


def make_data(train=48, validation=18, test=18):
    """Images of three splits, of these sizes."""
    counts = {"train": train, "validation": validation, "test": test}
    parts = {
        name: make_images(count, seed)
        for seed, (name, count) in enumerate(counts.items())
    }
    return ktr.load_images(parts)


def make_model(seed=0, **options):
    """Three blocks with BatchNormalization, a head of one dense layer."""
    keras.utils.set_random_seed(seed)
    inputs = keras.Input((8, 8, 3))
    x = inputs
    for number, filters in enumerate((4, 6, 8), start=1):
        x = keras.layers.Conv2D(
            filters, 3, padding="same", name=f"block_{number}_conv"
        )(x)
        x = keras.layers.BatchNormalization(name=f"block_{number}_norm")(x)
        x = keras.layers.ReLU(name=f"block_{number}_relu")(x)
    network = keras.Model(inputs, x, name="tiny")
    backbone = ktr.load_backbone(network, pixel_range="[0, 1]")
    return ktr.build_classifier(backbone, CLASSES, **options)


def arrays_of(model):
    return [np.array(v) for v in model.variables]


def assert_same(model, arrays, atol=0.0):
    for variable, array in zip(model.variables, arrays, strict=True):
        np.testing.assert_allclose(
            np.array(variable), array, rtol=0, atol=atol, err_msg=variable.path
        )


def assert_law(model, other):
    """Weights within 1e-5, or within that of the largest of their layer.

    An exact probe of examples that are easy to tell apart has weights of 80.
    """
    largest = {}
    for variable in other.variables:
        layer = variable.path.rpartition("/")[0]
        size = float(np.abs(np.array(variable)).max(initial=0))
        largest[layer] = max(largest.get(layer, 1.0), size)
    for one, two in zip(model.variables, other.variables, strict=True):
        array = np.array(two)
        exact = array.dtype.kind != "f"
        atol = 0 if exact else SAME * largest[two.path.rpartition("/")[0]]
        np.testing.assert_allclose(
            one, array, rtol=0, atol=atol, err_msg=two.path
        )
