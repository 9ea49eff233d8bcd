"""Result of a cross-validation: evaluations by fold, and their intervals."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np

from keras_transfer._utils.checks import did_you_mean
from keras_transfer.evaluation.evaluation import Evaluation, evaluate_outputs
from keras_transfer.evaluation.intervals import paired_interval, student


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class CrossValidation:
    """Result of `cross_validate`; `str()` of it is a table.

    Attributes:
        evaluations: An `Evaluation` for each fold, on its held-out examples.
        histories: A table of epochs, `Run.history`, for each fold.

    Example:

    >>> pair = (arrays.astype("float32"), labels)
    >>> build = functools.partial(build_classifier, backbone, num_classes=3)
    >>> result = cross_validate(
    ...     build, pair, 3, strategy=LinearProbe(exact=True), verbose=0
    ... )
    >>> len(result.scores("accuracy")), len(result.pooled().ids)
    (3, 30)
    """

    evaluations: tuple[Evaluation, ...]
    histories: tuple[dict[str, list[Any]], ...]

    def scores(self, metric: str = "accuracy") -> np.ndarray:
        """Returns a metric by fold.

        Args:
            metric: A key of the evaluations. Defaults to `"accuracy"`.

        Returns:
            float64 array `(folds,)`.

        Raises:
            ValueError: If there is no such metric.
        """
        metrics = self.evaluations[0]
        if metric not in metrics:
            raise ValueError(
                f"`metric` must be one of {', '.join(metrics)}. Received: "
                f"metric={metric!r}.{did_you_mean(str(metric), metrics)}"
            )
        return np.array([fold[metric] for fold in self.evaluations])

    def interval(
        self,
        metric: str = "accuracy",
        confidence: float = 0.95,
        *,
        corrected: bool = True,
    ) -> tuple[float, float]:
        """Returns the mean of a metric over the folds and its half-width.

        `mean -+ t(k - 1) * s * sqrt(1 / k + n_test / n_train)` for `k` folds
        with standard deviation `s` between them, where
        `n_test / n_train = 1 / (k - 1)`. Student's interval,
        `mean -+ t(k - 1) * s * sqrt(1 / k)`, is too narrow, since any two
        folds share most of their training examples. Nadeau and Bengio derived
        the correction for random splits; for folds it is an approximation, as
        that variance has no unbiased estimate. Folds that train with few
        labels per class share fewer examples, and the interval is conservative.

        Args:
            metric: A key of the evaluations. Defaults to `"accuracy"`.
            confidence: Probability in `(0, 1)`. Defaults to `0.95`.
            corrected: Whether to use the first formula, else the second.
                Defaults to `True`.

        Returns:
            Tuple `(mean, half_width)`.

        Raises:
            ValueError: If there is no such metric or `confidence` is out of
                range.

        Reference:
            - Nadeau & Bengio, 2003, https://doi.org/10.1023/A:1024068626366
        """
        mean, half_width = student(self.scores(metric), confidence)
        if corrected:
            half_width *= _correction(len(self.evaluations))
        return mean, half_width

    def minus(
        self,
        other: CrossValidation,
        metric: str = "accuracy",
        confidence: float = 0.95,
    ) -> tuple[float, float]:
        """Returns the mean difference of a metric to another result's.

        With the interval of `interval`, over the paired differences: effects
        of the fold cancel.

        Args:
            other: Result of another model on the same folds.
            metric: A key of the evaluations. Defaults to `"accuracy"`.
            confidence: Probability in `(0, 1)`. Defaults to `0.95`.

        Returns:
            Tuple `(mean difference, half_width)`.

        Raises:
            ValueError: If the folds are not the same, there is no such metric
                or `confidence` is out of range.
        """
        held_out = [fold.ids for fold in self.evaluations]
        if held_out != [fold.ids for fold in other.evaluations]:
            raise ValueError(
                "`other` must have held out the same examples, fold by fold. "
                "Received: other examples. Use the same `seed` and `folds`."
            )
        mean, half_width = paired_interval(
            self.scores(metric), other.scores(metric), confidence
        )
        return mean, half_width * _correction(len(self.evaluations))

    def pooled(self) -> Evaluation:
        """Joins the held-out examples of all folds.

        For the confusion matrix, the most confused pairs and the top losses
        over all the data. Its intervals are those of a single model, and do
        not include the variation between models; see `interval`.

        Returns:
            An `Evaluation` with each example once, fold by fold.
        """
        first = self.evaluations[0]
        folds = self.evaluations
        return evaluate_outputs(
            np.concatenate([fold.outputs for fold in folds]),
            np.concatenate([fold.labels for fold in folds]),
            ids=[name for fold in folds for name in fold.ids],
            class_names=first.class_names or None,
            kind=first.kind,
            from_logits=first.from_logits,
        )

    def __repr__(self) -> str:
        means = ", ".join(
            f"{name} {self.scores(name).mean():.4g}"
            for name in self.evaluations[0]
        )
        return f"<CrossValidation: {means}, {len(self.evaluations)} folds>"

    def __str__(self) -> str:
        metrics = tuple(self.evaluations[0])
        rows = [
            (str(number), str(len(fold.ids)), *(fold[m] for m in metrics))
            for number, fold in enumerate(self.evaluations, start=1)
        ]
        intervals = [self.interval(metric) for metric in metrics]
        rows.append(("mean", "", *(mean for mean, _ in intervals)))
        rows.append(("+-", "", *(half for _, half in intervals)))
        total = sum(len(fold.ids) for fold in self.evaluations)
        return "\n".join(
            [
                f"{len(self.evaluations)} folds, {total} examples; +- is the "
                "95 % interval, corrected for shared training examples",
                f"  {'fold':<6}{'examples':>10}"
                + "".join(f"{metric:>13}" for metric in metrics),
                *(
                    f"  {name:<6}{count:>10}"
                    + "".join(f"{value:>13.4f}" for value in values)
                    for name, count, *values in rows
                ),
            ]
        )


def _correction(folds: int) -> float:
    """Returns the factor by which Student's interval is too narrow."""
    return math.sqrt(1 + folds / (folds - 1))
