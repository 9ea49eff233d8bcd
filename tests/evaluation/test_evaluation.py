"""Evaluations against scikit-learn, Keras and closed forms."""

import copy

import keras
import numpy as np
import pytest
from scipy import stats
from sklearn import metrics as oracle

from keras_transfer.evaluation.evaluation import evaluate_outputs
from keras_transfer.evaluation.intervals import paired_interval

NAMES = ["ant", "bee", "cat", "dog"]


@pytest.fixture
def classes():
    """Probabilities `(60, 4)` and labels; class 3 is never predicted."""
    generator = np.random.default_rng(0)
    outputs = generator.dirichlet([1, 1, 1, 0.01], 60).astype("float32")
    return outputs, generator.integers(0, 4, 60)


@pytest.fixture
def tags():
    generator = np.random.default_rng(1)
    return generator.random((40, 3), "float32"), generator.integers(
        0, 2, (40, 3)
    )


@pytest.fixture
def numbers():
    generator = np.random.default_rng(2)
    labels = generator.normal(size=(30, 2))
    return labels + generator.normal(size=(30, 2)), labels


def test_is_a_read_only_mapping(classes):
    evaluation = evaluate_outputs(*classes)
    assert list(evaluation) == ["loss", "accuracy"]
    assert len(evaluation) == 2
    assert dict(evaluation) == evaluation == copy.deepcopy(evaluation)
    assert {type(value) for value in evaluation.values()} == {float}
    with pytest.raises(TypeError):
        evaluation["accuracy"] = 1.0
    with pytest.raises(AttributeError):
        evaluation.kind = "regression"
    with pytest.raises(ValueError, match="read-only"):
        evaluation.outputs[0] = 0
    with pytest.raises(KeyError):
        evaluation["acuracy"]


def test_does_not_alias_the_arguments(classes):
    outputs, labels = classes
    labels = labels.astype("int64")
    evaluation = evaluate_outputs(outputs, labels)
    first = evaluation.outputs[0].copy()
    outputs[0], labels[0] = 0, 1 - labels[0]
    np.testing.assert_array_equal(evaluation.outputs[0], first)
    assert labels[0] != evaluation.labels[0]


def test_classification_is_scikit_learns(classes):
    outputs, labels = classes
    evaluation = evaluate_outputs(outputs, labels, class_names=NAMES)
    predicted = outputs.argmax(1)
    assert evaluation["accuracy"] == oracle.accuracy_score(labels, predicted)
    np.testing.assert_array_equal(
        evaluation.confusion_matrix(),
        oracle.confusion_matrix(labels, predicted),
    )
    scores = oracle.precision_recall_fscore_support(
        labels, predicted, zero_division=0
    )
    assert list(evaluation.per_class()) == NAMES
    np.testing.assert_allclose(
        np.transpose(list(evaluation.per_class().values())), scores
    )
    np.testing.assert_array_equal(evaluation.predictions, predicted)


@pytest.mark.parametrize("from_logits", [False, True])
def test_cross_entropy_is_keras(classes, from_logits):
    outputs, labels = classes
    # A label of probability 0 is clipped.
    outputs[0], labels[0] = [1, 0, 0, 0], 3
    given = 30 * outputs if from_logits else outputs
    expected = keras.losses.SparseCategoricalCrossentropy(
        from_logits=from_logits, reduction=None
    )(labels, given)
    evaluation = evaluate_outputs(given, labels, from_logits=from_logits)
    np.testing.assert_allclose(evaluation.losses, expected, 1e-5, 1e-6)
    assert evaluation["loss"] == evaluation.losses.mean()
    np.testing.assert_allclose(evaluation.probabilities.sum(1), 1, rtol=1e-5)


def test_labels_in_other_forms(classes):
    outputs, labels = classes
    expected = evaluate_outputs(outputs, labels)
    for same in (
        labels[:, None],
        labels.astype("float32"),
        labels.tolist(),
        np.eye(4, dtype="float32")[labels],
    ):
        found = evaluate_outputs(outputs, same)
        assert found == expected
        assert found.labels.dtype == "int64"
        np.testing.assert_array_equal(found.labels, labels)


