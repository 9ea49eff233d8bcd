"""Checks of the model: what trains, what moves, what it computes in."""

from __future__ import annotations

from collections.abc import Iterator

import keras
import numpy as np

from keras_transfer.doctor.context import Context
from keras_transfer.doctor.diagnosis import Finding, plural, some
from keras_transfer.doctor.reading import RANDOM_LAYERS
from keras_transfer.structure import graph
from keras_transfer.structure.compile_state import read_stale
from keras_transfer.structure.outputs import layers_of


def stale_compile(context: Context) -> Iterator[Finding]:
    """What `fit` would train is not what the layers say."""
    stale = read_stale(context.model)
    parts = []
    if stale.unfrozen:
        parts.append(
            f"{plural(len(stale.unfrozen), 'variable')} made trainable since "
            f"({some(stale.unfrozen)}) "
            + ("will not train" if stale.traced else "will be refused by `fit`")
        )
    if stale.frozen:
        parts.append(
            f"{plural(len(stale.frozen), 'variable')} frozen since "
            f"({some(stale.frozen)}) will train all the same"
        )
    if parts:
        yield Finding(
            "stale-compile",
            "error",
            "The model was trained since it was compiled, and Keras goes on "
            f"with what was trainable then: {'; '.join(parts)}.",
            "Call `model.compile(...)` again, with a new optimizer object.",
        )


def nothing_trainable(context: Context) -> Iterator[Finding]:
    """No variable trains."""
    model = context.model
    if not model.built:
        return
    trained = list(model.trainable_variables)
    if context.opened is not None:
        if context.built:
            # Only the head and the chosen blocks will be open.
            trained = list(model.get_layer("head").trainable_variables)
        trained += [
            weight
            for block in context.opened
            for layer in block.layers
            for weight in layer.weights
            if not isinstance(layer, keras.layers.BatchNormalization)
        ]
    if not trained:
        where = "" if context.opened is None else " at this `depth`"
        cure = "Open layers (`layer.trainable = True`)"
        if context.built:
            cure = 'Open the head: `model.get_layer("head").trainable = True`'
        yield Finding(
            "nothing-trainable",
            "error",
            f"None of the {len(model.weights)} weights is trainable{where}: "
            "training would change nothing.",
            f"{cure}, or blocks (`unfreeze(model, depth=1)`); then compile.",
        )


def batch_norm_moves(context: Context) -> Iterator[Finding]:
    """Statistics of a pretrained network would follow the new batches."""
    norms = [
        layer
        for layer in layers_of(context.backbone)
        if isinstance(layer, keras.layers.BatchNormalization) and layer.built
    ]
    moving = [n for n in norms if n.trainable and _has_statistics(n)]
    if not moving:
        return
    part = len(moving) < len(norms)
    count = f"{len(moving)} of {len(norms)}" if part else f"All {len(norms)}"
    yield Finding(
        "batch-norm-moves",
        "warning",
        f"{count} BatchNormalization layers with statistics from an earlier "
        f"training are trainable ({some([n.name for n in moving])}): they "
        "normalise by the batch, and their statistics move with each. Right "
        "only for a long training of everything.",
        "`freeze(model)`, then `unfreeze(model, depth)`, which leaves them "
        "frozen; then compile.",
    )


def _has_statistics(layer: keras.layers.BatchNormalization) -> bool:
    mean = np.asarray(layer.moving_mean)
    variance = np.asarray(layer.moving_variance)
    return bool((mean != 0).any() or (variance != 1).any())


def new_batch_norm(context: Context) -> Iterator[Finding]:
    """What never saw a batch does not normalise."""
    norms = [
        layer
        for layer in layers_of(context.backbone)
        if isinstance(layer, keras.layers.BatchNormalization) and layer.built
    ]
    if not norms or any(n.trainable or not _is_new(n) for n in norms):
        return
    yield Finding(
        "new-batch-norm",
        "warning",
        f"The {plural(len(norms), 'BatchNormalization layer')} of the backbone "
        "are as new, and frozen: they let everything pass as it is, and in a "
        "deep network nothing of an image arrives at the head. These weights "
        "were never trained.",
        'Train them: `fine_tune(model, data, strategy="from-scratch")`; or '
        "load pretrained ones.",
    )


def _is_new(layer: keras.layers.BatchNormalization) -> bool:
    scale = layer.gamma is None or (np.asarray(layer.gamma) == 1).all()
    offset = layer.beta is None or (np.asarray(layer.beta) == 0).all()
    return bool(scale and offset and not _has_statistics(layer))


def augmentation_in_model(context: Context) -> Iterator[Finding]:
    """A frozen part would have to be computed anew in each epoch."""
    random = [
        layer.name
        for layer in layers_of(context.model)
        if isinstance(layer, RANDOM_LAYERS)
    ]
    frozen = any(
        layer.weights and not layer.trainable
        for layer in layers_of(context.model)
    )
    if random and frozen:
        yield Finding(
            "augmentation-in-model",
            "warning",
            f"The model augments ({some(random)}): what is frozen behind "
            "gives other features in each epoch, and features kept for "
            "training would hold those of one.",
            "Augment the training batches instead: "
            "`data.train.batches(augment=Augmentation())`.",
        )


def dtype(context: Context) -> Iterator[Finding]:
    """A probability in 16 bits loses the loss."""
    if not graph.is_functional(context.model):
        return
    dtypes = {t.dtype for t in graph.tensors_out(context.model)}
    for found in sorted(dtypes & {"float16", "bfloat16"}):
        yield Finding(
            "dtype",
            "warning",
            f"The output is {found}: small probabilities become 0, and the "
            "loss infinite or NaN.",
            'Give the output layer `dtype="float32"`.',
        )


def nan_weights(context: Context) -> Iterator[Finding]:
    """A weight is not finite, and so is what follows from it."""
    bad = [
        weight.path
        for weight in context.model.weights
        if keras.backend.is_float_dtype(weight.dtype)
        and not np.isfinite(np.asarray(weight, "float32")).all()
    ]
    if bad:
        yield Finding(
            "nan-weights",
            "error",
            f"There is NaN or infinity in {len(bad)} of the "
            f"{plural(len(context.model.weights), 'weight')} ({some(bad)}).",
            "Build or load the model again; the training that made them needs "
            "a lower learning rate.",
        )


CHECKS = (
    stale_compile,
    nothing_trainable,
    batch_norm_moves,
    new_batch_norm,
    augmentation_in_model,
    dtype,
    nan_weights,
)
