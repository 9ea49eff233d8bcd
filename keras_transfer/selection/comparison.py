"""`compare_transfer`: does transfer help here at all?"""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import io
import itertools
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from keras_transfer._checks import is_integer
from keras_transfer._errors import nearest
from keras_transfer._files import whole_file
from keras_transfer._statistics import student
from keras_transfer.backbones import Backbone, load_backbone
from keras_transfer.builders import build_classifier
from keras_transfer.data import ImageData
from keras_transfer.features.extraction import open_store
from keras_transfer.features.store import Choice
from keras_transfer.reports import plot_accuracy_by_labels
from keras_transfer.strategies import FromScratch, LinearProbe
from keras_transfer.training.arguments import check_arguments
from keras_transfer.training.checkpoint import open_directory
from keras_transfer.training.cross_validation import (
    CrossValidation,
    cross_validate,
    labels_left,
)
from keras_transfer.training.recorder import Progress

SCRATCH = "from scratch"
WAYS = (SCRATCH, "linear probe", "fine-tune")
# What new weights need, however few the images: epochs and steps.
_EPOCHS, _STEPS = 30, 500
_CONFIDENCE = 0.95
# What is too little to matter, where the interval holds 0.
_MARGIN = 0.05


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class TransferComparison:
    """What `compare_transfer` returns; `str()` of it is table and verdict.

    Attributes:
        backbone: Name of the backbone.
        labels_per_class: The numbers of labels; `None` stands for all.
        images_per_class: For each of them the images of a class that a fold
            trains with, on average.
        results: A `CrossValidation` for each way (`"from scratch"`, `"linear
            probe"`, `"fine-tune"`) and number of labels.

    Example:

    >>> data = load_images((arrays, labels))
    >>> comparison = compare_transfer(
    ...     "ResNet20", data, [2], folds=2, epochs=1, verbose=0,
    ...     from_scratch=FromScratch(epochs=1),
    ... )
    >>> comparison.verdict.startswith("Transfer from ResNet20")
    True
    """

    backbone: str
    labels_per_class: tuple[int | None, ...]
    images_per_class: tuple[float, ...]
    results: Mapping[tuple[str, int | None], CrossValidation]

    def scores(self, way: str, labels_per_class: int | None) -> np.ndarray:
        """Returns the accuracies by fold.

        Args:
            way: `"from scratch"`, `"linear probe"` or `"fine-tune"`.
            labels_per_class: One of `self.labels_per_class`.

        Returns:
            float64 `(folds,)`, in `[0, 1]`.

        Raises:
            ValueError: If there is no such way or number.
        """
        return self._result(way, labels_per_class).scores("accuracy")

    def gain(
        self, way: str, labels_per_class: int | None
    ) -> tuple[float, float]:
        """Returns what a way gains over training from scratch.

        The mean difference of accuracies over the same folds, with an interval
        that is corrected for the examples that folds share, and holds for both
        ways of transfer at once (Bonferroni: each at 97.5 %). Each number of
        labels stands by itself. The interval is never narrower than that of
        the paired examples, since few folds may agree by chance.

        Args:
            way: `"linear probe"` or `"fine-tune"`.
            labels_per_class: One of `self.labels_per_class`.

        Returns:
            Tuple `(mean difference, half_width)`, in `[-1, 1]`.

        Raises:
            ValueError: If there is no such way or number.

        Reference:
            - Nadeau & Bengio, 2003, https://doi.org/10.1023/A:1024068626366
        """
        confidence = 1 - (1 - _CONFIDENCE) / (len(WAYS) - 1)
        ours = self._result(way, labels_per_class)
        theirs = self._result(SCRATCH, labels_per_class)
        mean, half_width = ours.minus(theirs, confidence=confidence)
        _, of_examples = student(
            _rights(ours).astype(int) - _rights(theirs), confidence
        )
        return mean, max(half_width, of_examples)

    def best_way(self, labels_per_class: int | None) -> str:
        """Returns the better way of transfer, by the mean.

        Args:
            labels_per_class: One of `self.labels_per_class`.

        Returns:
            `"linear probe"` or `"fine-tune"`.

        Raises:
            ValueError: If there is no such number.
        """
        return max(
            WAYS[1:], key=lambda way: self.gain(way, labels_per_class)[0]
        )

    def effect(self, labels_per_class: int | None) -> str:
        """Says what transfer does: the better way against from scratch.

        Args:
            labels_per_class: One of `self.labels_per_class`.

        Returns:
            `"helps"` or `"hurts"`; where the interval holds 0, `"no
            difference"` if all of it is within 5 points, else `"unclear"`.

        Raises:
            ValueError: If there is no such number.
        """
        mean, half_width = self.gain(
            self.best_way(labels_per_class), labels_per_class
        )
        if abs(mean) <= half_width:
            small = abs(mean) + half_width <= _MARGIN
            return "no difference" if small else "unclear"
        return "helps" if mean > 0 else "hurts"

    @property
    def verdict(self) -> str:
        """One sentence: what transfer does at each number of labels."""
        parts = []
        for labels, images in zip(
            self.labels_per_class, self.images_per_class, strict=True
        ):
            way = self.best_way(labels)
            mean, half = self.gain(way, labels)
            effect = self.effect(labels)
            points = f"{100 * abs(mean):.0f} +- {100 * half:.0f} points"
            said = f"{effect} by {points}"
            if effect in ("no difference", "unclear"):
                said = "makes no difference"
                if effect == "unclear":
                    said = "is unclear"
                said += f" ({100 * mean:+.0f} +- {100 * half:.0f} points)"
            parts.append(f"{said} at {images:.0f} labels a class ({way})")
        unclear = any("is unclear" in part for part in parts)
        more = " (more folds or images would tell)" if unclear else ""
        return f"Transfer from {self.backbone} {'; '.join(parts)}{more}."

    def save_table(self, path: str | os.PathLike[str]) -> None:
        """Writes a row for each way, number of labels and fold, as CSV.

        Args:
            path: The file.
        """
        text = io.StringIO()
        writer = csv.writer(text)
        writer.writerow(["way", "labels_per_class", "fold", "accuracy"])
        for (way, labels), found in self.results.items():
            for fold, accuracy in enumerate(found.scores("accuracy"), start=1):
                name = "all" if labels is None else labels
                writer.writerow([way, name, fold, f"{accuracy:.6f}"])
        with whole_file(Path(path)) as partial:
            partial.write_text(text.getvalue(), encoding="utf-8")

    def plot(self, path: str | os.PathLike[str]) -> None:
        """Draws the learning curve: accuracy over labels, for each way.

        Args:
            path: PNG file to write.
        """
        curves = {}
        for way in WAYS:
            found = [self._result(way, n) for n in self.labels_per_class]
            curves[way] = [result.interval("accuracy") for result in found]
        plot_accuracy_by_labels(self.images_per_class, curves, Path(path))

    def _result(
        self, way: str, labels_per_class: int | None
    ) -> CrossValidation:
        if way not in WAYS:
            raise ValueError(
                f"`way` must be one of {', '.join(map(repr, WAYS))}. Received: "
                f"way={way!r}.{nearest(str(way), WAYS)}"
            )
        if (way, labels_per_class) not in self.results:
            raise ValueError(
                "`labels_per_class` must be one of "
                f"{', '.join(map(str, self.labels_per_class))}. Received: "
                f"labels_per_class={labels_per_class!r}"
            )
        return self.results[way, labels_per_class]

    def __repr__(self) -> str:
        return f"<TransferComparison: {self.verdict}>"

    def __str__(self) -> str:
        folds = len(next(iter(self.results.values())).evaluations)
        lines = [
            f"accuracy in percent, mean over {folds} folds +- 95 % interval; "
            "below it what transfer gains",
            "over from scratch, +- an interval for both ways at once",
            f"  {'labels a class':>14}" + "".join(f"{way:>20}" for way in WAYS),
        ]
        for labels, images in zip(
            self.labels_per_class, self.images_per_class, strict=True
        ):
            cells, gains = [], []
            for way in WAYS:
                mean, half = self._result(way, labels).interval("accuracy")
                cells.append(f"{100 * mean:.1f} +- {100 * half:.1f}")
                if way == SCRATCH:
                    gains.append("")
                    continue
                mean, half = self.gain(way, labels)
                gains.append(f"{100 * mean:+.1f} +- {100 * half:.1f}")
            lines.append(
                f"  {images:>14.0f}" + "".join(f"{cell:>20}" for cell in cells)
            )
            lines.append(f"  {'':>14}" + "".join(f"{g:>20}" for g in gains))
        return "\n".join([*lines, self.verdict])


