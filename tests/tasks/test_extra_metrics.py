"""Metrics of the user, beside those of the task."""

import keras
import numpy as np
import pytest
from training._tiny import make_data, make_images

import keras_transfer as ktr
from keras_transfer.tasks.classification import Classification
from keras_transfer.tasks.extra_metrics import (
    check_metrics,
    join,
    read_metrics,
)
from keras_transfer.tasks.multi_label import MultiLabel
from keras_transfer.tasks.task import Task

QUIET = {"verbose": 0, "store": False}
PHASES = (ktr.Phase("head", depth=0, epochs=3, learning_rate=0.1),)


class Distance(keras.metrics.Metric):
    """Mean distance to the labels, scaled; less is better."""

    def __init__(self, scale, name="distance", **options):
        super().__init__(name=name, **options)
        self.scale = scale
        self.sum = self.add_weight(name="sum", initializer="zeros")
        self.count = self.add_weight(name="count", initializer="zeros")

    def update_state(self, y_true, y_pred, sample_weight=None):
        gaps = keras.ops.abs(keras.ops.cast(y_true, "float32") - y_pred)
        self.sum.assign_add(self.scale * keras.ops.sum(gaps))
        self.count.assign_add(keras.ops.cast(keras.ops.size(gaps), "float32"))

    def result(self):
        return self.sum / self.count

    def get_config(self):
        return {**super().get_config(), "scale": self.scale}


class Forgetful(Distance):
    def get_config(self):
        return keras.metrics.Metric.get_config(self)


def largest(labels, outputs):
    return keras.ops.max(outputs, axis=-1)


@pytest.fixture(scope="module")
def data():
    return make_data(24, 12, 6)


def make_backbone():
    inputs = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(6, 6, activation="relu", name="block_1")(inputs)
    network = keras.Model(inputs, x, name="tiny")
    return ktr.load_backbone(network, pixel_range="[0, 1]")


@pytest.fixture(scope="module")
def backbone():
    return make_backbone()


def test_names():
    metrics = ["auc", "AUC", "TopKCategoricalAccuracy", "acc", largest]
    metrics += [keras.metrics.F1Score, Distance(2.0, name="far")]
    found = [metric.name for metric in read_metrics(metrics[1:])]
    assert found == [
        "auc",
        "top_k_categorical_accuracy",
        "accuracy",
        "largest",
        "f1_score",
        "far",
    ]
    assert [m.name for m in read_metrics([metrics[0]])] == ["auc"]


def test_each_compile_gets_its_own():
    (item,) = read_metrics([Distance(2.0)])
    one, other = item.make(), item.make()
    assert one is not other
    assert one.scale == other.scale == 2.0


def test_the_tasks_own_metric():
    own = [keras.metrics.MeanAbsoluteError(name="mae")]
    assert join(own, read_metrics(["mae"])) == own
    mine = Distance(1.0, name="mae")
    (found,) = join(own, read_metrics([mine]))
    assert type(found) is Distance


@pytest.mark.parametrize(
    ("metrics", "kind", "told"),
    [
        ("auc", TypeError, "a sequence of Keras metrics"),
        ([3], TypeError, "names or functions"),
        (["au"], ValueError, "names of Keras metrics"),
        (["auc", "AUC"], ValueError, "different names"),
        ([keras.metrics.Mean(name="loss")], ValueError, "none of them 'loss'"),
        ([Forgetful(2.0)], TypeError, "`get_config` lacks scale"),
    ],
)
def test_what_is_no_metric(metrics, kind, told):
    with pytest.raises(kind, match=told):
        read_metrics(metrics)


def test_metrics_that_do_not_fit_the_labels():
    rows, indices = np.eye(2, 3, dtype="float32"), np.arange(2)
    for metric, labels, told in (
        ("top_k_categorical_accuracy", indices, "labels are integers"),
        ("sparse_top_k_categorical_accuracy", rows, "the labels are rows"),
        ("auc", indices, "to_categorical"),
        (keras.metrics.F1Score(), rows, "macro"),
    ):
        with pytest.raises(ValueError, match=told):
            check_metrics(read_metrics([metric]), labels, 3, ["accuracy"])
    # As told.
    f1 = keras.metrics.F1Score(average="macro")
    check_metrics(read_metrics(["auc", f1, "acc"]), rows, 3, ["accuracy"])
    with pytest.raises(ValueError, match="not hold 'accuracy' for numbers"):
        check_metrics(read_metrics(["accuracy"]), rows, 3, ["mae"])


