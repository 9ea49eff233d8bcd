"""Stratified splits that are the same on every machine and library version.

Every example has a place in an order that depends on nothing but the seed and
its id (a hash), never on the order of the files or on a random generator. Down
this order, class by class, each example goes to the split that is furthest
behind its share.

scikit-learn's `train_test_split(stratify=...)` is not used: it refuses classes
with one example and any part with fewer examples than there are classes, which
is what few-label data look like; it knows neither groups nor multi-label.
"""

from __future__ import annotations

import hashlib
import warnings
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

SPLITS = ("train", "validation", "test")


def check_fractions(split: object) -> tuple[float, float, float]:
    """Checks the fractions for train, validation and test."""
    try:
        fractions = tuple(float(part) for part in split)  # type: ignore
        good = (
            len(fractions) == 3
            and all(0 <= part <= 1 for part in fractions)
            and abs(sum(fractions) - 1) < 1e-6
            and fractions[0] > 0
        )
    except (TypeError, ValueError):
        good = False
    if not good:
        raise ValueError(
            "`split` must be three fractions in [0, 1] for train, validation "
            f"and test that sum to 1, train above 0. Received: split={split}."
        )
    return fractions  # type: ignore


def missing_fractions(
    given: Iterable[str], split: tuple[float, float, float]
) -> dict[str, float]:
    """Returns what to split train into, where the source gives some splits.

    The parts keep their proportion to train: with a test set given,
    `(0.8, 0.1, 0.1)` makes 1/9 of the source's train the validation set.
    """
    given = set(given)
    parts = {
        name: part
        for name, part in zip(SPLITS, split, strict=True)
        if name == "train" or name not in given
    }
    total = sum(parts.values())
    return {name: part / total for name, part in parts.items()}


def split_examples(
    ids: Sequence[str],
    labels: Sequence[tuple[str, ...]],
    groups: Sequence[Sequence[int]],
    fractions: Mapping[str, float],
    seed: int,
) -> list[str]:
    """Assigns every example to a split.

    Args:
        ids: One id per example.
        labels: The class names of each example; several if multi-label.
        groups: Positions that must stay on one side (identical images);
            together they hold each position once.
        fractions: Share of each split; has `"train"`.
        seed: Integer; another seed gives another split.

    Returns:
        The name of the split for each example. Each class has its share to
        within one or two examples, and at least one group in train.

    Example:

    >>> ids = [f"{i}.jpg" for i in range(10)]
    >>> labels = [("cat",)] * 5 + [("dog",)] * 5
    >>> groups = [[i] for i in range(10)]
    >>> shares = {"train": 0.8, "test": 0.2}
    >>> parts = split_examples(ids, labels, groups, shares, seed=0)
    >>> parts.count("test"), parts[:5].count("test")
    (2, 1)
    """
    frequency = Counter(label for names in labels for label in names)
    units = []
    for group in groups:
        names = sorted({label for i in group for label in labels[i]})
        # A multi-label example counts for the rarest of its classes.
        stratum = min(names, key=lambda n: (frequency[n], n), default="")
        first = min(ids[i] for i in group)
        key = (place(stratum, seed), stratum, place(first, seed), first)
        units.append((key, names, group))
    units.sort(key=lambda unit: unit[0])

    # A split without a share must never be furthest behind.
    fractions = {name: part for name, part in fractions.items() if part > 0}
    assigned = [""] * len(ids)
    anchored: set[str] = set()
    behind = dict.fromkeys(fractions, 0.0)
    for _, names, group in units:
        for name, fraction in fractions.items():
            behind[name] += fraction * len(group)
        choice = max(behind, key=lambda name: behind[name])
        if not anchored.issuperset(names):
            choice = "train"
        if choice == "train":
            anchored.update(names)
        behind[choice] -= len(group)
        for i in group:
            assigned[i] = choice
    return assigned


def place(name: str, seed: int) -> bytes:
    """Returns where `name` stands in the order that belongs to `seed`."""
    text = f"{seed}/{name}".encode("utf-8", "surrogateescape")
    return hashlib.blake2b(text, digest_size=8).digest()


def draw_shots(
    ids: Sequence[str], labels: np.ndarray, k: int, seed: int
) -> list[int]:
    """Draws `k` examples of each class, by their ids.

    Args:
        ids: Stable names.
        labels: Class indices `(n,)`.
        k: Examples of a class; each has as many.
        seed: Another one draws others.

    Returns:
        Their places, in order.
    """
    taken: Counter[int] = Counter()
    chosen = []
    for i in sorted(range(len(ids)), key=lambda i: place(ids[i], seed)):
        if taken[label := int(labels[i])] < k:
            taken[label] += 1
            chosen.append(i)
    return sorted(chosen)


def notes_on_splits(
    labels: Sequence[tuple[str, ...]],
    splits: Sequence[str],
    fractions: Mapping[str, float],
) -> tuple[str, ...]:
    """Says which classes are too small to stand in each split."""
    total = Counter(label for names in labels for label in names)
    notes = [
        f'Class "{name}" has 1 example: it is in train, and no other split '
        "can measure this class."
        for name, count in sorted(total.items())
        if count == 1 and sum(part > 0 for part in fractions.values()) > 1
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
    """Returns the split of each example, and notes on what came out small."""
    parts = missing_fractions(filter(None, given), fractions)
    places = [i for i, name in enumerate(given) if name in (None, "train")]
    inside = {place: position for position, place in enumerate(places)}
    within = [[inside[i] for i in group if i in inside] for group in groups]
    labels = [labels[i] for i in places]
    assigned = split_examples(
        [ids[i] for i in places],
        labels,
        [group for group in within if group],
        parts,
        seed,
    )
    notes = notes_on_splits(labels, assigned, parts)
    for note in notes:
        if note.startswith("Class"):
            warnings.warn(note, UserWarning, stacklevel=3)
    splits = [name or "train" for name in given]
    for place, name in zip(places, assigned, strict=True):
        splits[place] = name
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
