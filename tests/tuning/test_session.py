"""Runs that share what is computed once give the numbers of runs alone."""

import dataclasses

import keras
import numpy as np
import pytest
from features._counting import Counting, passed
from training._tiny import arrays_of, assert_law, assert_same, make_model

import keras_transfer as ktr
from keras_transfer.caching.store import FeatureStore
from keras_transfer.training.loop import TrainingLoop
from keras_transfer.training.settings import make_settings
from keras_transfer.tuning.execution.head_requests import Request
from keras_transfer.tuning.execution.session import TrainingSession


def phase(depth, rate=1e-2, epochs=2, **options):
    return ktr.Phase(
        f"depth {depth}",
        depth=depth,
        learning_rate=rate,
        epochs=epochs,
        **options,
    )


def alone(data, make, phases, **arguments):
    model = make()
    run = ktr.fine_tune(model, data, strategy=phases, verbose=0, **arguments)
    return run, model


def in_turn(kinds, penalties):
    """Each kind, then the others' penalties on the last kind, then the first.

    So each kind follows another one, and one and the same kind follows itself.
    """
    rates = (1e-2, 2e-3, 5e-3, 1e-3, 3e-2)
    first, *others = zip(rates, penalties, strict=False)
    yield from ((kind, *first) for kind in kinds)
    yield from ((kinds[-1], *other) for other in others)
    if len(kinds) > 1:
        yield kinds[0], *others[-1]


def compare(data, kinds, make=make_model, penalties=(None, None), **arguments):
    """Trains the kinds and penalties in turn, on a session and alone."""
    model = make()
    before = arrays_of(model)
    session = TrainingSession(
        model,
        data,
        kinds,
        make_settings(**arguments),
        count=len(kinds) * len(penalties),
    )
    for kind, rate, penalty in in_turn(kinds, penalties):
        *first, last = kind
        phases = (*first, dataclasses.replace(last, learning_rate=rate))
        found = session.run(phases, penalty=penalty)
        expected, other = alone(
            data, make, phases, penalty=penalty, **arguments
        )
        assert found.best == expected.best
        for row, wanted in zip(found.rows, expected.rows, strict=True):
            assert row.keys() == wanted.keys()
            for name in row.keys() - {"name", "seconds"}:
                if wanted[name] is None or isinstance(wanted[name], str):
                    assert row[name] == wanted[name]
                    continue
                same = pytest.approx(wanted[name], rel=1e-5, abs=1e-5)
                assert row[name] == same, name
        session.assign(found.weights)
        assert_law(model, other)
    session.assign({})
    assert_same(model, before)
    session.close()
    assert model.compiled
    assert all(v.regularizer is None for v in model.weights)


KINDS = {
    "depths": [(phase(0),), (phase(2),), (phase("all"),)],
    "lp-ft": [tuple(ktr.LPFT(depth=d, epochs=2)) for d in (0, 1)],
    "fine-tune": [tuple(ktr.FineTune(depth=d, epochs=2)) for d in (0, 2)],
    "gradual": [tuple(ktr.GradualUnfreezing(depth=2, epochs=1))],
}


@pytest.mark.parametrize(
    ("kind", "store"),
    [
        ("depths", False),
        ("lp-ft", "memory"),
        ("gradual", "memory"),
    ],
)
def test_equals_runs_alone(data, kind, store):
    penalties = [None, ktr.L2SP(0.5, 0.1)]
    if kind == "lp-ft":  # And back.
        penalties.append(None)
    compare(data, KINDS[kind], penalties=penalties, store=store)


@pytest.mark.parametrize(
    "arguments",
    [
        {
            "optimizer": keras.optimizers.SGD(momentum=0.9, nesterov=True),
            "batch_size": 7,
        },
        {
            # Moments that do not begin at zero.
            "optimizer": keras.optimizers.Adagrad(),
            "class_weight": "balanced",
            "label_smoothing": 0.1,
        },
        {
            "optimizer": "adamw",
            "global_clipnorm": 0.5,
            "patience": 1,
            "monitor": "val_loss",
        },
        {
            "optimizer": "nadam",
            "ema_momentum": 0.8,
            "gradient_accumulation_steps": 2,
        },
    ],
    ids=lambda a: "-".join(map(str, a)),
)
def test_every_setting_is_the_same(data, arguments):
    last = phase(1, schedule="constant", layer_decay=0.5)
    kinds = [(phase(0, epochs=1), last)]
    compare(data, kinds, penalties=[ktr.L2SP(0.1)] * 2, **arguments)


