"""`compare_transfer`: transfer against training from scratch."""

from __future__ import annotations

import contextlib
import itertools
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from keras_transfer._utils.checks import is_integer
from keras_transfer._utils.progress import Progress
from keras_transfer.backbones import Backbone, load_backbone
from keras_transfer.builders.images import build_classifier
from keras_transfer.caching.store.store import Choice, open_store
from keras_transfer.data import ImageData
from keras_transfer.experiments.cross_validation import cross_validate
from keras_transfer.experiments.folds import labels_left
from keras_transfer.experiments.transfer_comparison import (
    METHODS,
    SCRATCH,
    TransferComparison,
)
from keras_transfer.strategies.strategies import FromScratch, LinearProbe
from keras_transfer.training.run_directory import open_directory
from keras_transfer.training.spec import check_arguments

# Least training of new weights, for any number of images.
_SCRATCH_EPOCHS, _SCRATCH_STEPS = 30, 500


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
    """Compares transfer with training from scratch, by number of labels.

    The same network is trained with new weights, as a linear probe (solved
    exactly) and by fine-tuning, each on the same folds of the train and
    validation images and on the same labels. Held-out images do not influence
    the training. Test images are not used.

    New weights train longer on few images: 30 epochs or 500 steps, whichever
    is more. With the few steps that suffice for transfer, training from scratch
    would be cut short, and the comparison unfair.

    Args:
        backbone: A name from `list_backbones()`, or a `Backbone`, from
            `load_backbone`.
        data: An `ImageData`, from `load_images`, with one class per image.
        labels_per_class: Numbers of labelled images of each class, `None` for
            all. A smaller draw is part of a larger one. Defaults to
            `(5, 20, None)`.
        folds: Number of folds, at least 2. Defaults to `5`.
        epochs: Number of epochs of fine-tuning. Defaults to `None`, those of
            the strategy.
        from_scratch: Strategy for new weights. Defaults to `None`:
            `FromScratch` with the epochs above.
        directory: Folder to save all runs in; the same call resumes after an
            interruption. Defaults to `None`.
        seed: Seed of folds, labels and trainings. Defaults to `0`.
        verbose: `0` to write nothing, `1` for a line per fold, `2` and `3` as
            for `cross_validate`. Defaults to `1`.
        **arguments: Further arguments of `cross_validate` and `fine_tune` for
            all methods, such as `batch_size` or `augment` (not used by the
            probe, which is solved on the original images). `strategy`,
            `depth`, `learning_rate` and `penalty` apply to fine-tuning only,
            `views` to transfer only.

    Returns:
        A `TransferComparison`: `verdict`, `plot(path)`, `save_table(path)`;
        `print` it.

    Raises:
        ValueError: If an argument is out of range or does not fit, a class
            has fewer labels, or an image has several classes. All are checked
            before anything is trained.
        TypeError: If an argument is unknown or of another type.
        OSError: If `directory` cannot be written to.

    Example:

    >>> data = load_images((arrays, labels))
    >>> comparison = compare_transfer(
    ...     backbone, data, [2], folds=2, epochs=1, verbose=0,
    ...     from_scratch=FromScratch(epochs=1),
    ... )
    >>> sorted(method for method, _ in comparison.results)
    ['fine-tune', 'from scratch', 'linear probe']

    Reference:
        - He et al., 2019, https://arxiv.org/abs/1811.08883 (training longer
          from scratch)
    """
    images_per_fold = _check(data, labels_per_class, folds, seed)
    numbers = tuple(images_per_fold)
    if not isinstance(backbone, Backbone):
        # Loaded once, since each model copies its weights.
        size = data.image_size or (0, 0)  # Not `None`: `_check` has passed.
        backbone = load_backbone(backbone, input_shape=(*size, data.channels))
    methods = _methods(backbone, data, epochs, from_scratch, arguments)
    progress = Progress(verbose)
    results = {}
    with contextlib.ExitStack() as stack:
        if directory is not None:
            manifest = {"transfer_comparison": int(folds), "seed": int(seed)}
            stack.enter_context(open_directory(directory, manifest)).claim()
        for labels, method in itertools.product(numbers, METHODS):
            options = dict(methods[method])
            if method == SCRATCH and from_scratch is None:
                options["strategy"] = _long_enough(
                    images_per_fold[labels], arguments
                )
            name = "all" if labels is None else f"{labels}"
            line = f"{method}, {name} labels per class"
            if method == SCRATCH:
                line += f", {options['strategy'][0].epochs} epochs"
            progress.say(line)
            folder = f"{name}-labels/{method.replace(' ', '-')}"
            results[method, labels] = cross_validate(
                lambda: build_classifier(backbone, data=data),
                data,
                folds,
                labels_per_class=labels,
                directory=None
                if directory is None
                else Path(directory, folder),
                seed=seed,
                verbose=verbose,
                **options,
            )
    classes = len(np.unique(_labels(data)))
    return TransferComparison(
        backbone.name,
        numbers,
        tuple(images_per_fold[labels] / classes for labels in numbers),
        results,
    )


