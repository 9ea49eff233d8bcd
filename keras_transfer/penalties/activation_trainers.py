"""Trainers for penalties on activations: the model's own layers, and a loss.

Keras supports a loss on activations (`add_loss`) only inside layers. Such a
layer in the user's model would be saved with it, so it goes into a second model
over the same layers, which is the one to fit.
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

# Size in pixels to trace a network that takes several: any size shows which
# blocks change the resolution.
_TRACED_PIXELS = 256


_DROPOUTS = (
    keras.layers.AlphaDropout,
    keras.layers.Dropout,
    keras.layers.GaussianDropout,
    keras.layers.GaussianNoise,
)


Loss = Callable[..., Any]


class Trainer(NamedTuple):
    """Model to fit, and function that measures the penalty on a batch."""

    model: keras.Model
    value: Callable[[Any], float]


def feature_map_trainer(
    model: keras.Model, names: Sequence[str] | None, strength: keras.Variable
) -> Trainer:
    """Adds the distance of block outputs from those of a frozen copy."""
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
    # The part of the network up to the last compared block.
    observed = keras.Model(entry, maps)
    start = keras.models.clone_model(observed)
    graph.set_weights(start, observed.get_weights())
    start.trainable = False

    def loss(x: Any, *now: Any) -> Any:
        # f0(x): the same blocks of the frozen copy, [batch, height, width,
        # channels] each.
        before = keras.tree.flatten(start(ops.stop_gradient(x), training=False))
        # sum (f(x) - f0(x))^2 over examples, positions and channels.
        total = sum(
            ops.sum(ops.square(_float32(f) - _float32(f0)))
            for f, f0 in zip(now, before, strict=True)
        )
        # Mean over examples; the last batch of a replica may be empty.
        return strength / 2 * total / _float32(ops.maximum(_rows(x), 1))

    images = _input_like(model)
    whole = backbone is model
    x = images
    if parts.preprocessing is not None:
        x = parts.preprocessing(images)
    *seen, result = keras.Model(entry, [*maps, *outputs])(x)
    # A model without a head is observed at its output. The layer takes the
    # name of the output layer, by which losses and metrics may be keyed.
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
        # Features F [examples, features] = U S V'. With U_k the last k columns
        # of U, U_k' F has the k smallest singular values of F, and
        # sum (U_k' F)^2 is the sum of their squares. Its gradient with U_k held
        # fixed, 2 U_k U_k' F, is that of the sum. The gradient of the
        # decomposition divides by gaps between singular values instead, and is
        # not finite where two are equal.
        features = _float32(features)
        fixed = ops.stop_gradient(features)
        fixed = ops.where(ops.isfinite(fixed), fixed, 0.0)
        # U_k [examples, k]: singular values are in descending order.
        left = ops.svd(fixed, full_matrices=False)[0][:, -k:]
        # U_k' F [k, features], summed from [examples, k, features]. No matmul:
        # a GPU would round its arguments to ten bits (TF32), an error larger
        # than small singular values.
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
    # A frozen container hides its trainable layers from `model`, but not from
    # a model over its inner tensors.
    trained = {id(v) for v in model.trainable_variables}
    for variable in trainer.trainable_variables:
        if id(variable) not in trained:
            raise ValueError(
                "`model` must have no trainable variable in a frozen "
                f"container. Received: model {model.name!r}, in which "
                f"{variable.path} is one. Open it: `unfreeze(model, 0)`."
            )
    probe = keras.Model(images, observed)

    def value(batch: Any) -> float:
        return float(loss(*keras.tree.flatten(probe(batch, training=False))))

    return Trainer(trainer, value)


def _choose(
    backbone: keras.Model, name: str, patterns: Sequence[str] | None
) -> list[Block]:
    """Returns the blocks that match, or the last one of each resolution."""
    blocks = find_blocks(backbone)
    if patterns is None:
        sizes = _sizes(backbone, blocks)
        following = [*sizes[1:], None]
        return [
            block
            for block, size, next_size in zip(
                blocks, sizes, following, strict=True
            )
            if size != next_size
        ]
    names = [block.name for block in blocks]
    for pattern in patterns:
        if not fnmatch.filter(names, pattern):
            raise ValueError(
                f"`blocks` must match blocks of model {name!r}, which are "
                f"{', '.join(names)}. Received: {pattern!r}."
                f"{did_you_mean(pattern, names)}"
            )
    return [
        block
        for block in blocks
        if any(fnmatch.fnmatchcase(block.name, p) for p in patterns)
    ]


def _sizes(
    backbone: keras.Model, blocks: Sequence[Block]
) -> list[tuple[int, ...]]:
    """Returns height and width of the output of each block."""
    entry = graph.tensors_in(backbone)[0]
    ends = keras.Model(entry, [block.outputs[0] for block in blocks])
    shape = [size or _TRACED_PIXELS for size in entry.shape[1:]]
    image = keras.KerasTensor((None, *shape), dtype=entry.dtype)
    outputs = keras.tree.flatten(ends.compute_output_spec([image]))
    return [tuple(tensor.shape[1:-1]) for tensor in outputs]


def _pooled(
    head: keras.layers.Layer, features: keras.KerasTensor
) -> keras.KerasTensor:
    """Returns the input of the first dense layer, before its dropout."""
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
    # [batch, height, width, channels] -> [batch, channels].
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
