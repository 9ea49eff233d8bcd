"""Who sets the learning rate, and what callbacks see of several phases."""

import csv
import dataclasses
import functools

import keras
import numpy as np
import pytest

import keras_transfer as ktr
from keras_transfer.optimizers.given_rate import rate_of

from ._tiny import arrays_of, assert_same, make_model

QUIET = {"verbose": 0}
Cosine = functools.partial(keras.optimizers.schedules.CosineDecay, alpha=0.5)
# Two phases of gradient steps, the first of one epoch.
TWO_PHASES = {"strategy": "fine-tune", "epochs": 2, **QUIET}


class Slow(keras.optimizers.SGD):
    """An optimizer of the user, with a default of its own."""

    def __init__(self, learning_rate=1e-6, **options):
        super().__init__(learning_rate, **options)


class Passing(keras.optimizers.SGD):
    def __init__(self, *args, **options):
        super().__init__(*args, **options)


# --- The learning rate ---


@pytest.mark.parametrize(
    ("optimizer", "rate"),
    [
        (keras.optimizers.Adam(), None),
        (keras.optimizers.Adam(1e-3), None),
        (keras.optimizers.Adam(1e-7), 1e-7),
        (keras.optimizers.SGD(), None),
        (keras.optimizers.SGD(0.1), 0.1),
        (keras.optimizers.SGD(1e-3), 1e-3),
        (keras.optimizers.AdamW(3e-5, weight_decay=0.1), 3e-5),
        (Slow(), None),
        (Slow(1e-3), 1e-3),
        (Passing(0.01), None),
        (Passing(0.5), 0.5),
    ],
)
def test_the_rate_that_was_given(optimizer, rate):
    assert rate_of(optimizer) == rate


@pytest.mark.parametrize("strategy", [None, "fine-tune", "gradual-unfreezing"])
def test_the_rate_of_an_optimizer_counts(data, strategy):
    def rates(**arguments):
        run = ktr.fine_tune(
            make_model(),
            data,
            strategy=strategy,
            depth=1,
            epochs=1,
            **arguments,
            **QUIET,
        )
        assert run.model.optimizer.learning_rate < 2e-7
        return [phase.learning_rate for phase in run.phases], arrays_of(
            run.model
        )

    given, arrays = rates(optimizer=keras.optimizers.Adam(1e-7))
    same, others = rates(learning_rate=1e-7)
    assert given == same
    assert given[-1] == 1e-7
    assert all(map(np.array_equal, arrays, others))
    # `learning_rate` wins.
    assert rates(optimizer=keras.optimizers.Adam(0.5), learning_rate=1e-7)[
        0
    ] == (same)


def test_the_rate_of_an_optimizer_counts_in_folds(data):
    result = ktr.cross_validate(
        make_model,
        data,
        folds=2,
        epochs=1,
        strategy="fine-tune",
        optimizer=keras.optimizers.SGD(0.0625),
        **QUIET,
    )
    rates = [
        rate for table in result.histories for rate in table["learning_rate"]
    ]
    same = ktr.cross_validate(
        make_model,
        data,
        folds=2,
        epochs=1,
        strategy="fine-tune",
        optimizer="sgd",
        learning_rate=0.0625,
        **QUIET,
    )
    assert rates == [
        rate for table in same.histories for rate in table["learning_rate"]
    ]


def test_a_space_has_the_rate():
    with pytest.raises(ValueError, match="`learning_rate` of the space"):
        ktr.SearchSpace(optimizer=keras.optimizers.Adam(1e-5))
    space = ktr.SearchSpace(
        optimizer=keras.optimizers.Adam(), learning_rate=1e-5
    )
    assert space.learning_rate == 1e-5


def test_a_schedule_in_the_optimizer_is_that_of_each_phase(data):
    schedule = Cosine(1e-2, 4)
    run = ktr.fine_tune(
        make_model(),
        data,
        batch_size=24,
        optimizer=keras.optimizers.SGD(schedule),
        **TWO_PHASES,
    )
    # Two steps an epoch: the rate of the last step of each.
    expected = [float(schedule(step)) for step in (1, 1, 3)]
    np.testing.assert_allclose(
        run.history["learning_rate"], expected, rtol=1e-6
    )
    model = make_model()
    phases = [dataclasses.replace(p, schedule=schedule) for p in run.phases]
    ktr.fine_tune(
        model, data, batch_size=24, strategy=phases, optimizer="sgd", **QUIET
    )
    assert_same(model, arrays_of(run.model))


