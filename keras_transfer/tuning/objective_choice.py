"""Metrics that the trials of a search report, and its manifest."""

from __future__ import annotations

from typing import Any

import keras

from keras_transfer._utils.checks import did_you_mean
from keras_transfer.caching.fingerprints import digest_network
from keras_transfer.training.settings import Settings
from keras_transfer.training.spec import RunSpec, read_data


class TrialMetrics:
    """The columns of the table of a trial.

    Args:
        model: A model of the search.
        data: Data as in `fine_tune`.
        settings: Settings of a trial.

    Raises:
        ValueError: If they do not fit each other.
    """

    def __init__(
        self, model: keras.Model, data: Any, settings: Settings
    ) -> None:
        training_data, task = read_data(model, data, settings)
        spec = RunSpec(model, data, training_data, (), task, settings)
        _ = spec.weighing  # Raises where the task has no classes to weigh.
        self.label_format = training_data.label_format
        self._manifest = {**spec.identity, "weights": digest_network(model)}
        self._names = list(spec.columns)

    def describe(self) -> dict[str, Any]:
        """Returns the part of the manifest that all processes share."""
        return self._manifest

    def choose(self, name: str | None) -> tuple[str, str | None]:
        """Chooses the column that ranks trials.

        Args:
            name: Column named by the user, or `None`.

        Returns:
            Its name, and the `monitor` that selects epochs.

        Raises:
            ValueError: If no trial reports it.
            TypeError: If it is not a name.
        """
        if name is not None and not isinstance(name, str):
            raise TypeError(
                "`objective` must be the name of a column, or one "
                f"`keras_tuner.Objective`. Received: objective={name!r:.200}"
            )
        if name is not None and name not in self._names:
            raise ValueError(
                f"`objective` must be one of {', '.join(self._names)}. "
                f"Received: objective={name!r}."
                f"{did_you_mean(name, self._names)}"
            )
        if name is not None:
            return name, name
        if "val_loss" not in self._names:
            raise ValueError(
                "`data` must have validation examples, which rank the trials. "
                "Received: none. Hold some out, as `load_images` and "
                "`load_texts` do."
            )
        column = "val_accuracy" if "val_accuracy" in self._names else "val_loss"
        return column, None