@pytest.mark.parametrize(
    ("policy", "rates"),
    [
        (None, (1e-2, 3e-3)),  # The second time on what is compiled.
        ("mixed_bfloat16", (3e-3,)),
    ],
)
def test_runs_side_by_side_equal_runs_alone(data, policy, rates):
    kinds = [tuple(ktr.FineTune(depth=d, epochs=2)) for d in (1, 2)]
    settings = make_settings(store="memory", mixed_precision=policy)
    model = make_model(dropout=0.5)
    before = arrays_of(model)
    session = TrainingSession(model, data, kinds, settings, count=6)
    penalty = ktr.L2SP(0.5, 0.1)
    for rate in rates:
        requests = [
            Request(
                (*first, dataclasses.replace(last, learning_rate=rate)),
                penalty,
                seed,
            )
            for seed, (*first, last) in enumerate(kinds)
        ]
        found = session.run_side_by_side(requests)
        for request, one in zip(requests, found, strict=True):
            run, other = alone(
                data,
                lambda: make_model(dropout=0.5),
                request.phases,
                penalty=penalty,
                seed=request.seed,
                store="memory",
                mixed_precision=policy,
            )
            assert one.best == run.best
            for row, wanted in zip(one.rows, run.rows, strict=True):
                assert row["val_loss"] == pytest.approx(
                    wanted["val_loss"], abs=1e-5
                )
            session.assign(one.weights)
            assert_law(model, other)
    session.assign({})
    assert_same(model, before)
    session.close()


def test_what_passes_the_whole_network_is_not_side_by_side(data):
    kinds = [(phase(1),), (phase(2),)]
    session = TrainingSession(
        make_model(), data, kinds, make_settings(store=False)
    )
    requests = [Request(kind, None, 0) for kind in kinds]
    assert session.run_side_by_side(requests) is None
    session.close()


@pytest.mark.parametrize("depth", [1, 2])
def test_one_that_fails_stops_the_other(data, monkeypatch, depth):
    kinds = [(phase(1, epochs=40),), (phase(2, epochs=40),)]
    session = TrainingSession(
        make_model(), data, kinds, make_settings(store="memory")
    )
    record = TrainingLoop._record
    rows = []

    def failing(self, run, row):
        if row["depth"] == depth:
            raise KeyError("broken")
        rows.append(row)
        return record(self, run, row)

    monkeypatch.setattr(TrainingLoop, "_record", failing)
    with pytest.raises(KeyError, match="broken"):
        session.run_side_by_side([Request(kind, None, 0) for kind in kinds])
    assert len(rows) < 40
    session.close()


def test_dropout_begins_anew(data):
    compare(data, KINDS["fine-tune"], lambda: make_model(dropout=0.5))


def test_decoupled_and_other_penalties_take_turns(data):
    penalties = [
        ktr.L2(0.1, decoupled=True),
        ktr.L1(0.01),
        ktr.L2(0.3, decoupled=True),
        None,
    ]
    compare(data, [(phase(1),)], penalties=penalties)


def test_a_penalty_on_activations_runs_whole(data):
    penalties = [ktr.FeatureMap(0.01), None, ktr.FeatureMap(0.01)]
    compare(data, [(phase(1, epochs=1),)], penalties=penalties)


def test_augmented_images_pass_each_time(data):
    compare(data, KINDS["depths"][1:2], augment=ktr.Augmentation())


class Tracing(keras.layers.Layer):
    """Counts how often it is traced."""

    count = 0

    def call(self, x):
        Tracing.count += 1
        return x

    def compute_output_spec(self, x):
        return keras.KerasTensor(x.shape, x.dtype)


def test_a_second_run_of_a_depth_traces_nothing(data):
    model = make_model()
    head = model.get_layer("head")
    x = Tracing()(head.input)
    for layer in head.layers[1:]:
        x = layer(x)
    keras.utils.set_random_seed(0)
    backbone = model.get_layer("backbone")
    inputs = keras.Input((8, 8, 3), name="image")
    y = model.get_layer("preprocessing")(inputs)
    y = keras.Model(head.input, x, name="head")(backbone(y))
    traced = keras.Model(inputs, y)
    session = TrainingSession(
        traced, data, [(phase(0),), (phase(1),)], make_settings(), count=6
    )
    counts = []
    for rate in (1e-2, 1e-3, 1e-4):
        for depth in (0, 1):
            session.run(
                (phase(depth, rate),), penalty=ktr.L2SP(rate, rate), seed=3
            )
        counts.append(Tracing.count)
    session.close()
    assert counts[0] > 0
    assert counts[1:] == [counts[0]] * 2