@pytest.mark.parametrize("from_logits", [False, True])
def test_multi_label_is_keras_and_scikit_learns(tags, from_logits):
    outputs, labels = tags
    outputs[0] = [0, 1, 0.5]
    given = 9 * (outputs - 0.5) if from_logits else outputs
    evaluation = evaluate_outputs(
        given, labels, kind="multi-label", from_logits=from_logits
    )
    loss = keras.losses.BinaryCrossentropy(
        from_logits=from_logits, reduction=None
    )
    # Keras clips in float32, where 1 - 1e-7 is 1 - 1.2e-7.
    expected = loss(labels, given)
    np.testing.assert_allclose(evaluation.losses[:1], expected[:1], rtol=0.01)
    np.testing.assert_allclose(evaluation.losses[1:], expected[1:], rtol=1e-5)
    chosen = outputs > 0.5
    assert list(evaluation) == ["loss", "accuracy", "exact_match"]
    assert evaluation["accuracy"] == pytest.approx((chosen == labels).mean())
    assert evaluation["exact_match"] == oracle.accuracy_score(labels, chosen)
    scores = oracle.precision_recall_fscore_support(labels, chosen)
    np.testing.assert_allclose(
        np.transpose(list(evaluation.per_class().values())), scores
    )
    np.testing.assert_array_equal(evaluation.predictions, chosen)


def test_yes_or_no():
    evaluation = evaluate_outputs(
        [[0.9], [0.2], [0.6]], [1, 0, 0], kind="multi-label"
    )
    assert evaluation["accuracy"] == pytest.approx(2 / 3)
    assert evaluation.per_class()["0"].recall == 1


def test_regression_is_scikit_learns(numbers):
    outputs, labels = numbers
    evaluation = evaluate_outputs(outputs, labels, kind="regression")
    expected = {
        "mse": oracle.mean_squared_error(labels, outputs),
        "mae": oracle.mean_absolute_error(labels, outputs),
        "r2": oracle.r2_score(labels, outputs),
    }
    expected["loss"] = expected["mse"]
    assert dict(evaluation) == pytest.approx(expected, rel=1e-6)
    assert evaluation.losses.mean() == evaluation["mse"]


def test_regression_pairs_what_belongs_together():
    """`(n, 1)` minus `(n,)` would be `(n, n)`."""
    evaluation = evaluate_outputs([[1.0], [2.0]], [1, 4], kind="regression")
    assert evaluation["mae"] == 1
    assert evaluation["r2"] == 1 - 4 / 4.5


@pytest.mark.parametrize(("output", "r2"), [(3.0, 1.0), (4.0, 0.0)])
def test_r2_of_a_constant(output, r2):
    evaluation = evaluate_outputs([output] * 3, [3] * 3, kind="regression")
    assert evaluation["r2"] == r2


def test_intervals_are_wilsons_and_students(classes, tags, numbers):
    def student(values):
        return stats.t.interval(
            0.9, len(values) - 1, values.mean(), stats.sem(values)
        )

    evaluation = evaluate_outputs(*classes)
    right = int(round(evaluation["accuracy"] * 60))
    wilson = stats.binomtest(right, 60).proportion_ci(0.9, "wilson")
    assert evaluation.interval(confidence=0.9) == pytest.approx(wilson)
    assert evaluation.interval("loss", 0.9) == pytest.approx(
        student(evaluation.losses)
    )

    evaluation = evaluate_outputs(*tags, kind="multi-label")
    right = evaluation.predictions == evaluation.labels
    assert evaluation.interval("accuracy", 0.9) == pytest.approx(
        student(right.mean(1))
    )
    wilson = stats.binomtest(int(right.all(1).sum()), 40)
    assert evaluation.interval("exact_match", 0.9) == pytest.approx(
        wilson.proportion_ci(0.9, "wilson")
    )

    evaluation = evaluate_outputs(*numbers, kind="regression")
    errors = np.abs(evaluation.outputs - evaluation.labels).mean(1)
    assert evaluation.interval("mae", 0.9) == pytest.approx(student(errors))


