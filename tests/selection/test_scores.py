"""Golden numbers, closed forms, invariances, and input that is no good."""

import itertools

import numpy as np
import pytest
from scipy.stats import multivariate_normal, spearmanr

from keras_transfer.curation import find_label_errors
from keras_transfer.features import probe_score
from keras_transfer.selection import (
    h_score,
    leep,
    logme,
    nce,
    nearest_classes,
    nleep,
    parc,
    reverse_validation,
)
from keras_transfer.selection.logme import maximise


def make(examples, width, classes, sources):
    """Gaussian classes, and a linear source classifier."""
    generator = np.random.RandomState(0)
    labels = np.arange(examples) % classes
    means = generator.randn(classes, width)
    features = means[labels] + generator.randn(examples, width)
    logits = features @ (generator.randn(width, sources) * 0.3)
    odds = np.exp(logits - logits.max(axis=1, keepdims=True))
    return features, labels, odds / odds.sum(axis=1, keepdims=True)


SMALL, LARGE = make(60, 8, 3, 5), make(200, 16, 4, 10)
# H-score, shrunk, LEEP, NCE, LogME.
GOLDEN = [
    (1.6218573509, 1.5493845557, -0.7594982068, -0.6298520541, -0.382204),
    (2.5549899066, 2.5075262930, -0.8362205734, -0.6212393452, -0.031651),
]


@pytest.mark.parametrize("which", [0, 1], ids=["small", "large"])
def test_golden_numbers(which):
    features, labels, source = (SMALL, LARGE)[which]
    plain, shrunk, leep_, nce_, logme_ = GOLDEN[which]
    assert h_score(features, labels, shrink=False) == pytest.approx(
        plain, abs=1e-9
    )
    assert h_score(features, labels) == pytest.approx(shrunk, abs=1e-9)
    assert leep(source, labels) == pytest.approx(leep_, abs=1e-9)
    assert nce(source, labels) == pytest.approx(nce_, abs=1e-9)
    assert logme(features, labels) == pytest.approx(logme_, abs=1e-6)


@pytest.mark.parametrize("shape", [(60, 8), (20, 50), (12, 12)], ids=str)
def test_logme_is_the_exact_evidence_at_its_best(shape):
    generator = np.random.default_rng(1)
    features = generator.normal(size=shape)
    target = features[:, 0] + generator.normal(size=len(features))
    vectors, values, _ = np.linalg.svd(features, full_matrices=False)
    found = maximise(vectors, values**2, target)

    def exact(alpha, beta):
        covariance = (
            np.eye(len(features)) / beta + features @ features.T / alpha
        )
        return multivariate_normal(cov=covariance).logpdf(target)

    assert found.value == pytest.approx(
        exact(found.alpha, found.beta), abs=1e-6 * len(features)
    )
    for one, other in itertools.product([0.8, 1.0, 1.25], repeat=2):
        assert exact(found.alpha * one, found.beta * other) <= (
            found.value + 1e-6
        )


def test_logme_of_many_targets_is_the_mean():
    features, labels, _ = SMALL
    columns = np.eye(3)[labels]
    each = [logme(features, column) for column in columns.T]
    assert logme(features, labels) == pytest.approx(np.mean(each), abs=1e-9)
    # A label that nobody has changes nothing.
    wider = np.concatenate([columns, np.zeros((60, 1))], axis=1)
    assert logme(features, wider) == pytest.approx(np.mean(each), abs=1e-9)


def test_logme_is_finite_where_features_say_all():
    labels = np.arange(30) % 3
    assert 5 < logme(np.eye(3)[labels], labels) < 20


def test_logme_with_an_image_twice_among_few():
    generator = np.random.default_rng(0)
    features = generator.normal(size=(20, 50))
    labels = np.arange(20) % 2
    features[2] = features[0]  # Of the same class.
    twice = logme(features, labels)
    assert twice == pytest.approx(logme(features[1:], labels[1:]), abs=1)


SCORES = [logme, h_score, parc, nleep]


