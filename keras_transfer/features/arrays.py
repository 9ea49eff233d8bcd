"""Checks of the features, labels and probabilities that scores take."""

from __future__ import annotations

from typing import Any

import numpy as np

from keras_transfer.data.labels import refuse_gaps
from keras_transfer.features.class_columns import flat_classes
from keras_transfer.features.features import Features, FeatureSplit


def ids_of(features: Any) -> tuple[str, ...]:
    """Returns the ids of examples, or their row numbers without any."""
    if isinstance(features, Features):
        raise TypeError(
            "`features` must be an array or one split of `Features`, such as "
            "`features.train`. Received: all splits."
        )
    if isinstance(features, FeatureSplit) and features.ids is not None:
        return features.ids
    if not hasattr(features, "__len__"):
        raise TypeError(
            "`features` must be an array (examples, features). Received: "
            f"{type(features).__name__}"
        )
    return tuple(map(str, range(len(features))))


def check_features(
    features: Any, name: str = "features", least: int = 2
) -> np.ndarray:
    """Returns features as float64 `(n, d)`."""
    if isinstance(features, FeatureSplit):
        features = features.values
    array = np.asarray(features)
    if array.ndim != 2 or array.dtype.kind not in "biuf" or not array.shape[1]:
        raise ValueError(
            f"`{name}` must be an array of numbers of shape (examples, "
            f"{name}). Received: {array.dtype} of shape {array.shape}. Pool "
            "feature maps first."
        )
    array = array.astype(np.float64)
    if not np.isfinite(array).all():
        raise ValueError(
            f"`{name}` must be finite. Received: NaN or infinite numbers in "
            f"{int((~np.isfinite(array)).any(axis=1).sum())} rows."
        )
    if len(array) < least:
        raise ValueError(
            f"`{name}` must hold at least {least} examples. Received: "
            f"{len(array)}."
        )
    return array


def check_classes(labels: Any, count: int) -> np.ndarray:
    """Returns class indices `(n,)`, renumbered without absent classes."""
    array = np.asarray(labels)
    refuse_gaps("labels", array, "labels")
    if array.ndim == 2 and array.shape[1] > 1:
        binary = ((array == 0) | (array == 1)).all()
        if not binary or not (array.sum(axis=1) == 1).all():
            raise ValueError(
                "`labels` must name one class per example: indices or one-hot "
                "rows. Received: rows that are not one-hot."
            )
        array = array.argmax(axis=1)
    array = flat_classes(array)
    if array.shape != (count,) or array.dtype.kind not in "biu":
        raise ValueError(
            f"`labels` must be {count} integers, one for each example. "
            f"Received: {array.dtype} of shape {array.shape}."
        )
    classes, indices = np.unique(array, return_inverse=True)
    if len(classes) < 2:
        raise ValueError(
            "`labels` must name at least two classes. Received: only class "
            f"{classes.tolist()}."
        )
    return indices.reshape(-1)


def check_probabilities(probabilities: Any, least: int = 2) -> np.ndarray:
    """Returns probabilities of source classes as float64 `(n, classes)`."""
    array = check_features(probabilities, "probabilities", least)
    sums = array.sum(axis=1)
    if (array < 0).any() or not np.allclose(sums, 1, atol=1e-3):
        raise ValueError(
            "`probabilities` must be at least 0, with rows that sum to 1, as "
            "the softmax of the source classifier gives them. Received: row "
            f"sums from {sums.min():.3g} to {sums.max():.3g}."
        )
    return array / sums[:, None]
