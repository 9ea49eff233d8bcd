"""Runs all checks over a model and its data."""

from __future__ import annotations

from typing import Any, Literal

import keras

from keras_transfer.doctor import data_checks, loss_checks, model_checks
from keras_transfer.doctor.context import read_context
from keras_transfer.doctor.diagnosis import Diagnosis

# Functions from a Context to findings, in the order of the list for people.
_CHECKS = (*model_checks.CHECKS, *data_checks.CHECKS, *loss_checks.CHECKS)


def check(
    model: keras.Model,
    data: Any,
    *,
    loss: str | keras.losses.Loss | None = None,
    depth: int | Literal["all"] | None = None,
) -> Diagnosis:
    """Looks for what makes a training fail in silence, before it begins.

    Nothing is changed and nothing is trained. The names of the findings:

    - of the model: `stale-compile`, `nothing-trainable`, `batch-norm-moves`,
      `new-batch-norm`,
      `augmentation-in-model`, `dtype`, `nan-weights`;
    - of the data: `pixel-range`, `nan-data`, `class-count`, `class-names`,
      `missing-class`, `imbalance`, `few-examples`, `no-validation`,
      `split-overlap`, `augmentation-behind-cache`;
    - of the loss: `label-format`, `activation-loss`.

    Args:
        model: Any `keras.Model`, compiled or not.
        data: What `load_images` returned, or its `train` alone; a pair of
            arrays `(inputs, labels)`; a batched `tf.data.Dataset`; or a
            dictionary of these by `"train"`, `"validation"` and `"test"`. Of a
            dataset the first two batches are read, which counts as one
            iteration where it shuffles or counts its epochs.
        loss: Name of a loss, a `keras.losses.Loss`, or `None`: that of the
            compiled model, if any. Defaults to `None`.
        depth: Blocks of the backbone that will be trained, as for `unfreeze`;
            `None` for what is trainable now. Defaults to `None`.

    Returns:
        A `Diagnosis`.

    Raises:
        TypeError: If `model` or `data` are something else.
        ValueError: If `data` has no training examples by that name or is not
            batched, or `depth` or `loss` are unknown.

    Example:

    >>> model = build_classifier("ResNet20", num_classes=3)
    >>> model.compile("adam", "sparse_categorical_crossentropy")
    >>> [f.name for f in check(model, (arrays / 255.0, labels))]
    ['pixel-range']
    >>> check(model, (arrays, labels)).ok
    True
    """
    context = read_context(model, data, loss, depth)
    found = [finding for find in _CHECKS for finding in find(context)]
    found.sort(key=lambda finding: finding.severity != "error")
    return Diagnosis(tuple(found))
