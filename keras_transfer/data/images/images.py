"""Labelled images as indexed splits with stable ids."""

from __future__ import annotations

import dataclasses
import functools
import operator
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from keras_transfer._utils.checks import check_integer
from keras_transfer._utils.digest import DIGEST_BYTES
from keras_transfer.data import scanning
from keras_transfer.data.checks import Size, check_image_size
from keras_transfer.data.images.pixels import ArrayPixels, FilePixels
from keras_transfer.data.labelled import LabelledData, LabelledSplit

if TYPE_CHECKING:
    import tensorflow as tf

    from keras_transfer.data.images.augmentation import Augmentation


# Difference of the seeds of processes that augment shards of a batch, a prime.
_SEED_STRIDE = 104_729


@dataclasses.dataclass(frozen=True, repr=False, eq=False)
class ImageSplit(LabelledSplit):
    """The images of one split of a data set; made by `load_images`.

    A `LabelledSplit` (name, labels, class names), whose ids are paths relative
    to the folder, paths in the manifest, or `"split/000123"`.

    Args:
        pixels: Source of the pixels of all images.
        positions: int64 `(n,)`, the index of each example in `pixels`.
        image_size: Size `(height, width)` that images are resized to, or
            `None`. Defaults to `None`.
        sizes: Size `(height, width)` of each entry of `pixels`, `None` if
            unknown. Defaults to `None`.
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
            index: Index of the image, in `[-n, n)`.

        Returns:
            uint8 array `(height, width, channels)` in `[0, 255]`.

        Raises:
            IndexError: If `index` is out of range.
            ValueError: If the file cannot be decoded; the message names the
                file.
        """
        return self._read(operator.index(index), self.image_size)

    def digests(self) -> np.ndarray:
        """Digests the content of each example: its file, or its pixels.

        A renamed file has the same digest. Nothing is decoded.

        Returns:
            uint8 array `(n, 16)`.

        Raises:
            ValueError: If a file cannot be read.
        """
        digests = np.empty((len(self), DIGEST_BYTES), np.uint8)

        def compute(index: int) -> None:
            position = int(self.positions[index])
            digest, _ = self.pixels.inspect(position, verify=False)
            digests[index] = np.frombuffer(digest, np.uint8)

        for _ in scanning.parallel_map(compute, range(len(self))):
            pass
        return digests

    def arrays(
        self, image_size: int | Size | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Decodes all images into memory.

        Args:
            image_size: Size `(height, width)` or one integer, or `None` for the
                size of the data. Defaults to `None`.

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

        Each iteration is one epoch, with its own order and augmentation. Both
        depend only on `seed` and the number of the epoch, so they are the same
        in another process.

        Args:
            batch_size: Number of images per batch, above 0. Defaults to `32`.
            image_size: Size `(height, width)` or one integer, or `None` for the
                size of the data. Defaults to `None`.
            shuffle: Whether to shuffle all examples, differently in each epoch.
                Defaults to `False`.
            seed: Seed of the order and the augmentation, not negative. Defaults
                to `0`.
            augment: An `Augmentation` for training, or `None`. Defaults to
                `None`.
            label_mode: Format of the labels: `"categorical"` (float32 one-hot
                or multi-hot) or `"int"` (int32). Defaults to `"categorical"`.
            cache: Whether to cache decoded pixels in RAM, as uint8, before
                shuffling and augmentation. Defaults to `False`.
            drop_remainder: Whether to drop a last batch that is not full.
                Defaults to `False`.
            initial_epoch: The number of the first epoch, to resume a run; or a
                function that returns the number at the start of each iteration.
                Defaults to `0`.
            part: Shards `(first, last, count)` of one of several processes:
                each batch is cut into `count` shards, of which those from
                `first` to before `last` are read. Each process augments by its
                own seed. Defaults to `None`, all shards.

        Returns:
            `tf.data.Dataset` of (float32 images `(batch, height, width,
            channels)` in `[0, 255]`, labels), of known cardinality.

        Raises:
            ValueError: If an argument is out of range, the split is empty, the
                images differ in size and no size is given, or `augment` is
                given for a split other than train.
            TypeError: If `augment` is not an `Augmentation`.
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
            if part is not None:
                seed += _SEED_STRIDE * part[0]
            batches = augment.apply(batches, seed, initial_epoch)
        else:
            batches = batches.map(
                pipeline.as_written(lambda x, y: (tf.cast(x, tf.float32), y))
            )
        return batches.prefetch(tf.data.AUTOTUNE)

    def _row_fields(self, chosen: np.ndarray | slice) -> dict[str, Any]:
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
                "`augment` must be None for images that are not for training, "
                "because a metric of augmented images is not that of the "
                "images. Received: an `Augmentation` for split "
                f'"{self.name}".'
            )

    def common_size(self, image_size: int | Size | None = None) -> Size:
        """Returns the common size of all images.

        Args:
            image_size: Size `(height, width)` or one integer, or `None` for the
                size of the data. Defaults to `None`.

        Returns:
            Tuple `(height, width)`.

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
        sizes = {known[i] or self.pixels.size(i) for i in self.positions}
        if len(sizes) > 1:
            examples = ", ".join(f"{h}x{w}" for h, w in sorted(sizes)[:3])
            raise ValueError(
                "`image_size` must be given because the images of "
                f'"{self.name}" differ in size. Received: image_size=None, '
                f"{len(sizes)} sizes (height x width), such as {examples}. "
                "Pass image_size=(height, width) here or to `load_images`."
            )
        return sizes.pop()


@dataclasses.dataclass(frozen=True, repr=False, eq=False)
class ImageData(LabelledData):
    """A labelled image data set in three splits; made by `load_images`.

    A `LabelledData`: it has class names and a report.

    Args:
        train: The training examples.
        validation: The validation examples; may be empty.
        test: The test examples; may be empty.
        image_size: Size `(height, width)` of all images, or `None` if they
            differ and are not resized.
        channels: Number of channels.
        multi_label: Whether an image may have several classes.
    """

    train: ImageSplit
    validation: ImageSplit
    test: ImageSplit
    image_size: Size | None
    channels: int
    multi_label: bool

    @property
    def resize(self) -> str:
        """The way images are resized, as in `load_images`."""
        return self.train.pixels.resize

    def __repr__(self) -> str:
        size = "x".join(map(str, self.image_size or ("mixed sizes",)))
        return (
            f"<ImageData: {self.num_classes} classes, {len(self.train)} train, "
            f"{len(self.validation)} validation, {len(self.test)} test images, "
            f"{size}, {self.channels} channels>"
        )
