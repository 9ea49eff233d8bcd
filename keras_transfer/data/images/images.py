"""Labelled images as indexed splits with stable ids."""

from __future__ import annotations

import dataclasses
import functools
import operator
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from keras_transfer._utils.checks import check_integer
from keras_transfer.data import scanning
from keras_transfer.data.checks import Size, check_image_size
from keras_transfer.data.images.pixels import ArrayPixels, FilePixels
from keras_transfer.data.labelled import LabelledData, LabelledSplit

if TYPE_CHECKING:
    import tensorflow as tf

    from keras_transfer.data.images.augmentation import Augmentation


# Between the seeds of processes that augment parts of a batch: a prime.
_APART = 104_729


@dataclasses.dataclass(frozen=True, repr=False, eq=False)
class ImageSplit(LabelledSplit):
    """Some of the examples of a data set; made by `load_images`.

    A `LabelledSplit` (name, labels, class names), whose ids are paths relative
    to the folder, paths in the manifest, or `"split/000123"`.

    Args:
        pixels: Where the images come from.
        positions: int64 `(n,)`, the place of each example in `pixels`.
        image_size: `(height, width)` that images are resized to, or `None`.
            Defaults to `None`.
        sizes: `(height, width)` per entry of `pixels`, where known. Defaults
            to `None`.
    """

    pixels: FilePixels | ArrayPixels
    positions: np.ndarray
    image_size: Size | None = None
    sizes: tuple[Size | None, ...] | None = None

    def __repr__(self) -> str:
        return (
            f'<ImageSplit "{self.name}": {len(self)} images, '
            f"{len(self.class_names)} classes>"
        )

    def image(self, index: int) -> np.ndarray:
        """Decodes one image.

        Args:
            index: Integer in `[-n, n)`.

        Returns:
            uint8 array `(height, width, channels)` in `[0, 255]`.

        Raises:
            IndexError: If `index` is out of range.
            ValueError: If the file cannot be decoded; names the file.
        """
        return self._read(operator.index(index), self.image_size)

    def digests(self) -> np.ndarray:
        """Digests what each example holds: its file, or its pixels in memory.

        A file that is renamed keeps its digest; nothing is decoded.

        Returns:
            uint8 array `(n, 16)`.

        Raises:
            ValueError: If a file cannot be read.
        """
        found = np.empty((len(self), 16), np.uint8)

        def digest(index: int) -> None:
            position = int(self.positions[index])
            content, _ = self.pixels.inspect(position, verify=False)
            found[index] = np.frombuffer(content, np.uint8)

        for _ in scanning.parallel_map(digest, range(len(self))):
            pass
        return found

    def arrays(
        self, image_size: int | Size | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Decodes all images into memory.

        Args:
            image_size: `(height, width)` or one integer, or `None` for that of
                the data. Defaults to `None`.

        Returns:
            Tuple of uint8 images `(n, height, width, channels)` in `[0, 255]`
            and float32 one-hot (multi-hot) labels `(n, num_classes)`.

        Raises:
            ValueError: If the images differ in size and no size is given, or
                if the split is empty.
        """
        size = self.common_size(image_size)
        images = np.empty((len(self), *size, self.pixels.channels), np.uint8)

        def read(index: int) -> None:
            images[index] = self._read(index, size)

        for _ in scanning.parallel_map(read, range(len(self))):
            pass
        return images, self.one_hot()

    def batches(
        self,
        batch_size: int = 32,
        *,
        image_size: int | Size | None = None,
        shuffle: bool = False,
        seed: int = 0,
        augment: Augmentation | None = None,
        label_mode: str = "categorical",
        cache: bool = False,
        drop_remainder: bool = False,
        initial_epoch: int | Callable[[], int] = 0,
        part: tuple[int, int, int] | None = None,
    ) -> tf.data.Dataset:
        """Makes a `tf.data.Dataset` for `fit`, `evaluate` and `predict`.

        Each iteration is one epoch, with an order and an augmentation of its
        own. They follow from `seed` and the number of the epoch, here and in
        another process.

        Args:
            batch_size: Integer above 0. Defaults to `32`.
            image_size: `(height, width)` or one integer, or `None` for that of
                the data. Defaults to `None`.
            shuffle: Whether to shuffle all examples, anew in each epoch.
                Defaults to `False`.
            seed: Integer, not negative. Defaults to `0`.
            augment: An `Augmentation` for training, or `None`. Defaults to
                `None`.
            label_mode: `"categorical"` (float32 one-hot or multi-hot) or
                `"int"` (int32). Defaults to `"categorical"`.
            cache: Whether to keep decoded pixels in RAM, as uint8, before
                shuffling and augmentation. Defaults to `False`.
            drop_remainder: Whether to drop a last batch that is not full.
                Defaults to `False`.
            initial_epoch: The number of the first epoch, to continue a run
                where it stopped; or a function that gives the number of the
                epoch when an iteration begins. Defaults to `0`.
            part: `(first, last, count)` reads of each batch, cut into `count`
                parts, those from `first` to before `last`: what one of several
                processes trains on. They are augmented by draws of their own.
                Defaults to `None`: all.

        Returns:
            `tf.data.Dataset` of (float32 images `(batch, height, width,
            channels)` in `[0, 255]`, labels), of known cardinality.

        Raises:
            ValueError: If an argument is out of range, the split is empty, the
                images differ in size and no size is given, or images that
                are not for training are to be augmented.
            TypeError: If `augment` is no `Augmentation`.
        """
        import tensorflow as tf

        for name, value, least in (
            ("batch_size", batch_size, 1),
            ("seed", seed, 0),
        ):
            check_integer(name, value, least)
        if not callable(initial_epoch):
            check_integer("initial_epoch", initial_epoch, 0)
        labels = self.labels_for(label_mode)
        self._check_augment(augment)
        if augment is not None and augment.mixes_labels and label_mode == "int":
            raise ValueError(
                '`label_mode` must be "categorical" because `mixup` and '
                '`cutmix` mix labels. Received: label_mode="int".'
            )
        from keras_transfer.data import pipeline

        size = self.common_size(image_size)
        shape = (*size, self.pixels.channels)
        read: Callable[[int], np.ndarray]
        read = functools.partial(self._read, image_size=size)
        if cache:
            read = pipeline.PixelCache(read, len(self), shape)
        batches = pipeline.make_batches(
            read,
            labels,
            shape,
            batch_size=batch_size,
            drop_remainder=drop_remainder,
            order=pipeline.epoch_order(len(self), shuffle, seed),
            initial_epoch=initial_epoch,
            part=part,
        )
        if augment is not None:
            own = seed if part is None else seed + _APART * part[0]
            batches = augment.apply(batches, own, initial_epoch)
        else:
            batches = batches.map(
                pipeline.as_written(lambda x, y: (tf.cast(x, tf.float32), y))
            )
        return batches.prefetch(tf.data.AUTOTUNE)

    def _rows(self, chosen: np.ndarray | slice) -> dict[str, Any]:
        return {"positions": self.positions[chosen]}

    def _read(self, index: int, image_size: Size | None) -> np.ndarray:
        return self.pixels.read(int(self.positions[index]), image_size)

    def _check_augment(self, augment: object) -> None:
        from keras_transfer.data.images.augmentation import Augmentation

        if augment is not None and not isinstance(augment, Augmentation):
            raise TypeError(
                "`augment` must be an `Augmentation` or None. Received: "
                f"augment={augment!r:.100}."
            )
        if augment is not None and self.name != "train":
            raise ValueError(
                "`augment` must be None for images that measure: augmented "
                "ones are others than those to be judged. Received: an "
                f'`Augmentation` for split "{self.name}".'
            )

    def common_size(self, image_size: int | Size | None = None) -> Size:
        """Returns the one size of all images.

        Args:
            image_size: `(height, width)` or one integer, or `None` for that of
                the data. Defaults to `None`.

        Returns:
            `(height, width)`.

        Raises:
            ValueError: If the images differ in size and none is given, or if
                the split is empty.
        """
        if not len(self):
            raise ValueError(
                f'Split "{self.name}" must hold images. Received: none. Check '
                "`len(split)` first, or give it a larger fraction in `split`."
            )
        size = check_image_size(image_size) or self.image_size
        if size is not None:
            return size
        known = self.sizes or (None,) * len(self.pixels)
        found = {known[i] or self.pixels.size(i) for i in self.positions}
        if len(found) > 1:
            some = ", ".join(f"{h}x{w}" for h, w in sorted(found)[:3])
            raise ValueError(
                "`image_size` must be given because the images of "
                f'"{self.name}" differ in size. Received: image_size=None, '
                f"{len(found)} sizes (height x width), such as {some}. Pass "
                "image_size=(height, width) here or to `load_images`."
            )
        return found.pop()


@dataclasses.dataclass(frozen=True, repr=False, eq=False)
class ImageData(LabelledData):
    """A labelled image data set in three splits; made by `load_images`.

    A `LabelledData`: it has class names and a report.

    Args:
        train: The examples to train on.
        validation: The examples to choose by; may be empty.
        test: The examples to measure on; may be empty.
        image_size: `(height, width)` of all images, or `None` where they
            differ and none was asked for.
        channels: The number of channels.
        multi_label: Whether an image may have several classes.
    """

    train: ImageSplit
    validation: ImageSplit
    test: ImageSplit
    image_size: Size | None
    channels: int
    multi_label: bool

    def __repr__(self) -> str:
        size = "x".join(map(str, self.image_size or ("mixed sizes",)))
        return (
            f"<ImageData: {self.num_classes} classes, {len(self.train)} train, "
            f"{len(self.validation)} validation, {len(self.test)} test images, "
            f"{size}, {self.channels} channels>"
        )
