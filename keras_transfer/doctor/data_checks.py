"""Checks of the data: pixels, classes, splits."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import numpy as np

from keras_transfer._utils.digest import DIGEST_BYTES
from keras_transfer.data.images.images import ImageSplit
from keras_transfer.data.labelled import LabelledSplit
from keras_transfer.data.texts.texts import TextSplit
from keras_transfer.doctor.context import Context, InspectedSplit
from keras_transfer.doctor.dataset_graph import cached_after_random
from keras_transfer.doctor.diagnosis import Finding, first_names, plural
from keras_transfer.doctor.expected_pixels import expected_pixels
from keras_transfer.structure import graph
from keras_transfer.structure.class_names import find_class_names
from keras_transfer.structure.model_parts import is_readable
from keras_transfer.structure.outputs import output_activation

_IMAGES_SAMPLED = 1_000

_EXAMPLES_COMPARED = 20_000  # of each split

# Ratio of the sizes of the largest and the smallest class that is reported.
_MOST_IMBALANCE = 10

# Fraction of a split that is in train as well, from which it is an error.
_LEAK_ERROR_FRACTION = 0.1

# Ranges of pixels, as messages show them.
_PIXELS, _UNIT, _SIGNED = "[0, 255]", "[0, 1]", "[-1, 1]"
_WIDE, _OTHER = "beyond 8 bits", "preprocessed already"

# Cures by the range that the model expects and the range of the data.
_CURES = {
    (_PIXELS, _UNIT): "Multiply the images by 255.",
    (_PIXELS, _SIGNED): "Undo the scaling: `images = (images + 1) * 127.5`.",
    (_PIXELS, _WIDE): "Scale the images to [0, 255], such as `images / 257` "
    "from 16 bits.",
    (_PIXELS, _OTHER): "Pass unchanged pixels: leave out `preprocess_input` or "
    "the standardisation.",
    (_UNIT, _PIXELS): "Divide the images by 255.",
}


# --- Pixels and numbers ---


def pixel_range(context: Context) -> Iterator[Finding]:
    """Finds pixels outside the range that the first layers expect."""
    expected = expected_pixels(context.model)
    measured = _measure_pixels(context.train)
    if expected is None or measured is None or measured[0] == expected:
        return
    pixels, low, high = measured
    message = (
        f"The images hold pixels from {low:.4g} to {high:.4g} ({pixels}), "
    )
    if expected != "scaled":
        yield Finding(
            "pixel-range",
            "error",
            f"{message}but the model itself scales pixels of {expected}.",
            _CURES.get((expected, pixels), f"Pass pixels in {expected}."),
        )
    elif pixels in (_PIXELS, _WIDE):
        yield Finding(
            "pixel-range",
            "warning",
            f"{message}and no layer of the model scales them.",
            "Scale them as in the training of the network, or in the model: "
            '`build_classifier(load_backbone(model, pixel_range="[-1, 1]"), '
            "...)`.",
        )


def _measure_pixels(split: InspectedSplit) -> tuple[str, float, float] | None:
    """Returns the range of pixels, the smallest one and the largest one."""
    if isinstance(split.source, ImageSplit):
        return _PIXELS, 0.0, 255.0
    images = split.inputs
    if images is None or images.ndim != 4 or not images.size:
        return None
    if images.dtype.kind not in "iuf":
        return None
    sample = images[:: max(1, len(images) // _IMAGES_SAMPLED)]
    low, high = float(sample.min()), float(sample.max())
    if not np.isfinite(high - low) or low == high:
        return None
    if low < 0:
        signed = low >= -1.001 and high <= 1.001
        return (_SIGNED if signed else _OTHER), low, high
    if high <= 1.001:
        return _UNIT, low, high
    if images.dtype.kind == "f" and high <= 20:
        return None  # Either dark pixels or features; ambiguous.
    # Cubic interpolation may exceed 255.
    return (_PIXELS if high <= 300 else _WIDE), low, high


def nan_data(context: Context) -> Iterator[Finding]:
    """Finds inputs and labels that are not finite."""
    for split in context.splits.values():
        for name, array in (("inputs", split.inputs), ("labels", split.labels)):
            if array is None or array.dtype.kind != "f":
                continue
            bad = _rows_not_finite(array)
            if not len(bad):
                continue
            read = "" if split.complete else " that were read"
            yield Finding(
                "nan-data",
                "error",
                f"The {name} of {len(bad)} of the {len(array)} {split.name} "
                f"examples{read} hold NaN or infinity, the first at index "
                f"{bad[0]}: a single such batch makes every weight NaN.",
                "Leave them out: `good = np.isfinite(x.reshape(len(x), -1))"
                ".all(1)`, then `x[good], y[good]`.",
            )


def _rows_not_finite(array: np.ndarray) -> np.ndarray:
    """Returns the indices of rows, without a mask as large as the array."""
    finite = [np.isfinite(row).all() for row in array]
    return np.flatnonzero(~np.asarray(finite, bool))


# --- Classes ---


def class_count(context: Context) -> Iterator[Finding]:
    """Finds labels that do not match the number of outputs."""
    units = context.units
    if units is None:
        return
    for split in context.splits.values():
        wrong = _wrong_classes(context, split, units)
        if wrong:
            yield Finding(
                "class-count",
                "error",
                f"The {split.name} labels are {wrong}, and the model has "
                f"{plural(units, 'output')}.",
                "Build the model for the data (`build_classifier(backbone, "
                "data=data)`), or correct the labels: integers count from 0.",
            )
            return  # The other splits most likely have the same mistake.


def _wrong_classes(
    context: Context, split: InspectedSplit, units: int
) -> str | None:
    """Describes labels that do not match the outputs, or returns `None`."""
    labels, form = split.labels, split.form
    if form == "open":
        count = len(split.source.class_names)
        # A single sigmoid fits two classes, with `label_mode="int"`.
        fits = count == units or (count == 2 and units == 1)
        return None if fits else f"of {count} classes"
    if labels.ndim == 2 and labels.shape[1] > 1:
        width = labels.shape[1]
        return None if width == units else f"{width} columns wide"
    if form != "indices" or not labels.size or not _are_classes(context, split):
        return None
    low, high = int(labels.min()), int(labels.max())
    if low >= 0 and high < max(units, 2):
        return None
    return f"integers from {low} to {high}"


def _are_classes(context: Context, split: InspectedSplit) -> bool:
    """Tells whether labels are classes instead of numbers to predict."""
    if split.form in ("open", "one-hot"):
        return True
    if context.loss is not None:
        return "crossentropy" in context.loss.name
    if split.form not in ("indices", "multi-hot"):
        return False
    known = output_activation(context.model) in ("softmax", "sigmoid")
    return known or (context.units or 1) > 1


def other_class_names(context: Context) -> Iterator[Finding]:
    """Finds classes whose output and label have different indices."""
    names = context.class_names
    if names is None or not graph.is_functional(context.model):
        return
    known = find_class_names(context.model.get_config())
    if known is None or len(known) != len(names) or known == names:
        return
    pairs = enumerate(zip(names, known, strict=True))
    index, (label, output) = next((i, p) for i, p in pairs if p[0] != p[1])
    same = set(known) == set(names)
    difference = "are in another order than" if same else "differ from"
    yield Finding(
        "class-names",
        "error",
        f"The classes of the data {difference} those of the model: label "
        f"{index} is {label!r}, output {index} is {output!r}.",
        "Load the data in the model's order (`load_images(source, "
        "class_names=class_names(model))`), or build the model for the data.",
    )


def class_sizes(context: Context) -> Iterator[Finding]:
    """Finds classes with no or few training examples."""
    train = context.train
    if not train.complete or not _are_classes(context, train):
        return
    if context.units and _wrong_classes(context, train, context.units):
        return
    counts = _class_counts(context, train)
    if counts is None or not counts.any():
        return
    names = context.class_names or tuple(map(str, range(len(counts))))
    missing = [names[i] for i in np.flatnonzero(counts == 0)]
    if missing:
        yield Finding(
            "missing-class",
            "warning",
            f"{len(missing)} of the {len(counts)} classes "
            f"({first_names(missing)}) have no training example: the model "
            "learns never to predict them.",
            "Add examples, or build the model without these classes.",
        )
    single = train.form != "multi-hot"
    low, high = counts[counts > 0].min(), counts.max()
    if single and high > _MOST_IMBALANCE * low:
        yield Finding(
            "imbalance",
            "warning",
            f"The classes have from {low} ({names[_index(counts, low)]}) to "
            f"{high} ({names[_index(counts, high)]}) training examples: rare "
            "classes hardly contribute to the loss.",
            "`model.fit(..., class_weight=data.class_weights())`, and evaluate "
            "each class, not only the accuracy.",
        )


def _index(counts: np.ndarray, value: int) -> int:
    return int(np.flatnonzero(counts == value)[0])


def _class_counts(context: Context, split: InspectedSplit) -> np.ndarray | None:
    labels, units = split.labels, context.units or 1
    if split.form in ("one-hot", "multi-hot"):
        return (labels == 1).sum(axis=0)
    if split.form not in ("indices", "open") or not labels.size:
        return None
    if labels.min() < 0:
        return None
    count = len(context.class_names or ()) or max(units, 2)
    return np.bincount(labels.ravel().astype("int64"), minlength=count)


# --- Splits ---


def few_examples(context: Context) -> Iterator[Finding]:
    """Finds too few training examples."""
    train = context.train
    number = len(train.labels)
    classes = len(context.class_names or ()) or context.units or 1
    if not number:
        yield Finding(
            "few-examples",
            "error",
            "There are no training examples.",
            "Add training examples; for a dataset, keep the last batch: "
            "`batch(..., drop_remainder=False)`.",
        )
    elif train.complete and number < classes and _are_classes(context, train):
        yield Finding(
            "few-examples",
            "warning",
            f"The data has only {plural(number, 'training example')} for "
            f"{classes} classes.",
            "Collect more, at least a few per class.",
        )


def no_validation(context: Context) -> Iterator[Finding]:
    """Finds that there are no validation examples."""
    if context.named and "validation" not in context.splits:
        yield Finding(
            "no-validation",
            "warning",
            "There are no validation examples, so neither the best epoch nor "
            "overfitting can be detected.",
            "Split some off: `load_images(source, split=(0.8, 0.2, 0.0))`.",
        )


def other_kind(context: Context) -> Iterator[Finding]:
    """Finds texts for a model of images, or images for a model of texts."""
    model = context.model
    if not is_readable(model):
        return
    source = context.train.source
    rows = context.train.inputs
    texts = isinstance(source, TextSplit) or (
        rows is not None and rows.dtype.kind in "OU"
    )
    images = isinstance(source, ImageSplit) or (
        rows is not None and rows.dtype.kind in "iuf"
    )
    takes_texts = graph.takes_texts(model)
    if (texts and not takes_texts) or (images and takes_texts):
        expected, received = "images", "texts"
        if takes_texts:
            expected, received = received, expected
        builder = "build_classifier" if takes_texts else "build_text_classifier"
        yield Finding(
            "other-kind",
            "error",
            f"The model takes {expected}, and the data are {received}.",
            f"Build the model with `{builder}`, or load other data.",
        )


def split_overlap(context: Context) -> Iterator[Finding]:
    """Finds validation and test examples that are training examples too."""
    for name, split in context.splits.items():
        if name == "train":
            continue
        shared = _count_shared(context, split)
        if not shared:
            continue
        fraction = shared / max(len(split.labels), 1)
        same = context.train.source is split.source
        is_error = same or fraction >= _LEAK_ERROR_FRACTION
        yield Finding(
            "split-overlap",
            "error" if is_error else "warning",
            f"The {name} examples are the training examples."
            if same
            else f"{shared} of the {len(split.labels)} {name} examples are "
            f"training examples as well ({fraction:.1%}): metrics on them are "
            "too good.",
            f'Pass other examples as "{name}": `load_images` splits some off.'
            if same
            else "Remove them from one of the splits; `load_images` and "
            "`load_texts` put duplicates into the same split, and list them in "
            "`data.report.leaks`.",
        )


def _count_shared(context: Context, split: InspectedSplit) -> int:
    """Returns the number of examples of a split that are in train as well."""
    train = context.train
    if train.source is split.source:
        return max(1, len(split.labels))
    if isinstance(train.source, LabelledSplit):
        if not isinstance(split.source, LabelledSplit):
            return 0
        known, own = set(train.source.ids), set(split.source.ids)
        shared = known & own
        report = context.data.report if context.data else None
        for group in report.leaks if report else ():
            if known & set(group):
                shared |= own & set(group)
        return len(shared)
    if train.inputs is None or split.inputs is None:
        return 0
    if not (train.complete and split.complete):
        return 0
    # In a common dtype, since one split may be uint8 and the other float32.
    dtype = np.result_type(train.inputs, split.inputs)
    known_rows = set(_digests(train.inputs, dtype))
    return sum(row in known_rows for row in _digests(split.inputs, dtype))


def _digests(rows: np.ndarray, dtype: np.dtype) -> Iterator[bytes]:
    for row in rows[:_EXAMPLES_COMPARED]:
        text = isinstance(row, str)
        data = row.encode() if text else row.astype(dtype, copy=False).tobytes()
        yield hashlib.blake2b(data, digest_size=DIGEST_BYTES).digest()


def augmentation_behind_cache(context: Context) -> Iterator[Finding]:
    """Finds a cache of augmented images, which repeats the first epoch."""
    source = context.train.source
    if hasattr(source, "element_spec") and cached_after_random(source):
        yield Finding(
            "augmentation-behind-cache",
            "error",
            "The training pipeline caches randomly augmented images: each "
            "epoch repeats the images of the first.",
            "Cache first: `dataset.cache().map(augment)`.",
        )


CHECKS = (
    pixel_range,
    nan_data,
    class_count,
    other_class_names,
    class_sizes,
    few_examples,
    no_validation,
    other_kind,
    split_overlap,
    augmentation_behind_cache,
)
