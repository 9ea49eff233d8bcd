"""Metrics that the user adds to those of the task."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple, TypeAlias

import keras
import numpy as np

MetricLike: TypeAlias = str | keras.metrics.Metric | Callable[..., Any]


class ExtraMetric(NamedTuple):
    """A metric of the user, of which each `compile` gets a new one.

    Attributes:
        name: Name of its column.
        make: Function that makes the metric.
        config: Its configuration, which identifies it.
        is_optional: Whether the task's own metric of that name will do.
    """

    name: str
    make: Callable[[], keras.metrics.Metric]
    config: Any
    is_optional: bool


def read_metrics(metrics: Any) -> tuple[ExtraMetric, ...]:
    """Reads the `metrics` argument of `fine_tune`.

    Args:
        metrics: A sequence of Keras metrics, their names or classes, or
            functions of labels and outputs.

    Returns:
        An `ExtraMetric` for each.

    Raises:
        ValueError: If a name is unknown, or two metrics have the same one.
        TypeError: If one is of another type, or cannot be made anew.

    Example:

    >>> [metric.name for metric in read_metrics(["auc"])]
    ['auc']
    """
    if isinstance(metrics, str) or not isinstance(metrics, Sequence):
        raise TypeError(
            "`metrics` must be a sequence of Keras metrics, their names or "
            f"functions. Received: metrics={metrics!r:.100}"
        )
    extra = tuple(map(_read, metrics))
    names = [metric.name for metric in extra]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice or "loss" in names:
        raise ValueError(
            "`metrics` must have different names, none of them 'loss'. "
            f"Received: {', '.join(names)}. Pass `name=` to the metric; for a "
            "function pass `keras.metrics.MeanMetricWrapper(function, "
            "name=...)`."
        )
    return extra


def _read(metric: Any) -> ExtraMetric:
    if isinstance(metric, ExtraMetric):
        return metric
    if isinstance(metric, str):
        alias = {"acc": "accuracy"}.get(metric, metric)
        try:
            made = keras.metrics.get(alias)
        except ValueError as err:
            raise ValueError(
                "`metrics` must hold names of Keras metrics, such as 'auc'. "
                f"Received: {metric!r}. Pass your own as a function or a "
                "`keras.metrics.Metric`."
            ) from err
        # Keras numbers names: the second "auc" of a process is "auc_1".
        name = alias if alias.islower() else _unnumbered(made.name)
        return _of_metric(made, name, is_optional=True)
    if isinstance(metric, type) and issubclass(metric, keras.metrics.Metric):
        made = metric()
        return _of_metric(made, _unnumbered(made.name))
    if type(metric) is keras.metrics.MeanMetricWrapper:
        # Its configuration cannot make a function of the user anew.
        function, options = metric._fn, metric._fn_kwargs
        made = _of_function(function, metric.name, options)
        return made._replace(config=[made.config, metric.name, options])
    if isinstance(metric, keras.metrics.Metric):
        return _of_metric(metric, metric.name)
    if callable(metric):
        return _of_function(
            metric, getattr(metric, "__name__", type(metric).__name__)
        )
    raise TypeError(
        "`metrics` must hold Keras metrics, their names or functions. "
        f"Received: {metric!r:.100}"
    )


def _of_function(
    function: Callable[..., Any],
    name: str,
    options: Mapping[str, Any] = MappingProxyType({}),
) -> ExtraMetric:
    return ExtraMetric(
        name,
        lambda: keras.metrics.MeanMetricWrapper(function, name, **options),
        getattr(function, "__qualname__", name),
        False,
    )


def _unnumbered(name: str) -> str:
    return re.sub(r"_\d+$", "", name)


def _of_metric(
    metric: keras.metrics.Metric, name: str, is_optional: bool = False
) -> ExtraMetric:
    """Reads a metric, which its configuration must be able to make anew."""
    kind = type(metric)
    config = {**metric.get_config(), "name": name}
    advice = (
        f"Received: a {kind.__name__}, "
        "{}. Return all arguments of its `__init__` in `get_config` (each "
        "phase trains with a new metric), or pass a function."
    )
    own = not _is_of_keras(metric)
    parameters = list(inspect.signature(kind.__init__).parameters.values())[1:]
    missing = [
        parameter.name
        for parameter in parameters
        if parameter.kind
        not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
        and parameter.name not in (*config, "name", "dtype")
    ]
    if own and missing:
        raise TypeError(
            "`metrics` must hold metrics that their configuration describes. "
            + advice.format(f"whose `get_config` lacks {', '.join(missing)}")
        )

    def make() -> keras.metrics.Metric:
        made: keras.metrics.Metric = kind.from_config(dict(config))
        return made

    try:
        make()
    except (TypeError, ValueError) as err:
        raise TypeError(
            "`metrics` must hold metrics that `from_config` makes anew. "
            + advice.format(f"where it raises {err}")
        ) from err
    return ExtraMetric(name, make, [kind.__name__, config], is_optional)


def _is_of_keras(metric: keras.metrics.Metric) -> bool:
    kind = type(metric)
    return getattr(keras.metrics, kind.__name__, None) is kind


def for_logits(
    extra: Sequence[ExtraMetric], are_exclusive: bool
) -> tuple[ExtraMetric, ...]:
    """Returns metrics for a model of logits.

    Args:
        extra: The metrics of the user. Those that were given by name, and can
            take logits, are told that they do.
        are_exclusive: Whether the logits are those of a softmax, of which
            metrics that apply a sigmoid are not told.
    """
    return tuple(_for_logits(item, are_exclusive) for item in extra)


def _for_logits(item: ExtraMetric, are_exclusive: bool) -> ExtraMetric:
    metric = item.make() if item.is_optional else None
    if metric is None or "from_logits" not in metric.get_config():
        return item
    if are_exclusive and isinstance(metric, keras.metrics.AUC):
        return item
    config = {**metric.get_config(), "from_logits": True}
    return _of_metric(type(metric).from_config(config), item.name, True)


def join(
    own: Sequence[keras.metrics.Metric], extra: Sequence[ExtraMetric]
) -> list[keras.metrics.Metric]:
    """Joins new metrics of the task with those of the user.

    Args:
        own: The metrics of the task.
        extra: The metrics of the user; one of the same name as the task's
            replaces it, unless only its name was given.

    Returns:
        The metrics, those of the task first.
    """
    known = {metric.name for metric in own}
    added = [m for m in extra if not (m.is_optional and m.name in known)]
    replaced = {metric.name for metric in added}
    kept = [metric for metric in own if metric.name not in replaced]
    return [*kept, *(metric.make() for metric in added)]


def check_metrics(
    extra: Sequence[ExtraMetric],
    labels: np.ndarray,
    units: int,
    own: Sequence[str],
    *,
    label_format: str = "",
    from_logits: bool = False,
) -> None:
    """Raises for a metric that cannot measure these labels.

    Args:
        extra: The metrics.
        labels: Labels of a few examples, as batches have them.
        units: Number of outputs of the model.
        own: Names of the metrics of the task.
        label_format: Format of the labels. Defaults to `""`, unknown.
        from_logits: Whether the outputs are logits. Defaults to `False`.

    Raises:
        ValueError: If a metric expects labels of another format or
            probabilities, or its result is not one number.
    """
    are_shares = label_format in ("soft", "fractions")
    are_shares = are_shares or not np.isin(labels, (0, 1)).all()
    outputs = np.full((len(labels), units), 1 / max(units, 2), np.float32)
    is_column = labels.ndim == 1 or labels.shape[1:] == (1,)
    for item in extra:
        metric = item.make()
        message = (
            f"`metrics` must measure labels of shape {labels.shape} and "
            f"outputs of shape {outputs.shape}. Received: {item.name!r}, "
        )
        kind = type(metric).__name__
        if kind == "Accuracy" and item.is_optional and item.name not in own:
            raise ValueError(
                "`metrics` must not hold 'accuracy' for numbers, which no "
                "output equals. Received: 'accuracy'. Use 'mae' or 'r2_score'."
            )
        by_class = "Categorical" in kind and units > 1
        if by_class and kind.startswith("Sparse") != is_column:
            form = "integers" if is_column else "rows"
            raise ValueError(
                f"{message}a {kind}, and the labels are {form}. Metrics for "
                "integers are the Sparse... ones; rows are made by "
                "`keras.utils.to_categorical(labels, num_classes)`."
            )
        try:
            metric.update_state(labels, outputs)
            result = np.asarray(metric.result())
        except Exception as err:
            raise ValueError(
                f"{message}which raises {type(err).__name__}: {err!s:.300} "
                "Integers become rows by `keras.utils.to_categorical(labels, "
                "num_classes)`."
            ) from err
        if are_shares and _counts_decisions(metric):
            raise ValueError(
                "`metrics` must not count decisions where labels are not 0 or "
                f"1: any label above 0 counts as 1. Received: {item.name!r}, a "
                f"{kind}. Use 'mae', 'binary_crossentropy' or "
                "'categorical_crossentropy', or labels of 0 and 1."
            )
        if from_logits and _compares_probabilities(metric):
            raise ValueError(
                "`metrics` must not compare logits with thresholds between 0 "
                f"and 1. Received: {item.name!r}, a {kind}, and a model whose "
                "outputs are logits. Build it with a sigmoid or a softmax "
                "(`activation=`), or use `keras.metrics.AUC(from_logits=True)`."
            )
        if result.ndim:
            raise ValueError(
                f"{message}whose result has shape {result.shape}, not one "
                "number. Average it, as `F1Score(average='macro')` does."
            )


def _counts_decisions(metric: keras.metrics.Metric) -> bool:
    """Tells whether a metric of Keras takes labels as yes or no."""
    kinds = keras.metrics.BinaryAccuracy, keras.metrics.BinaryIoU
    counts = hasattr(metric, "thresholds") or isinstance(metric, kinds)
    return counts and _is_of_keras(metric)


def _compares_probabilities(metric: keras.metrics.Metric) -> bool:
    """Tells whether a metric of Keras has a threshold for probabilities."""
    if not _is_of_keras(metric) or metric.get_config().get("from_logits"):
        return False
    alone = getattr(metric, "threshold", None)
    thresholds = getattr(metric, "thresholds", alone)
    # Above 0, a logit is yes.
    return thresholds is not None and bool((np.ravel(thresholds) > 0).any())
