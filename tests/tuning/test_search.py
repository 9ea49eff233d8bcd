"""A search finds what its trials alone would, and each begins at the store."""

import csv
import dataclasses
import itertools

import keras
import keras_tuner
import numpy as np
import pytest
from features._counting import Counting, passed
from training._tiny import arrays_of, assert_same, make_model

import keras_transfer as ktr
from keras_transfer.caching.store import FeatureStore
from keras_transfer.tuning.execution.session import TrainingSession
from keras_transfer.tuning.trial_runner import TrialRunner

PHASE = (ktr.Phase(epochs=2, schedule="constant"),)
GRID = ktr.SearchSpace(
    learning_rate=[1e-2, 1e-3], lambda_=[0, 0.5], depth=[0, 1], strategy=PHASE
)


def backbone():
    model = make_model()
    return ktr.load_backbone(model.get_layer("backbone"), pixel_range="[0, 1]")


def search(data, model=None, **arguments):
    return ktr.search(
        make_model() if model is None else model,
        data,
        **{"space": GRID, "oracle": "grid", "verbose": 0, **arguments},
    )


@pytest.fixture(scope="module")
def found(data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("search") / "grid"
    return search(data, directory=folder), folder


def test_each_trial_is_its_run_alone(data, found):
    result, _ = found
    assert len(result.rows) == 8
    trials = sorted(result.rows, key=lambda row: int(row["trial"]))
    # Each value with each of the other two, in the order of the grid.
    for row in (trials[place] for place in (0, 3, 5, 6)):
        run = ktr.fine_tune(
            make_model(),
            data,
            strategy=[
                dataclasses.replace(
                    PHASE[0],
                    depth=row["depth"],
                    learning_rate=row["learning_rate"],
                )
            ],
            penalty=ktr.L2SP(row["lambda"], row["lambda"]),
            verbose=0,
        )
        best = run.rows[run.best]
        for name in ("val_loss", "val_accuracy", "loss"):
            assert row[name] == pytest.approx(best[name], abs=1e-5)
        assert row["epochs"] == 2


def test_the_grid_is_whole_and_sorted(found):
    result, _ = found
    names = ("learning_rate", "lambda", "depth")
    tried = {tuple(row[name] for name in names) for row in result.rows}
    assert tried == set(itertools.product([1e-2, 1e-3], [0, 0.5], [0, 1]))
    scores = [(-r["val_accuracy"], r["val_loss"]) for r in result.rows]
    assert scores == sorted(scores)


def test_the_best_model_is_that_of_its_best_epoch(data, found, tmp_path):
    result, _ = found
    model = result.best_model
    loss, accuracy = model.evaluate(data.validation.batches(32), verbose=0)
    assert loss == pytest.approx(result.rows[0]["val_loss"], abs=1e-5)
    assert accuracy == pytest.approx(result.rows[0]["val_accuracy"])
    assert all(v.regularizer is None for v in model.weights)
    model.save(tmp_path / "best.keras")
    again = keras.models.load_model(tmp_path / "best.keras")
    x = data.test.arrays()[0]
    np.testing.assert_allclose(
        again.predict(x, verbose=0), model.predict(x, verbose=0), atol=1e-6
    )


def test_table_file_and_picture(found, tmp_path):
    result, folder = found
    lines = result.table().splitlines()
    assert lines[0].split()[:2] == ["trial", "status"]
    assert len(lines) == 9
    with open(folder / "table.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["trial"] for row in rows] == [r["trial"] for r in result.rows]
    result.plot(tmp_path / "search.png")
    assert (tmp_path / "search.png").stat().st_size > 1000


def test_keras_tuner_has_its_own(found, capsys):
    result, _ = found
    tuner = result.tuner
    assert isinstance(tuner, keras_tuner.Tuner)
    tuner.results_summary(1)
    assert "val_accuracy" in capsys.readouterr().out
    best = tuner.get_best_hyperparameters()[0]
    score = tuner.oracle.get_best_trials(1)[0].score
    assert score == result.rows[0]["val_accuracy"]
    assert set(best.values) == {"learning_rate", "lambda", "depth"}
    (model,) = tuner.get_best_models(1)
    assert isinstance(model, keras.Model)


def test_the_same_call_again_trains_nothing(data, found, monkeypatch):
    result, folder = found
    monkeypatch.setattr(TrialRunner, "run", None)
    again = search(data, directory=folder)
    assert again.rows == result.rows
    assert_same(again.best_model, arrays_of(result.best_model))


def test_it_goes_on_where_it_was_stopped(data, found, tmp_path, monkeypatch):
    result, _ = found
    run, ran = TrialRunner.run, []

    def stopping(self, trial):
        if len(ran) in (2, 5):
            ran.append("stop")
            raise KeyboardInterrupt
        ran.append(trial.trial_id)
        return run(self, trial)

    monkeypatch.setattr(TrialRunner, "run", stopping)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            search(data, directory=tmp_path / "s")
    again = search(data, directory=tmp_path / "s")
    trained = [trial for trial in ran if trial != "stop"]
    assert sorted(trained) == sorted(row["trial"] for row in result.rows)
    assert without_time(again.rows) == pytest.approx(
        without_time(result.rows), abs=1e-5
    )


def without_time(rows):
    numbers = ("trial", "learning_rate", "lambda", "depth", "val_loss")
    return np.array([[float(row[name]) for name in numbers] for row in rows])


def test_more_trials_go_on_from_fewer(data, tmp_path):
    space = {"learning_rate": (1e-4, 1e-1), "lambda_": 0, "depth": 0}
    arguments = {"space": space, "oracle": "random", "epochs": 1}
    folder = tmp_path / "s"
    few = search(data, directory=folder, max_trials=2, **arguments)
    more = search(data, directory=folder, max_trials=4, **arguments)
    assert {row["trial"] for row in more.rows} == {"0", "1", "2", "3"}
    known = {row["trial"]: row["val_loss"] for row in more.rows}
    for row in few.rows:
        assert known[row["trial"]] == row["val_loss"]
    with pytest.raises(
        ValueError, match="`max_trials` must have as many digits"
    ):
        search(data, directory=folder, max_trials=10, **arguments)


def test_another_search_is_refused(data, found):
    _, folder = found
    with pytest.raises(ValueError, match="belongs to another one"):
        search(data, directory=folder, seed=1)
    space = dataclasses.replace(GRID, depth=[0, 2])
    with pytest.raises(ValueError, match=r"space\.depth"):
        search(data, directory=folder, space=space)


@pytest.mark.parametrize("soup", [False, True], ids=["best", "soup"])
def test_each_image_passes_the_frozen_blocks_once(data, soup):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((8, 8, 3))
    x = Counting(name="block_0_count")(inputs)
    for number in (1, 2, 3):
        x = keras.layers.Conv2D(4, 3, name=f"block_{number}_conv")(x)
    network = ktr.load_backbone(keras.Model(inputs, x), pixel_range="[0, 1]")
    passed([])
    space = ktr.SearchSpace(
        learning_rate=[1e-2, 1e-3], lambda_=[0, 0.1], depth=[0, 1, 2]
    )
    images = np.concatenate(
        [split.arrays()[0] for split in (data.train, data.validation)]
    )
    result = search(data, network, space=space, epochs=2, soup=soup)
    assert len(result.rows) == 12
    assert passed(images) == [1] * 66
    (plan,) = result.plans
    assert sum(plan.extracted.values()) == 66
    assert all(seconds > 0 for seconds in plan.took.values())
    assert len(plan.took) == 3


def test_linear_heads_of_a_grid_are_one_computation(data, monkeypatch):
    together, counts = TrainingSession.run_together, []

    def counting(self, requests):
        counts.append(len(requests))
        return together(self, requests)

    monkeypatch.setattr(TrainingSession, "run_together", counting)
    space = ktr.SearchSpace(
        learning_rate=[1e-1, 1e-2, 1e-3], lambda_=[0, 0.1], depth=[1, 0]
    )
    result = search(data, space=space, epochs=2)
    assert counts == [6]
    assert len(result.rows) == 12
    heads = [row for row in result.rows if not row["depth"]]
    assert len({row["loss"] for row in heads}) == 6


@pytest.mark.parametrize("oracle", ["random", "bayesian", "hyperband"])
def test_other_oracles(data, oracle, tmp_path):
    space = {"learning_rate": (1e-4, 1e-1), "depth": [0, 1]}
    arguments = {
        "space": space, "oracle": oracle, "max_trials": 4, "epochs": 3
    }  # fmt: skip
    result = search(data, directory=tmp_path / "a", **arguments)
    assert len(result.rows) >= 4
    assert all(row["status"] == "completed" for row in result.rows)
    again = search(data, directory=tmp_path / "b", **arguments)
    values = [without_time_of(r) for r in (result, again)]
    assert values[0] == values[1]
    if oracle == "hyperband":
        assert {row["epochs"] for row in result.rows} == {1 + 1, 3 + 1}


def without_time_of(result):
    return [
        (row["trial"], row["learning_rate"], row.get("lambda"), row["depth"])
        for row in result.rows
    ]


def test_an_oracle_of_the_users(data):
    oracle = keras_tuner.oracles.RandomSearchOracle(
        objective=keras_tuner.Objective("val_loss", "min"),
        max_trials=3,
        seed=5,
    )
    result = search(data, oracle=oracle, objective="val_loss")
    losses = [row["val_loss"] for row in result.rows]
    assert len(losses) == 3
    assert losses == sorted(losses)


def test_what_the_oracle_of_the_users_wants_counts(data):
    oracle = keras_tuner.oracles.RandomSearchOracle(
        objective=keras_tuner.Objective("val_loss", "min"),
        max_trials=4,
        seed=5,
    )
    with pytest.raises(ValueError, match="must be that of `oracle`"):
        search(data, oracle=oracle, objective="val_accuracy")
    result = search(data, oracle=oracle)
    assert result.objective == "val_loss"
    losses = [row["val_loss"] for row in result.rows]
    assert losses == sorted(losses)
    assert len(set(losses)) > 1
    lost = keras_tuner.oracles.RandomSearchOracle(
        objective=keras_tuner.Objective("val_f1", "max"), max_trials=4, seed=5
    )
    with pytest.raises(ValueError, match="`objective` must be one of"):
        search(data, oracle=lost)


def test_backbones_of_one_name_are_two(data):
    keras.utils.set_random_seed(1)
    small, large = (
        ktr.load_backbone(
            keras.Sequential(
                [keras.Input((8, 8, 3)), keras.layers.Conv2D(width, 3)]
            ),
            pixel_range="[0, 1]",
        )
        for width in (2, 6)
    )
    space = {
        "backbone": [small, large],
        "learning_rate": [1e-2, 1e-3],
        "lambda_": 0,
        "depth": [0],
    }
    result = ktr.search(
        small, data, space=space, oracle="grid", epochs=1, verbose=0
    )
    assert len(result.rows) == 4
    widths = {}
    for row in result.rows:
        model = result.model(row["trial"])
        widths[row["backbone"]] = model.get_layer("head").input_shape[-1]
    assert sorted(widths.values()) == [2, 6]
    with pytest.raises(ValueError, match="where `backbone` varies"):
        ktr.search(small, data, space=space | {"depth": "all"}, verbose=0)


def test_without_a_penalty_there_is_no_lambda():
    space = ktr.SearchSpace(learning_rate=[1e-2, 1e-3], depth=0, penalty=None)
    assert space.count() == 2


def test_executions_of_a_strategy_that_probes(data):
    """The best row may be the probe, which has no training loss."""
    space = {"learning_rate": [1e-2, 1e-6], "depth": 1, "lambda_": 0}
    result = search(data, space=space, executions_per_trial=2, epochs=1)
    assert all(row["status"] == "completed" for row in result.rows)
    assert all(row["val_loss"] > 0 for row in result.rows)
    one = search(
        data,
        space=space,
        epochs=1,
        objective="loss",
        stop_hopeless=True,
    )
    assert len(one.rows) == 2


def test_a_trial_that_raises_fails_alone(data, monkeypatch):
    run = TrainingSession.run

    def failing(self, phases, **options):
        if phases[-1].depth == 1:
            raise MemoryError("too large")
        return run(self, phases, **options)

    monkeypatch.setattr(TrainingSession, "run", failing)
    result = search(data, oracle="random", max_trials=8, seed=3)
    status = {(row["depth"], row["status"]) for row in result.rows}
    assert status == {(0, "completed"), (1, "failed")}
    row = result.rows[-1]
    assert row["error"] == "MemoryError: too large"
    with pytest.raises(ValueError, match="`trial` must have finished"):
        result.model(row["trial"])


def test_what_fails_each_trial_ends_the_search(data, monkeypatch, tmp_path):
    def failing(self, phases, **options):
        raise KeyError("nowhere")

    monkeypatch.setattr(TrainingSession, "run", failing)
    with pytest.raises(KeyError, match="nowhere"):
        search(data, oracle="random", max_trials=8, directory=tmp_path / "s")
    monkeypatch.undo()
    # Nothing came of it: another search may have the folder.
    search(data, directory=tmp_path / "s", max_trials=2, objective="val_loss")


def test_keras_tuner_builds_models_of_a_space(found):
    result, _ = found
    (best,) = result.tuner.get_best_hyperparameters()
    model = result.tuner.hypermodel.build(best)
    rate = float(keras.ops.convert_to_numpy(model.optimizer.learning_rate))
    assert rate == pytest.approx(best.values["learning_rate"])


def test_executions_are_averaged(data):
    space = dataclasses.replace(GRID, depth=1, lambda_=0)
    one = search(data, space=space, seed=0)
    two = search(data, space=space, seed=1)
    both = search(data, space=space, executions_per_trial=2)

    def losses(result):
        return {row["learning_rate"]: row["val_loss"] for row in result.rows}

    for rate, loss in losses(both).items():
        mean = (losses(one)[rate] + losses(two)[rate]) / 2
        assert loss == pytest.approx(mean, abs=1e-5)
    assert losses(one)[1e-2] != losses(two)[1e-2]


def test_heads_and_optimizers_vary(data):
    space = {
        "learning_rate": [1e-2],
        "lambda_": 0,
        "depth": 0,
        "dropout": [0.0, 0.5],
        "hidden_units": [(), (4,)],
        "optimizer": ["adam", "sgd"],
        "strategy": PHASE,
    }
    result = search(data, backbone(), space=space, epochs=1)
    assert len({row["val_loss"] for row in result.rows}) == 8
    for row in result.rows[:5]:
        weights = result.model(row["trial"]).get_layer("head").weights
        assert len(weights) == (4 if row["hidden_units"] == "(4,)" else 2)
    assert {row["optimizer"] for row in result.rows} == {"adam", "sgd"}


def test_weights_of_the_best_are_kept(data, tmp_path):
    result = search(data, directory=tmp_path / "s", keep=2)
    files = {path.stem for path in (tmp_path / "s" / "weights").glob("*")}
    assert files >= {result.rows[0]["trial"]}
    assert len(files) == 2
    with pytest.raises(ValueError, match="`keep` must be large enough"):
        result.model(result.rows[-1]["trial"])
    with pytest.raises(ValueError, match="`trial` must be one of"):
        result.model("99")


def test_a_model_of_the_users_is_given_back(data):
    model = make_model()
    ktr.unfreeze(model, 1)
    before = arrays_of(model)
    trainable = [v.trainable for v in model.variables]
    result = search(data, model)
    assert_same(model, before)
    assert [v.trainable for v in model.variables] == trainable
    model.layers[-1].weights[0].assign_add(
        np.ones(model.layers[-1].weights[0].shape)
    )  # The user goes on with it.
    moved = arrays_of(model)
    best, last = (result.model(result.rows[i]["trial"]) for i in (0, 1))
    assert_same(model, moved)
    for row, one in zip(result.rows, (best, last), strict=False):
        loss, _ = one.evaluate(data.validation.batches(32), verbose=0)
        assert loss == pytest.approx(row["val_loss"], abs=1e-5)
    assert [v.trainable for v in best.variables] == trainable


def build(hp):
    """As in Keras-Tuner's guide."""
    model = make_model(dropout=hp.Choice("dropout", [0.0, 0.5]))
    ktr.unfreeze(model, hp.Choice("depth", [0, 1]))
    rate = hp.Choice("rate", [1e-2, 1e-3])
    model.compile(keras.optimizers.SGD(rate), "categorical_crossentropy")
    return model


def test_a_function_of_the_users(data):
    result = search(data, build, space=None, epochs=2)
    assert len(result.rows) == 8
    assert sum(result.plans[-1].extracted.values()) == 0  # All was there.
    for row in result.rows[:2]:
        hp = keras_tuner.HyperParameters()
        hp.values = {name: row[name] for name in ("dropout", "depth", "rate")}
        model = build(hp)
        run = ktr.fine_tune(
            model,
            data,
            strategy=[
                ktr.Phase(
                    epochs=2, schedule="constant", learning_rate=row["rate"]
                )
            ],
            optimizer="sgd",
            verbose=0,
        )
        best = run.rows[run.best]
        assert row["val_loss"] == pytest.approx(best["val_loss"], abs=1e-5)
        same = arrays_of(model)
        assert_same(result.model(row["trial"]), same, atol=1e-5)


def test_a_hyper_model_and_one_with_a_fit(data):
    class Mine(keras_tuner.HyperModel):
        def build(self, hp):
            return build(hp)

    class Fits(Mine):
        def fit(self, hp, model, *args, **kwargs):
            return {}

    result = search(data, Mine(), space=None, epochs=1, max_trials=2)
    assert len(result.rows) == 2
    with pytest.raises(ValueError, match="`fit` of its own"):
        search(data, Fits(), space=None)
    with pytest.raises(ValueError, match="`space` must be None"):
        search(data, build)
    with pytest.raises(TypeError, match="returns a `keras.Model`"):
        search(data, lambda hp: None, space=None)


def test_arrays_and_regression():
    x = np.random.default_rng(0).uniform(0, 255, (24, 8, 8, 3))
    y = x.mean((1, 2, 3)) / 255
    model = ktr.build_regressor(backbone())
    parts = {"train": (x[:16], y[:16]), "validation": (x[16:], y[16:])}
    space = {"learning_rate": [1e-2, 1e-3], "lambda_": 0, "depth": 0}
    result = search(parts, model, space=space, epochs=2)
    assert result.objective == "val_loss"
    losses = [row["val_loss"] for row in result.rows]
    assert losses == sorted(losses)


def test_hopeless_trials_end_early(data):
    space = dataclasses.replace(
        GRID,
        learning_rate=[1e-2, 1e-6, 1e-7],
        lambda_=0,
        strategy=(ktr.Phase(epochs=4, schedule="constant"),),
    )
    result = search(data, space=space, stop_hopeless=True, objective="val_loss")
    epochs = {
        (r["learning_rate"], r["depth"]): r["epochs"] for r in result.rows
    }
    assert epochs[1e-2, 0] == 4
    assert min(epochs[1e-6, 1], epochs[1e-7, 1]) < 4


def test_a_trial_that_diverges_is_one_that_failed(data, capsys):
    space = dataclasses.replace(GRID, learning_rate=[1e-2, 1e30], lambda_=0)
    result = search(data, space=space)
    status = {(r["learning_rate"], r["status"]) for r in result.rows}
    assert (1e-2, "completed") in status
    assert (1e30, "failed") in status
    (row, *_) = [r for r in result.rows if r["status"] == "failed"]
    assert row["error"].startswith("`loss` became")


def test_every_trial_failing_names_the_cause(data):
    space = dataclasses.replace(GRID, learning_rate=[1e30, 1e31], lambda_=0)
    with pytest.raises(
        RuntimeError, match="Every trial failed, the first one: `loss` became"
    ):
        search(data, space=space)


def test_what_cannot_be_searched_is_refused_at_once(data):
    def refused(match, error=ValueError, **arguments):
        with pytest.raises(error, match=match):
            search(data, **arguments)

    refused("must hold lists", space={"depth": [0, 1]})
    refused("must vary something", space={
        "learning_rate": 1e-3, "lambda_": 0, "depth": 1
    })  # fmt: skip
    refused("integers in", space={"depth": [9], "learning_rate": [1, 2]})
    refused("`max_trials` must be", max_trials=0)
    refused("`oracle` must be", oracle="gird")
    refused("`oracle` must be a name", TypeError, oracle=3)
    refused("`objective` must be one of", objective="val_auc")
    refused("must be the name of a", TypeError, objective=["val_loss", "loss"])
    refused("`soup` must be False", objective="loss", soup=True)
    refused("`lambda_` must be 0", space={"penalty": None, "lambda_": [0, 1]})
    refused("`views` must be None", space={"views": [None, 4], "depth": [0]})
    refused("`depth` must be", space={
        "strategy": "linear-probe", "depth": [0, 1], "learning_rate": [1, 2]
    })  # fmt: skip
    refused("max_epochs|`epochs` must be", oracle="hyperband")
    refused("`space` must be", TypeError, space=[1])
    refused("`keep` must be", keep=0)
    refused(
        "left out of `space` for a model",
        space=dataclasses.replace(GRID, dropout=[0.0, 0.5]),
    )
    x, y = data.train.arrays()
    with pytest.raises(ValueError, match="must have validation examples"):
        ktr.search(make_model(), (x, y), space=GRID, oracle="grid")
    with pytest.raises(TypeError, match="`model` must be a model where"):
        ktr.search("ResNet20", (x, y), space=GRID, oracle="grid")
    store = FeatureStore(limit=1000)
    refused("`store` must have room", store=store)


def test_the_probe_is_not_the_score_of_what_is_searched(data, capsys):
    """Else all trials that are worse would score alike, and teach nothing."""
    space = {"learning_rate": [1e-1, 1e-3, 1e-6], "depth": 1, "lambda_": 0}
    result = search(data, space=space, epochs=2, verbose=1)
    assert len({row["val_loss"] for row in result.rows}) == 3
    for row in result.rows:
        first, *others = result.history(row["trial"])
        assert first["epoch"] == 0
        assert result.probe["val_loss"] == pytest.approx(first["val_loss"])
        assert row["val_loss"] in [other["val_loss"] for other in others]
    assert "The linear probe alone: val_accuracy" in capsys.readouterr().out
    for place in (0, -1):
        row = result.rows[place]
        loss, _ = result.model(row["trial"]).evaluate(
            data.validation.batches(32), verbose=0
        )
        assert loss == pytest.approx(row["val_loss"], abs=1e-5)


def test_a_picture_needs_rates(data, tmp_path):
    def build_with_lr(hp):
        model = make_model()
        rate = hp.Choice("lr", [1e-2, 1e-3])
        model.compile(keras.optimizers.SGD(rate), "categorical_crossentropy")
        return model

    result = search(data, build_with_lr, space=None, epochs=1)
    with pytest.raises(ValueError, match="Received: trial, status, lr"):
        result.plot(tmp_path / "search.png")
    assert not (tmp_path / "search.png").exists()
