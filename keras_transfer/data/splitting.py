"""Stratified splits that are the same on every machine and library version.

Examples are ordered by a hash of the seed and their id, so that neither the
order of the files nor a random generator matters. In this order, class by
class, each example goes to the split that is furthest behind its share.

scikit-learn's `train_test_split(stratify=...)` is not used: it raises for
classes with one example and for splits with fewer examples than classes, which
are common with few labels, and it supports neither groups nor several labels.
"""

from __future__ import annotations

import hashlib
import re
import warnings
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

SPLITS = ("train", "validation", "test")

SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "validation": "validation",
    "val": "validation",
    "valid": "validation",
    "dev": "validation",
    "test": "test",
    "testing": "test",
}

# Words beside the name of a split in the names of folders.
_SPLIT_WORDS = {"", "set", "data", "dataset", "images", "imgs", "texts", "seg"}


def split_of(folder: str) -> str | None:
    """Returns the split that the name of a folder means, or `None`.

    Example:

    >>> split_of("training_set"), split_of("seg_test"), split_of("trains")
    ('train', 'test', None)
    """
    words = set(re.split(r"[^a-z]+", folder.lower())) - _SPLIT_WORDS
    word = words.pop() if len(words) == 1 else ""
    return SPLIT_NAMES.get(word) or SPLIT_NAMES.get(word.removesuffix("set"))


def check_fractions(split: object) -> tuple[float, float, float]:
    """Checks the fractions for train, validation and test."""
    try:
        fractions = tuple(float(x) for x in split)  # type: ignore
        valid = (
            len(fractions) == 3
            and all(0 <= fraction <= 1 for fraction in fractions)
            and abs(sum(fractions) - 1) < 1e-6
            and fractions[0] > 0
        )
    except (TypeError, ValueError):
        valid = False
    if not valid:
        raise ValueError(
            "`split` must be three fractions in [0, 1] for train, validation "
            f"and test that sum to 1, train above 0. Received: split={split}."
        )
    return fractions  # type: ignore


def missing_fractions(
    given: Iterable[str], split: tuple[float, float, float]
) -> dict[str, float]:
    """Returns the fractions of the splits that are taken from train.

    Their proportion to train stays the same: with a test split in the source,
    `(0.8, 0.1, 0.1)` makes 1/9 of its training examples the validation split.
    """
    given = set(given)
    fractions = {
        name: fraction
        for name, fraction in zip(SPLITS, split, strict=True)
        if name == "train" or name not in given
    }
    total = sum(fractions.values())
    return {name: fraction / total for name, fraction in fractions.items()}


def split_examples(
    ids: Sequence[str],
    labels: Sequence[tuple[str, ...]],
    groups: Sequence[Sequence[int]],
    fractions: Mapping[str, float],
    seed: int,
) -> list[str]:
    """Assigns every example to a split.

    Args:
        ids: The id of each example.
        labels: The class names of each example.
        groups: Groups of positions that must be in the same split (identical
            images); together they hold each position once.
        fractions: The fraction of each split, `"train"` included.
        seed: Seed of the order.

    Returns:
        The name of the split for each example. The share of each class is
        correct to within one or two examples, and at least one group of each
        class is in train.

    Example:

    >>> ids = [f"{i}.jpg" for i in range(10)]
    >>> labels = [("cat",)] * 5 + [("dog",)] * 5
    >>> groups = [[i] for i in range(10)]
    >>> shares = {"train": 0.8, "test": 0.2}
    >>> splits = split_examples(ids, labels, groups, shares, seed=0)
    >>> splits.count("test"), splits[:5].count("test")
    (2, 1)
    """
    frequency = Counter(label for names in labels for label in names)
    units = []
    for group in groups:
        names = sorted({label for i in group for label in labels[i]})
        # Of several classes, the rarest one is stratified.
        stratum = min(names, key=lambda n: (frequency[n], n), default="")
        first = min(ids[i] for i in group)
        key = (place(stratum, seed), stratum, place(first, seed), first)
        units.append((key, names, group))
    units.sort(key=lambda unit: unit[0])

    # A split without a share must never be furthest behind.
    fractions = {name: x for name, x in fractions.items() if x > 0}
    assigned = [""] * len(ids)
    in_train: set[str] = set()  # classes with an example in train
    behind = dict.fromkeys(fractions, 0.0)  # examples that a split lacks
    for _, names, group in units:
        for name, fraction in fractions.items():
            behind[name] += fraction * len(group)
        split = max(behind, key=lambda name: behind[name])
        if not in_train.issuperset(names):
            split = "train"
        if split == "train":
            in_train.update(names)
        behind[split] -= len(group)
        for i in group:
            assigned[i] = split
    return assigned


