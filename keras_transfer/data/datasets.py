"""Examples of `tf.data`, Keras and Hugging Face data sets."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

# Keys of the input in elements that are dicts, by kind, and of the label.
_INPUT_KEYS = {
    "image": ("image", "img", "images", "pixel_values"),
    "text": ("text", "sentence", "review", "content"),
}
_LABEL_KEYS = ("label", "labels", "class", "target", "fine_label")

_GENERATOR = (
    "Read n batches of it: `pair = tuple(map(np.concatenate, "
    "zip(*itertools.islice(batches, n))))`, and pass the pair."
)

# Axes of one input.
_RANKS = {"image": 3, "text": 0}


class Rows(NamedTuple):
    """Labelled examples in memory.

    Attributes:
        inputs: The inputs.
        labels: The labels, as many.
        class_names: The classes that the source declares, or `None`.
    """

    inputs: list[Any]
    labels: list[Any]
    class_names: tuple[str, ...] | None


def is_dataset(source: Any) -> bool:
    """Tells whether an object is a `tf.data.Dataset`."""
    return hasattr(source, "element_spec")


def is_hugging_face(source: Any) -> bool:
    """Tells whether an object is a `datasets.Dataset` of Hugging Face."""
    return hasattr(source, "features") and hasattr(source, "column_names")


def parts_of_pair(source: Any) -> Any:
    """Returns a pair of labelled datasets as a dict of train and validation.

    `keras.utils.image_dataset_from_directory(subset="both")` returns such a
    pair. Other sources are returned as they are.
    """
    if (
        isinstance(source, tuple | list)
        and len(source) == 2
        and all(map(is_dataset, source))
        and all(isinstance(part.element_spec, tuple) for part in source)
    ):
        return dict(zip(("train", "validation"), source, strict=True))
    return source


def count_elements(dataset: Any, name: str) -> int:
    """Returns the number of elements, at least one, or -2 if it is unknown.

    Raises:
        ValueError: If the dataset is infinite or empty.
    """
    count = int(dataset.cardinality())
    if count == -1:
        raise ValueError(
            f"`{name}` must be a finite tf.data.Dataset. Received: an infinite "
            "one. Drop `.repeat()`, or use `.take(n)` with the number of its "
            "elements in an epoch."
        )
    if count == 0:
        raise ValueError(
            f"`{name}` must hold at least one element. Received: a "
            "tf.data.Dataset with no example. A batch that is not full is "
            "dropped by drop_remainder=True: leave that out, or make smaller "
            "batches."
        )
    return count


def check_batched(dataset: Any, name: str) -> None:
    """Raises if the elements are single examples, by their shapes."""
    inputs, labels = dataset.element_spec[:2]
    shapes: list[Any] = [
        getattr(spec, "shape", None) for spec in (inputs, labels)
    ]
    if any(shape is None or shape.rank is None for shape in shapes):
        return
    single = any(shape.rank == 0 for shape in shapes)
    if not single:
        first = [shape[0] for shape in shapes]
        single = None not in first and first[0] != first[1]
    if single:
        raise ValueError(
            f"`{name}` must be batches of examples. Received: single examples, "
            f"with inputs of shape {tuple(shapes[0])} and labels of shape "
            f"{tuple(shapes[1])}. Add `.batch(32)`."
        )


def advice_for(source: Any) -> str:
    """Returns a sentence on how to train on a source, with a leading space."""
    if isinstance(source, str | os.PathLike) or hasattr(
        source, "__dataframe__"
    ):
        return " Read it first: `load_images(...)` or `load_texts(...)`."
    if is_hugging_face(source) or hasattr(source, "num_batches"):
        return (
            " Read it into memory first: `load_images(...)` or "
            "`load_texts(...)`."
        )
    if isinstance(source, Iterator):
        return " " + _GENERATOR
    return ""


def common_classes(
    parts: Mapping[str, Any], argument: str
) -> tuple[str, ...] | None:
    """Returns the classes that the parts declare, or `None`.

    Args:
        parts: Sources by split.
        argument: Name of the argument that holds them.

    Raises:
        ValueError: If two parts declare others, or in another order.
    """
    declared = {
        name: tuple(names)
        for name, part in parts.items()
        if (names := getattr(part, "class_names", None))
    }
    if len(set(declared.values())) > 1:
        raise ValueError(
            f"`{argument}` must have the same classes in every split, since a "
            "label is the place of its class. Received: class_names "
            f"{ {name: list(names[:10]) for name, names in declared.items()} }."
            " Read the folders with `load_images`, or pass class_names=[...] "
            "to `image_dataset_from_directory`."
        )
    return next(iter(declared.values()), None)


def read_rows(
    source: Any,
    name: str,
    kind: str,
    change: Callable[[np.ndarray], np.ndarray] = np.asarray,
) -> Rows | None:
    """Reads a data set of another package into memory.

    Args:
        source: A `tf.data.Dataset`, a `keras.utils.PyDataset` or a
            `datasets.Dataset`.
        name: Name of the argument in errors.
        kind: Kind of the inputs, `"image"` or `"text"`.
        change: Function that is applied to each input when it is read. Defaults
            to `np.asarray`.

    Returns:
        `Rows`, or `None` for any other source.

    Raises:
        ValueError: If the data set cannot be read.
        TypeError: If the source is a generator.
    """
    if is_dataset(source):
        return _read_batches(
            _elements(source, name, kind), name, kind, change, source
        )
    if is_hugging_face(source):
        return _read_hugging_face(source, name, kind)
    if hasattr(source, "num_batches"):  # keras.utils.PyDataset
        batches = _keras_batches(source, name)
        return _read_batches(batches, name, kind, change, source)
    if isinstance(source, Iterator):
        raise TypeError(
            f"`{name}` must be data with a known end. Received: a "
            f"{type(source).__name__}. {_GENERATOR}"
        )
    return None


def _elements(dataset: Any, name: str, kind: str) -> Iterator[tuple[Any, Any]]:
    spec = dataset.element_spec
    if isinstance(spec, Mapping):
        keys = [
            next((key for key in known if key in spec), None)
            for known in (_INPUT_KEYS[kind], _LABEL_KEYS)
        ]
        if None not in keys:
            first, second = keys
            count_elements(dataset, name)
            return (
                (row[first], row[second]) for row in dataset.as_numpy_iterator()
            )
    if not isinstance(spec, tuple) or len(spec) != 2:
        fix = f"`.map(lambda x: (x[INPUT], x[LABEL]))` of {spec!r:.200}"
        if isinstance(spec, tuple) and len(spec) == 3:
            fix = "`.map(lambda x, y, weight: (x, y))` to leave out weights"
        raise ValueError(
            f"`{name}` must be a tf.data.Dataset of pairs ({kind}, label). "
            f"Received: element_spec={spec!r:.300}. Make pairs: {fix}."
        )
    count_elements(dataset, name)
    return iter(dataset.as_numpy_iterator())


def _keras_batches(source: Any, name: str) -> Iterator[tuple[Any, Any]]:
    count = source.num_batches
    if count is None:
        raise ValueError(
            f"`{name}` must have a known number of batches. Received: a "
            f"{type(source).__name__} with num_batches=None. Give it "
            "`__len__`."
        )
    for index in range(count):
        batch = source[index]
        if not isinstance(batch, tuple) or len(batch) < 2:
            raise ValueError(
                f"`{name}` must have batches (inputs, labels). Received: a "
                f"batch of type {type(batch).__name__}."
            )
        yield batch[:2]


def _read_batches(
    elements: Iterator[tuple[Any, Any]],
    name: str,
    kind: str,
    change: Callable[[np.ndarray], np.ndarray],
    source: Any,
) -> Rows:
    inputs: list[Any] = []
    labels: list[Any] = []
    rank = _RANKS[kind]
    for first, second in elements:
        if np.ndim(first) not in (rank, rank + 1):
            rule = "(height, width, channels)" if kind == "image" else "()"
            raise ValueError(
                f"`{name}` must have {kind}s of shape {rule}, or batches of "
                f"them. Received: shape={np.shape(first)}."
            )
        batched = np.ndim(first) == rank + 1
        inputs.extend(change(x) for x in (first if batched else [first]))
        labels.extend(second if batched else [second])
    if not inputs:
        raise ValueError(
            f"`{name}` must hold {kind}s. Received: a data set with no example."
        )
    return Rows(inputs, labels, _declared(source))


def _declared(source: Any) -> tuple[str, ...] | None:
    names = getattr(source, "class_names", None)
    indices = getattr(source, "class_indices", None)
    if names is None and indices:
        names = sorted(indices, key=indices.__getitem__)
    return tuple(map(str, names)) if names else None


def _read_hugging_face(source: Any, name: str, kind: str) -> Rows:
    features = dict(source.features)
    if kind == "image":
        inputs = [k for k, f in features.items() if _type(f) == "Image"]
    else:
        inputs = [k for k in _INPUT_KEYS[kind] if k in features][:1]
    labels = [k for k, f in features.items() if _type(f) == "ClassLabel"]
    labels = labels or [k for k in _LABEL_KEYS if k in features][:1]
    if len(inputs) != 1 or len(labels) != 1:
        columns = {key: _type(feature) for key, feature in features.items()}
        raise ValueError(
            f"`{name}` must have one {kind} feature and one ClassLabel. "
            f"Received: {columns}. Keep two of the columns with "
            "`dataset.select_columns([...])`, or pass a pair: "
            "(dataset[INPUT][:], dataset[LABEL][:])."
        )
    rows = list(source)
    return Rows(
        [row[inputs[0]] for row in rows],
        [row[labels[0]] for row in rows],
        tuple(getattr(features[labels[0]], "names", ())) or None,
    )


def _type(feature: Any) -> str:
    return type(feature).__name__


def first_batch(dataset: Any, name: str) -> Sequence[Any]:
    """Returns the first element of a dataset that is checked to be batches."""
    for batch in itertools.islice(iter(dataset), 1):
        return batch
    raise ValueError(
        f"`{name}` must hold at least one element. Received: a tf.data.Dataset "
        "with no example."
    )
