"""Checks of the model: trainable state, BatchNormalization, dtypes, weights."""

from __future__ import annotations

from collections.abc import Iterator

import keras
import numpy as np

from keras_transfer.doctor.context import Context
from keras_transfer.doctor.diagnosis import Finding, first_names, plural
from keras_transfer.doctor.expected_pixels import RANDOM_LAYERS
from keras_transfer.structure import graph
from keras_transfer.structure.compile_state import read_stale
from keras_transfer.structure.model_parts import is_readable, parts_of
from keras_transfer.structure.outputs import layers_of
from keras_transfer.structure.trainable import frozen_by_user, marked_frozen


def stale_compile(context: Context) -> Iterator[Finding]:
    """Finds variables whose `trainable` changed after a training."""
    stale = read_stale(context.model)
    changes = []
    if stale.unfrozen:
        changes.append(
            f"{plural(len(stale.unfrozen), 'variable')} unfrozen since "
            f"({first_names(stale.unfrozen)}) "
            + ("will not train" if stale.traced else "will make `fit` raise")
        )
    if stale.frozen:
        changes.append(
            f"{plural(len(stale.frozen), 'variable')} frozen since "
            f"({first_names(stale.frozen)}) will still train"
        )
    if changes:
        yield Finding(
            "stale-compile",
            "error",
            "The model was trained after it was compiled, and Keras continues "
            "with the variables that were trainable then: "
            f"{'; '.join(changes)}.",
            "Call `model.compile(...)` again, with a new optimizer object.",
        )


def nothing_trainable(context: Context) -> Iterator[Finding]:
    """Finds that no variable is trainable."""
    model = context.model
    if not model.built:
        return
    trained = list(model.trainable_variables)
    if context.opened is not None:
        if context.built:
            # Only the head and the chosen blocks will be trainable.
            trained = list(model.get_layer("head").trainable_variables)
        trained += [
            weight
            for block in context.opened
            for layer in block.layers
            for weight in layer.weights
            if not isinstance(layer, keras.layers.BatchNormalization)
        ]
    if not trained:
        at_depth = "" if context.opened is None else " at this `depth`"
        cure = "Unfreeze layers (`layer.trainable = True`)"
        if context.built:
            head = 'model.get_layer("head")'
            cure = f"Unfreeze the head: `{head}.trainable = True`"
        yield Finding(
            "nothing-trainable",
            "error",
            f"None of the {len(model.weights)} weights is trainable{at_depth}: "
            "training would change nothing.",
            f"{cure}, or blocks (`unfreeze(model, depth=1)`); then compile.",
        )


def frozen_layers(context: Context) -> Iterator[Finding]:
    """Finds layers frozen by hand that a `depth` does not open."""
    if context.opened:
        yield from find_frozen_layers(context.model)


def find_frozen_layers(model: keras.Model) -> Iterator[Finding]:
    """Finds layers frozen by hand in a model that no builder made.

    Builders freeze a backbone themselves, and `fine_tune` opens it; whatever is
    frozen in another model, it leaves frozen.

    Args:
        model: The model as the user left it.

    Yields:
        At most one `Finding`.
    """
    if not is_readable(model) or parts_of(model).head is not None:
        return
    by_hand = frozen_by_user(model) - marked_frozen(model)
    layers = [
        layer
        for layer in layers_of(model)
        if layer.weights
        and not graph.is_functional(layer)
        and not isinstance(layer, keras.layers.BatchNormalization)
    ]
    frozen = [layer.name for layer in layers if id(layer) in by_hand]
    if frozen and len(frozen) < len(layers):
        yield Finding(
            "frozen-layers",
            "warning",
            f"{len(frozen)} of {len(layers)} layers with weights "
            f"({first_names(frozen)}) are frozen by hand, and stay frozen in "
            "`fine_tune` at any `depth`.",
            "If they should train: `unfreeze(model, depth)`, then compile. If "
            "not, `freeze(model, names)` says so.",
        )


def batch_norm_moves(context: Context) -> Iterator[Finding]:
    """Finds statistics of a pretrained network that training would update."""
    norms = [
        layer
        for layer in layers_of(context.backbone)
        if isinstance(layer, keras.layers.BatchNormalization) and layer.built
    ]
    moving = [n for n in norms if n.trainable and _has_statistics(n)]
    if not moving:
        return
    all_move = len(moving) == len(norms)
    count = f"{'All' if all_move else f'{len(moving)} of'} {len(norms)}"
    yield Finding(
        "batch-norm-moves",
        "warning",
        f"{count} BatchNormalization layers with statistics from an earlier "
        f"training are trainable ({first_names([n.name for n in moving])}): "
        "they normalise by the batch, and each batch updates their statistics. "
        "That is correct only for a long training of all layers.",
        "`freeze(model)`, then `unfreeze(model, depth)`, which leaves them "
        "frozen; then compile.",
    )


def _has_statistics(layer: keras.layers.BatchNormalization) -> bool:
    mean = np.asarray(layer.moving_mean)
    variance = np.asarray(layer.moving_variance)
    return bool((mean != 0).any() or (variance != 1).any())


def new_batch_norm(context: Context) -> Iterator[Finding]:
    """Finds frozen BatchNormalization layers that were never trained."""
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
        "were never trained, and are frozen: they do not normalise, and in a "
        "deep network nothing of an image reaches the head.",
        'Train them: `fine_tune(model, data, strategy="from-scratch")`; or '
        "load pretrained weights.",
    )


def _is_new(layer: keras.layers.BatchNormalization) -> bool:
    scale = layer.gamma is None or (np.asarray(layer.gamma) == 1).all()
    offset = layer.beta is None or (np.asarray(layer.beta) == 0).all()
    return bool(scale and offset and not _has_statistics(layer))


def augmentation_in_model(context: Context) -> Iterator[Finding]:
    """Finds augmentation in front of frozen layers, which prevents caching."""
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
            f"The model augments ({first_names(random)}): the frozen layers "
            "behind it give other features in each epoch, and cached features "
            "would be those of a single epoch.",
            "Augment the training batches instead: "
            "`data.train.batches(augment=Augmentation())`.",
        )


def dtype(context: Context) -> Iterator[Finding]:
    """Finds outputs in 16 bits, in which small probabilities become 0."""
    if not graph.is_functional(context.model):
        return
    dtypes = {t.dtype for t in graph.tensors_out(context.model)}
    for name in sorted(dtypes & {"float16", "bfloat16"}):
        yield Finding(
            "dtype",
            "warning",
            f"The output is {name}: small probabilities become 0, and the loss "
            "infinite or NaN.",
            'Give the output layer `dtype="float32"`.',
        )


def nan_weights(context: Context) -> Iterator[Finding]:
    """Finds weights that are not finite."""
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
            f"{plural(len(context.model.weights), 'weight')} "
            f"({first_names(bad)}).",
            "Build or load the model again; if training caused this, lower the "
            "learning rate.",
        )


CHECKS = (
    stale_compile,
    nothing_trainable,
    frozen_layers,
    batch_norm_moves,
    new_batch_norm,
    augmentation_in_model,
    dtype,
    nan_weights,
)
