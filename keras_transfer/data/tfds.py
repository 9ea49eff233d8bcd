"""TensorFlow Datasets, downloaded and prepared as needed."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from keras_transfer._utils.checks import did_you_mean
from keras_transfer.data.labels import check_numbers

_SPLITS = {
    "train": "train",
    "validation": "validation",
    "val": "validation",
    "valid": "validation",
    "test": "test",
}


def open_splits(
    source: str, kind: str
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Opens the splits of a classification data set.

    Args:
        source: The data set: `"tfds:name"`, `"tfds:name/config"` or
            `"tfds:name:version"`.
        kind: Type of the input feature: `"Image"` or `"Text"`.

    Returns:
        Tuple of a dict from the names of splits to `tf.data.Dataset` of
        (input, label), and the names of the classes.

    Raises:
        ImportError: If TensorFlow Datasets is missing.
        ValueError: If there is no such data set, it cannot be prepared, or it
            is not a classification of such inputs.
    """
    try:
        import tensorflow_datasets as tfds
    except ImportError as err:
        raise ImportError(
            '`source="tfds:..."` needs TensorFlow Datasets: '
            "pip install tensorflow-datasets"
        ) from err
    builder = _builder(tfds, source.removeprefix("tfds:"))
    input_key, label_key = _keys(tfds, builder, source, kind)
    _prepare(builder, source)
    datasets = {}
    for split in builder.info.splits:
        if split not in _SPLITS or not builder.info.splits[split].num_examples:
            continue
        dataset = builder.as_dataset(split=split, shuffle_files=False)
        datasets[_SPLITS[split]] = dataset.map(
            lambda x: (x[input_key], x[label_key])
        )
    if "train" not in datasets:
        raise ValueError(
            '`source` must have a split "train". Received: '
            f"source={source!r} with splits {list(builder.info.splits)}."
        )
    return datasets, tuple(builder.info.features[label_key].names)


def read_texts(
    source: str,
) -> tuple[dict[str, tuple[list[str], list[str]]], tuple[str, ...]]:
    """Reads texts into memory.

    Args:
        source: The data set, such as `"tfds:name"`.

    Returns:
        Tuple of texts and class names by split, and the names of all classes.

    Raises:
        ValueError: If a label is hidden, or as in `open_splits`.
    """
    datasets, names = open_splits(source, "Text")
    by_split = {}
    for split, dataset in datasets.items():
        pairs = [
            (text.decode("utf-8", "replace"), label)
            for text, label in dataset.as_numpy_iterator()
        ]
        texts, labels = zip(*pairs, strict=True)
        check_numbers(labels, names, split)
        by_split[split] = (list(texts), [names[label] for label in labels])
    return by_split, names


def _builder(tfds: Any, name: str) -> Any:
    try:
        return tfds.builder(name, try_gcs=False)
    except tfds.core.DatasetNotFoundError as err:
        stem = name.split("/")[0].split(":")[0]
        known: Iterable[str] = tfds.list_builders(with_community_datasets=False)
        raise ValueError(
            '`source` must be "tfds:" followed by the name of a data set of '
            f"TensorFlow Datasets. Received: {name!r}."
            f"{did_you_mean(stem, known)}"
        ) from err
    except (ValueError, AssertionError, RuntimeError) as err:
        raise ValueError(
            "`source` must name an existing config and version of the data "
            f"set. Received: {name!r}. TFDS says: {err}"
        ) from err


def _keys(tfds: Any, builder: Any, source: str, kind: str) -> tuple[str, str]:
    features = builder.info.features
    is_dict = isinstance(features, tfds.features.FeaturesDict)
    items = list(features.items()) if is_dict else []
    input_type = getattr(tfds.features, kind)
    inputs = [k for k, f in items if type(f) is input_type]
    labels = [k for k, f in items if isinstance(f, tfds.features.ClassLabel)]
    supervised = builder.info.supervised_keys or ()
    for keys in (inputs, labels):
        if len(keys) > 1:
            keys[:] = [key for key in keys if key in supervised] or keys
    if len(inputs) != 1 or len(labels) != 1:
        raise ValueError(
            f"`source` must be a classification data set with one {kind} and "
            f"one ClassLabel. Received: source={source!r} with features "
            f"{[f'{k}: {type(f).__name__}' for k, f in items]}."
        )
    return inputs[0], labels[0]


def _prepare(builder: Any, source: str) -> None:
    if builder.is_prepared():
        return
    try:
        builder.download_and_prepare()
    except ModuleNotFoundError as err:
        raise ImportError(
            f'Preparing source="{source}" needs a package that TFDS does not '
            f"install: pip install {err.name}"
        ) from err
    except Exception as err:
        # Each data set has its own way to fail in a download.
        raise ValueError(
            f"`source` must be a data set that is prepared or can be "
            f"downloaded. Received: source={source!r}, not prepared in "
            f"{builder.data_path}, and preparing it failed "
            f"({type(err).__name__}: {str(err)[:200]}). Prepare it on a "
            "machine with internet access and copy the folder here, set "
            "TFDS_DATA_DIR to its location, or pass a folder instead."
        ) from err