def _methods(
    backbone: Backbone,
    data: ImageData,
    epochs: int | None,
    from_scratch: FromScratch | None,
    arguments: dict[str, Any],
) -> dict[str, dict[str, Any]]:
    """Returns the arguments of each method, checked."""
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
    fine_tuning: dict[str, Any] = {
        name: arguments.pop(name)
        for name in ("penalty", "depth", "learning_rate", "strategy")
        if name in arguments
    }
    plain = {k: v for k, v in arguments.items() if k != "views"}
    methods: dict[str, dict[str, Any]] = {
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
        "fine-tune": {
            **arguments,
            "epochs": epochs,
            "store": store,
            **fine_tuning,
        },
    }
    model = build_classifier(backbone, data=data)
    for method, options in methods.items():
        others = ("devices", "ignore", "validation_fraction")
        phases = check_arguments(
            model, **{k: v for k, v in options.items() if k not in others}
        )
        if method == "fine-tune" and any(p.reinitialize for p in phases):
            raise ValueError(
                "`strategy` must start from the weights of the backbone. "
                "Received: a strategy that gives it new weights, as the one "
                "that it is compared with (`from_scratch`)."
            )
    return methods


def _long_enough(count: float, arguments: dict[str, Any]) -> FromScratch:
    """Returns a strategy with the least number of epochs and steps."""
    count *= 1 - arguments.get("validation_fraction", 0.0)
    batches = math.ceil(count / arguments.get("batch_size", 32))
    steps = math.ceil(
        batches / (arguments.get("gradient_accumulation_steps") or 1)
    )
    return FromScratch(
        epochs=max(_SCRATCH_EPOCHS, math.ceil(_SCRATCH_STEPS / steps))
    )


def _labels(data: ImageData) -> np.ndarray:
    return np.concatenate([data.train.labels, data.validation.labels])


def _check(
    data: Any, labels_per_class: Any, folds: Any, seed: Any
) -> dict[int | None, float]:
    """Returns the number of images of a fold for each number of labels."""
    if not isinstance(data, ImageData):
        raise TypeError(
            "`data` must be an `ImageData`, from `load_images`. Received: "
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
            "`labels_per_class` must hold different numbers, at least one. "
            f"Received: labels_per_class={labels_per_class!r}"
        )
    counts = labels_left(data, int(folds), int(seed))
    if len(counts) < 2:
        raise ValueError(
            "`data` must have at least two classes among the train and "
            f"validation images. Received: {', '.join(counts)} alone."
        )
    smallest = min(counts, key=counts.__getitem__)
    for number in numbers:
        if number is not None and (
            not is_integer(number) or not 1 <= number <= counts[smallest]
        ):
            raise ValueError(
                "`labels_per_class` must hold integers from 1 to "
                f"{counts[smallest]}, the different images that {folds} folds "
                f'leave of class "{smallest}", and None for all. Received: '
                f"{number!r}"
            )
    total = len(_labels(data)) * (1 - 1 / folds)
    return {
        None if n is None else int(n): total if n is None else n * len(counts)
        for n in numbers
    }
