"""Linear probes: convex problems on frozen features, solved exactly."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from keras_transfer.probes.solver import Solution, rotate, solve_path

# Lambdas relative to the summed loss. A grid in factors of 10 is fine enough:
# the loss varies little between neighbours.
STRENGTHS = tuple(10.0**exponent for exponent in range(-4, 5))

# Score of a class without examples. Losses are clipped at its negative.
ABSENT = -20.0

# Lambda is chosen on at most this many examples.
_MOST_EXAMPLES = 5000


class Probe(NamedTuple):
    """A linear map from features to outputs: `features @ kernel + bias`.

    Attributes:
        kernel: float32 `(features, outputs)`.
        bias: float32 `(outputs,)`.
        strength: The chosen lambda.

    Example:

    >>> probe = Probe(np.ones((4, 1)), np.zeros(1), strength=1.0)
    >>> (np.ones((2, 4)) @ probe.kernel + probe.bias).shape
    (2, 1)
    """

    kernel: np.ndarray
    bias: np.ndarray
    strength: float


def fit_logistic(
    features: np.ndarray,
    labels: np.ndarray,
    num_classes: int,
    *,
    validation: tuple[np.ndarray, np.ndarray] | None = None,
    sample_weight: np.ndarray | None = None,
    strengths: Sequence[float] = STRENGTHS,
) -> Probe:
    """Fits multinomial logistic regression by L-BFGS over a path of lambdas.

    `min sum_i -ln softmax(x_i W + b)[y_i] + lambda / 2 * sum W^2`; each lambda
    starts from the solution of the previous one. Lambda has the smallest
    log-loss on the validation examples or, without any, in 5-fold
    cross-validation; it is 1.0 if a class has a single example. Rows of shares
    `q` are fitted as shares: `-sum_c q_c ln softmax(x W + b)[c]`. At most 5,000
    examples are used to choose lambda; the solution is fitted to all.

    Two classes are one regression, as in scikit-learn: the penalty is
    `lambda / 2 * |w|^2` on the difference `w` of the two columns, which are
    `-w / 2` and `w / 2`.

    Args:
        features: Array `(n, d)`.
        labels: Class indices `(n,)` in `[0, num_classes)`, or shares of the
            classes `(n, num_classes)`, rows that sum to 1.
        num_classes: Number of classes. A class without examples has a score far
            below all others.
        validation: Features and labels to choose lambda by. Defaults to
            `None`.
        sample_weight: Weights of the examples in the loss, `(n,)`. Defaults to
            `None`, 1 for all.
        strengths: The lambdas. Defaults to `STRENGTHS`, 1e-4 to 1e4 in factors
            of 10.

    Returns:
        A `Probe`.

    Raises:
        ValueError: If there are fewer than two classes with examples, or the
            features are not finite.

    Example:

    >>> features = np.eye(4)[[0, 1, 0, 1]]
    >>> probe = fit_logistic(features, np.array([0, 1, 0, 1]), 2)
    >>> (features @ probe.kernel + probe.bias).argmax(-1)
    array([0, 1, 0, 1])

    Reference:
        - Kornblith et al., 2019, https://arxiv.org/abs/1805.08974
    """
    _check(features, labels)
    targets = _coded(labels, num_classes)
    present = np.flatnonzero(targets.any(axis=0))
    if len(present) < 2:
        raise ValueError(
            "`labels` must hold at least two classes. Received: "
            f"{len(present)}."
        )
    coordinates = rotate(features)
    train = _Examples(coordinates.values, targets, sample_weight)
    held_out = None
    if validation is not None and len(validation[1]):
        projected = coordinates.of(validation[0])
        held_out = _Examples(
            projected, _coded(validation[1], num_classes), None
        )
    best = _choose_strength(train, held_out, sorted(strengths, reverse=True))
    solution = next(_solutions(train, [best], exact=True))
    # z = (x - mean) A, so z W + b = x (A W) + (b - mean A W).
    coefficients = coordinates.axes @ solution.weights  # [d, present classes]
    kernel = np.zeros((features.shape[1], num_classes), np.float32)
    bias = np.full(num_classes, ABSENT, np.float32)
    kernel[:, present] = coefficients
    bias[present] = solution.bias - coordinates.mean @ coefficients
    return Probe(kernel, bias, best)


def fit_binary(
    features: np.ndarray,
    labels: np.ndarray,
    *,
    validation: tuple[np.ndarray, np.ndarray] | None = None,
    sample_weight: np.ndarray | None = None,
) -> Probe:
    """Fits a logistic regression for each of several independent outputs.

    Args:
        features: Array `(n, d)`.
        labels: Probabilities in `[0, 1]`, mostly 0 or 1, `(n, outputs)`.
        validation: Features and labels to choose lambda by. Defaults to
            `None`.
        sample_weight: Weights of the examples in the loss, `(n,)`. Defaults to
            `None`.

    Returns:
        A `Probe`; its strength is the mean over the outputs.

    Raises:
        ValueError: If the features are not finite, or a label is not in
            `[0, 1]`.

    Example:

    >>> features = np.array([[-1.0], [1.0], [-1.0], [1.0]])
    >>> fit_binary(features, features > 0).kernel[0, 0] > 0
    np.True_
    """
    _check(features, labels)
    for rows in (labels, *([] if validation is None else [validation[1]])):
        _check_shares(rows)
    kernels, biases, chosen = [], [], []
    for column in range(labels.shape[1]):
        shares = labels[:, column].astype(np.float64)
        if (shares == shares[0]).all() and shares[0] in (0, 1):
            # The same answer for all examples: a constant of high confidence.
            kernels.append(np.zeros(features.shape[1], np.float32))
            biases.append(-ABSENT if shares[0] else ABSENT)
            continue
        held_out = validation and (
            validation[0],
            _two_classes(validation[1][:, column].astype(np.float64)),
        )
        probe = fit_logistic(
            features,
            _two_classes(shares),
            2,
            validation=held_out,
            sample_weight=sample_weight,
        )
        # softmax(s)[1] = sigmoid(s_1 - s_0)
        kernels.append(probe.kernel[:, 1] - probe.kernel[:, 0])
        biases.append(probe.bias[1] - probe.bias[0])
        chosen.append(probe.strength)
    return Probe(
        np.stack(kernels, axis=1).astype(np.float32),
        np.asarray(biases, np.float32),
        float(np.mean(chosen)) if chosen else 0.0,
    )


def fit_ridge(
    features: np.ndarray,
    targets: np.ndarray,
    *,
    sample_weight: np.ndarray | None = None,
    strengths: Sequence[float] = STRENGTHS,
) -> Probe:
    """Fits ridge regression, lambda chosen by leave-one-out in closed form.

    `min sum_i |x_i W + b - y_i|^2 + lambda * sum W^2`.

    Args:
        features: Array `(n, d)`.
        targets: Array `(n, outputs)`.
        sample_weight: Weights of the examples in the loss, `(n,)`. Defaults to
            `None`.
        strengths: The lambdas. Defaults to `STRENGTHS`, 1e-4 to 1e4 in factors
            of 10.

    Returns:
        A `Probe`.

    Raises:
        ValueError: If the features are not finite.

    Example:

    >>> features = np.arange(8.0)[:, None]
    >>> round(float(fit_ridge(features, 2 * features).kernel[0, 0]), 3)
    2.0
    """
    from sklearn.linear_model import RidgeCV

    _check(features, targets)
    model = RidgeCV(alphas=strengths)
    model.fit(
        features.astype(np.float64), targets.astype(np.float64), sample_weight
    )
    return Probe(
        np.atleast_2d(model.coef_).T.astype(np.float32),
        np.atleast_1d(model.intercept_).astype(np.float32),
        float(model.alpha_),
    )


def _two_classes(shares: np.ndarray) -> np.ndarray:
    """Returns the rows (no, yes) of shares of yes, `(n, 2)`."""
    return np.stack([1 - shares, shares], axis=1)


def _coded(labels: np.ndarray, num_classes: int) -> np.ndarray:
    """Returns shares of the classes, float64 `(n, num_classes)`."""
    if labels.ndim == 2:
        return labels.astype(np.float64)
    return np.eye(num_classes)[labels]


class _Examples(NamedTuple):
    """Coordinates `(n, r)`, shares `(n, classes)` and weights of examples."""

    features: np.ndarray
    targets: np.ndarray
    weights: np.ndarray | None

    def take(self, indices: np.ndarray) -> _Examples:
        weights = None if self.weights is None else self.weights[indices]
        return _Examples(self.features[indices], self.targets[indices], weights)

    def sample(self) -> _Examples:
        """Returns at most `_MOST_EXAMPLES`, always the same."""
        if len(self.targets) <= _MOST_EXAMPLES:
            return self
        order = np.random.default_rng(0).permutation(len(self.targets))
        return self.take(order[:_MOST_EXAMPLES])


def _choose_strength(
    train: _Examples, held_out: _Examples | None, ordered: Sequence[float]
) -> float:
    """Returns the lambda of the smallest loss on held-out examples."""
    if len(ordered) == 1:
        return ordered[0]
    train = train.sample()
    if held_out is not None:
        losses = _path_losses(train, held_out.sample(), ordered)
        return ordered[int(np.argmin(losses))]
    fold_losses = [
        _path_losses(train.take(fit), train.take(rest), ordered)
        for fit, rest in _folds(train)
    ]
    if not fold_losses:
        return 1.0
    return ordered[int(np.argmin(np.mean(fold_losses, axis=0)))]


def _folds(train: _Examples) -> list[tuple[np.ndarray, np.ndarray]]:
    """Returns rows to fit and rows to measure; none if there are too few."""
    from sklearn.model_selection import KFold, StratifiedKFold

    exclusive = ((train.targets == 0) | (train.targets == 1)).all()
    if not exclusive:  # Shares have no classes to stratify by.
        folds = min(5, len(train.targets))
        splitter = KFold(folds, shuffle=True, random_state=0)
        return list(splitter.split(train.features)) if folds > 1 else []
    labels = train.targets.argmax(axis=1)
    smallest = int(np.unique(labels, return_counts=True)[1].min())
    if smallest < 2:
        return []
    splitter = StratifiedKFold(min(5, smallest), shuffle=True, random_state=0)
    return list(splitter.split(train.features, labels))


def _path_losses(
    train: _Examples, held_out: _Examples, ordered: Sequence[float]
) -> np.ndarray:
    """Returns the mean log-loss on the held-out examples for each lambda.

    The path stops once the loss has risen twice, and the remaining losses are
    infinite: weaker lambdas overfit more and take the longest to solve.
    """
    losses = np.full(len(ordered), np.inf)
    present = train.targets.any(axis=0)
    # Shares of the classes of `train`, [m, present classes], and their sum.
    shares = held_out.targets[:, present]
    mass = shares.sum(axis=1)
    for index, solution in enumerate(_solutions(train, ordered)):
        # -sum_c q_c ln softmax(s)[c] = ln sum_c exp(s_c - max) + max - q s.
        scores = solution.scores(held_out.features)  # [m, present classes]
        highest = scores.max(axis=1)
        total = np.exp(scores - highest[:, None]).sum(axis=1)
        loss = (np.log(total) + highest) * mass - (scores * shares).sum(axis=1)
        # Each class that `train` lacks costs as much as the score `ABSENT`.
        loss += (1 - mass) * -ABSENT
        losses[index] = loss.clip(-1, -ABSENT).mean()
        if index > 1 and losses[index] > losses[index - 1] > losses[index - 2]:
            break
    return losses


def _solutions(
    train: _Examples, ordered: Sequence[float], exact: bool = False
) -> Iterator[Solution]:
    """Yields the solution for each lambda, for the classes with examples."""
    coded, present = train.targets, train.targets.any(axis=0)
    if not present.all():
        coded = coded[:, present]  # [n, present classes]
    # Two classes are one regression: with W = (-w/2, w/2),
    # lambda / 2 * |w|^2 = lambda * |W|^2, twice the penalty on W.
    factor = 2.0 if coded.shape[1] == 2 else 1.0
    return solve_path(
        train.features,
        coded,
        [factor * strength for strength in ordered],
        weights=train.weights,
        exact=exact,
    )


def _check_shares(labels: np.ndarray) -> None:
    """Raises unless all labels are probabilities."""
    if not ((labels >= 0) & (labels <= 1)).all():
        raise ValueError(
            "`labels` must be probabilities in [0, 1]. Received: values from "
            f"{labels.min():g} to {labels.max():g}"
        )


def _check(features: np.ndarray, labels: np.ndarray) -> None:
    if features.ndim != 2 or len(features) != len(labels):
        raise ValueError(
            "`features` must have shape (n, d), with as many labels. Received: "
            f"features of shape {features.shape}, labels of shape "
            f"{labels.shape}"
        )
    check_finite(features)


def check_finite(features: np.ndarray) -> None:
    """Raises unless all features are finite."""
    if not np.isfinite(features).all():
        raise ValueError(
            "`features` must be finite. Received: NaN or infinity; check the "
            "weights of the backbone and the pixels."
        )
