"""LEEP, NCE and NLEEP: what source classes say of target classes."""

from __future__ import annotations

from typing import Any

import numpy as np

from keras_transfer.features.arrays import (
    check_classes,
    check_features,
    check_probabilities,
)

# Of the variance of the features, as in the paper.
_ENERGY = 0.8


# Components of the mixture for each class of the target.
_COMPONENTS = 5


def leep(probabilities: Any, labels: Any) -> float:
    """Returns the log expected empirical prediction.

        mean_i ln sum_z P(y_i | z) theta(x_i)_z,
        P(y, z) = mean_i [y_i = y] theta(x_i)_z

    for the probabilities `theta(x)` that the source classifier gives its own
    classes `z`.

    Args:
        probabilities: `(n, source classes)`; rows sum to 1.
        labels: Class indices `(n,)` or one-hot rows.

    Returns:
        The score in nats, at most 0: more is better.

    Raises:
        ValueError: If shapes do not fit, rows are no probabilities, or there
            is one class only.

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
    conditional = _conditional(onehot.T @ source)
    expected = (source * conditional[labels]).sum(axis=1)
    return float(np.log(expected).mean())


def nce(probabilities: Any, labels: Any) -> float:
    """Returns the negative conditional entropy `-H(Y | Z)`.

    As LEEP, with the class that the source finds most likely for `z`.

    Args:
        probabilities: `(n, source classes)`; or class indices `(n,)`.
        labels: Class indices `(n,)` or one-hot rows.

    Returns:
        The score in nats, at most 0: more is better.

    Raises:
        ValueError: If shapes do not fit, rows are no probabilities, or there
            is one class only.

    Example:

    >>> round(nce(np.array([0, 0, 1, 1]), np.array([0, 1, 2, 2])), 4)
    -0.3466

    Reference:
        - Tran et al., 2019, https://arxiv.org/abs/1908.08142
    """
    given = np.asarray(probabilities)
    if given.ndim == 1 and given.dtype.kind in "iu":
        _, source = np.unique(given, return_inverse=True)
        source = source.reshape(-1)
    else:
        source = check_probabilities(given).argmax(axis=1)
    labels = check_classes(labels, len(source))
    joint = np.zeros((labels.max() + 1, source.max() + 1))
    np.add.at(joint, (labels, source), 1)
    return float(np.log(_conditional(joint)[labels, source]).mean())


def nleep(features: Any, labels: Any, *, seed: int = 0) -> float:
    """Returns NLEEP: LEEP with clusters of the features for source classes.

    For backbones without a classifier of their own: principal components with
    80 % of the variance, a mixture of Gaussians with five components for each
    class (fewer where there are few examples), LEEP of its posterior.

    Args:
        features: `(n, d)`.
        labels: Class indices `(n,)` or one-hot rows.
        seed: Of the mixture. Defaults to `0`.

    Returns:
        The score in nats, at most 0: more is better.

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
    # At least five examples for each, on average.
    most = max(classes, len(features) // 5)
    count = int(min(_COMPONENTS * classes, most, len(features)))
    mixture = GaussianMixture(
        count,
        covariance_type="diag",
        reg_covar=1e-6 * float(reduced.var(axis=0).max()) + 1e-12,
        random_state=seed,
    )
    mixture.fit(reduced)
    return leep(mixture.predict_proba(reduced), labels)


def _conditional(joint: np.ndarray) -> np.ndarray:
    """`P(y | z)` of `P(y, z)`; 0 for a source class that nobody has."""
    mass = joint.sum(axis=0, keepdims=True)
    return np.divide(joint, mass, out=np.zeros_like(joint), where=mass > 0)
