"""The optimizer of a phase."""

from __future__ import annotations

from collections.abc import Sequence

import keras

from keras_transfer import _graph
from keras_transfer._pulls import Pull
from keras_transfer.multipliers import layer_decay
from keras_transfer.optimizers import LearningRateMultiplier
from keras_transfer.strategies import Phase
from keras_transfer.training.settings import Settings


def make_phase_optimizer(
    model: keras.Model,
    settings: Settings,
    phase: Phase,
    pulls: Sequence[Pull] = (),
) -> LearningRateMultiplier:
    """Makes the optimizer that trains a model in a phase.

    Args:
        model: The model.
        settings: Which optimizer.
        phase: Which rates.
        pulls: Of a decoupled penalty. Defaults to `()`.

    Returns:
        A `LearningRateMultiplier`, not built.
    """
    multipliers = None
    if phase.layer_decay != 1 or phase.head_multiplier != 1:
        multipliers = layer_decay(
            model, phase.layer_decay, head=phase.head_multiplier
        )
    return LearningRateMultiplier(
        settings.make_optimizer(phase.learning_rate), multipliers, pulls=pulls
    )


def scale_loss(
    model: keras.Model, optimizer: LearningRateMultiplier
) -> keras.optimizers.Optimizer:
    """Wraps the optimizer where gradients in float16 would vanish.

    Args:
        model: The model; its layers say what they compute in.
        optimizer: The optimizer.

    Returns:
        The optimizer, or a `LossScaleOptimizer` around it.
    """
    half = any(
        layer.compute_dtype == "float16" for layer in _graph.layers_below(model)
    )
    return keras.optimizers.LossScaleOptimizer(optimizer) if half else optimizer
