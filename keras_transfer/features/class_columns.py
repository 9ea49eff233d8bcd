"""Class indices of shape `(n, 1)`, as in the data sets of Keras."""

from __future__ import annotations

import numpy as np


def flat_classes(labels: np.ndarray) -> np.ndarray:
    """Returns class indices `(n, 1)` as `(n,)`, other labels as they are.

    Args:
        labels: Array `(n, ...)`; only integers and booleans are indices.

    Example:

    >>> flat_classes(np.array([[0], [2]])).shape
    (2,)
    """
    is_column = labels.ndim == 2 and labels.shape[1] == 1
    if is_column and labels.dtype.kind in "biu":
        return labels[:, 0]
    return labels
