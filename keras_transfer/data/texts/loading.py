"""`load_texts`: from any source to checked, split, reported text data."""

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
from keras_transfer.data.report import (
    DataReport,
    check_named,
    printable,
    refuse,
)
from keras_transfer.data.texts.files import TextRecords, read_texts
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
    encoding: str = "utf-8",
    header: bool | None = None,
) -> TextData:
    """Loads labelled texts from a table, a folder, arrays or TFDS.

    Identical texts are kept on one side of a split that is made here, and
    reported (with a `UserWarning`) where the source puts them in different
    splits or gives them different labels.

    Args:
        source: One of
            - a `.csv` or `.tsv` file with a text and a label in each row, and
              optionally a column `split`;
            - a folder of such files named `train`, `dev` (`validation`, `val`)
              and `test`;
            - a folder `class/**/text.txt`, or with `train/` and so on above
              the class folders;
            - `(texts, labels)`: lists or arrays of `str` and of integers or
              names; or a dict with keys `"train"`, `"validation"`, `"test"`;
            - `"tfds:name"`, read into memory.
        text_column: Name or number (from 0) of the column with the texts.
            Defaults to `None`: `text`, `sentence`, `review`, `question` or
            `content`; the first one where no row names them.
        label_column: Likewise with the labels. Defaults to `None`: `label`,
            `class`, `category`, `sentiment` or `target`; the second one where
            no row names them.
        split: Fractions in [0, 1] for train, validation and test, for what the
            source does not say: missing parts are split off train, stratified.
            Defaults to `(0.8, 0.1, 0.1)`.
        seed: Integer that decides the split. Defaults to `0`.
        on_error: `"raise"` one error that lists texts that are empty, or
            `"skip"` them and list them in `.report.skipped`. Defaults to
            `"raise"`.
        class_names: The classes in the order of their labels, as the source
            has them. Defaults to `None`: alphabetical, by number where all are
            integers, in its order for TFDS.
        encoding: Of files. Defaults to `"utf-8"`.
        header: Whether the first row of a table names its columns. Defaults to
            `None`: it does where `text_column` or `label_column` is a name, or
            one of its names is known for labels.

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
    records = read_texts(
        source,
        text=text_column,
        label=label_column,
        encoding=encoding,
        header=header,
    )
    kept, skipped = _keep_good(records)
    if on_error == "raise":
        refuse(skipped, "texts")
    labels = [(records.labels[i],) for i in kept]
    names = names or records.class_names or _names(labels)
    _check_classes(labels, names)
    ids = [records.ids[i] for i in kept]
    texts = [records.texts[i] for i in kept]
    groups = scanning.group_equal(texts)
    splits, notes = splitting.assign_splits(
        ids, labels, [records.splits[i] for i in kept], groups, fractions, seed
    )
    report = DataReport(
        skipped=tuple(skipped),
        ignored=tuple(sorted(records.ignored)),
        notes=notes,
        kind="texts",
    )
    report = scanning.report_duplicates(report, groups, ids, labels, splits)
    encoded = splitting.encode_labels(labels, names, multi_label=False)
    together = np.array(texts, dtype=object)
    parts = {}
    for name in splitting.SPLITS:
        where = [k for k, split_ in enumerate(splits) if split_ == name]
        parts[name] = TextSplit(
            name=name,
            ids=tuple(ids[k] for k in where),
            labels=encoded[where],
            class_names=names,
            texts=together[where],
        )
    return TextData(**parts, class_names=names, report=report)


def _keep_good(
    records: TextRecords,
) -> tuple[list[int], list[tuple[str, str]]]:
    """Returns the places of the good texts, and `(id, reason)` of others."""
    kept, bad = [], []
    for place, row_id in enumerate(records.ids):
        if not records.texts[place].strip():
            bad.append((row_id, "the text is empty"))
        elif not records.labels[place]:
            bad.append((row_id, "it has no label"))
        else:
            kept.append(place)
    return kept, bad


def _names(labels: Sequence[tuple[str, ...]]) -> tuple[str, ...]:
    found = {name for (name,) in labels}
    try:
        return tuple(sorted(found, key=lambda name: (int(name), name)))
    except ValueError:
        return tuple(sorted(found))


def _check_classes(
    labels: Sequence[tuple[str, ...]], names: tuple[str, ...]
) -> None:
    found = {name for (name,) in labels}
    check_named(found, names)
    if len(found) < 2:
        raise ValueError(
            "`source` must hold texts of at least two classes. Received: only "
            f"{printable(repr(sorted(found)))}."
        )