def test_each_image_passes_once(data):
    def make():
        keras.utils.set_random_seed(0)
        inputs = keras.Input((8, 8, 3))
        x = Counting(name="block_0_count")(inputs)
        for number in (1, 2, 3):
            x = keras.layers.Conv2D(4, 3, name=f"block_{number}_conv")(x)
        network = keras.Model(inputs, x)
        backbone = ktr.load_backbone(network, pixel_range="[0, 1]")
        return ktr.build_classifier(backbone, 3)

    kinds = [(phase(depth),) for depth in (2, 0, 1)]
    session = TrainingSession(
        make(), data, kinds, make_settings(store="memory"), count=9
    )
    images = {
        name: getattr(data, name).arrays()[0]
        for name in ("train", "validation", "test")
    }
    passed([])
    for rate in (1e-2, 1e-3, 1e-4):
        for kind in kinds:
            session.run((dataclasses.replace(kind[0], learning_rate=rate),))
    session.close()
    assert sorted(session.plan.took) == [0, 1, 2]
    counts = passed(np.concatenate(list(images.values())))
    assert counts == [1] * 66 + [0] * 18


def test_a_run_that_diverges_says_so_and_the_next_one_is_fine(data):
    model = make_model()
    session = TrainingSession(
        model, data, [(phase(1),)], make_settings(), count=2
    )
    lost = session.run((phase(1, 1e30),))
    assert "learning rate" in lost.error or "not finite" in lost.error
    found = session.run((phase(1),))
    expected, _ = alone(data, make_model, (phase(1),))
    assert found.rows[-1]["val_loss"] == pytest.approx(
        expected.rows[-1]["val_loss"], abs=1e-6
    )
    session.close()


def test_strategies_that_differ_in_their_first_phase(data, monkeypatch):
    """Moments go over from the phase before, which must be the same one."""
    # The longer one runs several steps in one call.
    monkeypatch.setattr("keras_transfer.training.compiling._MIN_STEPS", 10)
    kinds = [
        (phase(0, epochs=epochs), phase(1, 1e-2, epochs=2)) for epochs in (1, 9)
    ]
    compare(data, kinds)


def test_a_model_is_left_as_it_was_where_the_bench_fails(data):
    model = make_model()
    policies = [layer.dtype_policy.name for layer in model._flatten_layers()]
    settings = make_settings(
        store=FeatureStore(limit=1000), mixed_precision="mixed_bfloat16"
    )
    with pytest.raises(ValueError, match="`store` must have room"):
        TrainingSession(model, data, [(phase(1, epochs=9),)], settings, count=9)
    assert policies == [
        layer.dtype_policy.name for layer in model._flatten_layers()
    ]


def test_from_scratch_is_refused(data):
    with pytest.raises(ValueError, match="from pretrained weights"):
        TrainingSession(
            make_model(), data, [tuple(ktr.FromScratch())], make_settings()
        )
    with pytest.raises(ValueError, match="must open the last blocks"):
        TrainingSession(
            make_model(),
            data,
            [tuple(ktr.Surgical("block_1"))],
            make_settings(),
        )


# --- Linear heads at once ---


@pytest.mark.parametrize(
    ("exact", "arguments"),
    [
        (False, {}),
        (False, {"optimizer": keras.optimizers.SGD(momentum=0.9)}),
        (
            True,
            {
                "optimizer": "rmsprop",
                "class_weight": "balanced",
                "label_smoothing": 0.1,
                "batch_size": 7,
            },
        ),
    ],
    ids=["plain", "momentum", "settings"],
)
def test_heads_at_once_equal_runs_alone(data, exact, arguments):
    penalties = [
        ktr.L2SP(0.3, 0.2), ktr.L2SP(0.0, 0.0), ktr.L2SP(5.0, 1.0)
    ]  # fmt: skip
    first = (ktr.Phase("probe", depth=0, epochs=0, exact_probe=True),)
    requests = [
        Request((*(first if exact else ()), phase(0, rate, 3)), penalty, 4)
        for rate, penalty in zip((1e-1, 1e-2, 1e-3), penalties, strict=True)
    ]
    kinds = [requests[0].phases, (phase(1),)]
    model = make_model()
    session = TrainingSession(
        model, data, kinds, make_settings(**arguments), count=3
    )
    found = session.run_together(requests)
    for request, one in zip(requests, found, strict=True):
        wanted = session.run(
            request.phases, penalty=request.penalty, seed=request.seed
        )
        assert one.best == wanted.best
        for row, other in zip(one.rows, wanted.rows, strict=True):
            assert row.keys() == other.keys()
            for name in row.keys() - {"name", "seconds"}:
                if other[name] is None:
                    assert row[name] is None
                    continue
                same = pytest.approx(other[name], rel=1e-4, abs=1e-5)
                assert row[name] == same, name
        assert one.weights.keys() == wanted.weights.keys()
        for place, array in wanted.weights.items():
            scale = max(1.0, np.abs(array).max())
            np.testing.assert_allclose(
                one.weights[place], array, atol=2e-5 * scale
            )
    session.close()


