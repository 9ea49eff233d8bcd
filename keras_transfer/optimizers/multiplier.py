"""Learning rates that differ from block to block, exact for every optimizer."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import tensorflow as tf

from keras_transfer._utils.checks import check_multipliers, did_you_mean
from keras_transfer.optimizers.inner import (
    OFF,
    check_optimizer,
    config_of,
    learning_rate_of,
    overrides,
    without_rates,
)
from keras_transfer.optimizers.pulls import DecoupledDecay


@dataclasses.dataclass
class _Step:
    """What steps one variable: an optimizer for it alone, and its moments.

    Optimizers of several phases may go on with that of one before, so that each
    knows its own count of steps.
    """

    optimizer: keras.optimizers.Optimizer
    slots: list[keras.Variable]
    multiplier: float
    count: keras.Variable


@dataclasses.dataclass
class _Untracked:
    """What Keras must not find among the attributes.

    It takes each variable there for one of the optimizer's own, and saves each
    optimizer there once more.
    """

    config: dict[str, Any]
    template: keras.optimizers.Optimizer
    pulls: dict[str, list[DecoupledDecay]]
    steps: dict[str, _Step]
    previous: LearningRateMultiplier | None
    # A count of steps, and that of the optimizer before which it goes on from.
    carried: list[tuple[keras.Variable, keras.Variable]] = dataclasses.field(
        default_factory=list
    )
    rates: tuple[tf.Variable, tf.Variable] | None = None  # and the next step


@keras.saving.register_keras_serializable(package="keras_transfer")
class LearningRateMultiplier(keras.optimizers.Optimizer):
    """Gives each variable its own multiple of an optimizer's learning rate.

    `w <- w - step(gradient, learning_rate * multiplier)`: what is scaled is
    the step, with its weight decay, so that training equals one optimizer for
    each multiplier. Scaling gradients does not: Adam, RMSprop and their kin
    divide by the size of the gradient, and take the same steps as before.

    It is the optimizer that it is given, with its settings: clipping counts
    the gradients of all variables, `learning_rate` may be assigned or follow a
    schedule, and averages, accumulation and loss scaling act once.

    Fine-tuning in phases needs a new optimizer for each phase, since Keras
    ties one to its variables; `continue_from` hands the moments on.

    Args:
        optimizer: A Keras optimizer that was not used yet, or the name of one,
            such as `"adam"`. It is copied.
        multipliers: Mapping from `variable.path` to a float of at least 0, for
            every variable that trains; made by `layer_decay` or
            `block_multipliers`. At 0 a variable stays as it is, to the bit,
            and gathers no moments. Defaults to `None`, 1 for all.
        pulls: Tuple of `Pull`, one for each variable that is drawn towards a
            point: `w <- w - learning_rate * multiplier * strength *
            (w - start)`, before the step. Those of variables that do not train
            do nothing. They are **not saved** with the optimizer: call
            `set_pulls` after loading. Defaults to `()`.
        name: Name of the optimizer. Defaults to `None`, which means
            `"learning_rate_multiplier"`.

    Raises:
        TypeError: If `optimizer` is no Keras optimizer, or `multipliers` no
            mapping.
        ValueError: If `optimizer` was used before or wraps others, or a
            multiplier is negative; and by `build`, if a variable that trains
            has no multiplier.

    Example:

    >>> model = build_classifier("ResNet20", num_classes=3)
    >>> paths = unfreeze(model, depth="all")
    >>> optimizer = LearningRateMultiplier("adam", layer_decay(model, 0.9))
    >>> model.compile(optimizer, "categorical_crossentropy")

    A file saved with it loads where `keras_transfer.optimizers` is imported;
    elsewhere with `keras.models.load_model(path, compile=False)`.
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
        config = config_of(optimizer)
        template = without_rates(type(optimizer), config)
        self._untracked = _Untracked(config, template, {}, {}, None)
        self.multipliers = (
            None if multipliers is None else check_multipliers(multipliers)
        )
        self.set_pulls(pulls)
        # Whether gradients come summed over the replicas already.
        self.takes_sums = False
        self._counts: list[keras.Variable] = []
        # Of a saved optimizer: what `get_config` noted for each variable.
        self._saved: list[dict[str, Any]] = []
        for key in (
            "_exclude_from_weight_decay",
            "_exclude_from_weight_decay_pattern",
        ):
            if hasattr(optimizer, key):
                setattr(self, key, getattr(optimizer, key))

    @property
    def pulls(self) -> tuple[DecoupledDecay, ...]:
        """What the variables are drawn to."""
        groups = self._untracked.pulls.values()
        return tuple(pull for group in groups for pull in group)

    def set_pulls(self, pulls: Sequence[DecoupledDecay]) -> None:
        """Replaces the pulls; compile the model afterwards.

        A method, since Keras takes every variable that is assigned to an
        attribute for one of the optimizer's own.

        Args:
            pulls: As at construction.
        """
        by_key: dict[str, list[DecoupledDecay]] = {}
        for pull in pulls:
            by_key.setdefault(self._var_key(pull.variable), []).append(pull)
        self._untracked.pulls = by_key

    def continue_from(self, previous: LearningRateMultiplier) -> None:
        """Takes over moments and step counts of the phase before.

        Variables that `previous` stepped go on as if nothing had happened;
        others begin, with step count 0. The moments of those that do not train
        now, or with multiplier 0, are dropped: they would be out of date, and
        a run that is resumed from a file does not have them. Learning rate,
        schedule, averages (`use_ema`) and accumulated gradients begin anew.
        `previous` must not be used any more.

        Args:
            previous: The optimizer of the phase before, trained or loaded.

        Raises:
            TypeError: If `previous` is no `LearningRateMultiplier`.
            ValueError: If this optimizer was used already, `previous` was not,
                or it wraps an optimizer of another class or with other
                settings.

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
                f"previous={previous!r:.100}. Of a LossScaleOptimizer, pass "
                "the `inner_optimizer`."
            )
        if self.built or not previous.built:
            raise ValueError(
                "`continue_from` must be called before this optimizer is "
                "built (first used), with one that was built. Received: "
                f"this one built={self.built}, previous built={previous.built}"
            )
        before, now = previous._settings(), self._settings()
        if before != now:
            differ = sorted(
                key
                for key in before.keys() | now.keys()
                if before.get(key) != now.get(key)
            )
            raise ValueError(
                "`previous` must wrap an optimizer of the same class and "
                "settings (learning rate, clipping, averaging and weight "
                "decay may differ), since its moments would mean something "
                f"else. Received: {before['class']} for {now['class']}, "
                f"which differ in {', '.join(differ)}."
            )
        self._untracked.previous = previous

    def expect(self, variables: Sequence[dict[str, Any]]) -> None:
        """Prepares for state that was saved apart from the optimizer.

        Args:
            variables: `get_config()["variables"]` of the optimizer that was
                saved: which variables began together. Build this one next, and
                then assign its `variables`.

        Raises:
            ValueError: If this optimizer was used already.

        Example:

        >>> model = build_classifier("ResNet20", num_classes=3)
        >>> first = LearningRateMultiplier("adam")
        >>> first.build(model.trainable_variables)
        >>> second = LearningRateMultiplier("adam")
        >>> second.expect(first.get_config()["variables"])
        """
        if self.built:
            raise ValueError(
                "`expect` must be called before the optimizer is built."
            )
        self._saved = list(variables)

    def build(self, variables: Sequence[keras.Variable]) -> None:
        """Creates the moments of `variables`, or takes them over.

        Args:
            variables: What will be trained.

        Raises:
            ValueError: If `multipliers` lack one of them.
        """
        if self.built:
            return
        # `fit` builds while it traces the first step: out of the graph, so
        # that values are there to be read, and assigned once.
        with tf.init_scope():
            self._build(list(variables))

    def _build(self, variables: list[keras.Variable]) -> None:
        saved = self._match_saved(variables)
        multipliers = [self._multiplier_of(v) for v in variables]
        super().build(variables)
        previous = self._untracked.previous
        known = previous._untracked.steps if previous else {}
        steps = self._untracked.steps
        for variable, multiplier in zip(variables, multipliers, strict=True):
            key = self._var_key(variable)
            if multiplier and key in known:
                steps[key] = dataclasses.replace(
                    known[key], multiplier=multiplier
                )
            elif multiplier:
                steps[key] = self._begin(variable, multiplier)
        self._untracked.previous = None
        active = [self._active(v) for v in variables]
        self._share_counts(active, [] if previous else saved)
        for step in filter(None, active):
            for slot in step.slots:
                # Saved, loaded and listed with our own.
                self._track_variable(slot)

    def _match_saved(
        self, variables: list[keras.Variable]
    ) -> list[dict[str, Any]]:
        """What a file says of these variables, in the order of both.

        By position, as their values are saved: a Sequential model has its own
        name in its paths when it is made, and not when it is loaded.
        """
        saved, self._saved = self._saved, []
        found = [[v.name, list(v.shape)] for v in variables]
        if found != [[s["name"], list(s["shape"])] for s in saved]:
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
        """Keeps variables out of the weight decay; saved with the optimizer.

        Args:
            var_list: Variables to exclude. Defaults to `None`.
            var_names: Patterns for names of variables to exclude. Defaults to
                `None`.

        Raises:
            ValueError: If the optimizer is built already.
        """
        # Keras means to check this itself, and looks at a wrong attribute.
        if self.built:
            raise ValueError(
                "`exclude_from_weight_decay` must be called before the "
                "optimizer is built (first used)."
            )
        super().exclude_from_weight_decay(var_list, var_names)

    def continue_counts(self) -> None:
        """Goes on counting where the optimizer of the phase before is now.

        For a second run through phases that are compiled already, with the
        moments as they were after `build`.
        """
        for count, before in self._untracked.carried:
            count.assign(before)

    def follow(self, rates: Sequence[float], step: int = 0) -> None:
        """Takes learning rates from a table, one for each call of `apply`.

        Within the graph, and so also where `steps_per_execution` is above 1 and
        no callback can set them. To be called before the first step; not saved.

        Args:
            rates: The rate of each step; the last one stays.
            step: The step that comes next. Defaults to `0`.

        Raises:
            ValueError: If there are no rates.

        Example:

        >>> optimizer = LearningRateMultiplier("sgd")
        >>> optimizer.follow([0.1, 0.05, 0.01])
        """
        if not len(rates):
            raise ValueError("`rates` must hold one at least. Received: none.")
        if self._untracked.rates is not None:
            # What is traced goes on reading the same variables.
            known, place = self._untracked.rates
            known.assign(rates)
            place.assign(step)
            return
        self._untracked.rates = (
            tf.Variable(rates, False, dtype=tf.float32, shape=[None]),
            tf.Variable(step, False, dtype=tf.int64),
        )

    def apply(
        self,
        grads: Sequence[Any],
        trainable_variables: Sequence[keras.Variable] | None = None,
    ) -> None:
        """Steps the variables once.

        Args:
            grads: Their gradients.
            trainable_variables: The variables. Defaults to `None`, those that
                the optimizer was built with.
        """
        if self._untracked.rates is not None:
            rates, step = self._untracked.rates
            last = tf.size(rates, tf.int64) - 1
            place = tf.minimum(step, last)
            self._learning_rate.assign(tf.gather(rates, place))
            step.assign_add(1)
        # One step in so many, where gradients are accumulated.
        before = keras.ops.add(self.iterations, 0)
        super().apply(grads, trainable_variables)
        done = keras.ops.subtract(self.iterations, before)
        for count in self._counts:
            count.assign_add(done)

    def update_step(
        self,
        gradient: Any,
        variable: Any,
        learning_rate: Any,
    ) -> None:
        """Steps one variable.

        Args:
            gradient: Its gradient.
            variable: The variable; under a `tf.distribute` strategy the copy
                of one device.
            learning_rate: The current rate, before the multiplier.
        """
        step = self._active(variable)
        if step is None:
            return
        if step.multiplier != 1:
            learning_rate = learning_rate * step.multiplier
        decay = self._weight_decay_of(step.optimizer, variable)
        if decay is not None:
            rate = keras.ops.cast(learning_rate, variable.dtype)
            self.assign_sub(variable, variable * decay * rate)
        for pull in self._untracked.pulls.get(self._var_key(variable), ()):
            self._draw(variable, pull, learning_rate)
        step.optimizer.update_step(gradient, variable, learning_rate)

    def averages(self) -> dict[int, keras.Variable]:
        """Returns the moving averages by `id(variable)`, with `use_ema`.

        Returns:
            Dict of variables, empty before the first step and without
            `use_ema`.
        """
        begun = self.built and self.use_ema
        if not begun or not keras.ops.convert_to_numpy(self.iterations):
            return {}
        pairs = zip(
            self._trainable_variables,
            self._model_variables_moving_average,
            strict=True,
        )
        return {id(variable): average for variable, average in pairs}

    def get_config(self) -> dict[str, Any]:
        """Returns what the optimizer is made with, `pulls` excepted."""
        own = super().get_config()
        template = self._untracked.template
        serialized = keras.saving.serialize_keras_object(template)
        serialized["config"].update(
            (key, own[key])
            for key in ("learning_rate", *OFF)
            if key in serialized["config"]
        )
        config = {
            "name": self.name,
            "optimizer": serialized,
            "multipliers": self.multipliers and dict(self.multipliers),
        }
        if self.built:
            config["variables"] = [
                self._note(v) for v in self._trainable_variables
            ]
        return config

    @classmethod
    def from_config(
        cls,
        config: dict[str, Any],
        custom_objects: dict[str, Any] | None = None,
    ) -> LearningRateMultiplier:
        """Makes an optimizer from what `get_config` returned.

        Args:
            config: As returned by `get_config`.
            custom_objects: Classes by name. Defaults to `None`.
        """
        config = dict(config)
        saved = config.pop("variables", [])
        optimizer = keras.saving.deserialize_keras_object(
            config.pop("optimizer"), custom_objects=custom_objects
        )
        made = cls(optimizer, **config)
        made._saved = saved
        return made

    def _apply_weight_decay(self, variables: Sequence[Any]) -> None:
        """Nothing: `update_step` decays, with the rate of each variable."""

    def _backend_update_step(
        self, grads: Any, trainable_variables: Any, learning_rate: Any
    ) -> None:
        # What an optimizer does once for each step, before the variables: the
        # product of momenta of Nadam.
        kind = type(self._untracked.template)
        if overrides(kind, "_backend_update_step"):
            for step in filter(None, map(self._active, trainable_variables)):
                step.optimizer._backend_update_step([], [], learning_rate)
        super()._backend_update_step(grads, trainable_variables, learning_rate)

    def _backend_apply_gradients(
        self, grads: Any, trainable_variables: Any
    ) -> None:
        if not self.takes_sums or not self.gradient_accumulation_steps:
            super()._backend_apply_gradients(grads, trainable_variables)
            return
        # Keras asks within a replica whether it is time for a step, and in a
        # branch of that TensorFlow does not let replicas meet.
        context = tf.distribute.get_replica_context()
        context.merge_call(
            self._step_or_wait, args=(list(grads), list(trainable_variables))
        )
        if self.use_ema:
            self._update_model_variables_moving_average(
                self._trainable_variables
            )

    def _step_or_wait(
        self, strategy: Any, grads: Any, trainable_variables: Any
    ) -> None:
        steps = self.gradient_accumulation_steps
        variables = [
            strategy.experimental_local_results(v)[0]
            for v in trainable_variables
        ]
        sums = [
            self._accumulated_gradients[self._get_variable_index(v)]
            for v in variables
        ]

        def step(grads: Any) -> None:
            means = [
                (g + total) / steps
                for g, total in zip(grads, sums, strict=True)
            ]
            means = self._clip_gradients(means)
            self._backend_update_step(means, variables, self.learning_rate)
            self._backend_reset_gradient_accumulators()

        def wait(grads: Any) -> None:
            self._backend_increment_gradient_accumulators(grads, sums)

        def on_all(function: Any) -> Any:
            return lambda: strategy.extended.call_for_each_replica(
                function, args=(grads,)
            )

        due = keras.ops.equal((self._iterations + 1) % steps, 0)
        keras.ops.cond(due, on_all(step), on_all(wait))

    def _all_reduce_sum_gradients(self, grads_and_vars: Any) -> Any:
        # Keras sums them after it clipped those of each replica by itself.
        if self.takes_sums:
            return list(grads_and_vars)
        return super()._all_reduce_sum_gradients(grads_and_vars)

    def _note(self, variable: keras.Variable) -> dict[str, Any]:
        """What a file must say of a variable for training to go on."""
        step = self._active(variable)
        shared = [id(count) for count in self._counts]
        return {
            "name": variable.name,
            "shape": list(variable.shape),
            "multiplier": self._multiplier_of(variable),
            "decays": self._use_weight_decay(variable.value),
            "count": shared.index(id(step.count)) if step else 0,
        }

    def _settings(self) -> dict[str, Any]:
        """What moments depend on."""
        config = self._untracked.template.get_config()
        others = {"name", "learning_rate", *OFF}
        kept = {k: v for k, v in config.items() if k not in others}
        return {"class": type(self._untracked.template).__name__, **kept}

    def _begin(self, variable: keras.Variable, multiplier: float) -> _Step:
        # One optimizer for each variable, so that a later phase can go on with
        # any of them.
        kind = type(self._untracked.template)
        optimizer = without_rates(kind, self._untracked.config)
        before = list(optimizer.variables)
        optimizer.build([variable])
        slots = [
            v
            for v in optimizer.variables
            if not any(v is other for other in before)
        ]
        return _Step(optimizer, slots, multiplier, optimizer.iterations)

    def _active(self, variable: Any) -> _Step | None:
        """What steps a variable; `None` if its multiplier is 0."""
        return self._untracked.steps.get(self._var_key(variable))

    def _share_counts(
        self, active: list[_Step | None], saved: list[dict[str, Any]]
    ) -> None:
        """Gives variables that began together one step count.

        Not one for all: under Adam with the count of an earlier phase, a
        variable that is new would not be corrected for its empty moments, and
        take steps up to 6.5 times too large.
        """
        counts: dict[int, keras.Variable] = {}
        for index, step in enumerate(active):
            if step is None:
                continue
            iterations = step.count
            # All counts of a saved optimizer are 0 until its state is loaded.
            birth = (
                saved[index]["count"]
                if saved
                else int(keras.ops.convert_to_numpy(iterations))
            )
            if birth not in counts:
                counts[birth] = self.add_variable(
                    shape=(),
                    initializer="zeros",
                    dtype="int",
                    aggregation="only_first_replica",
                    name=f"iteration_{len(counts)}",
                )
                counts[birth].assign(iterations)
                if birth and not saved:
                    self._untracked.carried.append((counts[birth], iterations))
            step.count = step.optimizer._iterations = counts[birth]
        self._counts = list(counts.values())

    def _weight_decay_of(
        self, optimizer: keras.optimizers.Optimizer, variable: Any
    ) -> float | None:
        decay = self.weight_decay
        is_muon = isinstance(optimizer, keras.optimizers.Muon)
        if is_muon and optimizer.adam_velocities[0] is not None:
            # Muon steps some variables by Adam, with a decay of its own.
            decay = optimizer.adam_weight_decay
        return decay if self._use_weight_decay(variable) else None

    def _draw(
        self, variable: Any, pull: DecoupledDecay, learning_rate: Any
    ) -> None:
        rate = keras.ops.cast(learning_rate, variable.dtype)
        strength = keras.ops.cast(pull.strength, variable.dtype)
        distance = variable
        if pull.start is not None:
            distance = variable - keras.ops.cast(pull.start, variable.dtype)
        self.assign_sub(variable, distance * rate * strength)

    def _multiplier_of(self, variable: keras.Variable) -> float:
        if self.multipliers is None:
            return 1.0
        if variable.path not in self.multipliers:
            raise ValueError(
                "`multipliers` must hold the path of every variable that "
                f"trains, and lack {variable.path!r}."
                f"{did_you_mean(variable.path, self.multipliers)} Make them "
                "from the model that is trained, with `layer_decay` or "
                "`block_multipliers`."
            )
        return self.multipliers[variable.path]
