"""Runs whose linear heads may be trained as one computation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import keras

from keras_transfer.caching.eligibility import Ineligible
from keras_transfer.penalties.penalty import Penalty
from keras_transfer.strategies.phase import Phase
from keras_transfer.structure import graph
from keras_transfer.tasks.task import Task
from keras_transfer.training.spec import RunSpec

# Optimizers that update each element by itself, so that rates may differ within
# a variable, and that keep no products over the steps.
_ELEMENTWISE = (
    keras.optimizers.SGD,
    keras.optimizers.Adam,
    keras.optimizers.RMSprop,
    keras.optimizers.Adagrad,
    keras.optimizers.Adadelta,
    keras.optimizers.Adamax,
    keras.optimizers.Lion,
)


# Losses that are a mean over examples of a value of the last axis.
_LOSSES = (
    keras.losses.CategoricalCrossentropy,
    keras.losses.SparseCategoricalCrossentropy,
    keras.losses.BinaryCrossentropy,
    keras.losses.MeanSquaredError,
)


_MEANS = ("sum_over_batch_size", "mean", "mean_with_sample_weight")


# Settings that this computation does not implement.
_SETTINGS = (
    ("optimization", "ema_momentum"),
    ("stopping", "patience"),
    ("optimization", "global_clipnorm"),
    ("optimization", "gradient_accumulation_steps"),
    ("optimization", "mixed_precision"),
    ("data", "augment"),
    ("reporting", "tensorboard"),
    ("reporting", "callbacks"),
    ("caching", "views"),
    ("losses", "metrics"),
)


class Request(NamedTuple):
    """A run to train.

    Attributes:
        phases: The phases.
        penalty: A penalty, or `None`.
        seed: Seed of the order and of random draws.
    """

    phases: tuple[Phase, ...]
    penalty: Penalty | None
    seed: int


def why_not(
    requests: Sequence[Request], spec: RunSpec, suffix: keras.Model
) -> Ineligible | None:
    """Returns the reason that runs cannot be one computation, if any.

    Args:
        requests: The runs.
        spec: Spec of the first run.
        suffix: The model above the cut.

    Returns:
        The reason, or `None`.
    """
    if len({_kind(request) for request in requests}) != 1:
        return Ineligible("they differ in more than rate and lambda")
    *first, last = requests[0].phases
    if last.depth != 0 or any(phase.epochs or phase.depth for phase in first):
        return Ineligible("they train more than the head")
    for group, name in _SETTINGS:
        if getattr(getattr(spec.settings, group), name):
            return Ineligible(f"`{name}` is set")
    if dense_of(suffix) is None:
        return Ineligible("the head is more than one dense layer on vectors")
    return (
        _why_not_penalty(requests[0].penalty)
        or _why_not_optimizer(spec.settings.optimization.make(1.0))
        or _why_not_task(spec.task, spec.weighing.loss)
    )


def _why_not_penalty(penalty: Penalty | None) -> Ineligible | None:
    if penalty is None:
        return None
    if penalty.form(pretrained=False) is None:
        return Ineligible("the penalty reads activations")
    if penalty.decoupled:
        return Ineligible("the penalty is decoupled")
    if penalty.on != ("weights",):
        return Ineligible("the penalty is on more than kernels")
    return None


def _why_not_optimizer(
    optimizer: keras.optimizers.Optimizer,
) -> Ineligible | None:
    name = type(optimizer).__name__
    if type(optimizer) not in _ELEMENTWISE or optimizer.weight_decay:
        return Ineligible(f"{name} does not update each element by itself")
    clips = ("clipnorm", "clipvalue", "global_clipnorm")
    if any(getattr(optimizer, option) is not None for option in clips):
        return Ineligible("the optimizer clips")
    more = ("use_ema", "gradient_accumulation_steps", "loss_scale_factor")
    if any(getattr(optimizer, option, None) for option in more):
        return Ineligible("the optimizer does more than a plain step")
    return None


def _why_not_task(task: Task, loss: Any) -> Ineligible | None:
    if getattr(loss, "reduction", "") not in _MEANS:
        return Ineligible("the loss is not a mean over examples")
    if type(loss) not in _LOSSES:
        return Ineligible("the loss is not known to be a mean over examples")
    if type(task).example_scores is Task.example_scores:
        return Ineligible("the task does not score single examples")
    return None


def _kind(request: Request) -> tuple[Any, ...]:
    *first, last = request.phases
    plain = (last.name, last.depth, last.epochs, last.schedule)
    rates = (last.head_multiplier, last.exact_probe, last.reinitialize)
    return (*first, plain, rates, type(request.penalty), request.seed)


def dense_of(suffix: keras.Model) -> keras.layers.Dense | None:
    """Returns the dense layer of a suffix that has no other, or `None`."""
    layers = [
        layer
        for layer in graph.layers_below(suffix)
        if not isinstance(layer, keras.layers.InputLayer | keras.Model)
    ]
    (tensor,) = suffix.inputs
    if len(layers) != 1 or len(tensor.shape) != 2:
        return None
    (dense,) = layers
    if type(dense) is not keras.layers.Dense or dense.lora_enabled:
        return None
    extras = (
        dense.kernel_regularizer,
        dense.bias_regularizer,
        dense.activity_regularizer,
        dense.kernel_constraint,
        dense.bias_constraint,
    )
    if extras != (None,) * len(extras) or dense.compute_dtype != "float32":
        return None
    return dense if dense.use_bias and dense.trainable else None