@pytest.mark.parametrize("score", SCORES, ids=lambda f: f.__name__)
def test_order_does_not_matter(score):
    features, labels, _ = SMALL
    order = np.random.default_rng(0).permutation(len(labels))
    # The mixture begins elsewhere.
    bound = 0.2 if score is nleep else 1e-8
    assert score(features[order], labels[order]) == pytest.approx(
        score(features, labels), abs=bound
    )
    renamed = np.array([2, 0, 1])[labels]
    assert score(features, renamed) == pytest.approx(
        score(features, labels), abs=1e-8
    )


def test_rotation_and_affine_maps():
    features, labels, source = SMALL
    generator = np.random.default_rng(0)
    rotation, _ = np.linalg.qr(generator.normal(size=(8, 8)))
    assert logme(features @ rotation, labels) == pytest.approx(
        logme(features, labels), abs=1e-8
    )
    assert h_score(features @ rotation, labels) == pytest.approx(
        h_score(features, labels), abs=1e-8
    )
    moved = features @ generator.normal(size=(8, 8)) + 5
    assert h_score(moved, labels, shrink=False) == pytest.approx(
        h_score(features, labels, shrink=False), abs=1e-8
    )
    columns = generator.permutation(5)
    assert leep(source[:, columns], labels) == pytest.approx(
        leep(source, labels), abs=1e-12
    )


def test_by_hand():
    labels = np.array([0, 0, 1, 1])
    # P(0 | z0) = 1.7 / 2, P(0 | z1) = 0.3 / 2
    source = np.array([[0.9, 0.1], [0.8, 0.2], [0.2, 0.8], [0.1, 0.9]])
    right, wrong = 1.7 / 2, 0.3 / 2
    by_hand = [
        0.9 * right + 0.1 * wrong, 0.8 * right + 0.2 * wrong,
    ] * 2  # fmt: skip
    assert leep(source, labels) == pytest.approx(np.log(by_hand).mean())
    assert nce(source, labels) == 0
    assert nce(np.array([0, 0, 0, 0]), labels) == pytest.approx(-np.log(2))
    # Within-class variance 1, means at 0 and 2: cov 2 * 4/3 between 4/3.
    features = np.array([[-1.0], [1.0], [1.0], [3.0]])
    assert h_score(features, labels, shrink=False) == pytest.approx(
        (4 / 3) / (8 / 3)
    )


def test_parc_is_spearmans_correlation():
    features, labels, _ = SMALL
    pairs = np.triu_indices(60, 1)
    onehot = np.eye(3)[labels]
    apart = 1 - np.corrcoef(features)[pairs]
    # Ties that rounding broke.
    others = np.round(1 - np.corrcoef(onehot)[pairs], 9)
    assert parc(features, labels) == pytest.approx(
        100 * spearmanr(apart, others)[0], abs=1e-9
    )


def test_parc_gives_ties_their_mean_rank_whatever_rounding_does():
    # Distances are 0 within a class and 2 elsewhere, up to the last digit.
    features = np.array([[0, 1], [0, 2], [1, 0], [3, 0]])
    labels = np.array([0, 0, 1, 1])
    assert parc(features, labels) == pytest.approx(100)
    # Six scaled copies of each of three examples: four distances in all.
    corners = np.random.default_rng(0).normal(size=(3, 7))
    rows = np.arange(18) % 3
    copies = corners[rows] * np.linspace(1, 2, 18)[:, None]
    first, second = np.triu_indices(18, 1)
    apart = np.round(1 - np.corrcoef(corners), 9)[rows[first], rows[second]]
    labels = rows // 2
    others = labels[first] != labels[second]
    assert parc(copies, labels) == pytest.approx(
        100 * spearmanr(apart, others)[0], abs=1e-9
    )


