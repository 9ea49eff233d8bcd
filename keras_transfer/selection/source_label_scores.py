"""LEEP, NCE and NLEEP: scores of source classes as predictors of labels."""

from __future__ import annotations

from typing import Any

import numpy as np

from keras_transfer.features.arrays import (
    check_classes,
    check_features,
    check_probabilities,
)
from keras_transfer.features.class_columns import flat_classes

# Share of the variance that principal components keep, as in the paper.
_ENERGY = 0.8


_COMPONENTS_PER_CLASS = 5


def leep(probabilities: Any, labels: Any) -> float:
    """Returns the log expected empirical prediction.

        mean_i ln sum_z P(y_i | z) theta(x_i)_z,
        P(y, z) = mean_i [y_i = y] theta(x_i)_z

    for the probabilities `theta(x)` of the source classifier over its own
    classes `z`.

    Args:
        probabilities: Array `(n, source classes)`; rows sum to 1.
        labels: Class indices `(n,)` or one-hot rows.

    Returns:
        The score in nats, at most 0; higher is better.

    Raises:
        ValueError: If shapes do not fit, rows are not probabilities, or
            there is one class only.

    Example:

    >>> sure = np.eye(2)[[0, 0, 1, 1]]
    >>> leep(sure, np.array([1, 1, 0, 0]))
    0.0

    Reference:
        - Nguyen et al., 2020, https://arxiv.org/abs/2002.12462
    """
    source = check_probabilities(probabilities)
    labels = check_classes(labels, len(source))
    onehot = np.eye(labels.max() + 1)[labels]
    conditional = _conditional(onehot.T @ source)  # [classes, source classes]
    expected = (source * conditional[labels]).sum(axis=1)
    return float(np.log(expected).mean())


def nce(probabilities: Any, labels: Any) -> float:
    """Returns the negative conditional entropy `-H(Y | Z)`.

    As LEEP, with the most likely source class for `z`.

    Args:
        probabilities: Array `(n, source classes)`, or class indices `(n,)`.
        labels: Class indices `(n,)` or one-hot rows.

    Returns:
        The score in nats, at most 0; higher is better.

    Raises:
        ValueError: If shapes do not fit, rows are not probabilities, or
            there is one class only.

    Example:

    >>> round(nce(np.array([0, 0, 1, 1]), np.array([0, 1, 2, 2])), 4)
    -0.3466

    Reference:
        - Tran et al., 2019, https://arxiv.org/abs/1908.08142
    """
    array = flat_classes(np.asarray(probabilities))
    if array.ndim == 1 and array.dtype.kind in "iu":
        _, source = np.unique(array, return_inverse=True)
        source = source.reshape(-1)
    else:
        source = check_probabilities(array).argmax(axis=1)
    labels = check_classes(labels, len(source))
    joint = np.zeros((labels.max() + 1, source.max() + 1))
    np.add.at(joint, (labels, source), 1)
    return float(np.log(_conditional(joint)[labels, source]).mean())


def nleep(features: Any, labels: Any, *, seed: int = 0) -> float:
    """Returns NLEEP: LEEP with clusters of features as source classes.

    For backbones without a classifier of their own: principal components with
    80 % of the variance, a Gaussian mixture with five components per class
    (fewer with few examples), and LEEP of its posterior.

    Args:
        features: Array `(n, d)`.
        labels: Class indices `(n,)` or one-hot rows.
        seed: Seed of the mixture. Defaults to `0`.

    Returns:
        The score in nats, at most 0; higher is better.

    Raises:
        ValueError: If shapes do not fit, a number is not finite, or there is
            one class only.

    Example:

    >>> generator = np.random.default_rng(0)
    >>> labels = np.arange(60) % 2
    >>> features = generator.normal(size=(60, 4)) + 9 * labels[:, None]
    >>> nleep(features, labels) > -0.01
    True

    Reference:
        - Li et al., 2021, https://arxiv.org/abs/2011.11200
    """
    features = check_features(features)
    labels = check_classes(labels, len(features))
    if not np.ptp(features, axis=0).any():
        return leep(np.ones((len(features), 1)), labels)
    from sklearn.decomposition import PCA
    from sklearn.mixture import GaussianMixture

    # `n_components` of exactly 1.0 is a number of components to scikit-learn.
    reduced = PCA(_ENERGY, svd_solver="full").fit_transform(features)
    classes = labels.max() + 1
    # At least five examples per component, on average.
    most = max(classes, len(features) // 5)
    count = int(min(_COMPONENTS_PER_CLASS * classes, most, len(features)))
    mixture = GaussianMixture(
        count,
        covariance_type="diag",
        reg_covar=1e-6 * float(reduced.var(axis=0).max()) + 1e-12,
        random_state=seed,
    )
    mixture.fit(reduced)
    return leep(mixture.predict_proba(reduced), labels)


def _conditional(joint: np.ndarray) -> np.ndarray:
    """Returns `P(y | z)` of `P(y, z)`; 0 for a source class of no example."""
    mass = joint.sum(axis=0, keepdims=True)
    return np.divide(joint, mass, out=np.zeros_like(joint), where=mass > 0)
