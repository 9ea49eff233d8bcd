"""`compare_transfer`: does transfer help here at all?"""

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
    SCRATCH,
    WAYS,
    TransferComparison,
)
from keras_transfer.strategies.strategies import FromScratch, LinearProbe
from keras_transfer.training.run_directory import open_directory
from keras_transfer.training.spec import check_arguments

# What new weights need, however few the images: epochs and steps.
_EPOCHS, _STEPS = 30, 500


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
    ...     backbone, data, [2], folds=2, epochs=1, verbose=0,
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
    updates = math.ceil(
        batches / (arguments.get("gradient_accumulation_steps") or 1)
    )
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
