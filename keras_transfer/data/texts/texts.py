"""Labelled texts as indexed splits with stable ids."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from keras_transfer._utils.checks import check_integer
from keras_transfer._utils.digest import DIGEST_BYTES
from keras_transfer.data.labelled import LabelledData, LabelledSplit

if TYPE_CHECKING:
    import tensorflow as tf


@dataclasses.dataclass(frozen=True, repr=False, eq=False)
class TextSplit(LabelledSplit):
    """The texts of one split of a data set; made by `load_texts`.

    A `LabelledSplit` (name, labels, class names), whose ids are paths relative
    to the folder, a file and the number of its row, or `"split/000123"`.

    Args:
        texts: Object array `(n,)` of `str`.
    """

    texts: np.ndarray

    def __repr__(self) -> str:
        return (
            f'<TextSplit "{self.name}": {len(self)} texts, '
            f"{len(self.class_names)} classes>"
        )

    def batches(
        self,
        batch_size: int = 32,
        *,
        shuffle: bool = False,
        seed: int = 0,
        label_mode: str = "categorical",
        initial_epoch: int | Callable[[], int] = 0,
    ) -> tf.data.Dataset:
        """Makes a `tf.data.Dataset` for `fit`, `evaluate` and `predict`.

        Args:
            batch_size: Number of texts per batch, above 0. Defaults to `32`.
            shuffle: Whether to shuffle all examples, differently in each epoch.
                Defaults to `False`.
            seed: Seed of the order, not negative. Defaults to `0`.
            label_mode: Format of the labels: `"categorical"` (float32 one-hot)
                or `"int"` (int32). Defaults to `"categorical"`.
            initial_epoch: The number of the first epoch, or a function that
                returns the number at the start of each iteration. Defaults to
                `0`.

        Returns:
            `tf.data.Dataset` of (string texts `(batch,)`, labels), of known
            cardinality.

        Raises:
            ValueError: If an argument is out of range or the split is empty.
        """
        import tensorflow as tf

        from keras_transfer.data import pipeline

        check_integer("batch_size", batch_size, 1)
        check_integer("seed", seed, 0)
        if not len(self):
            raise ValueError(
                f'Split "{self.name}" must hold texts. Received: none.'
            )
        batches = pipeline.make_batches(
            self.texts.__getitem__,
            self.labels_for(label_mode),
            (),
            batch_size=batch_size,
            drop_remainder=False,
            order=pipeline.epoch_order(len(self), shuffle, seed),
            initial_epoch=initial_epoch,
            dtype=object,
        )
        return batches.prefetch(tf.data.AUTOTUNE)

    def arrays(self) -> tuple[np.ndarray, np.ndarray]:
        """Returns the texts, and float32 one-hot labels `(n, num_classes)`."""
        return self.texts, self.one_hot()

    def _row_fields(self, chosen: np.ndarray | slice) -> dict[str, Any]:
        return {"texts": self.texts[chosen]}


@dataclasses.dataclass(frozen=True, repr=False, eq=False)
class TextData(LabelledData):
    """A labelled text data set in three splits; made by `load_texts`.

    A `LabelledData`: it has class names and a report.

    Args:
        train: The training examples.
        validation: The validation examples; may be empty.
        test: The test examples; may be empty.
    """

    train: TextSplit
    validation: TextSplit
    test: TextSplit

    def __repr__(self) -> str:
        return (
            f"<TextData: {self.num_classes} classes, {len(self.train)} train, "
            f"{len(self.validation)} validation, {len(self.test)} test texts>"
        )


def digest_text(text: str) -> bytes:
    """Returns 16 bytes that identify a text."""
    content = text.encode("utf-8", "surrogatepass")
    return hashlib.blake2b(content, digest_size=DIGEST_BYTES).digest()


def is_texts(array: np.ndarray) -> bool:
    """Tells whether an array is a vector of `str`, or of such objects."""
    if array.ndim != 1:
        return False
    strings = all(isinstance(text, str) for text in array)
    return array.dtype.kind == "U" or (array.dtype == object and strings)
