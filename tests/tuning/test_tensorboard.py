"""TensorBoard reads what a search writes."""

import pytest
import tensorflow as tf
from tensorboard.backend.event_processing.event_accumulator import (
    EventAccumulator,
)
from tensorboard.plugins.hparams import metadata, plugin_data_pb2

from .test_search import PHASE, search

SPACE = {
    "learning_rate": [1e-2, 1e-3],
    "depth": [0, 1],
    "lambda_": 0,
    "strategy": PHASE,
}


@pytest.fixture(scope="module")
def written(data, tmp_path_factory):
    result = search(data, space=SPACE, epochs=2)
    folder = tmp_path_factory.mktemp("tensorboard") / "logs"
    result.save_tensorboard(folder)
    return result, folder


def hparams(accumulator, tag):
    content = accumulator.summary_metadata[tag].plugin_data.content
    return plugin_data_pb2.HParamsPluginData.FromString(content)


def test_each_trial_has_its_values_and_its_score(written):
    result, folder = written
    assert len(result.rows) == 4
    for row in result.rows:
        run = EventAccumulator(str(folder / row["trial"])).Reload()
        data = hparams(run, metadata.SESSION_START_INFO_TAG)
        values = data.session_start_info.hparams
        assert values["depth"].number_value == row["depth"]
        assert values["learning_rate"].number_value == row["learning_rate"]
        best = run.Tensors("best/val_accuracy")
        assert scalar(best[0]) == pytest.approx(row["val_accuracy"])


def test_each_trial_has_its_curves(written):
    result, folder = written
    trial = result.rows[0]["trial"]
    run = EventAccumulator(str(folder / trial)).Reload()
    curve = [scalar(event) for event in run.Tensors("val_loss")]
    history = [row["val_loss"] for row in result.history(trial)]
    assert curve == pytest.approx(history)
    assert len(curve) == 2


def test_the_tab_knows_what_varied(written):
    _, folder = written
    whole = EventAccumulator(str(folder)).Reload()
    experiment = hparams(whole, metadata.EXPERIMENT_TAG).experiment
    names = {info.name for info in experiment.hparam_infos}
    assert names == {"learning_rate", "depth"}
    (metric,) = experiment.metric_infos
    assert metric.name.tag == "best/val_accuracy"


def test_a_folder_with_files_is_refused(written):
    result, folder = written
    with pytest.raises(ValueError, match="new or empty folder"):
        result.save_tensorboard(folder)


def test_the_history_of_no_trial_is_refused(written):
    with pytest.raises(ValueError, match="must be one of"):
        written[0].history("77")


def scalar(event):
    return float(tf.make_ndarray(event.tensor_proto))
