"""Contact sheets of selected examples, for inspection."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from keras_transfer._utils.checks import is_integer
from keras_transfer.curation.cleaning import (
    ChosenExample,
    Duplicate,
    LabelError,
)
from keras_transfer.data import ImageSplit
from keras_transfer.reports.plots import plot_images


def plot_examples(
    found: Sequence[LabelError | Duplicate | ChosenExample],
    split: ImageSplit,
    path: str | Path,
    *,
    most: int = 48,
) -> None:
    """Draws a contact sheet of examples, each with a caption.

    Args:
        found: Result of a function in this package for the features of
            `split`. Duplicates are drawn side by side.
        split: The images of the features.
        path: PNG file to write.
        most: Largest number of images, the first ones. Defaults to `48`.

    Raises:
        ValueError: If `found` is empty, or of other images.
        TypeError: If `found` or `split` is of another type.

    Example:

    >>> from keras_transfer import curation
    >>> train = load_images((arrays, labels)).train
    >>> features = extract_features(backbone, train, verbose=0)
    >>> found = curation.select_representative(features, 4)
    >>> curation.plot_examples(found, train, folder / "label_these.png")
    """
    if not is_integer(most) or most < 2:
        raise ValueError(
            f"`most` must be an integer of at least 2. Received: most={most!r}"
        )
    if not isinstance(split, ImageSplit):
        raise TypeError(
            "`split` must be images, such as `data.train`. Received: "
            f"{type(split).__name__}"
        )
    if not len(found):
        raise ValueError("`found` must hold an example. Received: none.")
    cells: list[tuple[int, str, str]] = []
    for example in found:
        captions = _captions(example, split)
        if len(cells) + len(captions) > most:
            break
        cells += captions
    for row, name, _ in cells:
        if row >= len(split) or name not in (split.ids[row], str(row)):
            raise ValueError(
                "`found` must be of the images of `split`. Received: row "
                f"{row}, {name!r}, which is not one of them."
            )
    images = [split.image(row) for row, _, _ in cells]
    plot_images(images, [caption for _, _, caption in cells], Path(path))


def _captions(
    example: LabelError | Duplicate | ChosenExample, split: ImageSplit
) -> list[tuple[int, str, str]]:
    """Returns row, id and caption of each image of an example."""
    names = split.class_names
    if isinstance(example, LabelError):
        labels = f"{names[example.label]}, rather\n{names[example.suggested]}"
        caption = f"{_ending(example.id)}\n{labels} {example.margin:.2f}"
        return [(example.row, example.id, caption)]
    if isinstance(example, Duplicate):
        pair = (
            (example.first, example.first_id),
            (example.second, example.second_id),
        )
        return [
            (row, name, f"{_ending(name)}\n{example.similarity:.3f}")
            for row, name in pair
        ]
    if isinstance(example, ChosenExample):
        caption = f"{_ending(example.id)}\n{example.score:.3g}"
        return [(example.row, example.id, caption)]
    raise TypeError(
        "`found` must be a result of a function in this package. Received: "
        f"a sequence of {type(example).__name__}"
    )


def _ending(name: str, length: int = 22) -> str:
    """Returns the last characters of a name, where paths differ."""
    return name if len(name) <= length else f"...{name[-length + 3 :]}"