def place(name: str, seed: int) -> bytes:
    """Returns the sort key of `name` in the order of a seed."""
    text = f"{seed}/{name}".encode("utf-8", "surrogateescape")
    return hashlib.blake2b(text, digest_size=8).digest()


def draw_shots(
    ids: Sequence[str], labels: np.ndarray, k: int, seed: int
) -> list[int]:
    """Draws `k` examples of each class, by their ids.

    Args:
        ids: Stable ids of the examples.
        labels: Class indices `(n,)`.
        k: Number of examples per class; no class has fewer.
        seed: Seed of the draw.

    Returns:
        Indices of the drawn examples, ascending.
    """
    counts: Counter[int] = Counter()
    drawn = []
    for i in sorted(range(len(ids)), key=lambda i: place(ids[i], seed)):
        if counts[label := int(labels[i])] < k:
            counts[label] += 1
            drawn.append(i)
    return sorted(drawn)


def notes_on_splits(
    labels: Sequence[tuple[str, ...]],
    splits: Sequence[str],
    fractions: Mapping[str, float],
) -> tuple[str, ...]:
    """Returns notes about classes that are too small, and empty splits."""
    total = Counter(label for names in labels for label in names)
    notes = [
        f'Class "{name}" has 1 example: it is in train, and no other split '
        "can measure this class."
        for name, count in sorted(total.items())
        if count == 1 and sum(x > 0 for x in fractions.values()) > 1
    ]
    counts = Counter(splits)
    notes += [
        f'Split "{name}" is empty: {len(labels)} examples are too few for a '
        f"fraction of {fraction:.3g}."
        for name, fraction in fractions.items()
        if fraction > 0 and not counts[name]
    ]
    return tuple(notes)


def assign_splits(
    ids: list[str],
    labels: Sequence[tuple[str, ...]],
    given: list[str | None],
    groups: list[list[int]],
    fractions: tuple[float, float, float],
    seed: int,
) -> tuple[list[str], tuple[str, ...]]:
    """Returns the split of each example, and notes on small classes.

    Args:
        ids: The id of each example.
        labels: The class names of each example.
        given: The split of each example in the source, or `None`.
        groups: Groups of positions that must be in the same split.
        fractions: Fractions of train, validation and test.
        seed: Seed of the order.

    Returns:
        Tuple of the names of the splits, and the notes.
    """
    missing = missing_fractions(filter(None, given), fractions)
    # Only examples without a split, or in train, are assigned; their positions
    # among all examples, and the groups of positions among them.
    positions = [i for i, name in enumerate(given) if name in (None, "train")]
    index_of = {position: index for index, position in enumerate(positions)}
    inner = [[index_of[i] for i in group if i in index_of] for group in groups]
    labels = [labels[i] for i in positions]
    assigned = split_examples(
        [ids[i] for i in positions],
        labels,
        [group for group in inner if group],
        missing,
        seed,
    )
    notes = notes_on_splits(labels, assigned, missing)
    for note in notes:
        if note.startswith("Class"):
            warnings.warn(note, UserWarning, stacklevel=3)
    splits = [name or "train" for name in given]
    for position, name in zip(positions, assigned, strict=True):
        splits[position] = name
    return splits, notes


def encode_labels(
    labels: Sequence[tuple[str, ...]],
    class_names: tuple[str, ...],
    multi_label: bool,
) -> np.ndarray:
    """Returns int32 `(n,)`, or float32 0/1 `(n, num_classes)`."""
    index = {name: i for i, name in enumerate(class_names)}
    if not multi_label:
        return np.array([index[name] for (name,) in labels], np.int32)
    encoded = np.zeros((len(labels), len(class_names)), np.float32)
    for row, names in enumerate(labels):
        encoded[row, [index[name] for name in names]] = 1
    return encoded
