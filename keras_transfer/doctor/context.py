"""Reads what the checks look at: model, splits of the data, loss."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import keras
import numpy as np

from keras_transfer._utils.checks import did_you_mean, is_integer
from keras_transfer.data.labelled import LabelledData, LabelledSplit
from keras_transfer.structure import graph
from keras_transfer.structure.blocks import Block, backbone_of
from keras_transfer.structure.depth import blocks

if TYPE_CHECKING:
    import tensorflow as tf


SPLITS = ("train", "validation", "test")


_BATCHES = 2


class Loss(NamedTuple):
    """A loss of Keras: its function's name, and what it takes outputs for."""

    name: str
    from_logits: bool


@dataclasses.dataclass(frozen=True)
class Part:
    """What is known of one split.

    Args:
        name: `"train"`, `"validation"` or `"test"`.
        source: What the user passed.
        inputs: All of an array, the first batches of a dataset; `None` for an
            `LabelledSplit`, which is never decoded here.
        labels: Likewise; those of a `LabelledSplit` are all.
        complete: Whether `labels` are all labels.
    """

    name: str
    source: Any
    inputs: np.ndarray | None
    labels: np.ndarray
    complete: bool

    @property
    def form(self) -> str:
        """What the labels look like.

        `"indices"`, `"one-hot"`, `"multi-hot"`, `"soft"` (rows sum to 1),
        `"numbers"`, `"other"`; `"open"` where `batches` makes either of the
        first two.
        """
        if isinstance(self.source, LabelledSplit):
            return "multi-hot" if self.source.multi_label else "open"
        return label_form(self.labels)


@dataclasses.dataclass(frozen=True)
class Context:
    """All that a check may look at.

    Args:
        model: The model.
        parts: What is known of each split, by name.
        loss: The loss, or `None` where it is not known or not Keras' own.
        class_names: Names of the classes in the data, or `None`.
        data: The `LabelledData`, or `None`.
        named: Whether the user told train from validation.
        opened: The blocks that `depth` opens, or `None` without `depth`.
    """

    model: keras.Model
    parts: dict[str, Part]
    loss: Loss | None
    class_names: tuple[str, ...] | None
    data: LabelledData | None
    named: bool
    opened: tuple[Block, ...] | None

    @property
    def train(self) -> Part:
        """The training examples."""
        return self.parts["train"]

    @property
    def built(self) -> bool:
        """Whether the model has preprocessing, backbone and head."""
        return self.backbone is not self.model

    @property
    def backbone(self) -> keras.Model:
        """The child `backbone`, or the model itself."""
        functional = graph.is_functional(self.model)
        single = functional and len(graph.tensors_in(self.model)) == 1
        return backbone_of(self.model) if single else self.model

    @property
    def units(self) -> int | None:
        """The number of outputs of a model `(batch, units)`, else `None`."""
        shape = getattr(self.model, "output_shape", None)
        if not isinstance(shape, tuple) or len(shape) != 2:
            return None
        return shape[1] if is_integer(shape[1]) else None


def label_form(labels: np.ndarray) -> str:
    """Returns what labels look like; see `Part.form`."""
    if labels.dtype.kind not in "biuf":
        return "other"
    if labels.ndim == 1 or (labels.ndim == 2 and labels.shape[1] == 1):
        whole = np.isfinite(labels).all() and (labels == np.floor(labels)).all()
        return "indices" if whole else "numbers"
    if labels.ndim != 2:
        return "other"
    sums = labels.sum(axis=1)
    if ((labels == 0) | (labels == 1)).all():
        return "one-hot" if (sums == 1).all() else "multi-hot"
    shares = (labels >= 0).all() and np.allclose(sums, 1, atol=1e-3)
    return "soft" if shares else "numbers"


def read_context(
    model: keras.Model,
    data: Any,
    loss: str | keras.losses.Loss | None,
    depth: int | Literal["all"] | None,
) -> Context:
    """Reads the arguments of `check`; raises where they are none."""
    if not isinstance(model, keras.Model):
        raise TypeError(
            f"`model` must be a keras.Model. Received: model={model!r:.100}."
        )
    named = isinstance(data, LabelledData | Mapping)
    parts = {name: _part(name, part) for name, part in _splits(data).items()}
    if loss is None and model.compiled:
        loss = model.loss
    source = parts["train"].source
    names = getattr(source, "class_names", None)
    return Context(
        model=model,
        parts=parts,
        loss=read_loss(loss),
        class_names=None if names is None else tuple(map(str, names)),
        data=data if isinstance(data, LabelledData) else None,
        named=named,
        opened=None if depth is None else _opened(model, depth),
    )


