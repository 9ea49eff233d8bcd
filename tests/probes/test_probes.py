"""Exact probes against scikit-learn and closed forms."""

import numpy as np
import pytest
from scipy.optimize import minimize
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.neighbors import KNeighborsClassifier, NearestCentroid

from keras_transfer import probes
from keras_transfer.probes import STRENGTHS, fit_binary, fit_logistic, fit_ridge


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


def toy(count=90, width=12, classes=3, seed=0, noise=1.0):
    """A `Problem` whose last third is held out."""
    features, labels = problem(count, width, classes, noise)
    rows = np.random.default_rng(seed).permutation(count)
    splits = ((rows[: 2 * count // 3], rows[2 * count // 3 :]),)
    return probes.Problem(
        features.astype("float64"), labels, classes, "classification", splits
    )


def summed_loss(features, labels, kernel, bias, strength):
    """The objective as documented, with the penalty on what is given."""
    scores = features @ kernel + bias
    losses = np.logaddexp.reduce(scores, axis=1)
    losses -= scores[np.arange(len(labels)), labels]
    return losses.sum() + strength / 2 * (kernel**2).sum()


@pytest.mark.parametrize("strength", [1e2, 1.0, 1e-3])
@pytest.mark.parametrize(
    ("count", "width"), [(60, 10), (24, 100)], ids=["n>d", "n<d"]
)
def test_the_exact_probe_is_scikit_learns_optimum(count, width, strength):
    features, labels = problem(count, width, noise=2.0)
    features = features.astype("float64")
    plain = probes.Problem(features, labels, 3, "classification", ())
    found = probes.logistic(plain, [strength]).probe
    oracle = LogisticRegression(C=1 / strength, max_iter=100_000, tol=1e-12)
    oracle.fit(features, labels)
    best = summed_loss(
        features, labels, oracle.coef_.T, oracle.intercept_, strength
    )
    loss = summed_loss(features, labels, found.kernel, found.bias, strength)
    assert loss <= best + 1e-6
    assert loss == pytest.approx(best, abs=1e-6)


def test_two_classes_are_one_regression():
    features, labels = problem(30, 8, 2)
    features = features.astype("float64")
    plain = probes.Problem(features, labels, 2, "classification", ())
    found = probes.logistic(plain, [0.3]).probe
    oracle = LogisticRegression(C=1 / 0.3, max_iter=10_000, tol=1e-12)
    oracle.fit(features, labels)
    difference = found.kernel[:, 1] - found.kernel[:, 0]
    np.testing.assert_allclose(difference, oracle.coef_[0], atol=1e-5)


def test_several_labels_are_a_regression_each():
    features, labels = problem()
    features = features.astype("float64")
    answers = np.stack([labels == 0, labels < 2, labels < 9], axis=1) * 1.0
    plain = probes.Problem(features, answers, 3, "multi-label", ())
    found = probes.logistic(plain, [0.3])
    for column in (0, 1):
        oracle = LogisticRegression(C=1 / 0.3, max_iter=10_000, tol=1e-12)
        oracle.fit(features, answers[:, column])
        expected = oracle.coef_[0]
        np.testing.assert_allclose(
            found.probe.kernel[:, column], expected, atol=1e-5
        )
    assert (found.outputs(features)[:, 2] > 0.999).all()


def test_the_path_is_that_of_single_solutions():
    """Warm starts change how fast, not what."""
    given = toy(noise=2.0)
    (some, held) = given.splits[0]
    found = probes.logistic(given)
    for row in found.rows[::5]:
        alone = given._replace(
            features=given.features[some],
            targets=given.targets[some],
            splits=(),
        )
        outputs = probes.logistic(alone, [row.strength]).outputs
        predicted = outputs(given.features[held])
        right = predicted[np.arange(len(held)), given.targets[held]]
        assert row.loss == pytest.approx(-np.log(right).mean(), abs=5e-3)
    assert found.strength == min(found.rows, key=lambda r: r.loss).strength


def test_the_path_has_the_lambdas_of_kornblith():
    np.testing.assert_allclose(probes.LAMBDAS, np.logspace(-6, 5, 45))
    assert probes.logistic(toy()).rows[0].strength == pytest.approx(1e5)


def test_a_path_ends_where_the_loss_keeps_rising():
    rows = probes.logistic(toy(noise=4.0)).rows
    losses = [row.loss for row in rows]
    assert len(rows) < 45
    assert losses[-5:] == sorted(losses[-5:])
    assert losses[-1] > 1.01 * min(losses)


def test_an_absent_class_is_never_chosen():
    given = toy()._replace(num_outputs=5)
    for fit in (probes.logistic, probes.nearest_mean):
        assert fit(given).outputs(given.features)[:, 3:].max() < 1e-6


@pytest.mark.parametrize("copies", [2, 3])
def test_copies_of_an_example_count_once(copies):
    features, labels = problem(noise=2.0)
    plain = probes.Problem(
        features.astype("float64"), labels, 3, "classification", ()
    )
    again = plain._replace(
        features=np.repeat(plain.features, copies, axis=0),
        targets=np.repeat(labels, copies),
        rows_per_example=copies,
    )
    for fit in (probes.logistic, probes.ridge):
        np.testing.assert_allclose(
            fit(plain, [2.0]).probe.kernel,
            fit(again, [2.0]).probe.kernel,
            atol=1e-6,
        )


@pytest.mark.parametrize(
    ("count", "width"), [(60, 10), (24, 100)], ids=["n>d", "n<d"]
)
def test_the_ridge_path_is_that_of_single_solves(count, width):
    features, labels = problem(count, width)
    features = features.astype("float64")
    targets = np.stack([labels, -2.0 * labels**2], axis=1)
    path = probes.decompose(features, targets)
    assert len(path.s) == min(count - 1, width)
    outputs = path.predict(features[:5], probes.LAMBDAS)
    for strength, found in zip(probes.LAMBDAS, outputs, strict=True):
        oracle = Ridge(alpha=strength, solver="svd").fit(features, targets)
        probe = path.solution(strength)
        np.testing.assert_allclose(probe.kernel, oracle.coef_.T, atol=1e-7)
        np.testing.assert_allclose(probe.bias, oracle.intercept_, atol=1e-6)
        np.testing.assert_allclose(
            found, oracle.predict(features[:5]), atol=1e-6
        )


@pytest.mark.parametrize(
    ("count", "width"), [(20, 4), (12, 30)], ids=["n>d", "n<d"]
)
def test_leave_one_out_is_what_refitting_says(count, width):
    features, labels = problem(count, width)
    features = features.astype("float64")
    targets = labels[:, None] ** 2.0
    strengths = [100.0, 1.0, 1e-3]
    found = probes.decompose(features, targets).leave_one_out(strengths)
    for strength, outputs in zip(strengths, found, strict=True):
        for i in range(count):
            rest = np.arange(count) != i
            oracle = Ridge(alpha=strength).fit(features[rest], targets[rest])
            expected = oracle.predict(features[i : i + 1])
            np.testing.assert_allclose(outputs[i], expected[0], atol=1e-6)


def test_nearest_mean_is_scikit_learns():
    given = toy(noise=2.0)
    found = probes.nearest_mean(given)
    oracle = NearestCentroid().fit(given.features, given.targets)
    outputs = found.outputs(given.features)
    assert (outputs.argmax(1) == oracle.predict(given.features)).all()
    distances = ((given.features[:, None] - oracle.centroids_) ** 2).sum(-1)
    expected = np.exp(-distances / (2 * found.strength))
    expected /= expected.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(outputs, expected, atol=1e-9)


def test_neighbours_are_scikit_learns():
    given = toy(noise=3.0)
    found = probes.neighbours(given)
    assert [row.strength for row in found.rows] == [1, 3, 5, 10, 20, 50]
    some, held = given.splits[0]
    for row in found.rows:
        oracle = KNeighborsClassifier(int(row.strength))
        oracle.fit(given.features[some], given.targets[some])
        score = oracle.score(given.features[held], given.targets[held])
        # scikit-learn takes the smaller label of a tie, as argmax does.
        assert row.accuracy == pytest.approx(score)
    best = max(row.accuracy for row in found.rows)
    chosen = {row.strength: row.accuracy for row in found.rows}
    assert chosen[found.strength] == best


@pytest.mark.parametrize("multi_label", [False, True])
@pytest.mark.parametrize("ratio", [0.05, 0.3])
def test_group_lasso_meets_its_optimality_condition(multi_label, ratio):
    """Zero rows have slopes up to alpha, others exactly alpha."""
    features, labels = problem(80, 30, noise=2.0)
    targets = np.eye(3)[labels]
    w = probes.group_lasso(
        features, targets, multi_label=multi_label, ratio=ratio, tolerance=1e-6
    )
    x = features - features.mean(axis=0, dtype="float64")
    # The intercept of these coefficients, by a solver of its own.
    scores = x @ w

    def loss(b):
        total = scores + b
        if multi_label:
            return np.logaddexp(0, total).sum() - (total * targets).sum()
        return np.logaddexp.reduce(total, axis=1).sum() - (
            (total * targets).sum()
        )

    b = minimize(loss, np.zeros(3), tol=1e-12).x
    total = scores + b
    given = np.exp(total) / np.exp(total).sum(axis=1, keepdims=True)
    if multi_label:
        given = 1 / (1 + np.exp(-total))
    slopes = x.T @ (given - targets) / len(x)
    start = x.T @ (targets.mean(axis=0) - targets) / len(x)
    alpha = ratio * np.linalg.norm(start, axis=1).max()
    norms = np.linalg.norm(w, axis=1)
    used = norms > 0
    assert 0 < used.sum() < 30
    expected = -alpha * w[used] / norms[used, None]
    np.testing.assert_allclose(slopes[used], expected, atol=1e-3 * alpha)
    assert np.linalg.norm(slopes[~used], axis=1).max() <= alpha * 1.001


def test_group_lasso_of_ratio_1_keeps_nothing():
    features, labels = problem()
    found = probes.group_lasso(features, np.eye(3)[labels], ratio=1.0)
    assert (found == 0).all()


def test_head2toe_finds_the_planted_columns():
    """Six of 300 columns know the class, two each; the rest is noise."""
    generator = np.random.default_rng(0)
    planted = generator.permutation(300)[:6]
    labels = np.arange(600) % 3
    features = generator.normal(size=(600, 300))
    features[:, planted] += np.eye(3)[labels].repeat(2, axis=1)
    rows = generator.permutation(600)
    train, test = rows[:240], rows[240:]
    given = probes.Problem(
        features[train],
        labels[train],
        3,
        "classification",
        ((np.arange(160), np.arange(160, 240)),),
    )
    found = probes.head2toe(given)
    assert set(found.kept) >= set(planted)
    assert len(found.kept) <= 15
    assert {row.kept for row in found.rows} == {3, 6, 15, 30, 60, 150, 300}

    def accuracy(choice):
        outputs = choice.outputs(features[test])
        return (outputs.argmax(1) == labels[test]).mean()

    assert accuracy(found) > accuracy(probes.logistic(given)) + 0.05
