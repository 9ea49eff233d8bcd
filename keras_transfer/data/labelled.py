"""Labelled examples as indexed splits with stable ids, whatever they are."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, Self

import numpy as np

from keras_transfer._utils.checks import is_integer
from keras_transfer.data import splitting
from keras_transfer.data.checks import check_indices
from keras_transfer.data.report import DataReport


@dataclasses.dataclass(frozen=True, repr=False, eq=False)
class LabelledSplit:
    """Some of the examples of a data set.

    Args:
        name: `"train"`, `"validation"` or `"test"`.
        ids: Tuple of stable strings.
        labels: int32 `(n,)`, or float32 0/1 `(n, num_classes)` where
            multi-label.
        class_names: Tuple of the names of the classes.
    """

    name: str
    ids: tuple[str, ...]
    labels: np.ndarray
    class_names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def multi_label(self) -> bool:
        """Whether an example may have several classes."""
        return self.labels.ndim == 2

    def subset(self, indices: Sequence[int] | np.ndarray) -> Self:
        """Returns the examples at `indices`, in that order.

        Args:
            indices: Integers in `[0, n)`.

        Returns:
            A split of the same kind.

        Raises:
            ValueError: If an index is out of range or no integer.
        """
        chosen = check_indices(indices, len(self))
        return dataclasses.replace(
            self,
            ids=tuple(self.ids[i] for i in chosen),
            labels=self.labels[chosen],
            **self._rows(chosen),
        )

    def shots(self, k: int, seed: int = 0) -> Self:
        """Returns `k` examples per class.

        With one seed, the examples of a smaller `k` are among those of a
        larger one.

        Args:
            k: Integer, examples per class.
            seed: Integer; another seed draws others. Defaults to `0`.

        Returns:
            A split of the same kind, of `k * num_classes` examples.

        Raises:
            ValueError: If a class has fewer than `k`, or if multi-label.
        """
        if self.multi_label:
            raise ValueError(
                "`shots` needs one class per example. Received: multi-label "
                "data. Use `subset(indices)`."
            )
        if not is_integer(k) or k < 1:
            raise ValueError(
                f"`k` must be an integer above 0. Received: k={k}."
            )
        counts = np.bincount(self.labels, minlength=len(self.class_names))
        if counts.min() < k:
            name = self.class_names[counts.argmin()]
            raise ValueError(
                f"`k` must be at most {counts.min()}, the number of examples "
                f'of class "{name}" in "{self.name}". Received: k={k}.'
            )
        return self.subset(splitting.draw_shots(self.ids, self.labels, k, seed))

    def joined(self, other: Self) -> Self:
        """Returns the examples of both, those of `other` behind.

        Args:
            other: A split of the same kind, of the same source.
        """
        rows = {"labels": other.labels, **other._rows(slice(None))}
        joined: dict[str, Any] = {
            name: np.concatenate([getattr(self, name), more])
            for name, more in rows.items()
        }
        return dataclasses.replace(
            self,
            ids=self.ids + other.ids,
            **joined,
        )

    def _rows(self, chosen: np.ndarray | slice) -> dict[str, Any]:
        """The fields of a kind of split that have a row for each example."""
        return {}

    def labels_for(self, label_mode: str) -> np.ndarray:
        """Returns the labels as `batches` gives them.

        Args:
            label_mode: `"categorical"` or `"int"`.

        Raises:
            ValueError: If it is neither, or does not fit the labels.
        """
        if label_mode not in ("categorical", "int"):
            raise ValueError(
                '`label_mode` must be "categorical" or "int". Received: '
                f"label_mode={label_mode!r}."
            )
        if label_mode == "categorical":
            return self.one_hot()
        if self.multi_label:
            raise ValueError(
                '`label_mode` must be "categorical" because the examples have '
                'several labels. Received: label_mode="int".'
            )
        return self.labels

    def one_hot(self) -> np.ndarray:
        """Returns the labels as rows.

        Returns:
            float32 one-hot (multi-hot) array `(n, num_classes)`.
        """
        if self.multi_label:
            return self.labels
        return np.eye(len(self.class_names), dtype=np.float32)[self.labels]


@dataclasses.dataclass(frozen=True, repr=False, eq=False)
class LabelledData:
    """A labelled data set in three splits.

    Args:
        train: The examples to train on.
        validation: The examples to choose by; may be empty.
        test: The examples to measure on; may be empty.
        class_names: Tuple of names; the label of a class is its place.
        report: What was skipped, ignored or found twice.
    """

    train: LabelledSplit
    validation: LabelledSplit
    test: LabelledSplit
    class_names: tuple[str, ...]
    report: DataReport = dataclasses.field(kw_only=True)

    @property
    def num_classes(self) -> int:
        """The number of classes."""
        return len(self.class_names)

    def class_weights(self) -> dict[int, float]:
        """Returns the weights that balance the classes of train, for `fit`.

        `weight_c = n / (C * n_c)` over the C classes that train holds, as
        scikit-learn's `"balanced"`.

        Returns:
            Dict of class index to weight, of the classes that train holds.

        Raises:
            ValueError: If multi-label.
        """
        if self.train.multi_label:
            raise ValueError(
                "`class_weights` needs one class per example. Received: "
                "multi-label data."
            )
        present, counts = np.unique(self.train.labels, return_counts=True)
        weights = len(self.train) / (len(present) * counts)
        return {
            int(label): float(weight)
            for label, weight in zip(present, weights, strict=True)
        }
