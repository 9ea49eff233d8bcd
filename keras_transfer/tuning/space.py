"""The search space, and the run that one choice of values describes."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, NoReturn

import keras

from keras_transfer._utils.checks import did_you_mean, is_integer
from keras_transfer.optimizers.given_rate import rate_of
from keras_transfer.penalties import L2SP, Penalty
from keras_transfer.strategies.phase import Phase
from keras_transfer.strategies.strategies import resolve
from keras_transfer.structure.model_parts import parts_of

# Fields that can be a range, and whether their scale is logarithmic.
_RANGES = {
    "learning_rate": True,
    "lambda_": True,
    "layer_decay": False,
    "dropout": False,
    "label_smoothing": False,
}


# Fields that need another model, and fields that need another training step.
HEAD = ("backbone", "dropout", "hidden_units")


SETTINGS = ("optimizer", "label_smoothing", "views")


_LAMBDA = [0, (1e-4, 1.0)]


# Choice that stands for a number from the range in a list of options.
_BETWEEN = "between"


_CHOOSING = "{}_from"


class Range(NamedTuple):
    """Numbers from `low` to `high`."""

    low: float
    high: float


@dataclasses.dataclass(frozen=True)
class SearchSpace:
    """The search space of `min L(theta) + lambda R(theta)`.

    Each field is a fixed value; a list of options; or, for numbers, a range
    `(low, high)`, on a logarithmic scale for `learning_rate` and `lambda_`. A
    list may hold one range: `[0, (1e-4, 1)]` is 0, or a number in the range.

    Args:
        learning_rate: Highest rate of the last phase. Defaults to `(1e-5,
            1e-2)`.
        lambda_: Factor of the coefficients of `penalty`. Defaults to `[0,
            (1e-4, 1.0)]`.
        depth: Blocks to train, counted from the output, or `"all"`. Defaults to
            `None`: those of 0, 1, 2 and 4 that the backbone has.
        strategy: `"lp-ft"`, `"fine-tune"`, `"linear-probe"`,
            `"gradual-unfreezing"`, or a tuple of `Phase`, whose last one takes
            depth and rate; in a list any of them. Defaults to `None`, as
            `fine_tune` chooses.
        penalty: `R(theta)`, with the coefficients that `lambda_` multiplies.
            Defaults to `L2SP(alpha=1.0, beta=1.0)`.
        layer_decay: Factor in `(0, 1]` of the rate from block to block.
            Defaults to `None`, that of the strategy.
        optimizer: Name of a Keras optimizer, or one. Defaults to `"adam"`.
        label_smoothing: Fraction in `[0, 1)`. Defaults to `0.0`.
        dropout: Dropout rate of the head, in `[0, 1)`. Defaults to `0.0`.
        hidden_units: Tuple of the units of dense layers in the head. Defaults
            to `()`.
        views: Fixed views of each training image, with `augment`. Defaults to
            `None`.
        backbone: Backbone from `load_backbone`, or a name, in place of the
            first argument of `search`. Defaults to `None`.

    Raises:
        ValueError: If a value is out of range, or a list is empty.

    Example:

    >>> space = SearchSpace(learning_rate=[1e-4, 1e-3], depth=[0, 1])
    >>> space.count()
    >>> SearchSpace(learning_rate=1e-3, lambda_=[0, 0.1], depth=[0, 1]).count()
    4
    """

    learning_rate: Any = (1e-5, 1e-2)
    lambda_: Any = dataclasses.field(default_factory=lambda: list(_LAMBDA))
    depth: Any = None
    strategy: Any = None
    penalty: Any = dataclasses.field(
        default_factory=lambda: L2SP(alpha=1.0, beta=1.0)
    )
    layer_decay: Any = None
    optimizer: Any = "adam"
    label_smoothing: Any = 0.0
    dropout: Any = 0.0
    hidden_units: Any = ()
    views: Any = None
    backbone: Any = None

    def __post_init__(self) -> None:
        if self.options("penalty") == [None]:
            if self.lambda_ == _LAMBDA:
                object.__setattr__(self, "lambda_", 0)
            elif len(self.options("lambda_")) > 1 or _is_pair(self.lambda_):
                _refuse("lambda_", "0 where penalty=None", self.lambda_)
        for name, options in self._fields():
            if not options:
                _refuse(name, "a list with at least one value", [])
            for option in options:
                _check(name, option)

    def count(self) -> int | None:
        """Returns the number of choices; `None` with a range."""
        sizes = []
        for _, options in self._fields():
            if any(isinstance(option, Range) for option in options):
                return None
            sizes.append(len(options))
        return math.prod(sizes)

    def for_model(self, model: keras.Model) -> SearchSpace:
        """Returns the space with the depths of a model, as integers.

        Args:
            model: The model.

        Raises:
            ValueError: If a depth exceeds the number of blocks.
        """
        count = sum(bool(block.layers) for block in parts_of(model).blocks)
        if self.depth is None:
            depths: list[Any] = [d for d in (0, 1, 2, 4) if d <= count]
        else:
            depths = [count if d == "all" else d for d in self.options("depth")]
        for depth in depths:
            if not is_integer(depth) or not 0 <= depth <= count:
                _refuse("depth", f'integers in [0, {count}], or "all"', depth)
        return dataclasses.replace(self, depth=list(dict.fromkeys(depths)))

    def options(self, name: str) -> list[Any]:
        """Returns the values of a field as a list, pairs as `Range`.

        Args:
            name: Name of the field.
        """
        value = getattr(self, name)
        # A tuple is the phases of a strategy, the units of a head, or a range.
        if not isinstance(value, list):
            value = [value]
        if name not in _RANGES:
            return list(value)
        return [
            Range(*map(float, option)) if _is_pair(option) else option
            for option in value
        ]

    def each(self, *names: str) -> list[dict[str, Any]]:
        """Returns all choices of some fields without ranges.

        Args:
            *names: Names of the fields.
        """
        options = [self.options(name) for name in names]
        return [
            dict(zip(names, values, strict=True))
            for values in itertools.product(*options)
        ]

    def declare(self, hp: Any) -> dict[str, Any]:
        """Registers the fields that vary, and returns the chosen values.

        Args:
            hp: `keras_tuner.HyperParameters`.

        Returns:
            The values of all fields, by name.
        """
        return {
            name: _declare(hp, name.rstrip("_"), options, name)
            for name, options in self._fields()
        }

    def _fields(self) -> Iterator[tuple[str, list[Any]]]:
        for field in dataclasses.fields(self):
            yield field.name, self.options(field.name)


def _declare(hp: Any, label: str, options: list[Any], name: str) -> Any:
    ranges = [option for option in options if isinstance(option, Range)]
    if len(options) == 1 and not ranges:
        return options[0]
    if len(ranges) > 1:
        _refuse(name, "a list with at most one pair", options)
    sampling = "log" if _RANGES.get(name) else "linear"
    if len(options) == 1:
        return hp.Float(label, *ranges[0], sampling=sampling)
    # Keras-Tuner chooses among plain values of one type.
    by_label = dict(zip(_labels(options), options, strict=True))
    if all(isinstance(option, int | float) for option in options):
        whole = all(is_integer(option) for option in options)
        kind = int if whole else float
        return hp.Choice(label, [kind(option) for option in options])
    if not ranges:
        return by_label[hp.Choice(label, list(by_label))]
    choosing = _CHOOSING.format(label)
    chosen = hp.Choice(choosing, list(by_label))
    with hp.conditional_scope(choosing, [_BETWEEN]):
        # Declared even if not chosen: an oracle must know the parameter.
        number = hp.Float(label, *ranges[0], sampling=sampling)
    return number if chosen == _BETWEEN else by_label[chosen]


def _labels(options: Sequence[Any]) -> list[str]:
    """Returns names of options, equal in each process; numbers duplicates."""
    labels = [_label(option) for option in options]
    return [
        f"{label} {place + 1}" if labels.count(label) > 1 else label
        for place, label in enumerate(labels)
    ]


def _label(option: Any) -> str:
    if isinstance(option, Range):
        return _BETWEEN
    if isinstance(option, str):
        return option
    # Names that Keras generates end in a counter of the process.
    if isinstance(option, keras.Model) and not option.name[-1:].isdigit():
        return str(option.name)
    text = repr(option)
    return type(option).__name__ if " at 0x" in text or "<" in text else text


class Choice(NamedTuple):
    """One choice of values from a space.

    Attributes:
        values: The values of all fields of the space, by name.
    """

    values: Mapping[str, Any]

    @property
    def group(self) -> tuple[str, ...]:
        """The values that choices in one training session share."""
        return tuple(
            f"{name}={value!r} {id(value) if hasattr(value, 'name') else ''}"
            for name in (*HEAD, *SETTINGS)
            for value in [self.values[name]]
        )

    def phases(
        self, default: str, epochs: int | None, has_head: bool = True
    ) -> tuple[Phase, ...]:
        """Returns the phases that the choice trains in.

        Args:
            default: Name of the strategy where the space names none.
            epochs: Passes over the data in the main phase, or `None`.
            has_head: Whether the model has a head. Defaults to `True`.

        Raises:
            ValueError: If depth and strategy do not fit each other.
        """
        values = self.values
        strategy = values["strategy"] or default
        depth, rate = values["depth"], float(values["learning_rate"])
        if isinstance(strategy, str):
            if strategy == "gradual-unfreezing" and not depth:
                strategy = "linear-probe"  # Nothing to unfreeze.
            phases = resolve(
                strategy,
                depth=int(depth),
                learning_rate=rate,
                epochs=epochs,
                has_head=has_head,
            )
        else:
            *first, last = resolve(strategy)
            last = dataclasses.replace(
                last,
                depth=int(depth),
                learning_rate=rate,
                epochs=last.epochs if epochs is None else epochs,
            )
            phases = (*first, last)
        if values["layer_decay"] is None:
            return phases
        decay = float(values["layer_decay"])
        return tuple(
            dataclasses.replace(phase, layer_decay=decay)
            if phase.depth
            else phase
            for phase in phases
        )

    def penalty(self) -> Penalty | None:
        """Returns the penalty with its coefficients multiplied by lambda."""
        penalty = self.values["penalty"]
        if penalty is None:
            return None
        factor = float(self.values["lambda_"])
        return dataclasses.replace(
            penalty,
            **{
                field.name: factor * getattr(penalty, field.name)
                for field in dataclasses.fields(penalty)
                if isinstance(getattr(penalty, field.name), float)
            },
        )


def _is_pair(option: Any) -> bool:
    return (
        isinstance(option, tuple)
        and len(option) == 2
        and all(isinstance(end, int | float) for end in option)
    )


def _check(name: str, option: Any) -> None:
    if isinstance(option, Range):
        if not 0 <= option.low < option.high < math.inf:
            rule = "a pair of numbers from 0, the lower one first"
            _refuse(name, rule, tuple(option))
        if _RANGES[name] and not option.low > 0:
            _refuse(name, "a pair above 0; [0, (low, high)] adds 0", option)
        ends: Sequence[Any] = option
    else:
        ends = [option]
    for value in ends:
        _check_value(name, value)


def _check_value(name: str, value: Any) -> None:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if name == "learning_rate" and not (number and 0 < value < math.inf):
        _refuse(name, "numbers above 0", value)
    if name == "lambda_" and not (number and 0 <= value < math.inf):
        _refuse(name, "numbers of at least 0", value)
    if name in ("dropout", "label_smoothing") and not (
        number and 0 <= value < 1
    ):
        _refuse(name, "fractions in [0, 1)", value)
    is_factor = value is None or (number and 0 < value <= 1)
    if name == "layer_decay" and not is_factor:
        _refuse(name, "factors in (0, 1]", value)
    if name == "depth" and not (
        value in (None, "all") or (is_integer(value) and value >= 0)
    ):
        _refuse(name, 'a list of integers from 0, or "all"', value)
    if name == "penalty" and not isinstance(value, Penalty | None):
        _refuse(name, "penalties such as L2SP(1.0, 1.0), or None", value)
    if name == "strategy" and value == "from-scratch":
        rule = "strategies that start from pretrained weights"
        _refuse(name, rule, value)
    if name == "strategy" and value is not None:
        resolve(value)
    if name == "optimizer":
        _check_optimizer(value)


def check_fields(values: Mapping[str, Any]) -> SearchSpace:
    """Makes a space from a dict, as in `space={"depth": [0, 1]}`."""
    names = [field.name for field in dataclasses.fields(SearchSpace)]
    for name in values:
        if name not in names:
            raise ValueError(
                f"`space` must have the keys {', '.join(names)}. Received: "
                f"{name!r}.{did_you_mean(str(name), names)}"
            )
    return SearchSpace(**values)


def _refuse(name: str, rule: str, value: object) -> NoReturn:
    raise ValueError(
        f"`{name}` must be {rule}. Received: {name}={value!r:.200}"
    )


def _check_optimizer(value: Any) -> None:
    optimizer = keras.optimizers.get(value)
    if not isinstance(value, str) and rate_of(optimizer) is not None:
        _refuse(
            "optimizer",
            "optimizers with the default rate of their class, since "
            "`learning_rate` of the space sets the rate",
            f"{type(value).__name__} with a learning rate of its own",
        )
