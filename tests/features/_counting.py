"""A layer that counts how often each example passes it."""

import hashlib
from collections import Counter

import keras
import numpy as np

COUNTS = Counter()


@keras.saving.register_keras_serializable("tests")
class Counting(keras.layers.Layer):
    """Passes its input on."""

    def call(self, x):
        import tensorflow as tf

        def count(examples):
            for example in examples:
                COUNTS[hashlib.sha256(example.tobytes()).hexdigest()] += 1
            return np.int64(0)

        counted = tf.numpy_function(count, [x], tf.int64)
        with tf.control_dependencies([counted]):
            return tf.identity(x)

    def compute_output_spec(self, x):
        return keras.KerasTensor(x.shape, x.dtype)


def passed(images):
    """Returns how often each image passed since the last call.

    Images in `[0, 255]`; the layer sees them scaled to `[0, 1]`.
    """
    counts = [
        COUNTS[hashlib.sha256(row.tobytes()).hexdigest()]
        for row in np.asarray(images, np.float32) * np.float32(1 / 255)
    ]
    COUNTS.clear()
    return counts