def test_a_schedule_of_keras_resumes(data, tmp_path):
    class Stop(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            if epoch == 1:
                raise KeyboardInterrupt

    def train(folder, callbacks=()):
        keras.utils.set_random_seed(0)
        model = make_model()
        schedule = keras.optimizers.schedules.PiecewiseConstantDecay(
            [2], [0.1, 0.01]
        )
        run = ktr.fine_tune(
            model,
            data,
            optimizer=keras.optimizers.SGD(schedule),
            directory=tmp_path / folder,
            callbacks=callbacks,
            **TWO_PHASES,
        )
        return model, run

    whole, run = train("whole")
    with pytest.raises(KeyboardInterrupt):
        train("stopped", [Stop()])
    resumed, again = train("stopped")
    assert again.history["learning_rate"] == run.history["learning_rate"]
    assert_same(resumed, arrays_of(whole))


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"schedule": Cosine(0.1, 10), "learning_rate": 0.2}, "left out"),
        ({"schedule": lambda step: 0.1}, "or a function"),
        ({"schedule": "cosin"}, "or a function"),
        ({"schedule": 3}, "or a function"),
    ],
)
def test_schedules_that_cannot_be_called(arguments, match):
    with pytest.raises(ValueError, match=match):
        ktr.Phase(**arguments)


class Undescribed(keras.optimizers.schedules.LearningRateSchedule):
    def __call__(self, step):
        return 0.125


class Described(Undescribed):
    def get_config(self):
        return {}


def test_a_schedule_without_a_configuration(data):
    for use in (
        lambda schedule: ktr.Phase(depth=0, schedule=schedule),
        lambda schedule: ktr.SearchSpace(
            optimizer=keras.optimizers.SGD(schedule)
        ),
    ):
        with pytest.raises(TypeError, match="Undescribed without `get_config`"):
            use(Undescribed())
    with pytest.raises(TypeError, match="`optimizer` must have a schedule"):
        ktr.fine_tune(
            make_model(), data, optimizer=keras.optimizers.SGD(Undescribed())
        )
    # As told.
    run = ktr.fine_tune(
        make_model(),
        data,
        strategy=[ktr.Phase(depth=0, schedule=Described())],
        **QUIET,
    )
    assert run.history["learning_rate"] == [0.125]


def test_phase_reads_the_rate_of_a_schedule():
    assert ktr.Phase(schedule=Cosine(0.125, 10)).learning_rate == 0.125
    phase = ktr.Phase(schedule=Cosine(0.125, 10), learning_rate=0.125)
    assert dataclasses.replace(phase, epochs=3).rate(5, 20) == pytest.approx(
        float(Cosine(0.125, 10)(5))
    )

    def own(step, total_steps, learning_rate):
        return learning_rate / (1 + step)

    assert ktr.Phase(schedule=own, learning_rate=1.0).rate(1, 9) == 0.5


@pytest.mark.parametrize("hook", ["on_epoch_begin", "on_train_batch_end"])
@pytest.mark.parametrize("store", [None, False])
def test_the_rate_of_a_callback_wins_over_a_schedule(data, hook, store):
    class Set(keras.callbacks.Callback):
        pass

    def set_rate(self, *arguments, **named):
        self.model.optimizer.learning_rate = 0.25

    setattr(Set, hook, set_rate)
    phase = ktr.Phase(depth=0, epochs=2, learning_rate=1e-3)
    with pytest.warns(UserWarning, match="A callback set the learning rate"):
        run = ktr.fine_tune(
            make_model(),
            data,
            strategy=[phase],
            callbacks=[Set()],
            store=store,
            **QUIET,
        )
    assert run.history["learning_rate"] == [0.25, 0.25]


def test_callbacks_that_set_no_rate_do_not_end_the_schedule(data):
    phase = ktr.Phase(depth=0, epochs=2, learning_rate=1e-3)
    arguments = {"strategy": [phase], "optimizer": "sgd", **QUIET}
    plain, watched = (
        ktr.fine_tune(make_model(), data, callbacks=callbacks, **arguments)
        for callbacks in ((), [keras.callbacks.Callback()])
    )
    assert watched.history["learning_rate"] == plain.history["learning_rate"]


# --- Callbacks over phases ---


class Watch(keras.callbacks.Callback):
    """Writes down what it sees."""

    def __init__(self):
        super().__init__()
        self.calls = []

    def on_train_begin(self, logs=None):
        self.calls.append("begin")

    def on_train_end(self, logs=None):
        self.calls.append("end")
        self.last = dict(logs)

    def on_epoch_end(self, epoch, logs=None):
        self.calls.append(epoch)
        self.seen = self.model


