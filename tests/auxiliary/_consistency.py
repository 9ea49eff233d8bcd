"""A loss that the package does not know: an image and its mirror agree."""

import dataclasses

import numpy as np
from keras import ops
from training._tiny import make_data, make_images, make_model

from keras_transfer.auxiliary import OutputLoss

__all__ = ["Consistency", "make_data", "make_model", "make_unlabelled"]


@dataclasses.dataclass(frozen=True, eq=False)
class Consistency(OutputLoss):
    """Adds `weight * mean_i |f(x_i) - f(mirror of x_i)|^2`."""

    images: np.ndarray
    weight: float = 1.0

    def examples(self):
        return {
            "image": self.images,
            "mirror": np.ascontiguousarray(self.images[:, :, ::-1]),
        }

    def compute(self, outputs, carried):
        gap = ops.square(carried["image"] - carried["mirror"])
        return ops.mean(ops.sum(gap, axis=-1))


def make_unlabelled():
    return make_images(20, seed=7)[0]
