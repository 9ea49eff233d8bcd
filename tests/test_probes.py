"""Exact probes against scikit-learn and closed forms."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression, Ridge

from keras_transfer.probes import (
    STRENGTHS,
    fit_binary,
    fit_logistic,
    fit_ridge,
)


def problem(count=60, width=10, classes=3, noise=1.0):
    generator = np.random.default_rng(0)
    means = generator.normal(size=(classes, width))
    labels = np.arange(count) % classes
    features = means[labels] + noise * generator.normal(size=(count, width))
    return features.astype("float32"), labels


def probabilities(probe, features):
    scores = features @ probe.kernel + probe.bias
    scores = np.exp(scores - scores.max(axis=1, keepdims=True))
    return scores / scores.sum(axis=1, keepdims=True)


@pytest.mark.parametrize(
    ("count", "width", "classes"),
    [(60, 10, 3), (24, 100, 3), (30, 8, 2), (12, 50, 2)],
    ids=["n>d", "n<d", "binary", "binary n<d"],
)
def test_logistic_equals_scikit_learn(count, width, classes):
    """Also in the row space of the features, where there are fewer."""
    features, labels = problem(count, width, classes)
    probe = fit_logistic(features, labels, classes, strengths=[0.3])
    oracle = LogisticRegression(C=1 / 0.3, max_iter=10_000, tol=1e-10)
    oracle.fit(features.astype("float64"), labels)
    np.testing.assert_allclose(
        probabilities(probe, features),
        oracle.predict_proba(features),
        atol=1e-4,
    )


def test_lambda_is_chosen_by_the_validation_loss():
    features, labels = problem(90, noise=2.0)
    held_out = problem(90, noise=2.0)
    held_out = held_out[0][::-1][:60] + 0.5, held_out[1][::-1][:60]
    probe = fit_logistic(features, labels, 3, validation=held_out)
    losses = []
    for strength in STRENGTHS:
        oracle = LogisticRegression(C=1 / strength, max_iter=10_000)
        oracle.fit(features, labels)
        found = oracle.predict_proba(held_out[0])
        losses.append(-np.log(found[np.arange(60), held_out[1]]).mean())
    best = STRENGTHS[int(np.argmin(losses))]
    assert probe.strength == pytest.approx(best)


def test_one_example_a_class_takes_lambda_1():
    features, labels = problem(3)
    assert fit_logistic(features, labels, 3).strength == 1.0


def test_an_absent_class_is_never_predicted():
    features, labels = problem()
    probe = fit_logistic(features, labels, 5)
    assert probabilities(probe, features)[:, 3:].max() < 1e-6
    assert probe.kernel.shape == (10, 5)


def test_binary_is_one_regression_an_output():
    features, labels = problem()
    answers = np.stack([labels == 0, labels == 1, labels > 5], axis=1)
    probe = fit_binary(features, answers)
    scores = features @ probe.kernel + probe.bias
    assert ((scores[:, :2] > 0) == answers[:, :2]).mean() > 0.9
    assert (scores[:, 2] < -10).all()


def test_ridge_equals_scikit_learn():
    features, labels = problem()
    targets = np.stack([labels, -2.0 * labels], axis=1)
    probe = fit_ridge(features, targets, strengths=[0.7])
    oracle = Ridge(alpha=0.7).fit(features.astype("float64"), targets)
    np.testing.assert_allclose(probe.kernel, oracle.coef_.T, atol=1e-4)
    np.testing.assert_allclose(probe.bias, oracle.intercept_, atol=1e-4)


def test_bad_features_raise():
    features, labels = problem()
    with pytest.raises(ValueError, match="at least two classes"):
        fit_logistic(features, labels * 0, 3)
    with pytest.raises(ValueError, match="as many labels"):
        fit_logistic(features, labels[:5], 3)
    features[0, 0] = np.nan
    with pytest.raises(ValueError, match="must be finite"):
        fit_logistic(features, labels, 3)