@pytest.mark.parametrize("store", [None, False])
def test_all_phases_are_one_training(data, tmp_path, store):
    watch = Watch()
    log = tmp_path / "log.csv"
    run = ktr.fine_tune(
        make_model(),
        data,
        strategy=[ktr.Phase(depth=depth, epochs=2) for depth in range(3)],
        callbacks=[
            watch,
            keras.callbacks.CSVLogger(log),
            keras.callbacks.ModelCheckpoint(
                tmp_path / "{epoch:02d}.weights.h5", save_weights_only=True
            ),
            keras.callbacks.TensorBoard(tmp_path / "board"),
        ],
        store=store,
        **QUIET,
    )
    assert run.history["phase"] == [0, 0, 1, 1, 2, 2]
    assert run.history["epoch"] == [1, 2, 1, 2, 1, 2]
    assert watch.calls == ["begin", *range(6), "end"]
    assert watch.last["loss"] == pytest.approx(run.history["loss"][-1])
    with log.open() as file:
        rows = list(csv.DictReader(file))
    assert [int(row["epoch"]) for row in rows] == list(range(6))
    assert [float(row["val_loss"]) for row in rows] == pytest.approx(
        run.history["val_loss"]
    )
    names = sorted(path.name[:2] for path in tmp_path.glob("*.weights.h5"))
    assert names == [f"{epoch:02d}" for epoch in range(1, 7)]
    assert curve(tmp_path / "board" / "validation") == pytest.approx(
        run.history["val_loss"]
    )


def curve(folder):
    """Reads the losses of all event files of a folder, by epoch."""
    import tensorflow as tf

    values = {}
    for file in folder.glob("events.out*"):
        for event in tf.compat.v1.train.summary_iterator(str(file)):
            for value in event.summary.value:
                if value.tag == "epoch_loss":
                    assert event.step not in values
                    values[event.step] = float(tf.make_ndarray(value.tensor))
    return [values[step] for step in sorted(values)]


def test_tensorboard_is_one_curve(data, tmp_path):
    run = ktr.fine_tune(
        make_model(), data, tensorboard=tmp_path / "board", **TWO_PHASES
    )
    assert len(run.rows) == 3
    assert curve(tmp_path / "board" / "validation") == pytest.approx(
        run.history["val_loss"]
    )


def test_epochs_go_on_after_a_phase_that_ended_early(data):
    class Stop(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            self.model.stop_training = epoch == 1

    watch = Watch()
    phases = [ktr.Phase("a", depth=0, epochs=5), ktr.Phase("b", depth=1)]
    run = ktr.fine_tune(
        make_model(),
        data,
        strategy=phases,
        callbacks=[Stop(), watch],
        **QUIET,
    )
    assert run.history["phase"] == [0, 0, 1]
    assert watch.calls == ["begin", 0, 1, 2, "end"]


def test_early_stopping_counts_anew_in_each_phase(data):
    phases = [
        ktr.Phase("a", depth=0, epochs=4, schedule="constant"),
        ktr.Phase("b", depth=1, epochs=4, schedule="constant"),
    ]
    stop = keras.callbacks.EarlyStopping(
        "val_loss", patience=2, min_delta=100.0
    )
    run = ktr.fine_tune(
        make_model(), data, strategy=phases, callbacks=[stop], **QUIET
    )
    assert run.history["phase"] == [0, 0, 0, 1, 1, 1]


def test_epochs_that_callbacks_wait_for_are_those_of_the_phase(data):
    phases = [
        ktr.Phase("a", depth=0, epochs=4, schedule="constant"),
        ktr.Phase("b", depth=1, epochs=4, schedule="constant"),
    ]
    stop = keras.callbacks.EarlyStopping(
        "val_loss", patience=1, min_delta=100.0, start_from_epoch=2
    )
    run = ktr.fine_tune(
        make_model(), data, strategy=phases, callbacks=[stop], **QUIET
    )
    counts = [run.history["phase"].count(place) for place in (0, 1)]
    assert counts[0] == counts[1] == 4


def test_epochs_go_on_where_a_run_resumes(data, tmp_path):
    class Stop(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 2:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ktr.fine_tune(
            make_model(),
            data,
            directory=tmp_path / "run",
            callbacks=[Stop()],
            **TWO_PHASES,
        )
    # The second time nothing is left.
    for calls in (["begin", 2, "end"], []):
        watch = Watch()
        ktr.fine_tune(
            make_model(),
            data,
            directory=tmp_path / "run",
            callbacks=[watch],
            **TWO_PHASES,
        )
        assert watch.calls == calls