def _rights(found: CrossValidation) -> np.ndarray:
    """Whether each example that was held out was classified rightly."""
    pooled = found.pooled()
    right: np.ndarray = pooled.outputs.argmax(axis=-1) == pooled.labels
    return right


def compare_transfer(
    backbone: str | Path | Backbone,
    data: ImageData,
    labels_per_class: Sequence[int | None] = (5, 20, None),
    *,
    folds: int = 5,
    epochs: int | None = None,
    from_scratch: FromScratch | None = None,
    directory: str | os.PathLike[str] | None = None,
    seed: int = 0,
    verbose: int = 1,
    **arguments: Any,
) -> TransferComparison:
    """Measures whether transfer helps, over the number of labels.

    The same network is trained with new weights, as a linear probe (solved to
    the end) and by fine-tuning, each with the same folds of the train and
    validation images and the same labels of these. What a fold holds out has no
    say in the training. Test images are not looked at.

    New weights get as many steps as they need with few images: 30 epochs or
    500 steps, whichever is more. A comparison that gives both the same few
    steps measures impatience.

    Args:
        backbone: A name out of `list_backbones()`, or what `load_backbone`
            returned.
        data: What `load_images` returned, one class for each image.
        labels_per_class: Numbers of labelled images of each class, `None` for
            all; a smaller number's are among a larger one's. Defaults to
            `(5, 20, None)`.
        folds: Integer from 2. Defaults to `5`.
        epochs: Of fine-tuning. Defaults to `None`, the strategy's own.
        from_scratch: How new weights are trained. Defaults to `None`:
            `FromScratch` of the epochs above.
        directory: Folder that keeps all runs: started again after a stop, the
            same call goes on. Defaults to `None`.
        seed: Of folds, labels and trainings. Defaults to `0`.
        verbose: `0` for silence, `1` for a line a fold, `2` and `3` as for
            `cross_validate`. Defaults to `1`.
        **arguments: For `cross_validate` and `fine_tune` of all ways, such as
            `batch_size` or `augment` (which a probe, solved on the images as
            they are, does without); `strategy`, `depth`, `learning_rate` and
            `penalty` are for fine-tuning alone, `views` for transfer.

    Returns:
        A `TransferComparison`: `verdict`, `plot(path)`, `save_table(path)`;
        `print` it.

    Raises:
        ValueError: If an argument is out of range or does not fit, a class
            has fewer labels, or an image has several classes; before anything
            is trained.
        TypeError: If an argument is unknown or of another type.
        OSError: If `directory` cannot be written to.

    Example:

    >>> data = load_images((arrays, labels))
    >>> comparison = compare_transfer(
    ...     "ResNet20", data, [2], folds=2, epochs=1, verbose=0,
    ...     from_scratch=FromScratch(epochs=1),
    ... )
    >>> sorted(way for way, _ in comparison.results)
    ['fine-tune', 'from scratch', 'linear probe']

    Reference:
        - He et al., 2019, https://arxiv.org/abs/1811.08883 (training longer
          from scratch)
    """
    trained = _check(data, labels_per_class, folds, seed)
    numbers = tuple(trained)
    if not isinstance(backbone, Backbone):
        # Loaded once: the models copy its weights.
        size = data.image_size or (0, 0)  # `_check` has seen that it is there.
        backbone = load_backbone(backbone, input_shape=(*size, data.channels))
    ways = _ways(backbone, data, epochs, from_scratch, arguments)
    progress = Progress(verbose)
    results = {}
    with contextlib.ExitStack() as stack:
        if directory is not None:
            card = {"transfer_comparison": int(folds), "seed": int(seed)}
            stack.enter_context(open_directory(directory, card)).claim()
        for labels, way in itertools.product(numbers, WAYS):
            chosen = dict(ways[way])
            if way == SCRATCH and from_scratch is None:
                chosen["strategy"] = _patient(trained[labels], arguments)
            name = "all" if labels is None else f"{labels}"
            line = f"{way}, {name} labels a class"
            if way == SCRATCH:
                line += f", {chosen['strategy'][0].epochs} epochs"
            progress.say(line)
            results[way, labels] = cross_validate(
                lambda: build_classifier(backbone, data=data),
                data,
                folds,
                labels_per_class=labels,
                directory=None
                if directory is None
                else Path(directory) / f"{name}-labels" / way.replace(" ", "-"),
                seed=seed,
                verbose=verbose,
                **chosen,
            )
    classes = len(np.unique(_labels(data)))
    return TransferComparison(
        backbone.name,
        numbers,
        tuple(trained[labels] / classes for labels in numbers),
        results,
    )


