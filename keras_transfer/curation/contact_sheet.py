"""Pictures of examples that were found, to be looked at."""

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
    """Draws a sheet of the images that were found, with what is said of them.

    Args:
        found: What one of the functions of this package returned for the
            features of `split`; pairs stand side by side.
        split: The images that the features are of.
        path: PNG file to write.
        most: Images at most, the first ones. Defaults to `48`.

    Raises:
        ValueError: If nothing was found, or it was found among other images.
        TypeError: If `found` or `split` is something else.

    Example:

    >>> from keras_transfer import curation
    >>> train = load_images((arrays, labels)).train
    >>> features = extract_features(backbone, train, verbose=0)
    >>> found = curation.select_representative(features, 4)
    >>> curation.plot_examples(found, train, folder / "label_these.png")
    """
    if not is_integer(most) or most < 2:
        raise ValueError(
            f"`most` must be an integer from 2. Received: most={most!r}"
        )
    if not isinstance(split, ImageSplit):
        raise TypeError(
            "`split` must be images, such as `data.train`. Received: "
            f"{type(split).__name__}"
        )
    if not len(found):
        raise ValueError("`found` must hold an example. Received: none.")
    shown: list[tuple[int, str, str]] = []
    for one in found:
        parts = _captions(one, split)
        if len(shown) + len(parts) > most:
            break
        shown += parts
    for row, name, _ in shown:
        if row >= len(split) or name not in (split.ids[row], str(row)):
            raise ValueError(
                "`found` must be of the images of `split`. Received: row "
                f"{row}, {name!r}, of other ones."
            )
    images = [split.image(row) for row, _, _ in shown]
    plot_images(images, [caption for _, _, caption in shown], Path(path))


def _captions(
    found: LabelError | Duplicate | ChosenExample, split: ImageSplit
) -> list[tuple[int, str, str]]:
    """Row, id and caption of each image."""
    names = split.class_names
    if isinstance(found, LabelError):
        said = f"{names[found.label]}, rather\n{names[found.suggested]}"
        caption = f"{_last(found.id)}\n{said} {found.margin:.2f}"
        return [(found.row, found.id, caption)]
    if isinstance(found, Duplicate):
        pairs = (found.first, found.first_id), (found.second, found.second_id)
        return [
            (row, name, f"{_last(name)}\n{found.similarity:.3f}")
            for row, name in pairs
        ]
    if isinstance(found, ChosenExample):
        caption = f"{_last(found.id)}\n{found.score:.3g}"
        return [(found.row, found.id, caption)]
    raise TypeError(
        "`found` must hold what a function of this package returned. Received: "
        f"{type(found).__name__}"
    )


def _last(name: str, length: int = 22) -> str:
    return name if len(name) <= length else f"...{name[-length + 3 :]}"
