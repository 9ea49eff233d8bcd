"""Context of the checks: the model, the splits of the data, the loss."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import keras
import numpy as np

from keras_transfer._utils.checks import (
    SUM_TOLERANCE,
    did_you_mean,
    is_integer,
)
from keras_transfer.data.checks import check_split_names
from keras_transfer.data.datasets import (
    check_batched,
    common_classes,
    parts_of_pair,
)
from keras_transfer.data.labelled import LabelledData, LabelledSplit
from keras_transfer.data.splitting import SPLITS
from keras_transfer.structure.blocks import Block
from keras_transfer.structure.depth import blocks, check_depth
from keras_transfer.structure.model_parts import is_readable, parts_of

if TYPE_CHECKING:
    import tensorflow as tf


# Batches of a `tf.data.Dataset` that are read.
_BATCHES_READ = 2


class LossInfo(NamedTuple):
    """A loss of Keras.

    Attributes:
        name: Name of the loss function, such as `"binary_crossentropy"`.
        from_logits: Whether the loss expects logits.
    """

    name: str
    from_logits: bool


@dataclasses.dataclass(frozen=True)
class InspectedSplit:
    """The inputs and labels of one split, as far as they were read.

    Args:
        name: Name of the split: `"train"`, `"validation"` or `"test"`.
        source: The value that the user passed.
        inputs: All inputs of an array, or the first batches of a dataset;
            `None` for a `LabelledSplit`, which is not decoded here.
        labels: All labels, or those of the first batches of a dataset.
        complete: Whether `labels` are all labels.
    """

    name: str
    source: Any
    inputs: np.ndarray | None
    labels: np.ndarray
    complete: bool

    @property
    def form(self) -> str:
        """The format of the labels.

        `"indices"`, `"one-hot"`, `"multi-hot"`, `"soft"` (rows sum to 1),
        `"numbers"`, `"other"`; `"open"` if `batches` can make both of the first
        two.
        """
        if isinstance(self.source, LabelledSplit):
            return "multi-hot" if self.source.multi_label else "open"
        return label_form(self.labels)


@dataclasses.dataclass(frozen=True)
class Context:
    """Everything that a check reads.

    Args:
        model: The model.
        splits: The splits of the data, by name.
        loss: The loss, or `None` if it is unknown or not one of Keras.
        class_names: Names of the classes in the data, or `None`.
        data: The `LabelledData`, or `None`.
        named: Whether the user named the splits.
        opened: The blocks that `depth` unfreezes, or `None` without `depth`.
    """

    model: keras.Model
    splits: dict[str, InspectedSplit]
    loss: LossInfo | None
    class_names: tuple[str, ...] | None
    data: LabelledData | None
    named: bool
    opened: tuple[Block, ...] | None

    @property
    def train(self) -> InspectedSplit:
        """The training examples."""
        return self.splits["train"]

    @property
    def built(self) -> bool:
        """Tells whether the model has preprocessing, backbone and head."""
        return self.backbone is not self.model

    @property
    def backbone(self) -> keras.Model:
        """The child `backbone`, or the model itself."""
        if not is_readable(self.model):
            return self.model
        return parts_of(self.model).backbone

    @property
    def units(self) -> int | None:
        """The number of outputs, `None` if they are not `(batch, units)`."""
        shape = getattr(self.model, "output_shape", None)
        if not isinstance(shape, tuple) or len(shape) != 2:
            return None
        return shape[1] if is_integer(shape[1]) else None


def label_form(labels: np.ndarray) -> str:
    """Returns the format of labels; see `InspectedSplit.form`."""
    if labels.dtype.kind not in "biuf":
        return "other"
    if labels.ndim == 1 or (labels.ndim == 2 and labels.shape[1] == 1):
        integers = np.isfinite(labels).all()
        integers = integers and (labels == np.floor(labels)).all()
        return "indices" if integers else "numbers"
    if labels.ndim != 2:
        return "other"
    sums = labels.sum(axis=1)
    if ((labels == 0) | (labels == 1)).all():
        return "one-hot" if (sums == 1).all() else "multi-hot"
    distributions = (labels >= 0).all() and np.allclose(
        sums, 1, atol=SUM_TOLERANCE
    )
    return "soft" if distributions else "numbers"


def read_context(
    model: keras.Model,
    data: Any,
    loss: str | keras.losses.Loss | None,
    depth: int | Literal["all"] | None,
) -> Context:
    """Reads the arguments of `check`; raises if one is invalid."""
    if not isinstance(model, keras.Model):
        raise TypeError(
            f"`model` must be a keras.Model. Received: model={model!r:.100}."
        )
    named = isinstance(parts_of_pair(data), LabelledData | Mapping)
    splits = {
        name: _inspect(name, source)
        for name, source in _sources_of_splits(data).items()
    }
    if loss is None and model.compiled:
        loss = model.loss
    names = getattr(splits["train"].source, "class_names", None)
    return Context(
        model=model,
        splits=splits,
        loss=read_loss(loss),
        class_names=None if names is None else tuple(map(str, names)),
        data=data if isinstance(data, LabelledData) else None,
        named=named,
        opened=None if depth is None else _unfrozen_blocks(model, depth),
    )


def read_loss(loss: Any) -> LossInfo | None:
    """Reads a loss of Keras; returns `None` for any other one."""
    if isinstance(loss, str):
        try:
            loss = keras.losses.get(loss)
        except ValueError as err:
            known = [n for n in dir(keras.losses) if n[0].islower()]
            raise ValueError(
                "`loss` must be the name of a loss of Keras. Received: "
                f"loss={loss!r}.{did_you_mean(loss, known)}"
            ) from err
    name = getattr(loss, "__name__", type(loss).__name__)
    own = getattr(keras.losses, name, None)
    if loss is None or (own is not loss and own is not type(loss)):
        return None
    name = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()
    return LossInfo(name, bool(getattr(loss, "from_logits", False)))


def _sources_of_splits(data: Any) -> dict[str, Any]:
    if isinstance(data, LabelledData):
        splits = {name: getattr(data, name) for name in SPLITS}
        # Other splits are left out if empty, but train is always present.
        return {k: v for k, v in splits.items() if len(v) or k == "train"}
    data = parts_of_pair(data)
    if not isinstance(data, Mapping):
        return {"train": data}
    check_split_names("data", data)
    common_classes(data, "data")
    return {name: data[name] for name in SPLITS if data.get(name) is not None}


def _inspect(name: str, source: Any) -> InspectedSplit:
    if isinstance(source, LabelledSplit):
        return InspectedSplit(name, source, None, source.labels, complete=True)
    if hasattr(source, "element_spec"):
        return _inspect_dataset(name, source)
    if not isinstance(source, tuple | list) or len(source) not in (2, 3):
        raise TypeError(
            "`data` must be an `ImageData` or `TextData`, a pair of arrays "
            "(inputs, labels), a batched tf.data.Dataset, or a dict of these. "
            f"Received: {type(source).__name__} for {name}."
        )
    inputs, labels = np.asarray(source[0]), np.asarray(source[1])
    _check_pair(name, inputs.shape, labels.shape)
    return InspectedSplit(name, source, inputs, labels, complete=True)


def _without_read_ahead() -> tf.data.Options:
    """Returns options under which only the requested batches are read."""
    import tensorflow as tf

    options = tf.data.Options()
    options.autotune.enabled = False
    options.experimental_optimization.apply_default_optimizations = False
    return options


def _inspect_dataset(name: str, dataset: Any) -> InspectedSplit:
    spec = dataset.element_spec
    arrays = isinstance(spec, tuple) and len(spec) in (2, 3)
    if not arrays or not all(hasattr(s, "shape") for s in spec[:2]):
        raise TypeError(
            "`data` must be a tf.data.Dataset of (inputs, labels), one tensor "
            f"each. Received: element_spec={spec} for {name}."
        )
    check_batched(dataset, f'data["{name}"]')
    first = dataset.with_options(_without_read_ahead()).take(_BATCHES_READ)
    batches = [(x.numpy(), y.numpy()) for x, y, *_ in first]
    if not batches:
        empty = [np.zeros((0, *(n or 1 for n in s.shape[1:]))) for s in spec]
        return InspectedSplit(name, dataset, empty[0], empty[1], complete=True)
    inputs = [batch[0] for batch in batches]
    if len({array.shape[1:] for array in inputs}) > 1:
        inputs = inputs[:1]  # Batches of different image sizes.
    labels = np.concatenate([batch[1] for batch in batches])
    return InspectedSplit(
        name, dataset, np.concatenate(inputs), labels, complete=False
    )


def _check_pair(
    name: str, inputs: tuple[int, ...], labels: tuple[int, ...]
) -> None:
    if not inputs or not labels or inputs[0] != labels[0]:
        raise ValueError(
            "`data` must have as many labels as inputs. Received: shapes "
            f"{inputs} and {labels} for {name}."
        )


def _unfrozen_blocks(
    model: keras.Model, depth: int | Literal["all"]
) -> tuple[Block, ...]:
    all_blocks = blocks(model)
    num_unfrozen = check_depth(model, depth, len(all_blocks))
    return all_blocks[len(all_blocks) - num_unfrozen :]