def test_decisions_about_labels_that_are_shares():
    soft = np.array([[0.9, 0.1], [0.2, 0.8]], "float32")
    for metric in (
        "auc",
        "true_positives",
        "binary_accuracy",
        keras.metrics.Precision(),
        keras.metrics.SensitivityAtSpecificity(0.5),
    ):
        extra = read_metrics([metric])
        for labels, form in ((soft, "fractions"), (soft, "soft"), (soft, "")):
            with pytest.raises(ValueError, match="any label above 0 counts"):
                check_metrics(extra, labels, 2, [], label_format=form)
        # Rows of 0 and 1 may come first.
        with pytest.raises(ValueError, match="Use 'mae'"):
            check_metrics(extra, np.eye(2), 2, [], label_format="soft")
        check_metrics(extra, np.eye(2), 2, [], label_format="one-hot")
    # As told.
    told = ["mae", "binary_crossentropy", "categorical_crossentropy", "acc"]
    check_metrics(
        read_metrics(told), soft, 2, ["accuracy"], label_format="soft"
    )


def test_thresholds_of_logits():
    rows = np.eye(2, dtype="float32")
    metrics = keras.metrics
    for metric in (
        "precision",
        "binary_accuracy",
        metrics.AUC(),
        metrics.F1Score("macro", threshold=0.5),
    ):
        with pytest.raises(ValueError, match="compare logits with thresholds"):
            check_metrics(read_metrics([metric]), rows, 2, [], from_logits=True)
    told = [
        metrics.AUC(from_logits=True),
        metrics.Precision(thresholds=0),
        metrics.Recall(top_k=1),
        metrics.F1Score("macro"),
        metrics.BinaryAccuracy(threshold=0),
    ]
    check_metrics(read_metrics(told), rows, 2, [], from_logits=True)


def value_of(task, labels, outputs):
    (metric,) = [m for m in task.all_metrics() if m.name != "accuracy"]
    metric.update_state(labels, outputs)
    return float(metric.result())


def test_a_name_takes_the_logits_of_the_task():
    logits = np.array([[-3.0, 4.0], [-2.0, -1.0], [-5.0, 2.0]], "float32")
    several = np.array([[0, 1], [1, 0], [0, 1]], "float32")
    given = MultiLabel(None, from_logits=True, label_format="multi-hot")
    plain = MultiLabel(None, label_format="multi-hot")
    for name in ("auc", "binary_crossentropy"):
        extra = read_metrics([name])
        task = given.with_extra(extra)
        check_metrics(task.extra, several, 2, ["accuracy"], from_logits=True)
        found = value_of(task, several, logits)
        shares = 1 / (1 + np.exp(-logits))
        expected = value_of(plain.with_extra(extra), several, shares)
        assert found == pytest.approx(expected, rel=1e-4)
    # A sigmoid of the logits of a softmax would be no probability.
    classes = Classification(None, from_logits=True, label_format="one-hot")
    task = classes.with_extra(read_metrics(["auc"]))
    with pytest.raises(ValueError, match="or a softmax"):
        check_metrics(task.extra, several, 2, [], from_logits=True)
    task = classes.with_extra(read_metrics(["categorical_crossentropy"]))
    found = value_of(task, several[:1], logits[:1])
    assert found == pytest.approx(np.log1p(np.exp(-7)), abs=1e-4)


def test_fine_tune_on_logits(data, backbone):
    model = ktr.build_classifier(backbone, data=data, activation="linear")
    with pytest.raises(ValueError, match=r"AUC\(from_logits=True\)"):
        ktr.fine_tune(model, data, metrics=["auc"], **QUIET)
    run = ktr.fine_tune(
        model,
        data,
        strategy=PHASES,
        metrics=[keras.metrics.AUC(from_logits=True, name="auc")],
        **QUIET,
    )
    assert len(run.history["val_auc"]) == 3


def test_functions_of_one_name():
    functions = [
        lambda labels, outputs: keras.ops.max(outputs, axis=-1),
        lambda labels, outputs, least=0: (
            keras.ops.min(outputs, axis=-1) + least
        ),
    ]
    with pytest.raises(ValueError, match=r"MeanMetricWrapper\(function, name"):
        read_metrics(functions)
    # As told.
    wrapper = keras.metrics.MeanMetricWrapper
    extra = read_metrics(
        [
            wrapper(functions[0], name="largest"),
            wrapper(functions[1], name="smallest", least=1),
        ]
    )
    rows = np.eye(2, 3, dtype="float32")
    check_metrics(extra, rows, 3, [])
    made = [item.make() for item in extra]
    assert [metric.name for metric in made] == ["largest", "smallest"]
    for metric, expected in zip(made, (1, 1), strict=True):
        metric.update_state(rows, rows)
        assert float(metric.result()) == expected


