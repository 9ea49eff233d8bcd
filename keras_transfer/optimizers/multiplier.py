"""Learning rates that differ from block to block, exact for every optimizer."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import tensorflow as tf

from keras_transfer._utils.checks import check_multipliers
from keras_transfer.optimizers.inner import (
    OFF,
    InnerOptimizer,
    VariableStep,
    check_optimizer,
    copy_exclusions,
    learning_rate_of,
)
from keras_transfer.optimizers.multipliers import multiplier_of
from keras_transfer.optimizers.pulls import DecoupledDecay
from keras_transfer.optimizers.rate_table import RateTable
from keras_transfer.optimizers.replica_sums import accumulate_sums
from keras_transfer.optimizers.step_counts import StepCounts


@dataclasses.dataclass
class _Untracked:
    """State that Keras must not find among the attributes.

    Keras adds each variable that it finds there to the optimizer's own, and
    saves each optimizer that it finds there.
    """

    inner: InnerOptimizer
    pulls: dict[str, list[DecoupledDecay]] = dataclasses.field(
        default_factory=dict
    )
    steps: dict[str, VariableStep] = dataclasses.field(default_factory=dict)
    counts: StepCounts = dataclasses.field(default_factory=StepCounts)
    previous: LearningRateMultiplier | None = None
    rates: RateTable | None = None


@keras.saving.register_keras_serializable(package="keras_transfer")
class LearningRateMultiplier(keras.optimizers.Optimizer):
    """Gives each variable its own multiple of an optimizer's learning rate.

    `w <- w - step(gradient, learning_rate * multiplier)`: the multiplier
    scales the step, with its weight decay, so that training equals one
    optimizer for each multiplier. Scaling the gradients would not do: Adam,
    RMSprop and similar optimizers divide by the size of the gradient, and would
    take the same steps as before.

    The wrapper takes over the settings of the optimizer: clipping uses the
    gradients of all variables, `learning_rate` can be assigned or follow a
    schedule, and averages, accumulation and loss scaling act once.

    Fine-tuning in phases needs a new optimizer for each phase, since Keras
    ties one to its variables; `continue_from` hands the moments on.

    Args:
        optimizer: A new Keras optimizer, or the name of one, such as `"adam"`.
            It is copied.
        multipliers: Mapping from `variable.path` to a float of at least 0, for
            every variable that trains; made by `layer_decay` or
            `block_multipliers`. At 0 a variable stays bit-identical and gets
            no moments. Defaults to `None`, 1 for all.
        pulls: `DecoupledDecay` tuples, one for each variable that decays
            towards a point: `w <- w - learning_rate * multiplier * strength *
            (w - start)`, before the step. Those of variables that do not train
            have no effect. They are **not saved** with the optimizer: call
            `set_pulls` after loading. Defaults to `()`.
        name: Name of the optimizer. Defaults to `None`, which means
            `"learning_rate_multiplier"`.

    Raises:
        TypeError: If `optimizer` is not a Keras optimizer, or `multipliers`
            not a mapping.
        ValueError: If `optimizer` was used before or wraps others, or a
            multiplier is negative; from `build`, if a variable that trains
            has no multiplier.

    Example:

    >>> model = build_classifier("ResNet20", num_classes=3)
    >>> paths = unfreeze(model, depth="all")
    >>> optimizer = LearningRateMultiplier("adam", layer_decay(model, 0.9))
    >>> model.compile(optimizer, "categorical_crossentropy")

    A model saved with it loads where `keras_transfer.optimizers` is imported,
    and elsewhere with `keras.models.load_model(path, compile=False)`.
    """

    def __init__(
        self,
        optimizer: keras.optimizers.Optimizer | str,
        multipliers: Mapping[str, float] | None = None,
        *,
        pulls: Sequence[DecoupledDecay] = (),
        name: str | None = None,
    ) -> None:
        optimizer = check_optimizer(optimizer, LearningRateMultiplier)
        super().__init__(
            learning_rate=learning_rate_of(optimizer),
            name=name,
            **{key: getattr(optimizer, key) for key in OFF},
        )
        self._untracked = _Untracked(InnerOptimizer(optimizer))
        self.multipliers = (
            None if multipliers is None else check_multipliers(multipliers)
        )
        self.set_pulls(pulls)
        # `True` if gradients are summed over the replicas before `apply`.
        self.takes_sums = False
        # Notes on each variable, from `get_config` of a saved optimizer.
        self._saved: list[dict[str, Any]] = []
        copy_exclusions(optimizer, self)

    @property
    def pulls(self) -> tuple[DecoupledDecay, ...]:
        """The decays of variables towards points."""
        groups = self._untracked.pulls.values()
        return tuple(pull for group in groups for pull in group)

    def set_pulls(self, pulls: Sequence[DecoupledDecay]) -> None:
        """Replaces the pulls; compile the model afterwards.

        Not a property setter, since Keras adds every variable that is assigned
        to an attribute to the optimizer's own.

        Args:
            pulls: `DecoupledDecay` tuples.
        """
        by_key: dict[str, list[DecoupledDecay]] = {}
        for pull in pulls:
            by_key.setdefault(self._var_key(pull.variable), []).append(pull)
        self._untracked.pulls = by_key

    def continue_from(self, previous: LearningRateMultiplier) -> None:
        """Takes over moments and step counts of the previous phase.

        Variables that `previous` stepped continue as if nothing had happened;
        others start with step count 0. The moments of variables that do not
        train now, or have multiplier 0, are dropped: they would be out of
        date, and a run that resumes from a file does not have them. Learning
        rate, schedule, averages (`use_ema`) and accumulated gradients start
        anew. Do not use `previous` afterwards.

        Args:
            previous: The optimizer of the previous phase, trained or loaded.

        Raises:
            TypeError: If `previous` is not a `LearningRateMultiplier`.
            ValueError: If this optimizer is built, `previous` is not, or it
                wraps an optimizer of another class or with other settings.

        Example:

        >>> model = build_classifier("ResNet20", num_classes=3)
        >>> first = LearningRateMultiplier("adam")
        >>> first.build(model.trainable_variables)
        >>> paths = unfreeze(model, depth=1)
        >>> second = LearningRateMultiplier("adam", layer_decay(model, 0.5))
        >>> second.continue_from(first)
        """
        if not isinstance(previous, LearningRateMultiplier):
            raise TypeError(
                "`previous` must be a LearningRateMultiplier. Received: "
                f"previous={previous!r:.100}. For a LossScaleOptimizer, pass "
                "its `inner_optimizer`."
            )
        if self.built or not previous.built:
            raise ValueError(
                "`continue_from` must be called before this optimizer is "
                "built (first used), with one that was built. Received: "
                f"this one built={self.built}, previous built={previous.built}"
            )
        self._untracked.inner.check_continues(previous._untracked.inner)
        self._untracked.previous = previous

    def expect(self, variables: Sequence[dict[str, Any]]) -> None:
        """Prepares for state that was saved apart from the optimizer.

        Build the optimizer next, then assign its `variables`.

        Args:
            variables: `get_config()["variables"]` of the saved optimizer. It
                tells, among others, which variables share a step count.

        Raises:
            ValueError: If this optimizer is built.
        """
        if self.built:
            raise ValueError(
                "`expect` must be called before the optimizer is built."
            )
        self._saved = list(variables)

    def build(self, variables: Sequence[keras.Variable]) -> None:
        """Creates the moments of `variables`, or takes them over.

        Args:
            variables: The variables to train.

        Raises:
            ValueError: If `multipliers` lack one of them.
        """
        if self.built:
            return
        # `fit` builds while it traces the first step. Leave that graph, so
        # that values can be read, and are assigned once.
        with tf.init_scope():
            self._build(list(variables))

    def _build(self, variables: list[keras.Variable]) -> None:
        saved = self._match_saved(variables)
        multipliers = [multiplier_of(v, self.multipliers) for v in variables]
        super().build(variables)
        previous = self._untracked.previous
        known = previous._untracked.steps if previous else {}
        steps = self._untracked.steps
        for variable, multiplier in zip(variables, multipliers, strict=True):
            if multiplier:
                key = self._var_key(variable)
                steps[key] = self._untracked.inner.step(
                    variable, multiplier, known.get(key)
                )
        self._untracked.previous = None
        active = [self._step_of(v) for v in variables]
        self._untracked.counts.share(self, active, [] if previous else saved)
        for step in filter(None, active):
            for slot in step.slots:
                # So that it is saved, loaded and listed with our own.
                self._track_variable(slot)

    def _match_saved(
        self, variables: list[keras.Variable]
    ) -> list[dict[str, Any]]:
        """Returns saved notes on variables, or `[]`, and restores settings.

        They match by position, as values do: the paths in a Sequential model
        contain its own name when it is made, but not when it is loaded.
        """
        saved, self._saved = self._saved, []
        shapes = [[v.name, list(v.shape)] for v in variables]
        if shapes != [[s["name"], list(s["shape"])] for s in saved]:
            return []
        pairs = list(zip(variables, saved, strict=True))
        if self.multipliers is not None:
            self.multipliers = {
                **self.multipliers,
                **{v.path: s["multiplier"] for v, s in pairs},
            }
        undecayed = [v for v, s in pairs if not s["decays"]]
        if undecayed:
            super().exclude_from_weight_decay(var_list=undecayed)
        return saved

    def exclude_from_weight_decay(
        self,
        var_list: Sequence[keras.Variable] | None = None,
        var_names: Sequence[str] | None = None,
    ) -> None:
        """Excludes variables from weight decay; saved with the optimizer.

        Args:
            var_list: Variables to exclude. Defaults to `None`.
            var_names: Patterns for names of variables to exclude. Defaults to
                `None`.

        Raises:
            ValueError: If the optimizer is built.
        """
        # Keras means to check this itself, but reads a wrong attribute.
        if self.built:
            raise ValueError(
                "`exclude_from_weight_decay` must be called before the "
                "optimizer is built (first used)."
            )
        super().exclude_from_weight_decay(var_list, var_names)

    def continue_counts(self) -> None:
        """Sets step counts to those of the previous optimizer now.

        For a second run through phases that are compiled already, with the
        moments as they were after `build`.
        """
        self._untracked.counts.continue_previous()

    def follow(self, rates: Sequence[float], step: int = 0) -> None:
        """Takes learning rates from a table, one for each call of `apply`.

        The graph reads the table, which also works with `steps_per_execution`
        above 1, where no callback can set rates. Call it before the first
        step; the table is not saved.

        Args:
            rates: The rate of each step; the last one stays.
            step: Index of the next step. Defaults to `0`.

        Raises:
            ValueError: If there are no rates.
        """
        if not len(rates):
            raise ValueError("`rates` must not be empty. Received: rates=[].")
        if self._untracked.rates is None:
            self._untracked.rates = RateTable(rates, step)
        else:
            # Functions that are traced keep reading the same table.
            self._untracked.rates.assign(rates, step)

    def apply(
        self,
        grads: Sequence[Any],
        trainable_variables: Sequence[keras.Variable] | None = None,
    ) -> None:
        """Updates the variables once.

        Args:
            grads: Gradients of the variables.
            trainable_variables: The variables. Defaults to `None`, those that
                the optimizer was built with.
        """
        if self._untracked.rates is not None:
            self._learning_rate.assign(self._untracked.rates.advance())
        # With gradient accumulation most calls complete no step.
        before = keras.ops.add(self.iterations, 0)
        super().apply(grads, trainable_variables)
        completed = keras.ops.subtract(self.iterations, before)
        self._untracked.counts.advance(completed)

    def update_step(
        self, gradient: Any, variable: Any, learning_rate: Any
    ) -> None:
        """Updates one variable.

        Args:
            gradient: Gradient of the variable.
            variable: The variable; under a `tf.distribute` strategy its copy
                on one device.
            learning_rate: The current rate, before the multiplier.
        """
        step = self._step_of(variable)
        if step is None:
            return
        if step.multiplier != 1:
            learning_rate = learning_rate * step.multiplier
        decay = step.weight_decay(self.weight_decay)
        if decay is not None and self._use_weight_decay(variable):
            rate = keras.ops.cast(learning_rate, variable.dtype)
            self.assign_sub(variable, variable * decay * rate)
        for pull in self._untracked.pulls.get(self._var_key(variable), ()):
            self.assign_sub(variable, pull.amount(variable, learning_rate))
        step.optimizer.update_step(gradient, variable, learning_rate)

    def averages(self) -> dict[int, keras.Variable]:
        """Returns the moving averages of `use_ema` by `id(variable)`.

        The dictionary is empty before the first step, and without `use_ema`.
        """
        averaging = self.built and self.use_ema
        if not averaging or not keras.ops.convert_to_numpy(self.iterations):
            return {}
        pairs = zip(
            self._trainable_variables,
            self._model_variables_moving_average,
            strict=True,
        )
        return {id(variable): average for variable, average in pairs}

    def get_config(self) -> dict[str, Any]:
        """Returns the config of the optimizer, without the `pulls`."""
        own = super().get_config()
        config: dict[str, Any] = {
            "name": self.name,
            "optimizer": self._untracked.inner.serialize(own),
            "multipliers": self.multipliers and dict(self.multipliers),
        }
        if self.built:
            variables = self._trainable_variables
            config["variables"] = [self._note(v) for v in variables]
        return config

    @classmethod
    def from_config(
        cls,
        config: dict[str, Any],
        custom_objects: dict[str, Any] | None = None,
    ) -> LearningRateMultiplier:
        """Creates an optimizer from its config.

        Args:
            config: Config, from `get_config`.
            custom_objects: Classes by name. Defaults to `None`.
        """
        config = dict(config)
        saved = config.pop("variables", [])
        optimizer = keras.saving.deserialize_keras_object(
            config.pop("optimizer"), custom_objects=custom_objects
        )
        multiplier = cls(optimizer, **config)
        multiplier._saved = saved
        return multiplier

    def _apply_weight_decay(self, variables: Sequence[Any]) -> None:
        """Does nothing: `update_step` decays, at the rate of each variable."""

    def _backend_update_step(
        self, grads: Any, trainable_variables: Any, learning_rate: Any
    ) -> None:
        steps = filter(None, map(self._step_of, trainable_variables))
        self._untracked.inner.update_shared(steps, learning_rate)
        super()._backend_update_step(grads, trainable_variables, learning_rate)

    def _backend_apply_gradients(
        self, grads: Any, trainable_variables: Any
    ) -> None:
        if not self.takes_sums or not self.gradient_accumulation_steps:
            super()._backend_apply_gradients(grads, trainable_variables)
            return
        accumulate_sums(self, grads, trainable_variables)
        if self.use_ema:
            self._update_model_variables_moving_average(
                self._trainable_variables
            )

    def _all_reduce_sum_gradients(self, grads_and_vars: Any) -> Any:
        # Keras sums after clipping, which it does on each replica alone.
        if self.takes_sums:
            return list(grads_and_vars)
        return super()._all_reduce_sum_gradients(grads_and_vars)

    def _note(self, variable: keras.Variable) -> dict[str, Any]:
        """Returns the notes on a variable that resuming from a file needs."""
        return {
            "name": variable.name,
            "shape": list(variable.shape),
            "multiplier": multiplier_of(variable, self.multipliers),
            "decays": self._use_weight_decay(variable.value),
            "count": self._untracked.counts.index(self._step_of(variable)),
        }

    def _step_of(self, variable: Any) -> VariableStep | None:
        """Returns the step of a variable, `None` if its multiplier is 0."""
        return self._untracked.steps.get(self._var_key(variable))
