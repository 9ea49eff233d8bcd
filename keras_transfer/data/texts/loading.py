"""`load_texts`: checked and split text data, from any source."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from keras_transfer._utils.checks import (
    check_choice,
    check_class_names,
    check_integer,
)
from keras_transfer.data import scanning, splitting
from keras_transfer.data.grouping import (
    NO_GROUP,
    GroupsLike,
    group_keys,
    join_groups,
    note_groups_apart,
)
from keras_transfer.data.labels import (
    NO_LABEL,
    check_not_combined,
    sorted_names,
)
from keras_transfer.data.report import (
    DataReport,
    check_named,
    printable,
    raise_for_unusable,
)
from keras_transfer.data.texts.sources import (
    Reading,
    TextRecords,
    read_texts,
)
from keras_transfer.data.texts.texts import TextData, TextSplit


def load_texts(
    source: Any,
    *,
    text_column: str | int | None = None,
    label_column: str | int | None = None,
    split: Sequence[float] = (0.8, 0.1, 0.1),
    seed: int = 0,
    on_error: str = "raise",
    class_names: Sequence[str] | None = None,
    groups: GroupsLike = None,
    encoding: str = "utf-8",
    header: bool | None = None,
) -> TextData:
    """Loads labelled texts from a table, a folder, arrays or TFDS.

    Identical texts are put into the same split; if the source has them in
    different splits or with different labels, they are reported, with a
    `UserWarning`.

    Args:
        source: One of
            - a table `.csv`, `.tsv`, `.jsonl` or `.parquet` (also compressed:
              `.csv.gz`) or a data frame (pandas, polars, Arrow) with a text and
              a label in each row, and optionally a column `split`; or a list
              of such files;
            - a folder of such files named `train`, `dev` (`validation`, `val`)
              and `test`;
            - a folder `class/**/text.txt`, or with `train/`, `dev/` and `test/`
              above the class folders;
            - `(texts, labels)`: lists or arrays of `str` and of integers or
              names;
            - a `tf.data.Dataset` of (text, label) or a pair of them for train
              and validation, or a `datasets.Dataset` of Hugging Face, read into
              memory;
            - a dict with keys `"train"`, `"validation"`, `"test"` of either;
            - `"tfds:name"`, read into memory.
        text_column: Name or number (from 0) of the column with the texts.
            Defaults to `None`, which means `text`, `sentence`, `review`,
            `question` or `content`, or the first column of a table without a
            header.
        label_column: Name or number of the column with the labels. Defaults to
            `None`, which means `label`, `labels`, `class`, `class_name`,
            `category`, `sentiment` or `target`, or the second column of a
            table without a header.
        split: Fractions in [0, 1] for train, validation and test. Splits that
            the source does not have are taken from train, stratified. Defaults
            to `(0.8, 0.1, 0.1)`.
        seed: Seed of the split. Defaults to `0`.
        on_error: `"raise"` for one error that lists all unusable texts, or
            `"skip"` to list them in `.report.skipped`. Defaults to `"raise"`.
        class_names: The classes in the order of their labels. Defaults to
            `None`, which means the order of a source that declares its classes
            (TFDS, Hugging Face, Keras), else alphabetical order, or that of
            numbers if all names are numbers.
        groups: Groups of texts that stay in one split, such as those of an
            author; as in `load_images`. Defaults to `None`.
        encoding: Encoding of files. Defaults to `"utf-8"`.
        header: Whether the first row of a table names its columns. Defaults to
            `None`, which means that it does if `text_column` or `label_column`
            is a name, or the row holds a known name of a label column.

    Returns:
        `TextData`.

    Raises:
        ValueError: If an argument, the source or a text cannot be used.
        TypeError: If `source` is of another type.
        ImportError: If TensorFlow Datasets is needed and missing.

    Example:

    >>> texts = ["good", "bad", "fine", "poor"] * 10
    >>> data = load_texts((texts, ["pos", "neg"] * 20), split=(1, 0, 0))
    >>> data.class_names, len(data.train)
    (('neg', 'pos'), 40)
    """
    fractions = splitting.check_fractions(split)
    check_integer("seed", seed, 0)
    check_choice("on_error", on_error, ("raise", "skip"))
    names = check_class_names(class_names)
    column = groups if isinstance(groups, str) else None
    how = Reading(text_column, label_column, encoding, header, names, column)
    records = read_texts(source, how)
    keys = group_keys(groups, records.ids, records.groups)
    usable, skipped = _usable_texts(records, keys)
    if on_error == "raise":
        raise_for_unusable(skipped, "texts")
    labels = [(records.labels[i],) for i in usable]
    present = {name for (name,) in labels}
    names = names or records.class_names or sorted_names(present)
    _check_classes(present, names, declared=bool(class_names))
    ids = [records.ids[i] for i in usable]
    texts = [records.texts[i] for i in usable]
    copies = scanning.group_equal(texts)
    keys = keys and [keys[i] for i in usable]
    given = [records.splits[i] for i in usable]
    splits, notes = splitting.assign_splits(
        ids, labels, given, join_groups(copies, keys), fractions, seed
    )
    notes += note_groups_apart(keys, splits)
    report = DataReport(
        skipped=tuple(skipped),
        ignored=tuple(sorted(records.ignored)),
        notes=notes,
        kind="texts",
    )
    report = scanning.report_duplicates(report, copies, ids, labels, splits)
    encoded = splitting.encode_labels(labels, names, multi_label=False)
    text_array = np.array(texts, dtype=object)
    by_name = {}
    for name in splitting.SPLITS:
        rows = [row for row, assigned in enumerate(splits) if assigned == name]
        by_name[name] = TextSplit(
            name=name,
            ids=tuple(ids[row] for row in rows),
            labels=encoded[rows],
            class_names=names,
            texts=text_array[rows],
            groups=None if keys is None else tuple(keys[row] for row in rows),
        )
    return TextData(**by_name, class_names=names, report=report)


def _usable_texts(
    records: TextRecords, keys: list[str] | None
) -> tuple[list[int], list[tuple[str, str]]]:
    """Returns the indices of usable texts, and `(id, reason)` of the others."""
    usable, unusable = [], list(records.unusable)
    for i, row_id in enumerate(records.ids):
        if not records.texts[i].strip():
            unusable.append((row_id, "the text is empty"))
        elif not records.labels[i]:
            unusable.append((row_id, NO_LABEL))
        elif keys is not None and not keys[i]:
            unusable.append((row_id, NO_GROUP))
        elif _has_lone_surrogate(records.texts[i]):
            unusable.append((row_id, "it holds half a character (surrogate)"))
        else:
            usable.append(i)
    return usable, unusable


def _has_lone_surrogate(text: str) -> bool:
    """Tells whether a text has no UTF-8, as of a pair cut in two."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return True
    return False


def _check_classes(
    present: set[str], names: tuple[str, ...], declared: bool
) -> None:
    check_named(present, names)
    if not declared:
        check_not_combined(names, "Keep one label of each text")
    if len(present) < 2:
        raise ValueError(
            "`source` must hold texts of at least two classes. Received: only "
            f"{printable(repr(sorted(present)))}."
        )