def read_loss(loss: Any) -> Loss | None:
    """Returns name and `from_logits` of one of Keras' own losses."""
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
    return Loss(name, bool(getattr(loss, "from_logits", False)))


def _splits(data: Any) -> dict[str, Any]:
    if isinstance(data, LabelledData):
        found = {name: getattr(data, name) for name in SPLITS}
        # An empty split is none, but there is always one to train on.
        return {k: v for k, v in found.items() if len(v) or k == "train"}
    if not isinstance(data, Mapping):
        return {"train": data}
    unknown = [name for name in data if name not in SPLITS]
    if unknown or "train" not in data:
        raise ValueError(
            '`data` must have the key "train" and, where there are any, '
            f'"validation" and "test". Received: keys {list(data)}.'
        )
    return {name: data[name] for name in SPLITS if data.get(name) is not None}


def _part(name: str, source: Any) -> Part:
    if isinstance(source, LabelledSplit):
        return Part(name, source, None, source.labels, complete=True)
    if hasattr(source, "element_spec"):
        return _dataset_part(name, source)
    if not isinstance(source, tuple | list) or len(source) not in (2, 3):
        raise TypeError(
            "`data` must be what `load_images` returns, a pair of arrays "
            "(inputs, labels), a batched tf.data.Dataset, or a dict of these. "
            f"Received: {type(source).__name__} for {name}."
        )
    inputs, labels = np.asarray(source[0]), np.asarray(source[1])
    _check_pair(name, inputs.shape, labels.shape)
    return Part(name, source, inputs, labels, complete=True)


def _lazy() -> tf.data.Options:
    """Options under which nothing is read that nobody asked for."""
    import tensorflow as tf

    options = tf.data.Options()
    options.autotune.enabled = False
    options.experimental_optimization.apply_default_optimizations = False
    return options


def _dataset_part(name: str, dataset: Any) -> Part:
    spec = dataset.element_spec
    arrays = isinstance(spec, tuple) and len(spec) in (2, 3)
    if not arrays or not all(hasattr(s, "shape") for s in spec[:2]):
        raise TypeError(
            "`data` must be a tf.data.Dataset of (inputs, labels), one tensor "
            f"each. Received: element_spec={spec} for {name}."
        )
    if spec[1].shape.rank == 0:
        raise ValueError(
            "`data` must be a tf.data.Dataset of batches. Received: single "
            f"examples, labels of shape () for {name}. Add `.batch(32)`."
        )
    few = dataset.with_options(_lazy()).take(_BATCHES)
    batches = [(inputs.numpy(), labels.numpy()) for inputs, labels, *_ in few]
    if not batches:
        empty = [np.zeros((0, *(n or 1 for n in s.shape[1:]))) for s in spec]
        return Part(name, dataset, empty[0], empty[1], complete=True)
    inputs = [batch[0] for batch in batches]
    if len({array.shape[1:] for array in inputs}) > 1:
        inputs = inputs[:1]  # Batches of different image sizes.
    labels = np.concatenate([batch[1] for batch in batches])
    return Part(name, dataset, np.concatenate(inputs), labels, complete=False)


def _check_pair(
    name: str, inputs: tuple[int, ...], labels: tuple[int, ...]
) -> None:
    if not inputs or not labels or inputs[0] != labels[0]:
        raise ValueError(
            "`data` must have as many labels as inputs. Received: shapes "
            f"{inputs} and {labels} for {name}."
        )


def _opened(
    model: keras.Model, depth: int | Literal["all"]
) -> tuple[Block, ...]:
    found = blocks(model)
    if depth == "all":
        return found
    if not is_integer(depth) or not 0 <= depth <= len(found):
        raise ValueError(
            f'`depth` must be an integer in [0, {len(found)}] or "all" for '
            f"model {model.name!r} ({len(found)} blocks). Received: "
            f"depth={depth!r}"
        )
    return found[len(found) - depth :]