def test_interval_stays_where_the_metric_can_be():
    evaluation = evaluate_outputs([[0.9, 0.1], [0.2, 0.8]], [0, 0])
    assert evaluation.interval("loss")[0] == 0
    evaluation = evaluate_outputs(
        [[0.9, 0.1], [0.2, 0.8]], [[1, 0], [0, 0]], kind="multi-label"
    )
    assert evaluation.interval("accuracy") == (0, 1)


def test_interval_refuses(classes, numbers):
    single = evaluate_outputs([[0.9, 0.1]], [0])
    with pytest.raises(ValueError, match="at least two examples. Received: 1"):
        single.interval("loss")
    assert single.interval("accuracy")[1] == 1
    assert "loss" in str(single)
    evaluation = evaluate_outputs(*classes)
    with pytest.raises(ValueError, match="Did you mean 'accuracy'"):
        evaluation.interval("acuracy")
    for confidence in (0, 1, 95, float("nan")):
        with pytest.raises(ValueError, match="`confidence` must be a prob"):
            evaluation.interval(confidence=confidence)
    with pytest.raises(ValueError, match="which R2 is not"):
        evaluate_outputs(*numbers, kind="regression").interval("r2")


def test_mistakes_are_sorted():
    outputs = [[0.9, 0.1, 0]] * 3 + [[0, 0.2, 0.8]] * 2 + [[0, 1, 0]]
    evaluation = evaluate_outputs(
        outputs,
        [0, 1, 1, 1, 2, 1],
        ids=list("abcdef"),
        class_names=["x", "y", "z"],
    )
    assert evaluation.most_confused() == (("y", "x", 2), ("y", "z", 1))
    assert evaluation.most_confused(1)[0].count == 2
    assert evaluation.most_confused(0) == ()
    first, second, third = evaluation.top_losses(3)
    assert (first.id, second.id, third.id) == ("b", "c", "d")
    assert first[1:3] == ("y", "x")
    assert first[3:] == pytest.approx((0.9, -np.log(0.1)))
    assert len(evaluation.top_losses()) == 6
    assert str(evaluation).splitlines() == [
        "6 examples, 3 classes; 95 % intervals",
        f"  loss         {evaluation['loss']:.4f}  [0.0000, 2.2515]",
        "  accuracy     0.5000  [0.1876, 0.8124]",
        "most confused (true -> predicted: examples)",
        "  y -> x: 2",
        "  y -> z: 1",
    ]
    assert "accuracy 0.5, 6 examples" in repr(evaluation)


def test_top_losses_of_other_kinds():
    tags = evaluate_outputs(
        [[0.9, 0.6, 0.1]],
        [[1, 0, 1]],
        class_names=["x", "y", "z"],
        kind="multi-label",
    )
    (mistake,) = tags.top_losses()
    assert mistake[:3] == ("0", "x;z", "x;y")
    assert mistake.confidence == pytest.approx(0.6)
    numbers = evaluate_outputs([[1.0], [2.0]], [1, 4], kind="regression")
    assert numbers.top_losses(1)[0][:3] == ("1", [4.0], [2.0])
    assert "r2" in str(numbers)


def test_what_a_kind_has_not(tags, numbers):
    regression = evaluate_outputs(*numbers, kind="regression")
    for name in ("confusion_matrix", "most_confused", "per_class"):
        with pytest.raises(ValueError, match="a regression has none"):
            getattr(regression, name)()
    with pytest.raises(ValueError, match="a regression has none"):
        regression.probabilities  # noqa: B018
    several = evaluate_outputs(*tags, kind="multi-label")
    with pytest.raises(ValueError, match="one class per example"):
        several.confusion_matrix()
    for count in (-1, 2.5, True):
        with pytest.raises(ValueError, match="`count` must be an integer"):
            several.top_losses(count)


GOOD = [[0.9, 0.1], [0.4, 0.6]]


