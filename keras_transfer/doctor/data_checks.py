"""Checks of the data: pixels, classes, splits."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import numpy as np

from keras_transfer.data.images.images import ImageSplit
from keras_transfer.data.labelled import LabelledSplit
from keras_transfer.data.texts.texts import TextSplit
from keras_transfer.doctor.context import Context, Part
from keras_transfer.doctor.diagnosis import Finding, plural, some
from keras_transfer.doctor.reading import cached_after_random, expected_pixels
from keras_transfer.structure import graph
from keras_transfer.structure.class_names import find_class_names
from keras_transfer.structure.outputs import output_activation

_SAMPLE = 1_000  # images whose pixels are looked at


_COMPARED = 20_000  # examples of each split that are compared


_IMBALANCE = 10  # largest class over smallest


_LEAK_IS_ERROR = 0.1  # share of a split that is in train as well


_PIXELS, _UNIT, _SIGNED = "[0, 255]", "[0, 1]", "[-1, 1]"


_WIDE, _OTHER = "beyond 8 bits", "preprocessed already"


# By what the model expects and what the data holds.
_CURES = {
    (_PIXELS, _UNIT): "Multiply the images by 255.",
    (_PIXELS, _SIGNED): "Undo the scaling: `images = (images + 1) * 127.5`.",
    (_PIXELS, _WIDE): "Scale the images to [0, 255], such as `images / 257` "
    "from 16 bits.",
    (_PIXELS, _OTHER): "Pass the pixels as they are: leave out "
    "`preprocess_input` or the standardisation.",
    (_UNIT, _PIXELS): "Divide the images by 255.",
}


# --- Pixels and numbers ---


def pixel_range(context: Context) -> Iterator[Finding]:
    """The pixels are not those that the first layers scale."""
    expected = expected_pixels(context.model)
    found = _pixels(context.train)
    if expected is None or found is None or found[0] == expected:
        return
    what, low, high = found
    message = f"The images hold pixels from {low:.4g} to {high:.4g} ({what}); "
    if expected != "scaled":
        yield Finding(
            "pixel-range",
            "error",
            f"{message}the model scales those of {expected} itself.",
            _CURES.get((expected, what), f"Pass pixels in {expected}."),
        )
    elif what in (_PIXELS, _WIDE):
        yield Finding(
            "pixel-range",
            "warning",
            f"{message}no layer of the model scales them.",
            "Scale them as the network was trained, or have the model do it: "
            '`build_classifier(load_backbone(model, pixel_range="[-1, 1]"), '
            "...)`.",
        )


def _pixels(part: Part) -> tuple[str, float, float] | None:
    """Returns the kind of pixels, the lowest and the highest."""
    if isinstance(part.source, ImageSplit):
        return _PIXELS, 0.0, 255.0
    images = part.inputs
    if images is None or images.ndim != 4 or not images.size:
        return None
    if images.dtype.kind not in "iuf":
        return None
    sample = images[:: max(1, len(images) // _SAMPLE)]
    low, high = float(sample.min()), float(sample.max())
    if not np.isfinite(high - low) or low == high:
        return None
    if low < 0:
        signed = low >= -1.001 and high <= 1.001
        return (_SIGNED if signed else _OTHER), low, high
    if high <= 1.001:
        return _UNIT, low, high
    if images.dtype.kind == "f" and high <= 20:
        return None  # Dark pixels or features: it cannot be told.
    # A cubic resize steps over the ends.
    return (_PIXELS if high <= 300 else _WIDE), low, high


def nan_data(context: Context) -> Iterator[Finding]:
    """An input or label is not finite."""
    for part in context.parts.values():
        for what, array in (("inputs", part.inputs), ("labels", part.labels)):
            if array is None or array.dtype.kind != "f":
                continue
            bad = _rows_not_finite(array)
            if not len(bad):
                continue
            read = "" if part.complete else " that were read"
            yield Finding(
                "nan-data",
                "error",
                f"The {what} of {len(bad)} of the {len(array)} {part.name} "
                f"examples{read} hold NaN or infinity, the first at index "
                f"{bad[0]}: one such batch makes every weight NaN.",
                "Leave them out: `good = np.isfinite(x.reshape(len(x), -1))"
                ".all(1)`, then `x[good], y[good]`.",
            )


def _rows_not_finite(array: np.ndarray) -> np.ndarray:
    """Returns the indices, without a second array as large as the first."""
    good = [np.isfinite(row).all() for row in array]
    return np.flatnonzero(~np.asarray(good, bool))


# --- Classes ---


def class_count(context: Context) -> Iterator[Finding]:
    """The labels are not those of the output layer."""
    units = context.units
    if units is None:
        return
    for part in context.parts.values():
        wrong = _wrong_classes(context, part, units)
        if wrong:
            yield Finding(
                "class-count",
                "error",
                f"The {part.name} labels are {wrong}, and the model has "
                f"{plural(units, 'output')}.",
                "Build the model for the data (`build_classifier(backbone, "
                "data=data)`), or correct the labels: integers count from 0.",
            )
            return  # The other splits are most likely the same.


def _wrong_classes(context: Context, part: Part, units: int) -> str | None:
    labels, form = part.labels, part.form
    if form == "open":
        count = len(part.source.class_names)
        # Two classes may be yes or no: `label_mode="int"` for a sigmoid.
        good = count == units or (count == 2 and units == 1)
        return None if good else f"of {count} classes"
    if labels.ndim == 2 and labels.shape[1] > 1:
        width = labels.shape[1]
        return None if width == units else f"{width} columns wide"
    if form != "indices" or not labels.size or not _are_classes(context, part):
        return None
    low, high = int(labels.min()), int(labels.max())
    if low >= 0 and high < max(units, 2):
        return None
    return f"integers from {low} to {high}"


def _are_classes(context: Context, part: Part) -> bool:
    """Whether labels stand for classes, not for numbers to predict."""
    if part.form in ("open", "one-hot"):
        return True
    if context.loss is not None:
        return "crossentropy" in context.loss.name
    if part.form not in ("indices", "multi-hot"):
        return False
    known = output_activation(context.model) in ("softmax", "sigmoid")
    return known or (context.units or 1) > 1


def other_class_names(context: Context) -> Iterator[Finding]:
    """Output and label of one number are different classes."""
    names = context.class_names
    if names is None or not graph.is_functional(context.model):
        return
    known = find_class_names(context.model.get_config())
    if known is None or len(known) != len(names) or known == names:
        return
    pairs = enumerate(zip(names, known, strict=True))
    index, (label, output) = next((i, p) for i, p in pairs if p[0] != p[1])
    same = set(known) == set(names)
    difference = "in another order" if same else "others"
    yield Finding(
        "class-names",
        "error",
        f"The classes of the data are {difference} than the model's: "
        f"label {index} is {label!r}, output {index} is {output!r}.",
        "Load the data in the model's order (`load_images(source, "
        "class_names=class_names(model))`), or build the model for the data.",
    )


def class_sizes(context: Context) -> Iterator[Finding]:
    """A class has no training example, or another one far more."""
    part = context.train
    if not part.complete or not _are_classes(context, part):
        return
    if context.units and _wrong_classes(context, part, context.units):
        return
    counts = _class_counts(context, part)
    if counts is None or not counts.any():
        return
    names = context.class_names or tuple(map(str, range(len(counts))))
    missing = [names[i] for i in np.flatnonzero(counts == 0)]
    if missing:
        yield Finding(
            "missing-class",
            "warning",
            f"No training example for {len(missing)} of the {len(counts)} "
            f"classes ({some(missing)}): the model learns never to predict "
            "them.",
            "Add examples, or build the model without these classes.",
        )
    single = part.form != "multi-hot"
    low, high = counts[counts > 0].min(), counts.max()
    if single and high > _IMBALANCE * low:
        yield Finding(
            "imbalance",
            "warning",
            f"The classes have from {low} ({names[_index(counts, low)]}) to "
            f"{high} ({names[_index(counts, high)]}) training examples: the "
            "rare ones hardly count.",
            "`model.fit(..., class_weight=data.class_weights())`, and judge by "
            "class, not by accuracy alone.",
        )


def _index(counts: np.ndarray, value: int) -> int:
    return int(np.flatnonzero(counts == value)[0])


def _class_counts(context: Context, part: Part) -> np.ndarray | None:
    labels, units = part.labels, context.units or 1
    if part.form in ("one-hot", "multi-hot"):
        return (labels == 1).sum(axis=0)
    if part.form not in ("indices", "open") or not labels.size:
        return None
    if labels.min() < 0:
        return None
    count = len(context.class_names or ()) or max(units, 2)
    return np.bincount(labels.ravel().astype("int64"), minlength=count)


# --- Splits ---


def few_examples(context: Context) -> Iterator[Finding]:
    """There is nothing, or next to nothing, to train on."""
    part = context.train
    number = len(part.labels)
    classes = len(context.class_names or ()) or context.units or 1
    if not number:
        yield Finding(
            "few-examples",
            "error",
            "There is no training example.",
            "Give train examples; for a dataset, drop fewer: "
            "`batch(..., drop_remainder=False)`.",
        )
    elif part.complete and number < classes and _are_classes(context, part):
        yield Finding(
            "few-examples",
            "warning",
            f"There is {plural(number, 'training example')} for {classes} "
            "classes.",
            "Collect more, at least a few of each class.",
        )


def no_validation(context: Context) -> Iterator[Finding]:
    """There is nothing to choose by."""
    if context.named and "validation" not in context.parts:
        yield Finding(
            "no-validation",
            "warning",
            "There are no validation examples: nothing tells the best epoch, "
            "nor when the model overfits.",
            "Split some off: `load_images(source, split=(0.8, 0.2, 0.0))`.",
        )


def other_kind(context: Context) -> Iterator[Finding]:
    """Texts go into a model of images, or images into one of texts."""
    model = context.model
    if not graph.is_functional(model) or len(graph.tensors_in(model)) != 1:
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
        wanted, given = "images", "texts"
        if takes_texts:
            wanted, given = given, wanted
        cure = "build_classifier" if takes_texts else "build_text_classifier"
        yield Finding(
            "other-kind",
            "error",
            f"The model takes {wanted}, and the data are {given}.",
            f"Build the model with `{cure}`, or load other data.",
        )


def split_overlap(context: Context) -> Iterator[Finding]:
    """What measures was trained on."""
    for name, part in context.parts.items():
        if name == "train":
            continue
        shared = _shared(context, part)
        if not shared:
            continue
        share = shared / max(len(part.labels), 1)
        whole = context.train.source is part.source
        yield Finding(
            "split-overlap",
            "error" if whole or share >= _LEAK_IS_ERROR else "warning",
            f"The {name} examples are the training examples."
            if whole
            else f"{shared} of the {len(part.labels)} {name} examples are "
            f"training examples as well ({share:.1%}): what is measured on "
            "them is too good.",
            "Take them out of one side; `load_images` and `load_texts` split "
            "so that copies stay together, and list them in "
            "`data.report.leaks`.",
        )


def _shared(context: Context, part: Part) -> int:
    """Returns how many examples of a split are in train as well."""
    train = context.train
    if train.source is part.source:
        return max(1, len(part.labels))
    if isinstance(train.source, LabelledSplit):
        if not isinstance(part.source, LabelledSplit):
            return 0
        known, own = set(train.source.ids), set(part.source.ids)
        shared = known & own
        report = context.data.report if context.data else None
        for group in report.leaks if report else ():
            if known & set(group):
                shared |= own & set(group)
        return len(shared)
    if train.inputs is None or part.inputs is None:
        return 0
    if not (train.complete and part.complete):
        return 0
    # The same image as uint8 and as float32 is the same image.
    dtype = np.result_type(train.inputs, part.inputs)
    known_rows = set(_digests(train.inputs, dtype))
    return sum(row in known_rows for row in _digests(part.inputs, dtype))


def _digests(rows: np.ndarray, dtype: np.dtype) -> Iterator[bytes]:
    for row in rows[:_COMPARED]:
        text = isinstance(row, str)
        data = row.encode() if text else row.astype(dtype, copy=False).tobytes()
        yield hashlib.blake2b(data, digest_size=16).digest()


def augmentation_behind_cache(context: Context) -> Iterator[Finding]:
    """The first epoch's augmentation is repeated for ever."""
    source = context.train.source
    if hasattr(source, "element_spec") and cached_after_random(source):
        yield Finding(
            "augmentation-behind-cache",
            "error",
            "The training pipeline caches what it augmented at random: each "
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
