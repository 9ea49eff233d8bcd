"""Writes trials for the HParams tab of TensorBoard."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

# Columns of an epoch that are not drawn as curves.
_OTHER = ("phase", "name", "epoch", "depth", "seconds")


class Written(NamedTuple):
    """A trial to write.

    Attributes:
        name: Its id.
        values: Its hyperparameters.
        score: The objective at its best epoch.
        epochs: Rows of its epochs.
    """

    name: str
    values: Mapping[str, Any]
    score: float
    epochs: Sequence[Mapping[str, Any]]


def write_trials(
    directory: str | os.PathLike[str], objective: str, trials: Sequence[Written]
) -> None:
    """Writes a run for each trial.

    Args:
        directory: New or empty folder.
        objective: Name of the column that ranks trials.
        trials: The trials.

    Raises:
        ValueError: If the folder is not empty: TensorBoard would merge the two.
    """
    folder = Path(directory)
    if folder.exists() and any(folder.iterdir()):
        raise ValueError(
            "`directory` must be a new or empty folder. Received: "
            f"directory={str(directory)!r}, which holds files."
        )
    import tensorflow as tf
    from tensorboard.plugins.hparams import api

    names = dict.fromkeys(name for trial in trials for name in trial.values)
    # A separate tag, since the last value of a curve is not the best one.
    best = f"best/{objective}"
    writer = tf.summary.create_file_writer(str(folder))
    with writer.as_default():
        api.hparams_config(
            hparams=[api.HParam(name) for name in names],
            metrics=[api.Metric(best, display_name=objective)],
        )
    writer.close()
    for trial in trials:
        writer = tf.summary.create_file_writer(str(folder / trial.name))
        with writer.as_default():
            api.hparams(dict(trial.values), trial_id=f"trial {trial.name}")
            tf.summary.scalar(best, trial.score, 0)
            for step, epoch in enumerate(trial.epochs, 1):
                for name, value in epoch.items():
                    if name not in _OTHER and value is not None:
                        tf.summary.scalar(name, value, step)
        writer.close()