@pytest.mark.parametrize(
    ("outputs", "labels", "options", "message"),
    [
        ([[np.nan, 1], [0, 1]], [0, 1], {}, "NaN or infinity for 1 of 2"),
        ([[0, np.inf], [0, 1]], [0, 1], {}, "lower the learning rate"),
        ([[0, 1e300], [0, 1]], [0, 1], {}, "NaN or infinity"),
        (GOOD, [0, 2], {}, r"integers in \[0, 2\).*from 0 to 2"),
        (GOOD, [0, -1], {}, r"integers in \[0, 2\)"),
        (GOOD, [0, 0.5], {}, "`labels` must be integers"),
        (GOOD, [0, np.nan], {}, "`labels` must be integers"),
        (GOOD, ["a", "b"], {}, "`labels` must be integers"),
        (GOOD, [[0.5, 0.6], [1, 0]], {}, "or one-hot"),
        (GOOD, [[1, 0, 0], [1, 0, 0]], {}, "one-hot of shape"),
        (GOOD, [0], {}, "equal length. Received: 2, 1"),
        (GOOD, [0, 1], {"ids": ["a"]}, "equal length. Received: 2, 2, 1"),
        (GOOD, [0, 1], {"class_names": ["a"]}, "each of the 2 outputs"),
        (GOOD, [0, 1], {"class_names": ["a", "a"]}, "different, non-empty"),
        (GOOD, [0, 1], {"kind": "multilabel"}, "Did you mean 'multi-label'"),
        ([[3.0, -1.0]], [0], {}, "from -1 to 3. Pass from_logits=True"),
        ([[0.9, 0.9]], [0], {}, 'kind="multi-label" for sigmoids'),
        (
            [[0.9], [0.1]],
            [0, 1],
            {},
            'For a single yes or no pass kind="multi-label"',
        ),
        ([0.9, 0.1], [0, 1], {}, "have shape"),
        ([], [], {}, "at least one example"),
        (GOOD, [0, 1], {"kind": "multi-label"}, "`labels` must be 0, 1 or"),
        (
            GOOD,
            [[0, 1.5], [1, 0]],
            {"kind": "multi-label"},
            "`labels` must be 0, 1 or fractions.*from 0 to 1.5",
        ),
        (GOOD, [0, 1], {"kind": "regression"}, "finite numbers of shape"),
        (
            [1.0],
            [np.nan],
            {"kind": "regression"},
            "`labels` must be finite numbers",
        ),
        (
            [1.0],
            [1.0],
            {"kind": "regression", "class_names": ["a"]},
            "are for classes",
        ),
    ],
)
def test_refuses(outputs, labels, options, message):
    with pytest.raises(ValueError, match=message):
        evaluate_outputs(outputs, labels, **options)


def test_nan_names_the_example():
    with pytest.raises(ValueError, match=r"the first of which is 'b\.jpg'"):
        evaluate_outputs([[0, 1], [np.nan, 1]], [0, 1], ids=["a.jpg", "b.jpg"])


def test_sixteen_bits_are_probabilities(classes):
    outputs, labels = classes
    evaluate_outputs(outputs.astype("float16"), labels)


def test_paired_interval_is_students():
    a, b = [0.9, 0.7, 0.8], [0.8, 0.6, 0.6]
    mean, half_width = paired_interval(a, b, confidence=0.9)
    low, high = stats.ttest_rel(a, b).confidence_interval(0.9)
    assert (mean - half_width, mean + half_width) == pytest.approx((low, high))


@pytest.mark.parametrize(
    ("a", "b", "message"),
    [
        ([1, 2], [1, 2, 3], r"shapes \(2,\) and \(3,\)"),
        ([1], [2], "the same two or more"),
        ([1, np.nan], [1, 2], "1 pairs with NaN"),
        ([1, np.inf], [1, np.inf], "must be finite"),
    ],
)
def test_paired_interval_refuses(a, b, message):
    with pytest.raises(ValueError, match=message):
        paired_interval(a, b)