def _ways(
    backbone: Backbone,
    data: ImageData,
    epochs: int | None,
    from_scratch: FromScratch | None,
    arguments: dict[str, Any],
) -> dict[str, dict[str, Any]]:
    """Returns the arguments of each way; raises before the first one."""
    if from_scratch is not None and not isinstance(from_scratch, FromScratch):
        raise TypeError(
            "`from_scratch` must be a `FromScratch`, such as "
            "`FromScratch(epochs=100)`, or None. Received: "
            f"{type(from_scratch).__name__}"
        )
    store = arguments.pop("store", None)
    if store is None:
        store = Choice()
    elif store is not False:
        store = open_store(store)
    own: dict[str, Any] = {
        name: arguments.pop(name)
        for name in ("penalty", "depth", "learning_rate", "strategy")
        if name in arguments
    }
    plain = {k: v for k, v in arguments.items() if k != "views"}
    ways: dict[str, dict[str, Any]] = {
        SCRATCH: {
            **plain,
            "strategy": from_scratch or FromScratch(),
            "store": False,
        },
        "linear probe": {
            **arguments,
            "strategy": LinearProbe(exact=True),
            "store": store,
        },
        "fine-tune": {**arguments, "epochs": epochs, "store": store, **own},
    }
    model = build_classifier(backbone, data=data)
    for way, chosen in ways.items():
        others = ("devices", "ignore", "validation_fraction")
        phases = check_arguments(
            model, **{k: v for k, v in chosen.items() if k not in others}
        )
        if way == "fine-tune" and any(p.reinitialize for p in phases):
            raise ValueError(
                "`strategy` must start from the weights of the backbone. "
                "Received: one that gives it new weights, which is what it is "
                "compared with (`from_scratch`)."
            )
    return ways


