"""Trainers for penalties on activations: the model's own layers, and a loss.

Keras has a loss on what a layer gives (`add_loss`) only inside of layers. Such
a layer in the user's model would be in its saved file; it goes into a second
model over the same layers instead, which is the one to fit.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import keras
from keras import ops

from keras_transfer._utils.checks import did_you_mean
from keras_transfer.auxiliary.loss_adder import LossAdder
from keras_transfer.structure import graph
from keras_transfer.structure.blocks import Block, find_blocks
from keras_transfer.structure.model_parts import parts_of

# Any size shows which blocks change it, where a network takes several.
_SOME_SIZE = 256


_DROPOUTS = (
    keras.layers.AlphaDropout,
    keras.layers.Dropout,
    keras.layers.GaussianDropout,
    keras.layers.GaussianNoise,
)


Loss = Callable[..., Any]


class Trainer(NamedTuple):
    """What to fit, and what measures the penalty on a batch of images."""

    model: keras.Model
    value: Callable[[Any], float]


def feature_map_trainer(
    model: keras.Model, names: Sequence[str] | None, strength: keras.Variable
) -> Trainer:
    """Adds the distance of block outputs from those of a copy made now."""
    parts = parts_of(model)
    backbone = parts.backbone
    entry = graph.tensors_in(backbone)[0]
    outputs = graph.tensors_out(backbone)
    if len(outputs) != 1:
        raise ValueError(
            f"`model` must have one output. Received: model {model.name!r} "
            f"with {len(outputs)}."
        )
    maps = [
        tensor
        for block in _choose(backbone, model.name, names)
        for tensor in block.outputs
    ]
    # Only as much of the network as is compared.
    observed = keras.Model(entry, maps)
    start = keras.models.clone_model(observed)
    graph.set_weights(start, observed.get_weights())
    start.trainable = False

    def loss(x: Any, *now: Any) -> Any:
        before = keras.tree.flatten(start(ops.stop_gradient(x), training=False))
        total = sum(
            ops.sum(ops.square(_float32(f) - _float32(f0)))
            for f, f0 in zip(now, before, strict=True)
        )
        # The last batch of a replica may be empty.
        return strength / 2 * total / _float32(ops.maximum(_rows(x), 1))

    images = _input_like(model)
    whole = backbone is model
    x = images
    if parts.preprocessing is not None:
        x = parts.preprocessing(images)
    *seen, result = keras.Model(entry, [*maps, *outputs])(x)
    # Whole models are observed at their output, under its own name, which
    # losses and metrics may be keyed by.
    name = _maker(model, outputs[0]) if whole else "observer"
    result = LossAdder(loss, name)([result, x, *seen])
    if parts.head is not None:
        result = parts.head(result)
    return _finish(model, images, result, [x, *seen], loss)


def singular_value_trainer(
    model: keras.Model, k: int, strength: keras.Variable
) -> Trainer:
    """Adds the smallest singular values of the features of a batch."""
    parts = parts_of(model)
    if parts.head is None or parts.preprocessing is None:
        raise ValueError(
            "`model` must have the layers preprocessing, backbone and head, "
            "whose features are penalised. Received: model "
            f"{model.name!r}. Use `build_classifier` or `build_regressor`."
        )

    def loss(features: Any) -> Any:
        features = _float32(features)
        # U_k'F has the k smallest singular values of F, and its gradient with
        # U_k held fixed is theirs. That of the decomposition itself divides by
        # the gaps between singular values, and is not finite where two agree.
        fixed = ops.stop_gradient(features)
        fixed = ops.where(ops.isfinite(fixed), fixed, 0.0)
        left = ops.svd(fixed, full_matrices=False)[0][:, -k:]
        # No matmul: a GPU would round its arguments to ten bits (TF32), which
        # is more than what is left of small singular values.
        projected = ops.sum(
            ops.expand_dims(left, 2) * ops.expand_dims(features, 1), axis=0
        )
        return strength / 2 * ops.sum(ops.square(projected))

    images = _input_like(model)
    head = parts.head
    features = parts.backbone(parts.preprocessing(images))
    pooled = _pooled(head, features)
    result = head(LossAdder(loss, "observer")([features, pooled]))
    return _finish(model, images, result, [pooled], loss)


def _finish(
    model: keras.Model,
    images: keras.KerasTensor,
    result: keras.KerasTensor,
    observed: list[keras.KerasTensor],
    loss: Loss,
) -> Trainer:
    trainer = keras.Model(images, result, name=model.name)
    # A closed container hides what is open within it, but not from us.
    trained = {id(v) for v in model.trainable_variables}
    for variable in trainer.trainable_variables:
        if id(variable) not in trained:
            raise ValueError(
                "`model` must show what of it trains. Received: model "
                f"{model.name!r}, in which {variable.path} is trainable "
                "within a container that is not. Open it: `unfreeze(model, 0)`."
            )
    probe = keras.Model(images, observed)

    def value(batch: Any) -> float:
        return float(loss(*keras.tree.flatten(probe(batch, training=False))))

    return Trainer(trainer, value)


def _choose(
    backbone: keras.Model, name: str, patterns: Sequence[str] | None
) -> list[Block]:
    """The blocks that match, or the last one of each resolution."""
    found = find_blocks(backbone)
    if patterns is None:
        sizes = _sizes(backbone, found)
        following = [*sizes[1:], None]
        return [
            block
            for block, size, next_size in zip(
                found, sizes, following, strict=True
            )
            if size != next_size
        ]
    known = [block.name for block in found]
    for pattern in patterns:
        if not fnmatch.filter(known, pattern):
            raise ValueError(
                f"`blocks` must match blocks of model {name!r}, which are "
                f"{', '.join(known)}. Received: {pattern!r}."
                f"{did_you_mean(pattern, known)}"
            )
    return [
        block
        for block in found
        if any(fnmatch.fnmatchcase(block.name, p) for p in patterns)
    ]


def _sizes(
    backbone: keras.Model, found: Sequence[Block]
) -> list[tuple[int, ...]]:
    """Height and width of what leaves each block."""
    entry = graph.tensors_in(backbone)[0]
    ends = keras.Model(entry, [block.outputs[0] for block in found])
    shape = [size or _SOME_SIZE for size in entry.shape[1:]]
    image = keras.KerasTensor((None, *shape), dtype=entry.dtype)
    outputs = keras.tree.flatten(ends.compute_output_spec([image]))
    return [tuple(tensor.shape[1:-1]) for tensor in outputs]


def _pooled(
    head: keras.layers.Layer, features: keras.KerasTensor
) -> keras.KerasTensor:
    """The vector in front of the first dense layer, before its dropout."""
    if graph.is_functional(head):
        steps = graph.steps(head)
        producers = {id(t): step for step in steps for t in step.outputs}
        for step in steps:
            if not isinstance(step.operation, keras.layers.Dense):
                continue
            vector = step.inputs[0]
            while isinstance(producers[id(vector)].operation, _DROPOUTS):
                vector = producers[id(vector)].inputs[0]
            if len(vector.shape) == 2:
                return keras.Model(graph.tensors_in(head)[0], vector)(features)
            break
    positions = tuple(range(1, len(features.shape) - 1))
    return ops.mean(features, axis=positions) if positions else features


def _input_like(model: keras.Model) -> keras.KerasTensor:
    tensor = graph.tensors_in(model)[0]
    return keras.Input(
        batch_shape=tensor.shape, dtype=tensor.dtype, name=tensor.name
    )


def _maker(model: keras.Model, tensor: keras.KerasTensor) -> str:
    return next(
        step.operation.name
        for step in graph.steps(model)
        if any(output is tensor for output in step.outputs)
    )


def _float32(x: Any) -> Any:
    return ops.cast(x, "float32")


def _rows(x: Any) -> Any:
    return ops.shape(x)[0]
