"""Small networks of each shape that a cut has to deal with."""

import keras
from keras import layers

import keras_transfer as ktr


def _unit(x, filters, name):
    x = layers.Conv2D(filters, 3, padding="same", name=f"{name}_conv")(x)
    x = layers.BatchNormalization(name=f"{name}_norm")(x)
    return layers.ReLU(name=f"{name}_relu")(x)


def chain(x):
    """Convolutions with BatchNormalization, one after the other."""
    for number in range(1, 5):
        x = _unit(x, 4 + number, f"block_{number}")
    return x


def residual(x):
    """Blocks with a connection around them."""
    x = _unit(x, 6, "block_1")
    for number in range(2, 5):
        y = _unit(x, 6, f"block_{number}_a")
        y = _unit(y, 6, f"block_{number}_b")
        x = layers.Add(name=f"block_{number}_add")([x, y])
    return x


def branches(x):
    """Blocks of parallel branches of different depth."""
    for number in range(1, 4):
        one = _unit(x, 3, f"block_{number}_one")
        two = _unit(x, 3, f"block_{number}_two")
        two = _unit(two, 4, f"block_{number}_three")
        pool = layers.AveragePooling2D(
            3, 1, padding="same", name=f"block_{number}_pool"
        )(x)
        x = layers.Concatenate(name=f"mixed{number}")([one, two, pool])
    return x


def reaching_back(x):
    """Cells that read the last two, as NASNet's: two tensors cross."""
    before = x = _unit(x, 4, "stem")
    for number in range(1, 5):
        name = f"normal_concat_{number}"
        one = _unit(x, 4, f"{name}_one")
        two = _unit(before, 4, f"{name}_two")
        before, x = x, layers.Concatenate(name=name)([one, two])
    return x


NETWORKS = {
    function.__name__: function
    for function in (chain, residual, branches, reaching_back)
}


def build(name, first=None, size=8, seed=0, **options):
    """Builds a classifier of three classes, after `first` where given."""
    keras.utils.set_random_seed(seed)
    inputs = keras.Input((size, size, 3))
    x = inputs if first is None else first(inputs)
    network = keras.Model(inputs, NETWORKS[name](x), name=name)
    backbone = ktr.load_backbone(network, pixel_range="[0, 1]")
    return ktr.build_classifier(backbone, 3, **options)
