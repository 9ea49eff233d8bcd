"""Labelled examples of any kind, as indexed splits with stable ids."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, Self

import numpy as np

from keras_transfer._utils.checks import check_choice, check_integer
from keras_transfer.data import splitting
from keras_transfer.data.checks import check_indices
from keras_transfer.data.report import DataReport


@dataclasses.dataclass(frozen=True, repr=False, eq=False)
class LabelledSplit:
    """The examples of one split of a data set.

    Args:
        name: Name of the split: `"train"`, `"validation"` or `"test"`.
        ids: Tuple of stable ids, as strings.
        labels: int32 `(n,)`, or float32 0/1 `(n, num_classes)` if examples may
            have several classes.
        class_names: Tuple of the names of the classes.
        groups: The group of each example, as `load_images(groups=...)` was told
            (a patient, a scene), or `None`. Defaults to `None`.
    """

    name: str
    ids: tuple[str, ...]
    labels: np.ndarray
    class_names: tuple[str, ...]
    groups: tuple[str, ...] | None = dataclasses.field(
        default=None, kw_only=True
    )

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def multi_label(self) -> bool:
        """Tells whether an example may have several classes."""
        return self.labels.ndim == 2

    def subset(self, indices: Sequence[int] | np.ndarray) -> Self:
        """Returns the examples at `indices`, in that order.

        Args:
            indices: Integers in `[0, n)`.

        Returns:
            A split of the same kind.

        Raises:
            ValueError: If an index is out of range or not an integer.
        """
        chosen = check_indices(indices, len(self))
        return dataclasses.replace(
            self,
            ids=tuple(self.ids[i] for i in chosen),
            labels=self.labels[chosen],
            groups=self.groups and tuple(self.groups[i] for i in chosen),
            **self._row_fields(chosen),
        )

    def shots(self, k: int, seed: int = 0) -> Self:
        """Returns `k` examples per class.

        With the same seed, the examples for a smaller `k` are a subset of those
        for a larger `k`.

        Args:
            k: Number of examples per class.
            seed: Seed of the draw. Defaults to `0`.

        Returns:
            A split of the same kind, of `k * num_classes` examples.

        Raises:
            ValueError: If a class has fewer than `k` examples, or examples have
                several classes.
        """
        if self.multi_label:
            raise ValueError(
                "`shots` needs one class per example. Received: multi-label "
                "data. Use `subset(indices)`."
            )
        check_integer("k", k, 1)
        counts = np.bincount(self.labels, minlength=len(self.class_names))
        if counts.min() < k:
            name = self.class_names[counts.argmin()]
            raise ValueError(
                f"`k` must be at most {counts.min()}, the number of examples "
                f'of class "{name}" in "{self.name}". Received: k={k}.'
            )
        return self.subset(splitting.draw_shots(self.ids, self.labels, k, seed))

    def joined(self, other: Self) -> Self:
        """Returns the examples of both splits, those of `other` last.

        Args:
            other: A split of the same kind and source.
        """
        rows = {"labels": other.labels, **other._row_fields(slice(None))}
        joined: dict[str, Any] = {
            name: np.concatenate([getattr(self, name), more])
            for name, more in rows.items()
        }
        return dataclasses.replace(
            self,
            ids=self.ids + other.ids,
            groups=None
            if self.groups is None or other.groups is None
            else self.groups + other.groups,
            **joined,
        )

    def _row_fields(self, chosen: np.ndarray | slice) -> dict[str, Any]:
        """Returns rows of the fields that subclasses add, by field name."""
        return {}

    def labels_for(self, label_mode: str) -> np.ndarray:
        """Returns the labels in the format of `batches`.

        Args:
            label_mode: Format of the labels, `"categorical"` or `"int"`.

        Raises:
            ValueError: If the format is unknown, or does not fit the labels.
        """
        check_choice("label_mode", label_mode, ("categorical", "int"))
        if label_mode == "categorical":
            return self.one_hot()
        if self.multi_label:
            raise ValueError(
                '`label_mode` must be "categorical" because the examples have '
                'several labels. Received: label_mode="int".'
            )
        return self.labels

    def one_hot(self) -> np.ndarray:
        """Returns the labels as one-hot or multi-hot rows.

        Returns:
            float32 array `(n, num_classes)`.
        """
        if self.multi_label:
            return self.labels
        return np.eye(len(self.class_names), dtype=np.float32)[self.labels]


@dataclasses.dataclass(frozen=True, repr=False, eq=False)
class LabelledData:
    """A labelled data set in three splits.

    Args:
        train: The training examples.
        validation: The validation examples; may be empty.
        test: The test examples; may be empty.
        class_names: Tuple of names; the label of a class is its index.
        report: Report of skipped and ignored files and of duplicates.
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
        """Returns weights that balance the training classes, for `fit`.

        `weight_c = n / (C * n_c)` over the C classes with training examples, as
        scikit-learn's `"balanced"`.

        Returns:
            Dict from class index to weight, for classes with training examples.

        Raises:
            ValueError: If examples have several classes.
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
