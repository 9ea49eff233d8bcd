"""What a search varies, as Keras-Tuner sees it and as phases."""

import keras_tuner
import pytest
from training._tiny import make_model

import keras_transfer as ktr
from keras_transfer.tuning.space import Choice, SearchSpace, check_fields


def declared(space):
    hp = keras_tuner.HyperParameters()
    values = space.declare(hp)
    return hp, values


def test_one_value_stays_a_list_is_a_choice_and_a_pair_a_range():
    space = SearchSpace(
        learning_rate=(1e-5, 1e-2), lambda_=0.1, depth=[0, 2], dropout=(0, 0.5)
    )
    hp, values = declared(space)
    assert values["lambda_"] == 0.1
    kinds = {h.name: type(h).__name__ for h in hp.space}
    assert kinds == {
        "learning_rate": "Float",
        "depth": "Choice",
        "dropout": "Float",
    }
    by_name = {h.name: h for h in hp.space}
    assert by_name["learning_rate"].sampling == "log"
    assert by_name["dropout"].sampling == "linear"
    assert by_name["depth"].values == [0, 2]


def test_zero_or_a_range():
    space = SearchSpace(learning_rate=1e-3, lambda_=[0, (1e-4, 1.0)], depth=0)
    hp, values = declared(space)
    assert values["lambda_"] == 0
    assert [h.name for h in hp.space] == ["lambda_from", "lambda"]
    hp.values["lambda_from"] = "between"
    hp.ensure_active_values()
    assert 1e-4 <= space.declare(hp)["lambda_"] <= 1.0
    assert space.count() is None


def test_values_of_any_type_are_chosen_by_name():
    penalties = [ktr.L2SP(1.0, 1.0), ktr.L1(1.0), None]
    phases = (ktr.Phase("mine", epochs=3),)
    space = SearchSpace(
        learning_rate=1e-3,
        lambda_=0.5,
        depth=1,
        penalty=penalties,
        strategy=["lp-ft", phases],
        hidden_units=[(), (8,)],
        optimizer=["adam", "sgd"],
    )
    hp, values = declared(space)
    assert values["penalty"] == penalties[0]
    seen = set()
    for option in hp.space[0].values:
        hp.values[hp.space[0].name] = option
        seen.add(repr(space.declare(hp)["strategy"]))
    assert seen == {repr("lp-ft"), repr(phases)}
    assert space.count() == 2 * 3 * 2 * 2


def test_count():
    space = SearchSpace(learning_rate=[1e-4, 1e-3], lambda_=[0, 1], depth=[0])
    assert space.count() == 4


def test_depths_become_integers_of_the_model():
    model = make_model()
    assert SearchSpace().for_model(model).depth == [0, 1, 2]
    space = SearchSpace(depth=[1, "all", 3])
    assert space.for_model(model).depth == [1, 3]
    with pytest.raises(ValueError, match=r"integers in \[0, 3\]"):
        SearchSpace(depth=[4]).for_model(model)


def choice(**values):
    space = SearchSpace(**{"learning_rate": 1e-3, "lambda_": 0.5, **values})
    return Choice(declared(space)[1])


def test_phases_of_a_choice():
    lp_ft = choice(depth=2).phases("lp-ft", 4)
    assert lp_ft == tuple(ktr.LPFT(depth=2, learning_rate=1e-3, epochs=4))
    decayed = choice(depth=2, layer_decay=0.5).phases("lp-ft", 4)
    assert [p.layer_decay for p in decayed] == [1.0, 0.5]
    mine = (ktr.Phase("a", depth=0, epochs=2), ktr.Phase("b", epochs=7))
    first, last = choice(depth=1, strategy=mine).phases("lp-ft", None)
    assert first == mine[0]
    assert (last.depth, last.learning_rate, last.epochs) == (1, 1e-3, 7)
    gradual = choice(depth=0, strategy="gradual-unfreezing")
    assert [p.depth for p in gradual.phases("lp-ft", 2)] == [0]
    with pytest.raises(ValueError, match="`depth` must be 0"):
        choice(depth=1, strategy="linear-probe").phases("lp-ft", 2)


def test_lambda_multiplies_every_coefficient():
    assert choice(depth=0).penalty() == ktr.L2SP(0.5, 0.5)
    penalty = ktr.ElasticNet(2.0, 4.0)
    assert choice(depth=0, penalty=penalty).penalty() == ktr.ElasticNet(1, 2)
    assert choice(depth=0, penalty=None).penalty() is None


@pytest.mark.parametrize(
    ("name", "value", "rule"),
    [
        ("learning_rate", 0.0, "above 0"),
        ("learning_rate", (1e-2, 1e-5), "the lower one first"),
        ("learning_rate", [], "at least one value"),
        ("learning_rate", "fast", "numbers above 0"),
        ("lambda_", -1, "at least 0"),
        ("lambda_", (0, 1), r"\[0, \(low, high\)\]"),
        ("depth", [-1], "integers from 0"),
        ("dropout", 1.0, r"\[0, 1\)"),
        ("layer_decay", 2, r"\(0, 1\]"),
        ("penalty", "l2", "penalties"),
        ("strategy", "from-scratch", "pretrained"),
        ("strategy", "lpft", "lp-ft"),
        ("optimizer", "adamm", "adamm"),
    ],
)
def test_what_cannot_be_is_refused_at_once(name, value, rule):
    with pytest.raises(ValueError, match=rule):
        SearchSpace(**{name: value})


def test_a_misspelt_field_is_told():
    with pytest.raises(ValueError, match="Did you mean 'learning_rate'"):
        check_fields({"learningrate": 1e-3})
