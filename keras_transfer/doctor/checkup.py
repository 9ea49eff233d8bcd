"""`check`: all checks of a model and its data."""

from __future__ import annotations

from typing import Any, Literal

import keras

from keras_transfer.doctor import (
    data_checks,
    loss_checks,
    model_checks,
    text_checks,
)
from keras_transfer.doctor.context import read_context
from keras_transfer.doctor.diagnosis import Diagnosis

# Functions from a `Context` to findings, in the order of the printed list.
_CHECKS = (
    *model_checks.CHECKS,
    *data_checks.CHECKS,
    *text_checks.CHECKS,
    *loss_checks.CHECKS,
)


def check(
    model: keras.Model,
    data: Any,
    *,
    loss: str | keras.losses.Loss | None = None,
    depth: int | Literal["all"] | None = None,
) -> Diagnosis:
    """Checks a model and its data for mistakes that fail silently in training.

    Nothing is changed or trained. The names of the findings are:

    - for the model: `stale-compile`, `nothing-trainable`, `frozen-layers`,
      `batch-norm-moves`, `new-batch-norm`, `augmentation-in-model`, `dtype`,
      `nan-weights`;
    - for the data: `pixel-range`, `nan-data`, `class-count`, `class-names`,
      `missing-class`, `imbalance`, `few-examples`, `no-validation`,
      `other-kind`, `split-overlap`, `augmentation-behind-cache`,
      `unknown-tokens`;
    - for the loss: `label-format`, `activation-loss`.

    Args:
        model: Any `keras.Model`, compiled or not.
        data: An `ImageData` or `TextData`, or its training split; a pair of
            arrays `(inputs, labels)`; a batched `tf.data.Dataset`; or a
            dictionary of these with keys `"train"`, `"validation"` and
            `"test"`. Of a dataset the first two batches are read, which counts
            as an iteration if it shuffles or counts its epochs.
        loss: Name of a loss, a `keras.losses.Loss`, or `None` for the loss of
            the compiled model, if any. Defaults to `None`.
        depth: Number of blocks of the backbone that will be trained, as in
            `unfreeze`; `None` for the layers that are trainable now. Defaults
            to `None`.

    Returns:
        A `Diagnosis`.

    Raises:
        TypeError: If `model` or `data` is of another type.
        ValueError: If `data` has no training examples by that name or is not
            batched, or `depth` or `loss` is unknown.

    Example:

    >>> model = build_classifier("ResNet20", num_classes=3)
    >>> model.compile("adam", "sparse_categorical_crossentropy")
    >>> [f.name for f in check(model, (arrays / 255.0, labels))]
    ['pixel-range']
    >>> check(model, (arrays, labels)).ok
    True
    """
    context = read_context(model, data, loss, depth)
    findings = [finding for check_ in _CHECKS for finding in check_(context)]
    findings.sort(key=lambda finding: finding.severity != "error")
    return Diagnosis(tuple(findings))
