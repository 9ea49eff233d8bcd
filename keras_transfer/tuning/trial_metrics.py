"""What the trials of a search report, and what tells two searches apart."""

from __future__ import annotations

from typing import Any

import keras

from keras_transfer._utils.checks import did_you_mean
from keras_transfer.caching.fingerprints import digest_network
from keras_transfer.data.adapters.opening import open_data
from keras_transfer.tasks.task import is_binary, make_objective
from keras_transfer.training.fingerprint import describe as describe_run
from keras_transfer.training.settings import Settings


class TrialMetrics:
    """The columns of the table of a trial.

    Args:
        model: A model of the search.
        data: As for `fine_tune`.
        settings: How to train.

    Raises:
        ValueError: If they do not fit each other.
    """

    def __init__(
        self, model: keras.Model, data: Any, settings: Settings
    ) -> None:
        source = open_data(
            data,
            batch_size=settings.batch_size,
            seed=settings.seed,
            augment=settings.augment,
            cache=settings.cache,
            one_output=is_binary(model),
        )
        self.labels = source.labels
        self._card = {
            **describe_run(model, source, (), settings, None),
            "weights": digest_network(model),
        }
        objective = make_objective(
            model,
            source.labels,
            loss=settings.loss,
            label_smoothing=settings.label_smoothing,
        )
        names = ["loss", *(metric.name for metric in objective.metrics())]
        if source.validation is not None:
            names += [f"val_{name}" for name in names]
        self._names = names

    def describe(self) -> dict[str, Any]:
        """Returns what is the same in each process of a search."""
        return self._card

    def choose(self, name: str | None) -> tuple[str, str | None]:
        """Chooses the column that says which trial is best.

        Args:
            name: What the user named, or `None`.

        Returns:
            Its name, and what epochs are chosen by, as `monitor`.

        Raises:
            ValueError: If no trial reports it.
            TypeError: If it is no name.
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
                "`data` must have validation examples, which say which trial "
                "is best. Received: none. Hold some out, as `load_images` and "
                "`load_texts` do."
            )
        found = "val_accuracy" if "val_accuracy" in self._names else "val_loss"
        return found, None
