"""`find_learning_rate`: a sweep over growing rates until training diverges."""

from __future__ import annotations

import bisect
import contextlib
import dataclasses
import math
import numbers
import random
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_transfer._utils.checks import is_integer
from keras_transfer.auxiliary.attached_losses import attached
from keras_transfer.data import Augmentation
from keras_transfer.doctor import check
from keras_transfer.reports.curves import plot_learning_rates
from keras_transfer.strategies.phase import Depth, Phase
from keras_transfer.strategies.trainable_sets import TrainableSets
from keras_transfer.structure import graph
from keras_transfer.structure.model_parts import parts_of
from keras_transfer.structure.training_step import check_own_training
from keras_transfer.training.compatibility import check_losses
from keras_transfer.training.compiling import make_phase_optimizer, scale_loss
from keras_transfer.training.settings import make_settings
from keras_transfer.training.spec import read_data

# Decay of the moving average per step.
_BETA = 0.9


_MIN_STEPS = 10


# The first tenth of the steps is skipped: an average of so few losses is noise.
_STEPS_PER_SKIPPED_STEP = 10


@dataclasses.dataclass(frozen=True, repr=False)
class LearningRateSweep:
    """The result of `find_learning_rate`: the loss at each rate.

    The properties read a rate off the smoothed losses. They need a loss that
    falls: otherwise they raise `ValueError`, and `plot` shows the curve. The
    first tenth of the steps is ignored, where the average is over few batches.

    Args:
        rates: The learning rates, ascending, one for each step.
        losses: The loss of each step's batch, before the step; all finite.
        smoothed: Their moving average.

    Example:

    >>> rates = tuple(10.0**k for k in range(-5, 2))
    >>> losses = (3.0, 2.9, 2.5, 1.5, 1.0, 2.0, 9.0)
    >>> sweep = LearningRateSweep(rates, losses, losses)
    >>> sweep.valley, sweep.steepest, sweep.minimum
    (0.001, 0.001, 0.01)
    """

    rates: tuple[float, ...]
    losses: tuple[float, ...]
    smoothed: tuple[float, ...]

    def __post_init__(self) -> None:
        lengths = len(self.rates), len(self.losses), len(self.smoothed)
        if len(set(lengths)) > 1 or not lengths[0]:
            raise ValueError(
                "`rates`, `losses` and `smoothed` must have one length, above "
                f"0. Received: lengths {lengths}"
            )

    @property
    def suggestion(self) -> float:
        """The rate to train with, as the highest of a schedule: `valley`."""
        return self.valley

    @property
    def valley(self) -> float:
        """The middle of the longest descent before the minimum, as in fastai.

        The descent is the longest decreasing subsequence of the smoothed
        losses. It is taken to start as many steps before its end as it has
        members.
        """
        first, last = self._descent()
        # Patience sorting on negated losses: `lasts[n]` is the smallest
        # negated last member of all subsequences of length n + 1.
        lasts: list[float] = []
        end = first
        for index in range(first, last + 1):
            value = -self.smoothed[index]
            place = bisect.bisect_left(lasts, value)
            if place == len(lasts):
                end = index
            lasts[place : place + 1] = [value]
        start = end - len(lasts) + 1
        return self.rates[start + (end - start) // 2]

    @property
    def steepest(self) -> float:
        """The rate of the steepest fall of the loss, over log(rate)."""
        first, last = self._descent()
        losses = np.array(self.smoothed[first : last + 1])
        rates = np.log(self.rates[first : last + 1])
        # Slope d loss / d log(rate) between neighbouring steps.
        return self.rates[
            first + int(np.argmin(np.diff(losses) / np.diff(rates)))
        ]

    @property
    def minimum(self) -> float:
        """A tenth of the rate at which the smoothed loss is smallest."""
        return self.rates[self._descent()[1]] / 10

    def plot(self, path: str | Path) -> None:
        """Draws the losses over the rates, and the rates that they suggest.

        Args:
            path: PNG file to write.
        """
        plot_learning_rates(
            self.rates, self.losses, self.smoothed, path, self._marks()
        )

    def _marks(self) -> dict[str, float]:
        names = ("valley", "steepest", "minimum")
        try:
            return {name: getattr(self, name) for name in names}
        except ValueError:
            return {}

    def _descent(self) -> tuple[int, int]:
        """Returns the first and last step of the fall of the loss."""
        first = len(self.smoothed) // _STEPS_PER_SKIPPED_STEP
        last = first + int(np.argmin(self.smoothed[first:]))
        if last == first:
            start = self.smoothed[first]
            raise ValueError(
                "`smoothed` must fall somewhere, to read a rate off it. "
                f"Received: losses that never fall below {start:g}, at rates "
                f"from {self.rates[0]:g} to {self.rates[-1]:g}. "
                "Sweep others (`lowest`, `highest`), look at the curve with "
                "`plot(path)`, or train the head first: `fine_tune(model, "
                'data, strategy="linear-probe")`.'
            )
        return first, last

    def __repr__(self) -> str:
        rates = ", ".join(f"{k} {v:.2g}" for k, v in self._marks().items())
        return (
            f"<LearningRateSweep: {len(self.rates)} steps from "
            f"{self.rates[0]:.2g} to {self.rates[-1]:.2g}; "
            f"{rates or 'the loss never fell'}>"
        )


def find_learning_rate(
    model: keras.Model,
    data: Any,
    *,
    depth: Depth = None,
    penalty: Any = None,
    layer_decay: float = 1.0,
    lowest: float = 1e-7,
    highest: float = 10.0,
    steps: int = 100,
    batch_size: int = 32,
    optimizer: str | keras.optimizers.Optimizer = "adam",
    loss: str | keras.losses.Loss | Callable[..., Any] | None = None,
    augment: Augmentation | None = None,
    seed: int = 0,
) -> LearningRateSweep:
    """Finds a learning rate by training a few steps at growing rates.

    Step `i` of `n` has the rate `lowest * (highest / lowest)^(i / (n - 1))`.
    The sweep ends early where the smoothed loss exceeds four times its
    minimum, or is no longer finite. It trains the variables that a phase of
    `fine_tune` with the same arguments would, and restores the model, its
    compile and random states included, even when interrupted.

    Train the head first where it is new (`strategy="linear-probe"`): the loss
    of a random head falls at rates that suit the head alone.

    Args:
        model: Same as in `fine_tune`.
        data: Same as in `fine_tune`; the training examples are used, shuffled,
            as often as needed.
        depth: Blocks to train, counted from the output, or `"all"`. Defaults to
            `None`, the current `trainable` flags.
        penalty: `L1`, `L2`, `ElasticNet`, `L2SP`, `FeatureMap`, `BSS` or
            `None`; part of the losses. Defaults to `None`.
        layer_decay: Factor in `(0, 1]` of the rate from block to block; the
            rates are those of the head. Defaults to `1.0`.
        lowest: First rate, above 0. Defaults to `1e-7`.
        highest: Last rate, above `lowest`. Defaults to `10.0`.
        steps: Number of rates, at least 10. Defaults to `100`.
        batch_size: Examples in a step. Defaults to `32`.
        optimizer: A Keras optimizer, whose learning rate is replaced, or its
            name. Defaults to `"adam"`.
        loss: A Keras loss. Defaults to `None`: by output activation and labels.
        augment: Changes of the training images. Defaults to `None`.
        seed: Integer: order of examples and augmentation. Defaults to `0`.

    Returns:
        A `LearningRateSweep`: `suggestion`, `plot(path)`.

    Raises:
        ValueError: If arguments do not fit each other, the model or the data;
            if nothing would train; or if `check` finds an error.
        TypeError: If an argument is of another type.
        FloatingPointError: If the loss is not finite at the first step.

    Example:

    >>> model = build_classifier(backbone, num_classes=3)
    >>> sweep = find_learning_rate(model, (arrays, labels), depth=1, steps=30)
    >>> 1e-7 < sweep.suggestion < sweep.rates[-1]
    True

    Reference:
        - Smith, 2015, https://arxiv.org/abs/1506.01186
    """
    rates = _geometric(lowest, highest, steps)
    settings = make_settings(
        batch_size=batch_size,
        optimizer=optimizer,
        loss=loss,
        augment=augment,
        seed=seed,
    )
    phase = Phase("sweep", depth=depth, layer_decay=layer_decay)
    parts_of(model)  # Raises for models without a graph.
    check_own_training(model)
    losses = check_losses(model, penalty, (), (phase,))
    training_data, task = read_data(model, data, settings)
    sweep = _Sweep(rates)
    with contextlib.ExitStack() as stack:
        stack.enter_context(_unchanged(model))
        TrainableSets(model, (phase,)).apply(phase)
        diagnosis = check(model, data, loss=task.loss)
        # The sweep does not use the compile of the model.
        diagnosis.without("stale-compile").raise_for_errors()
        members = stack.enter_context(attached(losses, model))
        trainer = members.wrap(model)
        if trainer is model:  # Its own compile stays as it is.
            trainer = _around(model)
        inner = make_phase_optimizer(
            model,
            settings,
            dataclasses.replace(phase, learning_rate=lowest),
            members.pulls,
        )
        trainer.compile(
            scale_loss(model, inner),
            loss=task.loss,
            auto_scale_loss=False,
        )
        stack.enter_context(training_data.reading())
        trainer.fit(
            training_data.train(lambda: sweep.epoch),
            epochs=-(-steps // training_data.steps),
            callbacks=[sweep],
            verbose=0,
            shuffle=False,  # The data shuffle; Keras warns otherwise.
        )
    return sweep.result()


def smooth(losses: Sequence[float]) -> tuple[float, ...]:
    """Returns the moving average of losses, weighted towards the latest.

    `s_i = sum_j beta^(i-j) l_j / sum_j beta^(i-j)` over `j <= i`, `beta = 0.9`:
    a window of about ten steps, a tenth of a sweep. fastai's 0.98 averages
    about fifty, and rises long after the losses do.

    Args:
        losses: The losses.

    Returns:
        Tuple of as many floats.

    Example:

    >>> [round(value, 3) for value in smooth([1.0, 0.0])]
    [1.0, 0.474]
    """
    smoothed = []
    total = weight = 0.0
    for loss in losses:
        total = _BETA * total + loss
        weight = _BETA * weight + 1
        smoothed.append(total / weight)
    return tuple(smoothed)


class _Sweep(keras.callbacks.Callback):
    """Sets the rate before each step, records the loss, stops on divergence."""

    def __init__(self, rates: Sequence[float]) -> None:
        super().__init__()
        self.epoch = 0
        self._rates = rates
        self._losses: list[float] = []

    def on_epoch_begin(
        self, epoch: int, logs: dict[str, Any] | None = None
    ) -> None:
        self.epoch = epoch

    def on_train_batch_begin(
        self, batch: int, logs: dict[str, Any] | None = None
    ) -> None:
        # The loss that Keras reports is the mean since the last reset.
        self.model.reset_metrics()
        self.model.optimizer.learning_rate = self._rates[len(self._losses)]

    def on_train_batch_end(
        self, batch: int, logs: dict[str, Any] | None = None
    ) -> None:
        loss = float((logs or {})["loss"])
        if math.isfinite(loss):
            self._losses.append(loss)
        done = len(self._losses) == len(self._rates)
        if done or not math.isfinite(loss) or self._diverged():
            self.model.stop_training = True
        if not self._losses:
            raise FloatingPointError(
                f"The loss is {loss} before the first step. Look for extreme "
                "values with `check(model, data)`."
            )

    def result(self) -> LearningRateSweep:
        """Returns the sweep so far."""
        losses = tuple(self._losses)
        return LearningRateSweep(
            tuple(self._rates[: len(losses)]), losses, smooth(losses)
        )

    def _diverged(self) -> bool:
        smoothed = smooth(self._losses)[
            len(self._rates) // _STEPS_PER_SKIPPED_STEP :
        ]
        if not smoothed:
            return False
        minimum = min(smoothed)
        # Four times the minimum, also where losses are negative.
        return smoothed[-1] > minimum + 3 * abs(minimum)


@contextlib.contextmanager
def _unchanged(model: keras.Model) -> Iterator[None]:
    """Restores on exit everything in a model that training changes."""
    layers = [(part, part.trainable) for part in graph.layers_below(model)]
    # Variables too: setting a layer trainable would unfreeze variables that
    # were frozen individually.
    variables = [
        (variable, variable.trainable, np.array(variable))
        for variable in (*model.variables, *model.metrics_variables)
    ]
    functions = model.train_function, model.test_function
    compiled = model.compiled
    # Keras draws the seeds of new layers from this generator.
    state = random.getstate()
    try:
        yield
    finally:
        for (
            part,
            trainable,
        ) in layers:  # Containers first: they set their sublayers.
            part.trainable = trainable
        for variable, trainable, array in variables:
            variable.trainable = trainable
            variable.assign(array)
        # Penalties drop the traced functions, which are valid again now.
        model.train_function, model.test_function = functions
        model.compiled = compiled
        random.setstate(state)


def _around(model: keras.Model) -> keras.Model:
    """Returns a model over the same layers, with its own compile."""
    inputs, outputs = graph.tensors_in(model), graph.tensors_out(model)
    if not isinstance(model, keras.Sequential):
        inputs, outputs = model.input, model.output
    elif len(inputs) == len(outputs) == 1:
        inputs, outputs = inputs[0], outputs[0]
    with model.distribute_strategy.scope():
        return keras.Model(inputs, outputs, name=model.name)


def _geometric(lowest: float, highest: float, steps: int) -> list[float]:
    """Returns the rates of a sweep, checked."""
    for name, value in (("lowest", lowest), ("highest", highest)):
        is_valid = isinstance(value, numbers.Real) and not isinstance(
            value, bool
        )
        if not is_valid or not 0 < value < math.inf:
            raise ValueError(
                f"`{name}` must be a finite number above 0. Received: "
                f"{name}={value!r:.100}"
            )
    if highest <= lowest:
        raise ValueError(
            "`highest` must be above `lowest`. Received: "
            f"highest={highest!r}, lowest={lowest!r}"
        )
    if not is_integer(steps) or steps < _MIN_STEPS:
        raise ValueError(
            f"`steps` must be an integer of at least {_MIN_STEPS}. "
            f"Received: steps={steps!r:.100}"
        )
    ratio = float(highest) / float(lowest)
    return [float(lowest) * ratio ** (i / (steps - 1)) for i in range(steps)]
