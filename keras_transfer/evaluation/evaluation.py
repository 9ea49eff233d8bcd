"""`Evaluation`: metrics, intervals and mistakes of a model's outputs."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from keras_transfer._utils.checks import check_integer, did_you_mean
from keras_transfer.evaluation import metrics
from keras_transfer.evaluation.intervals import student, wilson
from keras_transfer.evaluation.metrics import ClassScore, Confusion, Mistake

KINDS = ("classification", "multi-label", "regression")


@dataclasses.dataclass(frozen=True, repr=False, eq=False)
class Evaluation(Mapping[str, float]):
    """Metrics of a model on labelled examples, with the output for each.

    A read-only mapping from the names of metrics to numbers, made by
    `evaluate_outputs`; `str(evaluation)` is a table.

    Args:
        metrics: The metrics, as numbers by name.
        ids: The ids of the `n` examples.
        labels: int64 `(n,)` class indices; int64 0/1 `(n, num_classes)` for
            several labels (float64 if some are fractions); float64 `(n, ...)`
            in regression.
        outputs: The model's outputs, float32 `(n, ...)`.
        losses: The loss of each example, float64 `(n,)`.
        class_names: Names of the classes; `()` in regression.
        kind: Kind of the labels: `"classification"`, `"multi-label"` or
            `"regression"`.
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
        self._check_classes("probabilities")
        logits = self.outputs.astype("float64")
        if not self.from_logits:
            return logits
        if self.kind == "multi-label":
            return np.exp(-np.logaddexp(0, -logits))
        return np.exp(metrics.log_softmax(logits))

    @property
    def predictions(self) -> np.ndarray:
        """The predictions of the model, in the format of `labels`."""
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

        Wilson's interval for a share of the examples (accuracy, exact match);
        Student's interval over examples for other means. The accuracy of
        several labels is such a mean, since errors in the labels of one image
        are not independent.

        Args:
            metric: A key of this mapping. Defaults to `"accuracy"`.
            confidence: Probability in `(0, 1)`. Defaults to `0.95`.

        Returns:
            Tuple `(low, high)`.

        Raises:
            ValueError: If the metric is unknown or not a mean over examples
                (R2), Student's interval has fewer than two examples, or
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
        largest = 1.0 if metric == "accuracy" else np.inf
        return max(mean - half_width, 0.0), min(mean + half_width, largest)

    def confusion_matrix(self) -> np.ndarray:
        """Returns the number of examples of each class predicted as each class.

        Returns:
            int64 `(num_classes, num_classes)`: rows are the true classes,
            columns the predicted classes.

        Raises:
            ValueError: If the classes are not mutually exclusive, or there are
                none.
        """
        self._check_classes("confusion_matrix")
        if self.kind == "multi-label":
            raise ValueError(
                "`confusion_matrix` needs one class per example: several "
                "labels cannot be confused with each other. Received: "
                'kind="multi-label". Use `per_class()`.'
            )
        size = len(self.class_names)
        # A pair (true, predicted) as one number: its index in the flat matrix.
        pairs = self.labels * size + self.predictions
        return np.bincount(pairs, minlength=size * size).reshape(size, size)

    def most_confused(self, count: int = 10) -> tuple[Confusion, ...]:
        """Returns the pairs of classes that were confused most often.

        Args:
            count: Maximum number of pairs. Defaults to `10`.

        Returns:
            Tuple of `Confusion` (true, predicted, count), most frequent first.

        Raises:
            ValueError: As `confusion_matrix`, or if `count` is not an integer
                of at least 0.
        """
        check_integer("count", count, 0)
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
            count: Maximum number of examples. Defaults to `10`.

        Returns:
            Tuple of `Mistake` (id, true, predicted, confidence, loss), largest
            loss first.

        Raises:
            ValueError: If `count` is not an integer of at least 0.
        """
        check_integer("count", count, 0)
        order = np.argsort(-self.losses, kind="stable")[:count]
        confidences = self._confidences()
        predictions = self.predictions
        return tuple(
            Mistake(
                self.ids[i],
                self._label_name(self.labels[i]),
                self._label_name(predictions[i]),
                float(confidences[i]),
                float(self.losses[i]),
            )
            for i in order
        )

    def per_class(self) -> dict[str, ClassScore]:
        """Returns precision, recall and F1 of each class.

        Returns:
            Dict of class name to `ClassScore` (precision, recall, f1,
            support).

        Raises:
            ValueError: If there are no classes.
        """
        self._check_classes("per_class")
        if self.kind == "classification":
            eye = np.eye(len(self.class_names), dtype="int64")
            true, predicted = eye[self.labels], eye[self.predictions]
        else:
            true, predicted = self._decisions, self.predictions
        # Counts per class, over examples.  [num_classes]
        hits, support = (true & predicted).sum(0), true.sum(0)
        num_predicted = predicted.sum(0)
        precision = metrics.ratio(hits, num_predicted)
        recall = metrics.ratio(hits, support)
        # 2 p r / (p + r), which is 2 hits / (support + num_predicted).
        f1 = metrics.ratio(2 * hits, support + num_predicted)
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
        values = ", ".join(f"{k} {v:.4g}" for k, v in self.metrics.items())
        return f"<Evaluation: {values}, {len(self.ids)} examples>"

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

    @property
    def _decisions(self) -> np.ndarray:
        """The labels as yes or no: a fraction is yes above one half."""
        return (self.labels > 0.5).astype("int64")

    def _values(self, metric: str) -> np.ndarray:
        """Returns the values whose mean a metric is; booleans for a share."""
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
        if self.kind == "classification":
            return self.predictions == self.labels
        right = self.predictions == self._decisions
        return right.all(axis=1) if metric == "exact_match" else right.mean(1)

    def _confidences(self) -> np.ndarray:
        if self.kind == "regression":
            return np.full(len(self.ids), np.nan)
        probabilities = self.probabilities
        if self.kind == "multi-label":
            # Of the decisions for and against each class, the least certain.
            return np.maximum(probabilities, 1 - probabilities).min(axis=1)
        return probabilities.max(axis=1)

    def _label_name(self, label: np.ndarray) -> Any:
        if self.kind == "classification":
            return self.class_names[int(label)]
        if self.kind == "multi-label":
            chosen = np.flatnonzero(label > 0.5)
            return ";".join(self.class_names[i] for i in chosen)
        return label.tolist()

    def _check_classes(self, method: str) -> None:
        if self.kind == "regression":
            raise ValueError(
                f"`{method}` needs classes, and a regression has none. "
                'Received: kind="regression". Use `top_losses()`.'
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

    Metrics by kind, all of them means over examples except R2:
    `"classification"`: `loss` (cross-entropy, `-log p(label)`), `accuracy`;
    `"multi-label"`: `loss` (binary cross-entropy, mean over classes),
    `accuracy` (of all decisions at 0.5), `exact_match` (all decisions for an
    example correct); `"regression"`: `loss` and `mse` (the same), `mae`, `r2`.

    A label of several that is a fraction counts as yes above 0.5, in all but
    the loss. One class per example may be given as rows of shares that sum to
    1, of which the largest counts.

    Probabilities are clipped to `[1e-7, 1 - 1e-7]`, as in Keras. (Its
    `evaluate` reads the logits below a softmax and does not clip, so its loss
    is larger for wrong predictions of higher confidence.)

    Args:
        outputs: Outputs of `model.predict`: `(n, num_classes)`; `(n, ...)` in
            regression.
        labels: Class indices `(n,)` or one-hot `(n, num_classes)`; 0 to 1
            `(n, num_classes)` for several labels; `(n, ...)` in regression.
        ids: A string for each example. Defaults to `None`, which means `"0"`,
            `"1"`...
        class_names: Names of the classes. Defaults to `None`, which means
            `"0"`, `"1"`...
        kind: Kind of the labels: `"classification"`, `"multi-label"` (any
            number of classes per example, also for a single yes or no) or
            `"regression"`. Defaults to `"classification"`.
        from_logits: Whether `outputs` are logits instead of probabilities.
            Defaults to `False`.

    Returns:
        An `Evaluation`.

    Raises:
        ValueError: If shapes do not match, outputs are not finite or not
            probabilities, or labels are out of range.

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
    with np.errstate(over="ignore"):  # becomes infinity, which raises below
        stored = np.array(outputs, "float32")
    values, targets = stored.astype("float64"), np.asarray(labels)
    metrics.check_lengths(values, targets, ids)
    if kind == "regression":
        if class_names is not None or from_logits:
            raise ValueError(
                "`class_names` and `from_logits` are for classes. Received: "
                f'kind="regression", class_names={class_names!r:.100}, '
                f"from_logits={from_logits}."
            )
        names: tuple[str, ...] = ()
        targets = metrics.check_numbers(targets, values)
        numbers, losses = metrics.regression(values, targets)
    else:
        names = metrics.check_classes(values, class_names, kind, from_logits)
        if kind == "multi-label":
            targets = metrics.check_multi_hot(targets, values)
            numbers, losses = metrics.multi_label(values, targets, from_logits)
        else:
            targets = metrics.check_labels(targets, len(names))
            numbers, losses = metrics.classification(
                values, targets, from_logits
            )
    for array in (stored, targets, losses):
        array.setflags(write=False)
    return Evaluation(
        metrics={name: float(value) for name, value in numbers.items()},
        ids=tuple(map(str, range(len(values)) if ids is None else ids)),
        labels=targets,
        outputs=stored,
        losses=losses,
        class_names=names,
        kind=kind,
        from_logits=from_logits,
    )