@pytest.mark.parametrize("penalty", [None, ktr.ElasticNet(0.01, 0.1)])
def test_heads_of_every_penalty(data, penalty):
    session = TrainingSession(
        make_model(), data, [(phase(0),)], make_settings(), count=2
    )
    requests = [Request((phase(0, r),), penalty, 0) for r in (1e-1, 1e-2)]
    for one, request in zip(
        session.run_together(requests), requests, strict=True
    ):
        wanted = session.run(request.phases, penalty=penalty)
        assert one.rows[-1]["loss"] == pytest.approx(
            wanted.rows[-1]["loss"], abs=1e-5
        )
    session.close()


def test_a_head_that_diverges_leaves_the_others(data):
    session = TrainingSession(
        make_model(),
        data,
        [(phase(0),)],
        make_settings(optimizer="sgd"),
        count=2,
    )
    lost, fine = session.run_together(
        [Request((phase(0, rate),), None, 0) for rate in (1e38, 1e-2)]
    )
    assert "became NaN or infinite" in lost.error
    assert not fine.error
    wanted = session.run((phase(0, 1e-2),))
    assert fine.rows[-1]["val_loss"] == pytest.approx(
        wanted.rows[-1]["val_loss"], abs=1e-5
    )
    session.close()


@pytest.mark.parametrize(
    ("arguments", "phases", "penalty"),
    [
        ({"ema_momentum": 0.9}, (phase(0),), None),
        ({"global_clipnorm": 1.0}, (phase(0),), None),
        ({"optimizer": "nadam"}, (phase(0),), None),
        ({"optimizer": keras.optimizers.Adam(clipvalue=1)}, (phase(0),), None),
        ({"optimizer": "adamw"}, (phase(0),), None),
        ({"patience": 1}, (phase(0),), None),
        ({}, (phase(1),), None),
        ({}, (phase(0), phase(0)), None),
        ({}, (phase(0),), ktr.FeatureMap(0.1)),
        ({}, (phase(0),), ktr.L2(0.1, decoupled=True)),
        ({"store": False}, (phase(0),), None),
        (
            {"loss": keras.losses.CategoricalCrossentropy(reduction="sum")},
            (phase(0),),
            None,
        ),
        (
            {"optimizer": keras.optimizers.Adam(gradient_accumulation_steps=2)},
            (phase(0),),
            None,
        ),
        (
            {"optimizer": keras.optimizers.Adam(loss_scale_factor=8.0)},
            (phase(0),),
            None,
        ),
    ],
    ids=(
        "ema clipnorm nadam clipvalue adamw patience depth two-phases "
        "activations decoupled not-kept sum accumulation scale"
    ).split(),
)
def test_what_cannot_be_at_once(data, arguments, phases, penalty):
    session = TrainingSession(
        make_model(), data, [phases], make_settings(**arguments), count=2
    )
    requests = [Request(phases, penalty, 0)] * 2
    assert session.run_together(requests) is None
    session.close()


def test_a_constrained_head_is_trained_alone(data):
    model = make_model()
    dense = [layer for layer in model.get_layer("head").layers if layer.weights]
    dense[-1].kernel_constraint = keras.constraints.MaxNorm(0.1)
    session = TrainingSession(
        model, data, [(phase(0),)], make_settings(), count=2
    )
    assert session.run_together([Request((phase(0),), None, 0)] * 2) is None
    session.close()


def test_a_head_with_dropout_is_trained_alone(data):
    model = make_model(dropout=0.5)
    session = TrainingSession(
        model, data, [(phase(0),)], make_settings(), count=2
    )
    assert session.run_together([Request((phase(0),), None, 0)] * 2) is None
    session.close()
