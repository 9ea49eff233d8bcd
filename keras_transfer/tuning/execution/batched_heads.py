"""Linear heads of many runs, trained on cached vectors as one computation.

With K runs, F features and C outputs the weights are `[K, F, C]` and `[K, C]`.
A step is one product of tensors for any K, and learning rates and lambdas of
the runs are vectors of K.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import keras
import numpy as np

from keras_transfer.caching.phase_data import CachedPhase
from keras_transfer.penalties.penalty import Penalty
from keras_transfer.strategies.phase import Phase
from keras_transfer.training.history import History, Row
from keras_transfer.training.spec import RunSpec
from keras_transfer.tuning.execution.head_requests import Request, dense_of

if TYPE_CHECKING:
    import tensorflow as tf


class Head(NamedTuple):
    """The trained head of one run.

    Attributes:
        rows: The table of the run.
        best: Index of the best row, or `None`.
        weights: Kernel and bias at the best row by `id(variable)`; empty where
            the initial ones are best.
        error: Reason that it ended early, or `""`.
    """

    rows: tuple[Row, ...]
    best: int | None
    weights: dict[int, np.ndarray]
    error: str


def train(
    requests: Sequence[Request],
    spec: RunSpec,
    cached: CachedPhase,
    rows: Sequence[Row],
    first: int,
) -> list[Head]:
    """Trains the heads of all runs, from the current weights of the layer.

    Args:
        requests: The runs.
        spec: Spec of the first run.
        cached: Vectors of training and validation.
        rows: Rows of earlier phases, which all runs share.
        first: Index of the first phase whose epochs may be the best.

    Returns:
        A `Head` for each run.
    """
    import tensorflow as tf

    settings, phase = spec.settings, requests[0].phases[-1]
    heads = _Heads(requests, spec, cached.network)
    steps = -(-cached.num_examples // settings.data.batch_size)
    total = steps * phase.epochs
    # [steps, runs]
    rates = np.array(
        [[r.phases[-1].rate(i, total) for r in requests] for i in range(total)],
        np.float32,
    )
    rates *= phase.head_multiplier
    tables = [_RunTable(spec, rows, phase, first) for _ in requests]
    epoch = 0
    batches = cached.train(lambda: epoch)
    held_out = cached.validation()
    batches = spec.weigh(batches)
    learn = tf.function(heads.learn)
    measure = tf.function(heads.measure)
    for epoch in range(phase.epochs):
        started = time.monotonic()
        window = iter(tf.constant(rates[epoch * steps : (epoch + 1) * steps]))
        logs = _mean(learn(next(window), *batch) for batch in batches)
        if held_out is not None:
            validation = _mean(measure(x, y) for x, y in held_out)
            logs |= {f"val_{name}": v for name, v in validation.items()}
        seconds = (time.monotonic() - started) / len(requests)
        last = rates[(epoch + 1) * steps - 1]
        # [runs, features, classes] and [runs, classes]
        arrays = np.array(heads.kernel), np.array(heads.bias)
        for k, table in enumerate(tables):
            values = {name: float(value[k]) for name, value in logs.items()}
            table.add(
                epoch,
                values,
                float(last[k]),
                seconds,
                {id(v): a[k] for v, a in zip(heads.dense, arrays, strict=True)},
            )
    return [table.head() for table in tables]


class _RunTable:
    """The table of one run."""

    def __init__(
        self, spec: RunSpec, rows: Sequence[Row], phase: Phase, first: int
    ) -> None:
        monitor = spec.settings.stopping.monitor
        self._history = History(monitor, None, spec.columns, first)
        self._phase = phase
        self._number = 0
        self._weights: dict[int, np.ndarray] = {}
        self._error = ""
        for row in rows:
            self._history.add(row)
            self._number = row["phase"] + 1

    def add(
        self,
        epoch: int,
        logs: Mapping[str, float],
        rate: float,
        seconds: float,
        weights: dict[int, np.ndarray],
    ) -> None:
        """Adds an epoch, unless the run diverged before."""
        if self._error:
            return
        if not all(map(math.isfinite, logs.values())):
            self._error = (
                f"`loss` became NaN or infinite in epoch {epoch + 1}, at "
                f"learning rate {rate:g}. Lower `learning_rate`, or set "
                "`global_clipnorm=1.0`."
            )
            return
        row = {
            "phase": self._number,
            "name": self._phase.name,
            "epoch": epoch + 1,
            "depth": self._phase.depth,
            "learning_rate": rate,
            **logs,
            "seconds": round(seconds, 3),
        }
        if self._history.add(row):
            self._weights = weights

    def head(self) -> Head:
        """Returns the trained head."""
        rows = tuple(self._history.rows)
        return Head(rows, self._history.best, self._weights, self._error)


class _Heads:
    """The variables of all heads, and their training step."""

    def __init__(
        self,
        requests: Sequence[Request],
        spec: RunSpec,
        suffix: keras.Model,
    ) -> None:
        dense: Any = dense_of(suffix)
        self.dense = (dense.kernel, dense.bias)
        self.kernel, self.bias = (
            # [F, C] -> [K, F, C] and [C] -> [K, C]: all runs start equal.
            keras.Variable(np.stack([np.array(variable)] * len(requests)))
            for variable in self.dense
        )
        self._activation = dense.activation
        self._task = spec.task
        self._metric_name = spec.task.metrics()[0].name
        self._optimizer = spec.settings.optimization.make(1.0)
        self._optimizer.build([self.kernel, self.bias])
        # Coefficients of sum |w| and 1/2 sum w^2, [K, 2] -> two vectors [K]: a
        # head is new, and pulled to zero.
        coefficients = [_coefficients(r.penalty) for r in requests]
        self._absolute, self._squared = np.array(coefficients, np.float32).T

    def learn(
        self,
        rate: tf.Tensor,
        x: tf.Tensor,
        y: tf.Tensor,
        factors: tf.Tensor | None = None,
    ) -> dict[str, tuple[tf.Tensor, tf.Tensor]]:
        """Takes a step; returns sums over the batch and their weights."""
        import tensorflow as tf

        with tf.GradientTape() as tape:
            outputs = self._outputs(x)  # [K * B, C]
            losses = self._losses(outputs, y)  # [K, B]
            if factors is not None:
                losses *= factors  # [B], the weights of the examples
            data = tf.reduce_mean(losses, -1)  # [K]
            # R(theta) of each run: sums over F and C, [K, F, C] -> [K].
            kernel = tf.convert_to_tensor(self.kernel)
            absolute = tf.reduce_sum(tf.abs(kernel), [1, 2])
            squared = tf.reduce_sum(tf.square(kernel), [1, 2]) / 2
            loss = data + self._absolute * absolute + self._squared * squared
            # Run k's loss depends on its own weights alone, so the gradient of
            # the sum over runs holds the gradient of each run.
            total = tf.reduce_sum(loss)
        variables = [self.kernel, self.bias]
        gradients = tape.gradient(total, [v.value for v in variables])
        for variable, gradient in zip(variables, gradients, strict=True):
            # Rates [K] -> [K, 1, 1] for kernels and [K, 1] for biases.
            shape = [-1, *[1] * (len(variable.shape) - 1)]
            self._optimizer.update_step(
                gradient, variable, tf.reshape(rate, shape)
            )
        self._optimizer.iterations.assign_add(1)
        size = tf.cast(tf.shape(y)[0], tf.float32)
        return {"loss": (loss * size, size), **self._metric(outputs, y)}

    def measure(
        self, x: tf.Tensor, y: tf.Tensor
    ) -> dict[str, tuple[tf.Tensor, tf.Tensor]]:
        """Returns sums over a batch and their weights."""
        import tensorflow as tf

        outputs = self._outputs(x)
        losses = tf.reduce_sum(self._losses(outputs, y), -1)  # [K]
        size = tf.cast(tf.shape(y)[0], tf.float32)
        return {"loss": (losses, size), **self._metric(outputs, y)}

    def _outputs(self, x: tf.Tensor) -> tf.Tensor:
        """Returns a row for each pair of run and example, `[K * B, C]`."""
        import tensorflow as tf

        # [B, F] x [K, F, C] -> [K, B, C]; the bias [K, C] becomes [K, 1, C].
        products = tf.einsum("bf,kfc->kbc", x, self.kernel.value)
        logits = products + self.bias.value[:, None]
        # Flat before the activation: Keras losses recover the logits from the
        # activation op of `outputs`, which a reshape after it would hide.
        return self._activation(tf.reshape(logits, [-1, logits.shape[-1]]))

    def _losses(self, outputs: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
        import tensorflow as tf

        count = self.kernel.shape[0]
        # Labels [B, ...] -> [K * B, ...], in the order of the outputs.
        answers = tf.tile(y, [count, *[1] * (y.shape.rank - 1)])
        if isinstance(self._task.loss, keras.losses.MeanSquaredError):
            answers = tf.reshape(answers, tf.shape(outputs))
        loss: Any = self._task.loss
        losses = loss.call(answers, outputs)  # [K * B], not reduced
        return tf.reshape(losses, [count, -1])

    def _metric(
        self, outputs: tf.Tensor, y: tf.Tensor
    ) -> dict[str, tuple[tf.Tensor, tf.Tensor]]:
        """Returns sums of the first metric, without class weights."""
        import tensorflow as tf

        count, units = self.kernel.shape[0], outputs.shape[-1]
        outputs = tf.reshape(outputs, [count, -1, units])
        scores = self._task.example_scores(outputs, y)  # [runs, examples]
        size = tf.cast(tf.shape(scores)[1], tf.float32)
        return {self._metric_name: (tf.reduce_sum(scores, -1), size)}


def _coefficients(penalty: Penalty | None) -> tuple[float, float]:
    """Returns those of `sum |w|` and `1/2 sum w^2` for a new head."""
    form = None if penalty is None else penalty.form(pretrained=False)
    if form is None:
        return 0.0, 0.0
    return (
        getattr(penalty, form.absolute) if form.absolute else 0.0,
        getattr(penalty, form.squared) if form.squared else 0.0,
    )


def _mean(batches: Any) -> dict[str, np.ndarray]:
    """Returns means over all batches, weighted by their sizes."""
    sums: dict[str, list[Any]] = {}
    for batch_sums in batches:
        for name, (value, size) in batch_sums.items():
            total = sums.setdefault(name, [0.0, 0.0])
            # In float64, value [K]: thousands of batches add up.
            total[0] = total[0] + np.asarray(value, np.float64)
            total[1] += float(size)
    return {name: value / size for name, (value, size) in sums.items()}
