"""A task that the package does not know: a class and a number at once."""

import dataclasses

import keras
import numpy as np
from keras import ops
from training._tiny import CLASSES, make_images

from keras_transfer.tasks.task import Task


def loss_of_both(labels, outputs):
    """Cross-entropy of the class, and squared error of the number."""
    classes = keras.losses.sparse_categorical_crossentropy(
        labels[:, 0], outputs[:, :CLASSES]
    )
    return classes + ops.square(labels[:, 1] - outputs[:, CLASSES])


def accuracy(labels, outputs):
    return keras.metrics.sparse_categorical_accuracy(
        labels[:, 0], outputs[:, :CLASSES]
    )


@dataclasses.dataclass(frozen=True, eq=False)
class ClassAndNumber(Task):
    loss: object = loss_of_both

    def metrics(self):
        return [keras.metrics.MeanMetricWrapper(accuracy, name="accuracy")]


def make_model():
    """Three blocks and two heads, side by side in one output."""
    keras.utils.set_random_seed(0)
    images = keras.Input((8, 8, 3))
    x = keras.layers.Rescaling(1 / 255)(images)
    for number in (1, 2, 3):
        x = keras.layers.Conv2D(
            4 + number, 3, activation="relu", name=f"block_{number}_conv"
        )(x)
    x = keras.layers.GlobalAveragePooling2D(name="pool")(x)
    classes = keras.layers.Dense(CLASSES, "softmax", name="class")(x)
    number = keras.layers.Dense(1, name="number")(x)
    return keras.Model(images, ops.concatenate([classes, number], axis=-1))


def make_data():
    """The brightness of an image is its number."""
    images, labels = make_images(44)
    numbers = images.mean(axis=(1, 2, 3)) / 255
    both = np.stack([labels, numbers], axis=1).astype("float32")
    images = images.astype("float32")
    return {
        "train": (images[:34], both[:34]),
        "validation": (images[34:], both[34:]),
    }