def _patient(count: float, arguments: dict[str, Any]) -> FromScratch:
    """New weights get as many updates as they need."""
    count *= 1 - arguments.get("validation_fraction", 0.0)
    batches = math.ceil(count / arguments.get("batch_size", 32))
    updates = math.ceil(batches / (arguments.get("accumulation_steps") or 1))
    return FromScratch(epochs=max(_EPOCHS, math.ceil(_STEPS / updates)))


def _labels(data: ImageData) -> np.ndarray:
    return np.concatenate([data.train.labels, data.validation.labels])


def _check(
    data: Any, labels_per_class: Any, folds: Any, seed: Any
) -> dict[int | None, float]:
    """Returns how many images a fold has for each number of labels."""
    if not isinstance(data, ImageData):
        raise TypeError(
            "`data` must be what `load_images` returned. Received: "
            f"{type(data).__name__}"
        )
    if data.multi_label:
        raise ValueError(
            "`data` must have one class for each image. Received: several."
        )
    if data.image_size is None:
        raise ValueError(
            "`data` must have images of one size. Received: several sizes. "
            "Pass `image_size` to `load_images`."
        )
    for name, value, least in (("folds", folds, 2), ("seed", seed, 0)):
        if not is_integer(value) or value < least:
            raise ValueError(
                f"`{name}` must be an integer of at least {least}. Received: "
                f"{name}={value!r}"
            )
    if isinstance(labels_per_class, str) or not hasattr(
        labels_per_class, "__iter__"
    ):
        raise TypeError(
            "`labels_per_class` must be a sequence, such as (5, 20, None). "
            f"Received: labels_per_class={labels_per_class!r}"
        )
    numbers = list(labels_per_class)
    if not numbers or len(set(numbers)) < len(numbers):
        raise ValueError(
            "`labels_per_class` must hold different numbers, one at least. "
            f"Received: labels_per_class={labels_per_class!r}"
        )
    left = labels_left(data, int(folds), int(seed))
    if len(left) < 2:
        raise ValueError(
            "`data` must have two classes at least among the train and "
            f"validation images. Received: {', '.join(left)} alone."
        )
    smallest = min(left, key=left.__getitem__)
    for number in numbers:
        if number is not None and (
            not is_integer(number) or not 1 <= number <= left[smallest]
        ):
            raise ValueError(
                "`labels_per_class` must hold integers from 1 to "
                f"{left[smallest]}, the different images that {folds} folds "
                f'leave of class "{smallest}", and None for all. Received: '
                f"{number!r}"
            )
    total = len(_labels(data)) * (1 - 1 / folds)
    return {
        None if n is None else int(n): total if n is None else n * len(left)
        for n in numbers
    }
