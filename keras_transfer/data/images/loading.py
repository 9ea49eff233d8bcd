"""`load_images`: checked and split image data, from any source."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from keras_transfer._utils.checks import (
    check_choice,
    check_class_names,
    check_integer,
    refuse,
)
from keras_transfer.data import checks, scanning, splitting
from keras_transfer.data.grouping import (
    NO_GROUP,
    GroupsLike,
    group_keys,
    join_groups,
    note_groups_apart,
)
from keras_transfer.data.images import decoding
from keras_transfer.data.images.images import ImageData, ImageSplit
from keras_transfer.data.images.reading import Reading
from keras_transfer.data.images.records import ImageRecords
from keras_transfer.data.images.sources import read_source
from keras_transfer.data.labels import check_not_combined, sorted_names
from keras_transfer.data.report import (
    DataReport,
    check_named,
    list_problems,
    printable,
    raise_for_unusable,
)

Labels = list[tuple[str, ...]]


def load_images(
    source: Any,
    *,
    image_size: int | checks.Size | None = None,
    resize: str = "stretch",
    split: Sequence[float] = (0.8, 0.1, 0.1),
    seed: int = 0,
    on_error: str = "raise",
    channels: int = 3,
    class_names: Sequence[str] | None = None,
    multi_label: bool = False,
    path_column: str | int | None = None,
    label_column: str | int | None = None,
    label_columns: Sequence[str] | None = None,
    separator: str | None = None,
    groups: GroupsLike = None,
    encoding: str = "utf-8",
    header: bool | None = None,
    verify: bool = True,
    max_pixels: int = decoding.MAX_PIXELS,
) -> ImageData:
    """Loads labelled images from a folder, CSV, arrays, `tf.data` or TFDS.

    No file is silently ignored: a file that cannot be used raises, or is listed
    in `.report`. Identical images are put into the same split; if the source
    has them in different splits or with different labels, they are reported,
    with a `UserWarning`.

    Args:
        source: One of
            - a folder `class/**/image.jpg`, or with `train/`, `validation/`
              (`val/`, `valid/`) and `test/` above the class folders;
            - a table `.csv`, `.tsv`, `.jsonl` or `.parquet` (also compressed:
              `.csv.gz`) or a data frame (pandas, polars, Arrow), with columns
              `path` (relative to the file), `label` and optionally `split`;
              or a list of tables;
            - `(images, labels)`: arrays `(n, height, width, channels)` in
              `[0, 255]`, or a list of images of several sizes or of paths; and
              integers, one-hot rows or names;
            - a `tf.data.Dataset` of (image, label) or a pair of them for train
              and validation, a `keras.utils.PyDataset`, or a
              `datasets.Dataset` of Hugging Face, read into memory;
            - a dict with keys `"train"`, `"validation"`, `"test"` of either;
            - `"tfds:name"`, `"tfds:name/config"` or `"tfds:name:version"`,
              read into memory.
        image_size: Size `(height, width)` or one integer that images are
            resized to, or `None` for their own size. Defaults to `None`.
        resize: Way to resize images of other proportions: `"stretch"` changes
            the proportions, `"crop"` cuts both ends of the longer side off,
            `"pad"` puts black beside the shorter one. Resize new images alike
            before `predict`. Defaults to `"stretch"`.
        split: Fractions in [0, 1] for train, validation and test. Splits that
            the source does not have are taken from train, stratified. Defaults
            to `(0.8, 0.1, 0.1)`.
        seed: Seed of the split. Defaults to `0`.
        on_error: `"raise"` for one error that lists all unusable examples, or
            `"skip"` to list them in `.report.skipped`. Defaults to `"raise"`.
        channels: 1 (grey), 3 (RGB) or 4 (RGBA) to decode files to; arrays,
            `tf.data` and TFDS keep theirs. Defaults to `3`.
        class_names: The classes in the order of their labels. Defaults to
            `None`, which means the order of a source with numbered classes or
            of `label_columns`, else alphabetical order, or that of numbers if
            all names are numbers: folders 1, 2, 10 (Keras sorts them 1, 10, 2).
        multi_label: Whether an image may have several classes: `"cat;dog"` in
            a table, rows of 0 and 1 in arrays. An empty text then means none of
            the classes, while `None`, NaN and `"NA"` are missing labels.
            Defaults to `False`.
        path_column: Name or number (from 0) of the column with the paths.
            Defaults to `None`, which means `path`, `filename`, `file`, `image`
            or the like.
        label_column: Name or number of the column with the labels. Defaults to
            `None`, which means `label`, `class`, `category` or the like.
        label_columns: Names of columns of 0 and 1, one for each class, in place
            of `label_column`. Defaults to `None`.
        separator: Text between several labels in a cell. Defaults to `None`,
            which means `";"`, `"|"` or `","`, whichever the labels hold.
        groups: Groups of examples that stay in one split, such as the images
            of a patient or a scene: the name of a column of the table, a
            function from the id of an example to its group, or an array of one
            group for each example. Defaults to `None`.
        encoding: Encoding of tables. Defaults to `"utf-8"`.
        header: Whether the first row of a table names its columns. Defaults to
            `None`, which means that it does if it holds a usual name.
        verify: Whether to decode each file once now, which finds unusable files
            and identical pixels; otherwise only bytes are compared. Defaults to
            `True`.
        max_pixels: Largest number of pixels; larger files are unusable.
            Defaults to `256_000_000`.

    Returns:
        `ImageData`.

    Raises:
        ValueError: If an argument, the source or a file cannot be used.
        TypeError: If `source` is of another type.
        ImportError: If TensorFlow Datasets is needed and missing.

    Example:

    >>> import numpy as np
    >>> images = np.random.default_rng(0).integers(0, 256, (40, 8, 8, 3))
    >>> data = load_images((images, np.arange(40) % 2))
    >>> data
    <ImageData: 2 classes, 32 train, 4 validation, 4 test images, 8x8, 3 channels>
    >>> images, labels = next(iter(data.train.batches(16, shuffle=True)))
    >>> images.shape, labels.shape
    (TensorShape([16, 8, 8, 3]), TensorShape([16, 2]))
    """  # noqa: E501
    fractions = splitting.check_fractions(split)
    check_integer("seed", seed, 0)
    check_integer("max_pixels", max_pixels, 1)
    check_choice("on_error", on_error, ("raise", "skip"))
    check_choice("resize", resize, decoding.RESIZES)
    if channels not in decoding.MODES:
        refuse("channels", "1, 3 or 4", channels)
    names = check_class_names(class_names)
    how = Reading(
        image_size=checks.check_image_size(image_size),
        resize=resize,
        channels=channels,
        max_pixels=max_pixels,
        class_names=names,
        multi_label=multi_label,
        path_column=path_column,
        label_column=label_column,
        label_columns=_check_label_columns(label_columns, label_column),
        group_column=groups if isinstance(groups, str) else None,
        separator=separator,
        encoding=encoding,
        header=header,
    )
    records = read_source(source, how)
    keys = group_keys(groups, records.ids, records.groups)
    records.problems |= {
        i: NO_GROUP for i, key in enumerate(keys or ()) if not key
    }
    scan = scanning.scan(records.pixels, verify)
    usable, names, skipped = _usable_examples(records, scan, names, multi_label)
    if on_error == "raise":
        raise_for_unusable(skipped, "images")
    ids = [records.ids[i] for i in usable]
    labels = [records.labels[i] for i in usable]
    _check_enough(usable, skipped, labels, multi_label)
    copies = scanning.group_equal([scan.digests[i] for i in usable])
    keys = keys and [keys[i] for i in usable]
    given = [records.splits[i] for i in usable]
    splits, notes = splitting.assign_splits(
        ids, labels, given, join_groups(copies, keys), fractions, seed
    )
    notes += note_groups_apart(keys, splits)
    if verify:
        records.notes += scanning.note_narrow_range(records.pixels, usable)
    report = DataReport(
        skipped=tuple(skipped),
        ignored=tuple(sorted(records.ignored)),
        notes=(*records.notes, *notes),
    )
    report = scanning.report_duplicates(report, copies, ids, labels, splits)
    rows = {
        name: [row for row, assigned in enumerate(splits) if assigned == name]
        for name in splitting.SPLITS
    }
    return _make_data(
        records, scan, usable, rows, labels, keys, names, how, report
    )


def _make_data(
    records: ImageRecords,
    scan: scanning.Scan,
    usable: list[int],
    rows_of: dict[str, list[int]],
    labels: Labels,
    groups: list[str] | None,
    class_names: tuple[str, ...],
    how: Reading,
    report: DataReport,
) -> ImageData:
    """Makes the splits of the usable examples, by their rows among these."""
    size = how.image_size
    sizes = {scan.sizes[i] for i in usable}
    if size is None and len(sizes) == 1:
        size = sizes.pop()
    encoded = splitting.encode_labels(labels, class_names, how.multi_label)
    by_name = {
        name: ImageSplit(
            name=name,
            ids=tuple(records.ids[usable[row]] for row in rows),
            labels=encoded[rows],
            class_names=class_names,
            pixels=records.pixels,
            positions=np.array([usable[row] for row in rows], np.int64),
            image_size=size,
            sizes=scan.sizes,
            groups=None
            if groups is None
            else tuple(groups[row] for row in rows),
        )
        for name, rows in rows_of.items()
    }
    return ImageData(
        **by_name,
        class_names=class_names,
        image_size=size,
        channels=records.pixels.channels,
        multi_label=how.multi_label,
        report=report,
    )


def _check_label_columns(
    names: Any, label_column: Any
) -> tuple[str, ...] | None:
    if names is None:
        return None
    names = () if isinstance(names, str) else tuple(names)
    if len(names) < 2 or len(set(names)) < len(names):
        refuse("label_columns", "two or more different names", names)
    if label_column is not None:
        raise ValueError(
            "`label_columns` must be None if `label_column` is given. "
            f"Received: both, label_column={label_column!r}."
        )
    return names


def _usable_examples(
    records: ImageRecords,
    scan: scanning.Scan,
    class_names: tuple[str, ...] | None,
    multi_label: bool,
) -> tuple[list[int], tuple[str, ...], list[tuple[str, str]]]:
    """Finds the usable examples; dropped classes also leave `records.labels`.

    Returns:
        Tuple of the indices of the usable examples, the names of the remaining
        classes, and `(id, reason)` of all unusable examples and classes.
    """
    unusable = list(records.unusable)
    usable = []
    for i, reason in enumerate(scan.reasons):
        reason = records.problems.get(i, reason)
        if reason is None:
            usable.append(i)
        else:
            unusable.append((records.ids[i], reason))
    present = {
        name
        for i, labels in enumerate(records.labels)
        for name in labels
        if i not in records.problems
    }
    names = class_names or records.class_names or sorted_names(present)
    check_named(present, names)
    if class_names is None and records.class_names is None and not multi_label:
        check_not_combined(names, "Pass multi_label=True")
    if records.keep_classes:
        return usable, names, unusable
    trained = {
        name
        for i in usable
        if records.splits[i] in (None, "train")
        for name in records.labels[i]
    }
    empty = [name for name in names if name not in trained]
    for name in empty:
        unusable.append((f'class "{name}"', "it has no training image"))
    names = tuple(name for name in names if name in trained)
    if empty:
        usable = [
            i for i in usable if _strip_labels(records, i, trained, unusable)
        ]
    return usable, names, unusable


def _strip_labels(
    records: ImageRecords,
    i: int,
    names: set[str],
    unusable: list[tuple[str, str]],
) -> bool:
    """Removes dropped classes from example `i`; `False` if none remain."""
    before = records.labels[i]
    records.labels[i] = tuple(name for name in before if name in names)
    if before and not records.labels[i]:
        unusable.append((records.ids[i], "its class has no training image"))
        return False
    return True


def _check_enough(
    usable: list[int],
    skipped: list[tuple[str, str]],
    labels: Labels,
    multi_label: bool,
) -> None:
    if not usable:
        raise ValueError(
            "`source` must hold images that can be used. Received: none, and "
            f"{len(skipped)} that cannot:\n{list_problems(skipped)}"
        )
    present = {name for names in labels for name in names}
    if len(present) < 2 and not multi_label:
        raise ValueError(
            "`source` must hold images of at least two classes. Received: only "
            f"class {printable(repr(*present))}."
        )