def test_parc_of_equal_distances_is_0():
    # All three pairs are at the same distance, up to rounding.
    angles = np.arange(3) * 2 * np.pi / 3
    plane = np.array([[1, -1, 0], [1, 1, -2]]) / np.sqrt([[2], [6]])
    features = np.stack([np.cos(angles), np.sin(angles)], axis=1) @ plane
    assert parc(features, np.array([0, 0, 1])) == 0


def test_a_source_class_that_nobody_has_changes_nothing():
    features, labels, source = SMALL
    wider = np.concatenate([source, np.zeros((60, 2))], axis=1)
    assert leep(wider, labels) == pytest.approx(leep(source, labels))
    assert nce(wider, labels) == pytest.approx(nce(source, labels))


def test_constant_features_know_nothing():
    labels = np.arange(12) % 3
    ones = np.ones((12, 4))
    assert h_score(ones, labels) == 0
    assert h_score(ones, labels, shrink=False) == pytest.approx(0)
    assert parc(ones, labels) == 0
    assert nleep(ones, labels) == pytest.approx(-np.log(3))
    assert np.isfinite(logme(ones, labels))
    assert np.isfinite(logme(0 * ones, labels))


@pytest.mark.parametrize("score", SCORES, ids=lambda f: f.__name__)
def test_what_is_no_good_is_said(score):
    features = np.random.default_rng(0).normal(size=(6, 3))
    labels = np.arange(6) % 2
    with pytest.raises(ValueError, match="at least two classes"):
        score(features, np.zeros(6, int))
    with pytest.raises(ValueError, match="at least 2 examples"):
        score(features[:1], labels[:1])
    with pytest.raises(ValueError, match="`features` must be finite"):
        score(features * np.nan, labels)
    with pytest.raises(ValueError, match=r"shape \(6, 1, 3\)"):
        score(features[:, None], labels)
    with pytest.raises(ValueError, match="`labels` must"):
        score(features, labels[:4])


@pytest.mark.parametrize("score", [leep, nce])
def test_what_are_no_probabilities_is_said(score):
    with pytest.raises(ValueError, match="rows that sum to 1"):
        score(np.array([[0.5, 0.2], [0.5, 0.5]]), np.array([0, 1]))
    with pytest.raises(ValueError, match="at least two classes"):
        score(np.full((3, 2), 0.5), np.array([1, 1, 1]))


def test_one_hot_features_have_an_h_score():
    labels = np.arange(60) % 3
    assert h_score(np.eye(3)[labels], labels) == pytest.approx(2.0, abs=0.1)


def test_copies_do_not_tell_each_others_labels():
    generator = np.random.default_rng(0)
    noise, labels = generator.normal(size=(60, 40)), np.arange(60) % 2
    copies = np.concatenate([noise] * 3), np.concatenate([labels] * 3)
    # Learned by heart it would be near 1.
    assert probe_score(*copies).accuracy < 0.7


def test_names_of_classes_are_no_numbers():
    with pytest.raises(ValueError, match="turns names into integers"):
        logme(np.eye(4), np.array(["a", "b", "a", "b"]))


@pytest.mark.parametrize(
    "score",
    [
        logme,
        h_score,
        parc,
        nleep,
        probe_score,
        lambda features, labels: leep(SMALL[2], labels),
        lambda features, labels: nce(SMALL[2], labels),
        lambda features, labels: nce(labels, SMALL[1]),
        lambda features, labels: reverse_validation(features, labels, features),
        lambda features, labels: nearest_classes(
            {"own": (features, labels)}, features, labels
        ),
        lambda features, labels: find_label_errors(features, labels),
    ],
)
@pytest.mark.parametrize("dtype", ["int64", "uint8"])
def test_classes_in_a_column(score, dtype):
    """The labels of Keras' data sets have the shape (n, 1)."""
    features, labels, _ = SMALL
    labels = labels.astype(dtype)
    assert score(features, labels[:, None]) == score(features, labels)


def test_numbers_in_a_column_are_numbers():
    features, labels, _ = SMALL
    numbers = labels.astype("float64")
    found = logme(features, numbers[:, None])
    assert found == logme(features, numbers) != logme(features, labels)
