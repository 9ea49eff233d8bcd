"""Compiles a phase: its optimizer, the network that is fitted, the steps."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Sequence
from typing import Protocol

import keras
import numpy as np

from keras_transfer.auxiliary.attached_losses import AttachedLosses
from keras_transfer.caching.phase_data import PhaseData
from keras_transfer.optimizers.decoupled_decay import DecoupledDecay
from keras_transfer.optimizers.learning_rate_multiplier import (
    LearningRateMultiplier,
)
from keras_transfer.optimizers.rates_by_block import layer_decay
from keras_transfer.strategies.phase import Phase
from keras_transfer.structure import graph
from keras_transfer.tasks.extra_metrics import join
from keras_transfer.tasks.task import Task
from keras_transfer.training.replica_trainer import ReplicaTrainer
from keras_transfer.training.run_directory import State
from keras_transfer.training.run_state import assign
from keras_transfer.training.settings import Settings
from keras_transfer.training.spec import RunSpec

# Steps in one call from Python, which costs milliseconds, where nothing reads
# single steps; and the fewest steps for which tracing a loop pays off.
_STEPS_PER_EXECUTION, _MIN_STEPS = 16, 200


@dataclasses.dataclass(frozen=True, eq=False)
class CompiledPhase:
    """A phase that is ready to fit.

    Attributes:
        trainer: The network or a wrapper of it, compiled.
        optimizer: Its optimizer, without the loss scaling around it.
        steps_per_execution: Steps in one call.
    """

    trainer: keras.Model | ReplicaTrainer
    optimizer: LearningRateMultiplier
    steps_per_execution: int

    def count_open(self) -> int:
        """Counts the trainable parameters."""
        variables = self.trainer.trainable_variables
        return sum(int(np.prod(variable.shape)) for variable in variables)

    def finish(self) -> None:
        """Ends the phase in one state, whether it was resumed or not."""
        # Keras does this at the end of `fit`, which a killed run never reached.
        if self.optimizer.averages():
            variables = self.trainer.trainable_variables
            self.trainer.optimizer.finalize_variable_values(variables)


class Compiler(Protocol):
    """Makes phases ready to fit, one after the other."""

    def compile(
        self, place: int, data: PhaseData, resumed: State | None
    ) -> CompiledPhase:
        """Compiles a phase, with the optimizer that it begins with.

        Args:
            place: Index of the phase.
            data: The data of the phase, and the network that takes them.
            resumed: The state that the phase resumes from, if it does.
        """
        ...


class PhaseCompiler:
    """Compiles each phase; moments carry over from phase to phase.

    Args:
        spec: The run.
        losses: The auxiliary losses in force.
        expected_runs: Approximate number of runs that reuse a compiled phase.
            Defaults to `1`.
    """

    def __init__(
        self, spec: RunSpec, losses: AttachedLosses, expected_runs: int = 1
    ) -> None:
        self._spec = spec
        self._losses = losses
        self._expected_runs = expected_runs
        self.previous: LearningRateMultiplier | None = None

    def compile(
        self, place: int, data: PhaseData, resumed: State | None
    ) -> CompiledPhase:
        """Compiles a phase; see `Compiler`.

        Args:
            place: Index of the phase.
            data: The data of the phase, and the network that takes them.
            resumed: The state that the phase resumes from, if it does.

        Returns:
            The phase, compiled and its optimizer built.
        """
        return self.compile_network(
            place, data, resumed, self._losses.wrap(data.network)
        )

    def compile_network(
        self,
        place: int,
        data: PhaseData,
        resumed: State | None,
        network: keras.Model,
    ) -> CompiledPhase:
        """Compiles a network for a phase.

        Args:
            place: Index of the phase.
            data: The data of the phase.
            resumed: The state that the phase resumes from, if it does.
            network: The network that takes the data, or a wrapper of it.

        Returns:
            The phase, compiled and its optimizer built.
        """
        spec = self._spec
        phase = spec.phases[place]
        if spec.strategy is not None:
            for layer in batch_norms(spec.model):
                layer.synchronized = phase.train_batch_norm != "per-replica"
        optimizer = make_phase_optimizer(
            spec.model, spec.settings, phase, self._losses.pulls
        )
        if resumed is not None:
            optimizer.expect(resumed.steps)
        elif self.previous is not None:
            optimizer.continue_from(self.previous)
        self.previous = optimizer
        outer = scale_loss(spec.model, optimizer)
        steps = 1
        if outer is optimizer:
            steps = self.count_steps(place, data)
        network.compile(
            outer,
            loss=spec.weighing.loss,
            metrics=spec.task.all_metrics(),
            auto_scale_loss=False,
            steps_per_execution=steps,
        )
        outer.build(network.trainable_variables)
        if resumed is not None:
            assign(outer.variables, resumed.optimizer)
        trainer: keras.Model | ReplicaTrainer = network
        if spec.strategy is not None:
            trainer = ReplicaTrainer(
                network,
                spec.weighing.loss,
                spec.task.all_metrics,
                spec.strategy,
            )
        return CompiledPhase(trainer, optimizer, steps)

    def count_steps(self, place: int, data: PhaseData) -> int:
        """Returns the number of steps per call: one if callbacks observe each.

        Args:
            place: Index of the phase.
            data: The data of the phase.
        """
        import tensorflow as tf

        spec = self._spec
        reporting, steps = spec.settings.reporting, spec.data.steps
        total = steps * spec.phases[place].epochs * self._expected_runs
        watched = reporting.callbacks or reporting.tensorboard
        is_cached = data.network is not spec.model
        if not is_cached or watched or total < _MIN_STEPS:
            return 1
        several = tf.distribute.has_strategy()
        return 1 if several else min(_STEPS_PER_EXECUTION, steps)


def make_phase_optimizer(
    model: keras.Model,
    settings: Settings,
    phase: Phase,
    pulls: Sequence[DecoupledDecay] = (),
) -> LearningRateMultiplier:
    """Makes the optimizer that trains a model in a phase.

    Args:
        model: The model.
        settings: The settings of the optimizer.
        phase: The phase, which sets the rates.
        pulls: Decays of a decoupled penalty. Defaults to `()`.

    Returns:
        A `LearningRateMultiplier`, not built.
    """
    multipliers = None
    if phase.layer_decay != 1 or phase.head_multiplier != 1:
        multipliers = layer_decay(
            model, phase.layer_decay, head=phase.head_multiplier
        )
    optimizer = settings.optimization.make(phase.learning_rate)
    return LearningRateMultiplier(optimizer, multipliers, pulls=pulls)


def scale_loss(
    model: keras.Model, optimizer: LearningRateMultiplier
) -> keras.optimizers.Optimizer:
    """Wraps the optimizer where gradients in float16 would vanish.

    Args:
        model: The model, whose layers have the compute dtypes.
        optimizer: The optimizer.

    Returns:
        The optimizer, or a `LossScaleOptimizer` around it.
    """
    half = any(
        layer.compute_dtype == "float16" for layer in graph.layers_below(model)
    )
    return keras.optimizers.LossScaleOptimizer(optimizer) if half else optimizer


def compile_plainly(
    model: keras.Model, settings: Settings, task: Task, learning_rate: float
) -> None:
    """Compiles a model with plain Keras objects, as a run leaves it.

    Args:
        model: The model.
        settings: The settings of the optimizer.
        task: The task, which has the loss and the metrics.
        learning_rate: The rate of the optimizer.
    """
    model.compile(
        settings.optimization.make(learning_rate),
        loss=task.loss,
        metrics=join(task.plain_metrics(), task.extra),
    )
    # `fit` would have built it: a file with an unbuilt optimizer loads with a
    # warning.
    model.optimizer.build(model.trainable_variables)


def batch_norms(model: keras.Model) -> list[keras.layers.BatchNormalization]:
    """Returns the layers whose statistics may span all replicas, or one."""
    return [
        layer
        for layer in graph.layers_below(model)
        if isinstance(layer, keras.layers.BatchNormalization)
    ]


@contextlib.contextmanager
def restoring_norms(model: keras.Model) -> Iterator[None]:
    """Restores the `synchronized` flags of the layers of `batch_norms`.

    Args:
        model: The model.

    Yields:
        Nothing.
    """
    states = [(layer, layer.synchronized) for layer in batch_norms(model)]
    try:
        yield
    finally:
        for layer, synchronized in states:
            layer.synchronized = synchronized
