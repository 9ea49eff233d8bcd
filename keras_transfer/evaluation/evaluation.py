"""What a model's outputs are worth: metrics, intervals, mistakes."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from keras_transfer._utils.checks import did_you_mean, is_integer
from keras_transfer.evaluation import metrics
from keras_transfer.evaluation.intervals import student, wilson
from keras_transfer.evaluation.metrics import ClassScore, Confusion, Mistake

KINDS = ("classification", "multi-label", "regression")


@dataclasses.dataclass(frozen=True, repr=False, eq=False)
class Evaluation(Mapping[str, float]):
    """Metrics of a model on labelled examples, with each single output.

    A read-only mapping from the names of metrics to numbers, made by
    `evaluate_outputs`; `str(evaluation)` is a table.

    Args:
        metrics: Number by name.
        ids: The examples' ids, `n` of them.
        labels: int64 `(n,)` class indices; int64 0/1 `(n, num_classes)` of
            several labels; float64 `(n, ...)` in regression.
        outputs: The model's outputs, float32 `(n, ...)`.
        losses: The loss of each example, float64 `(n,)`.
        class_names: Names of the classes; `()` in regression.
        kind: `"classification"`, `"multi-label"` or `"regression"`.
        from_logits: Whether `outputs` are logits. Defaults to `False`.

    Example:

    >>> evaluation = evaluate_outputs([[0.9, 0.1], [0.8, 0.2]], [0, 1])
    >>> dict(evaluation)["accuracy"]
    0.5
    >>> evaluation.interval("accuracy")  # doctest: +ELLIPSIS
    (0.094..., 0.905...)
    """

    metrics: Mapping[str, float]
    ids: tuple[str, ...]
    labels: np.ndarray
    outputs: np.ndarray
    losses: np.ndarray
    class_names: tuple[str, ...]
    kind: str
    from_logits: bool = False

    def __getitem__(self, name: str) -> float:
        return self.metrics[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.metrics)

    def __len__(self) -> int:
        return len(self.metrics)

    @property
    def probabilities(self) -> np.ndarray:
        """Probabilities by class, float64 `(n, num_classes)`."""
        self._need_classes("probabilities")
        logits = self.outputs.astype("float64")
        if not self.from_logits:
            return logits
        if self.kind == "multi-label":
            return np.exp(-np.logaddexp(0, -logits))
        return np.exp(metrics.log_softmax(logits))

    @property
    def predictions(self) -> np.ndarray:
        """What the model says, in the form of `labels`."""
        if self.kind == "classification":
            return self.outputs.argmax(axis=1)
        if self.kind == "multi-label":
            threshold = 0.0 if self.from_logits else 0.5
            return (self.outputs > threshold).astype("int64")
        return self.outputs

    def interval(
        self, metric: str = "accuracy", confidence: float = 0.95
    ) -> tuple[float, float]:
        """Returns a confidence interval for a metric on unseen examples.

        Wilson's for a share of the examples (accuracy, exact match); Student's
        over examples for other means. The accuracy of several labels is such a
        mean, since the labels of one image do not err independently.

        Args:
            metric: A key of this mapping. Defaults to `"accuracy"`.
            confidence: Probability in `(0, 1)`. Defaults to `0.95`.

        Returns:
            Tuple `(low, high)`.

        Raises:
            ValueError: If the metric is unknown or no mean over examples (R2),
                there are fewer examples than two for Student's interval, or
                `confidence` is out of range.
        """
        values = self._values(metric)
        if values.dtype == bool:
            return wilson(int(values.sum()), len(values), confidence)
        if len(values) < 2:
            raise ValueError(
                "An interval for a mean needs at least two examples. Received: "
                f'{len(values)}, metric="{metric}".'
            )
        mean, half_width = student(values, confidence)
        most = 1.0 if metric == "accuracy" else np.inf
        return max(mean - half_width, 0.0), min(mean + half_width, most)

    def confusion_matrix(self) -> np.ndarray:
        """Counts how often each class was taken for each.

        Returns:
            int64 `(num_classes, num_classes)`: rows are the true classes,
            columns the predicted ones.

        Raises:
            ValueError: If the classes do not exclude each other, or there are
                none.
        """
        self._need_classes("confusion_matrix")
        if self.kind == "multi-label":
            raise ValueError(
                "`confusion_matrix` needs one class per example: with several "
                "labels none is taken for another. Received: "
                'kind="multi-label". Use `per_class()`.'
            )
        size = len(self.class_names)
        pairs = self.labels * size + self.predictions
        return np.bincount(pairs, minlength=size * size).reshape(size, size)

    def most_confused(self, count: int = 10) -> tuple[Confusion, ...]:
        """Returns the pairs of classes that were confused most often.

        Args:
            count: At most how many. Defaults to `10`.

        Returns:
            Tuple of `Confusion` (true, predicted, count), most frequent first.

        Raises:
            ValueError: As `confusion_matrix`, or if `count` is no integer
                from 0.
        """
        _check_count(count)
        matrix = self.confusion_matrix()
        np.fill_diagonal(matrix, 0)
        order = np.argsort(-matrix, axis=None, kind="stable")[:count]
        return tuple(
            Confusion(
                self.class_names[row],
                self.class_names[column],
                int(matrix[row, column]),
            )
            for row, column in zip(
                *np.unravel_index(order, matrix.shape), strict=True
            )
            if matrix[row, column]
        )

    def top_losses(self, count: int = 10) -> tuple[Mistake, ...]:
        """Returns the examples with the largest loss.

        Args:
            count: At most how many. Defaults to `10`.

        Returns:
            Tuple of `Mistake` (id, true, predicted, confidence, loss), largest
            loss first.

        Raises:
            ValueError: If `count` is no integer from 0.
        """
        _check_count(count)
        order = np.argsort(-self.losses, kind="stable")[:count]
        confidences = self._confidences()
        predictions = self.predictions
        return tuple(
            Mistake(
                self.ids[i],
                self._named(self.labels[i]),
                self._named(predictions[i]),
                float(confidences[i]),
                float(self.losses[i]),
            )
            for i in order
        )

    def per_class(self) -> dict[str, ClassScore]:
        """Scores each class by itself.

        Returns:
            Dict of class name to `ClassScore` (precision, recall, f1,
            support).

        Raises:
            ValueError: If there are no classes.
        """
        self._need_classes("per_class")
        if self.kind == "classification":
            eye = np.eye(len(self.class_names), dtype="int64")
            true, predicted = eye[self.labels], eye[self.predictions]
        else:
            true, predicted = self.labels, self.predictions
        hits, support = (true & predicted).sum(0), true.sum(0)
        found = predicted.sum(0)
        precision = metrics.ratio(hits, found)
        recall = metrics.ratio(hits, support)
        f1 = metrics.ratio(2 * hits, support + found)
        return {
            name: ClassScore(
                float(precision[i]),
                float(recall[i]),
                float(f1[i]),
                int(support[i]),
            )
            for i, name in enumerate(self.class_names)
        }

    def __repr__(self) -> str:
        found = ", ".join(f"{k} {v:.4g}" for k, v in self.metrics.items())
        return f"<Evaluation: {found}, {len(self.ids)} examples>"

    def __str__(self) -> str:
        head = f"{len(self.ids)} examples"
        if self.class_names:
            head += f", {len(self.class_names)} classes"
        width = max(map(len, self.metrics))
        lines = [f"{head}; 95 % intervals"]
        for name, value in self.metrics.items():
            line = f"  {name:<{width}}  {value:>9.4f}"
            if name != "r2" and (
                len(self.ids) > 1 or self._values(name).dtype == bool
            ):
                low, high = self.interval(name)
                line += f"  [{low:.4f}, {high:.4f}]"
            lines.append(line)
        if self.kind == "classification":
            pairs = self.most_confused(5)
            if pairs:
                lines.append("most confused (true -> predicted: examples)")
            lines += [f"  {t} -> {p}: {number}" for t, p, number in pairs]
        return "\n".join(lines)

    def _values(self, metric: str) -> np.ndarray:
        """The values by example whose mean a metric is; bool for a share."""
        if metric not in self.metrics:
            raise ValueError(
                f"`metric` must be one of {', '.join(self.metrics)}. Received: "
                f"metric={metric!r}.{did_you_mean(str(metric), self.metrics)}"
            )
        if metric == "r2":
            raise ValueError(
                "`metric` must be a mean over examples, which R2 is not. "
                'Received: metric="r2". Use "mse" or "mae".'
            )
        if metric in ("loss", "mse"):
            return self.losses
        if metric == "mae":
            errors = np.abs(self.outputs.astype("float64") - self.labels)
            return metrics.rows(errors).mean(axis=1)
        right = self.predictions == self.labels
        if self.kind == "classification":
            return right
        return right.all(axis=1) if metric == "exact_match" else right.mean(1)

    def _confidences(self) -> np.ndarray:
        if self.kind == "regression":
            return np.full(len(self.ids), np.nan)
        found = self.probabilities
        if self.kind == "multi-label":
            return np.maximum(found, 1 - found).min(axis=1)
        return found.max(axis=1)

    def _named(self, label: np.ndarray) -> Any:
        if self.kind == "classification":
            return self.class_names[int(label)]
        if self.kind == "multi-label":
            return ";".join(self.class_names[i] for i in np.flatnonzero(label))
        return label.tolist()

    def _need_classes(self, what: str) -> None:
        if self.kind == "regression":
            raise ValueError(
                f"`{what}` needs classes, and a regression has none. Received: "
                'kind="regression". Use `top_losses()`.'
            )


def evaluate_outputs(
    outputs: np.ndarray | Sequence[Any],
    labels: np.ndarray | Sequence[Any],
    *,
    ids: Sequence[str] | None = None,
    class_names: Sequence[str] | None = None,
    kind: str = "classification",
    from_logits: bool = False,
) -> Evaluation:
    """Compares the outputs of a model with the labels, in float64.

    Metrics by kind, all of them means over examples but for the last:
    `"classification"`: `loss` (cross-entropy, `-log p(label)`), `accuracy`;
    `"multi-label"`: `loss` (binary cross-entropy, mean over classes),
    `accuracy` (of all decisions at 0.5), `exact_match` (all decisions of an
    example right); `"regression"`: `loss` and `mse` (the same), `mae`, `r2`.

    Probabilities are clipped to `[1e-7, 1 - 1e-7]`, as Keras does. (Its
    `evaluate` sees the logits below a softmax and does not clip: its loss is
    larger where a model is surer than that, and wrong.)

    Args:
        outputs: What `model.predict` returned: `(n, num_classes)`; `(n, ...)`
            in regression.
        labels: Class indices `(n,)` or one-hot `(n, num_classes)`; 0/1
            `(n, num_classes)` of several labels; `(n, ...)` in regression.
        ids: One string for each example. Defaults to `None`: `"0"`, `"1"`...
        class_names: Names of the classes. Defaults to `None`: `"0"`, `"1"`...
        kind: `"classification"`, `"multi-label"` (any number of classes an
            example, and yes or no) or `"regression"`. Defaults to
            `"classification"`.
        from_logits: Whether `outputs` are logits instead of probabilities.
            Defaults to `False`.

    Returns:
        An `Evaluation`.

    Raises:
        ValueError: If shapes do not fit each other, outputs are not finite or
            no probabilities, or labels are out of range.

    Example:

    >>> outputs = [[0.9, 0.1], [0.3, 0.7], [0.6, 0.4]]
    >>> print(evaluate_outputs(outputs, [0, 1, 1], class_names=["cat", "dog"]))
    3 examples, 2 classes; 95 % intervals
      loss         0.4594  [0.0000, 1.4907]
      accuracy     0.6667  [0.2077, 0.9385]
    most confused (true -> predicted: examples)
      dog -> cat: 1
    """
    if kind not in KINDS:
        raise ValueError(
            f"`kind` must be one of {', '.join(map(repr, KINDS))}. Received: "
            f"kind={kind!r}.{did_you_mean(str(kind), KINDS)}"
        )
    with np.errstate(over="ignore"):  # becomes infinity, which is refused
        stored = np.array(outputs, "float32")
    found, targets = stored.astype("float64"), np.asarray(labels)
    metrics.check_lengths(found, targets, ids)
    if kind == "regression":
        if class_names is not None or from_logits:
            raise ValueError(
                "`class_names` and `from_logits` are for classes. Received: "
                f'kind="regression", class_names={class_names!r:.100}, '
                f"from_logits={from_logits}."
            )
        names: tuple[str, ...] = ()
        targets = metrics.check_numbers(targets, found)
        numbers, losses = metrics.regression(found, targets)
    else:
        names = metrics.check_classes(found, class_names, kind, from_logits)
        if kind == "multi-label":
            targets = metrics.check_multi_hot(targets, found)
            numbers, losses = metrics.multi_label(found, targets, from_logits)
        else:
            targets = metrics.check_labels(targets, len(names))
            numbers, losses = metrics.classification(
                found, targets, from_logits
            )
    for array in (stored, targets, losses):
        array.setflags(write=False)
    return Evaluation(
        metrics={name: float(value) for name, value in numbers.items()},
        ids=tuple(map(str, range(len(found)) if ids is None else ids)),
        labels=targets,
        outputs=stored,
        losses=losses,
        class_names=names,
        kind=kind,
        from_logits=from_logits,
    )


def _check_count(count: Any) -> None:
    if not is_integer(count) or count < 0:
        raise ValueError(
            f"`count` must be an integer from 0. Received: count={count!r}."
        )
