"""Compiles a phase: its optimizer, its loss scale."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import keras
import numpy as np

from keras_transfer.optimizers.multiplier import LearningRateMultiplier
from keras_transfer.optimizers.multipliers import layer_decay
from keras_transfer.optimizers.pulls import DecoupledDecay
from keras_transfer.strategies.phase import Phase
from keras_transfer.structure import graph
from keras_transfer.training.replica_trainer import ReplicaTrainer
from keras_transfer.training.settings import Settings

if TYPE_CHECKING:
    pass


def make_phase_optimizer(
    model: keras.Model,
    settings: Settings,
    phase: Phase,
    pulls: Sequence[DecoupledDecay] = (),
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
        layer.compute_dtype == "float16" for layer in graph.layers_below(model)
    )
    return keras.optimizers.LossScaleOptimizer(optimizer) if half else optimizer


class Trainer:
    """A compiled model and its optimizer, which begin anew without a trace.

    Args:
        model: What is fitted, compiled and its optimizer built.
        optimizer: The optimizer, without what scales the loss around it.
        at_once: Steps in one call.
        before: Variables of the optimizer of the phase before, whose moments
            this one goes on with. Defaults to `()`.
    """

    def __init__(
        self,
        model: keras.Model | ReplicaTrainer,
        optimizer: LearningRateMultiplier,
        at_once: int,
        before: Sequence[keras.Variable] = (),
    ) -> None:
        self.model = model
        self.optimizer = optimizer
        self.at_once = at_once
        carried = {id(variable) for variable in before}
        self._fresh = [
            (variable, np.array(variable))
            for variable in model.optimizer.variables
            if id(variable) not in carried
        ]

    def begin(self, learning_rate: float) -> None:
        """Makes everything as it was when it was compiled.

        Args:
            learning_rate: The rate to begin with.
        """
        for variable, value in self._fresh:
            variable.assign(value)
        self.optimizer.continue_counts()
        self.optimizer.learning_rate = learning_rate