class Ranks(Task):
    """A task with an `__init__` of its own."""

    def __init__(self, scale):
        super().__init__(loss=keras.losses.MeanSquaredError())
        object.__setattr__(self, "scale", scale)

    def metrics(self):
        return [keras.metrics.MeanAbsoluteError(name="mae")]


def test_a_task_with_its_own_init(backbone):
    images, classes = make_images(12)
    run = ktr.fine_tune(
        ktr.build_regressor(backbone),
        (images, classes.astype("float32")),
        task=Ranks(3),
        strategy=PHASES,
        metrics=["mse"],
        **QUIET,
    )
    assert {"mae", "mse"} <= set(run.history)
    assert Ranks(3).with_extra(read_metrics(["mse"])).scale == 3


def test_fine_tune_by_a_metric_of_the_users(data, backbone):
    model = ktr.build_classifier(backbone, data=data)
    top = keras.metrics.TopKCategoricalAccuracy(2, name="top_2")
    run = ktr.fine_tune(
        model,
        data,
        strategy=PHASES,
        metrics=["auc", top, Distance(2.0), largest],
        monitor=("val_distance", "min"),
        **QUIET,
    )
    for name in ("auc", "top_2", "distance", "largest"):
        assert len(run.history[f"val_{name}"]) == 3
        assert len(run.history[name]) == 3
    values = run.history["val_distance"]
    assert values[run.best] == min(values)
    left = model.evaluate(
        data.validation.batches(), return_dict=True, verbose=0
    )
    assert left["distance"] == pytest.approx(min(values), rel=1e-5)
    assert left["top_2"] == run.history["val_top_2"][run.best]


def test_a_metric_is_monitored_by_its_name(data, backbone):
    model = ktr.build_classifier(backbone, data=data)
    run = ktr.fine_tune(
        model,
        data,
        strategy=PHASES,
        metrics=["auc", "categorical_crossentropy"],
        monitor="val_categorical_crossentropy",
        **QUIET,
    )
    values = run.history["val_categorical_crossentropy"]
    assert values[run.best] == min(values)
    with pytest.raises(ValueError, match="val_auc"):
        ktr.fine_tune(model, data, metrics=["auc"], monitor="val_auk", **QUIET)
    with pytest.raises(ValueError, match='and "min" or "max"'):
        ktr.fine_tune(model, data, monitor=("val_loss", "less"), **QUIET)


def test_search_by_a_metric_of_the_users(data, backbone):
    result = ktr.search(
        backbone,
        data,
        space={"learning_rate": [1e-3, 1e-1], "lambda_": 0, "depth": 0,
               "strategy": "linear-probe"},
        oracle="grid",
        metrics=["auc", Distance(1.0)],
        objective=("val_distance", "min"),
        epochs=2,
        verbose=0,
    )  # fmt: skip
    scores = [row["val_distance"] for row in result.rows]
    assert scores == sorted(scores)
    assert all("val_auc" in row for row in result.rows)
    best = result.best_model.evaluate(
        data.validation.batches(), return_dict=True, verbose=0
    )
    assert best["distance"] == pytest.approx(scores[0], rel=1e-4)
    trials = result.tuner.oracle.get_best_trials(2)
    assert [t.trial_id for t in trials] == [r["trial"] for r in result.rows]


def test_metrics_that_a_function_compiles(data, backbone):
    def build(hp):
        model = ktr.build_classifier(backbone, data=data)
        model.compile(
            keras.optimizers.Adam(hp.Choice("rate", [1e-3, 1e-1])),
            "categorical_crossentropy",
            metrics=["accuracy", keras.metrics.AUC(name="auc"), Distance(1.0)],
        )
        return model

    result = ktr.search(
        build,
        data,
        objective="val_auc",
        oracle="random",
        max_trials=2,
        epochs=1,
        verbose=0,
    )
    assert result.objective == "val_auc"
    for row in result.rows:
        assert {"val_accuracy", "val_auc", "val_distance"} <= set(row)


def test_ties_have_one_order(data, backbone):
    """The best trial of the tuner is that of the result."""
    result = ktr.search(
        backbone,
        data,
        space={
            # Too small to change any prediction: all accuracies are equal.
            "learning_rate": [1e-9, 1e-8, 1e-7],
            "lambda_": 0,
            "depth": 0,
            "strategy": "linear-probe",
        },
        oracle="grid",
        epochs=1,
        verbose=0,
    )
    assert len({row["val_accuracy"] for row in result.rows}) == 1
    order = [row["trial"] for row in result.rows]
    trials = result.tuner.oracle.get_best_trials(3)
    assert [trial.trial_id for trial in trials] == order
    best = result.tuner.get_best_hyperparameters()[0]
    assert best.values["learning_rate"] == result.rows[0]["learning_rate"]
