"""Gradient accumulation for gradients that are summed over replicas."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras
import tensorflow as tf


def accumulate_sums(
    optimizer: keras.optimizers.Optimizer,
    gradients: Sequence[Any],
    variables: Sequence[Any],
) -> None:
    """Accumulates gradients, and steps once every accumulation is complete.

    To be called in replica context. Keras decides within a replica whether a
    step is due, and TensorFlow does not let replicas synchronize inside a
    branch. Here the branch is taken once, outside of the replicas.

    Args:
        optimizer: Built optimizer with `gradient_accumulation_steps`.
        gradients: Gradients, summed over replicas and equal in all of them.
        variables: The variables, in the same order.
    """

    def merge(strategy: Any, gradients: Any, variables: Any) -> None:
        _step_or_wait(optimizer, strategy, gradients, variables)

    context = tf.distribute.get_replica_context()
    context.merge_call(merge, args=(list(gradients), list(variables)))


def _step_or_wait(
    optimizer: keras.optimizers.Optimizer,
    strategy: tf.distribute.Strategy,
    gradients: Any,
    variables: Any,
) -> None:
    steps = optimizer.gradient_accumulation_steps
    variables = [strategy.experimental_local_results(v)[0] for v in variables]
    sums = [
        optimizer._accumulated_gradients[optimizer._get_variable_index(v)]
        for v in variables
    ]

    def step(gradients: Any) -> None:
        means = [
            (gradient + total) / steps
            for gradient, total in zip(gradients, sums, strict=True)
        ]
        means = optimizer._clip_gradients(means)
        optimizer._backend_update_step(
            means, variables, optimizer.learning_rate
        )
        optimizer._backend_reset_gradient_accumulators()

    def wait(gradients: Any) -> None:
        optimizer._backend_increment_gradient_accumulators(gradients, sums)

    def on_all_replicas(function: Callable[[Any], None]) -> Callable[[], Any]:
        return lambda: strategy.extended.call_for_each_replica(
            function, args=(gradients,)
        )

    due = keras.ops.equal((optimizer._iterations + 1) % steps, 0)
    keras.ops.cond(due, on_all_replicas(step), on_all_replicas(wait))
