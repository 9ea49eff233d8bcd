"""Random augmentation of training batches, by layers of Keras."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from keras_transfer._utils.checks import is_number, refuse
from keras_transfer.data.pipeline import Epoch, epoch_numbers

if TYPE_CHECKING:
    import tensorflow as tf


# Largest value of each field that the layers of Keras support.
_LIMITS = {
    "rotation": 180.0,
    "zoom": 0.9,
    "crop": 0.9,
    "translation": 1.0,
    "erasing": 1.0,
    "color_jitter": 1.0,
    "lighting": 1.0,
    "mixup": 1.0,
    "cutmix": 1.0,
}


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """Settings of random augmentation, for `ImageSplit.batches(augment=...)`.

    All settings are plain values; `0.0` disables a transformation. Each image
    of a batch is transformed at random by itself. Augmentation acts on a
    dataset and never becomes part of a model, so that inference is never
    augmented. Images stay float32 in `[0, 255]`; regions that a geometric
    transformation uncovers are filled by reflection.

    Args:
        horizontal_flip: Whether to mirror half of the images left to right
            (`RandomFlip`). Defaults to `True`.
        vertical_flip: Whether to mirror half of the images top to bottom
            (`RandomFlip`). Defaults to `False`.
        rotation: Largest angle in degrees, in `[0, 180]`; drawn from
            `[-rotation, rotation]` (`RandomRotation`). Defaults to `0.0`.
        zoom: Largest zoom, a fraction in `[0, 0.9]`; the visible side is
            `1 - zoom` to `1 + zoom` times that of the image, with the same
            aspect ratio (`RandomZoom`). Defaults to `0.0`.
        crop: Fraction of each side that is cropped, in `[0, 0.9]`: a window of
            side `1 - crop` at a random position, stretched to the full size
            (`RandomTranslation`, then `RandomZoom`, since `RandomCrop` crops
            the whole batch at one position). Defaults to `0.0`.
        translation: Largest shift, a fraction of the side in `[0, 1]`
            (`RandomTranslation`). Defaults to `0.0`.
        erasing: Probability in `[0, 1]` that a rectangle is filled with
            mid-grey (`RandomErasing`). Defaults to `0.0`.
        color_jitter: Strength in `[0, 1]`: brightness, contrast and saturation
            change by up to this fraction, hue by up to a quarter of it
            (`RandomColorJitter`; for images with 1 or 3 channels, of which the
            former have no saturation and hue). Defaults to `0.0`.
        lighting: Strength in `[0, 1]` of changes of brightness and contrast
            only (`RandomBrightness`, `RandomContrast`), for any number of
            channels. Keras has no layer for the PCA lighting of AlexNet.
            Defaults to `0.0`.
        mixup: Alpha in `[0, 1]` of the Beta distribution that weighs two
            images and their labels (`MixUp`). Defaults to `0.0`.
        cutmix: Alpha in `[0, 1]` of the Beta distribution of the area that is
            pasted from another image (`CutMix`). If `mixup` is set too, each
            batch uses one of the two at random. Defaults to `0.0`.

    Raises:
        ValueError: If a value is out of range.
        TypeError: If a flip is not a bool.

    Example:

    >>> augment = Augmentation(rotation=10.0, crop=0.1)
    >>> augment.rotation
    10.0

    References:
        - Zhong et al., 2017, https://arxiv.org/abs/1708.04896
        - Zhang et al., 2017, https://arxiv.org/abs/1710.09412
        - Yun et al., 2019, https://arxiv.org/abs/1905.04899
    """

    horizontal_flip: bool = True
    vertical_flip: bool = False
    rotation: float = 0.0
    zoom: float = 0.0
    crop: float = 0.0
    translation: float = 0.0
    erasing: float = 0.0
    color_jitter: float = 0.0
    lighting: float = 0.0
    mixup: float = 0.0
    cutmix: float = 0.0

    def __post_init__(self) -> None:
        for name in ("horizontal_flip", "vertical_flip"):
            if not isinstance(getattr(self, name), bool):
                raise TypeError(
                    f"`{name}` must be True or False. Received: "
                    f"{name}={getattr(self, name)!r}."
                )
        for name, limit in _LIMITS.items():
            value = getattr(self, name)
            if not is_number(value) or not 0 <= value <= limit:
                unit = " degrees" if name == "rotation" else ""
                refuse(name, f"a number in [0, {limit:g}]{unit}", value)

    @property
    def changes_pixels(self) -> bool:
        """Tells whether single images change, apart from mixing."""
        names = set(dataclasses.asdict(self)) - {"mixup", "cutmix"}
        return any(getattr(self, name) for name in names)

    @property
    def mixes_labels(self) -> bool:
        """Tells whether labels are mixed, and so must be one-hot."""
        return self.mixup > 0 or self.cutmix > 0

    def apply(
        self,
        dataset: tf.data.Dataset,
        seed: int = 0,
        initial_epoch: Epoch = 0,
    ) -> tf.data.Dataset:
        """Augments a batched dataset.

        The augmentation of a batch depends only on `seed`, the number of the
        epoch (the number of earlier iterations of the result) and the number of
        the batch, so it is the same in another process.

        Args:
            dataset: `tf.data.Dataset` of (images, labels): images of shape
                `(batch, height, width, channels)` in `[0, 255]`, labels one-hot
                or multi-hot if `mixup` or `cutmix` is set.
            seed: Seed of the augmentation. Defaults to `0`.
            initial_epoch: The number of the first epoch, or a function that
                returns the number at the start of each iteration. Defaults to
                `0`.

        Returns:
            `tf.data.Dataset` of (float32 images in `[0, 255]`, labels).

        Raises:
            ValueError: If the dataset has other shapes, or integer labels
                although `mixup` or `cutmix` is set.
        """
        import tensorflow as tf

        images, labels = self._check_spec(dataset.element_spec)
        generator = _make_batch_seeds()
        single, mixing = self._layers(images.shape[-1], generator)

        def change(
            x: tf.Tensor, y: tf.Tensor, batch_seed: tf.Tensor
        ) -> tuple[tf.Tensor, tf.Tensor]:
            generator.restart(batch_seed)
            x = tf.cast(x, tf.float32)
            for layer in single:
                x = layer(x, training=True)
            if mixing:
                y = tf.cast(y, tf.float32)
                mixed = [_mix(layer, x, y) for layer in mixing]
                coin = tf.random.stateless_uniform((), generator.next())
                first = coin < 0.5
                x, y = (
                    tf.where(first, one, other)
                    for one, other in zip(mixed[0], mixed[-1], strict=True)
                )
            # Interpolation and Keras' saturation may leave the range.
            x = tf.clip_by_value(x, 0.0, 255.0)
            x = tf.ensure_shape(x, images.shape)
            return x, tf.ensure_shape(y, labels.shape)

        seeds = epoch_numbers(initial_epoch).flat_map(
            lambda epoch: tf.data.Dataset.counter().map(
                # Each batch draws fewer than 256 times.
                lambda step: tf.stack([seed * 1_000_003 + epoch, 256 * step])
            )
        )
        pairs_and_seeds = tf.data.Dataset.zip(dataset, seeds)
        result = pairs_and_seeds.map(
            lambda pair, batch_seed: change(pair[0], pair[1], batch_seed),
            num_parallel_calls=tf.data.AUTOTUNE,
            deterministic=True,
        )
        count = int(dataset.cardinality())
        if count == tf.data.UNKNOWN_CARDINALITY:
            return result
        return result.apply(tf.data.experimental.assert_cardinality(count))

    def change_each(
        self, channels: int
    ) -> Callable[[tf.Tensor, tf.Tensor], tf.Tensor]:
        """Makes a function that augments each image by a seed of its own.

        The result depends only on the image and its seed, not on the rest of
        the batch; `mixup` and `cutmix` are not applied.

        Args:
            channels: Number of channels of the images.

        Returns:
            Function of images `(batch, height, width, channels)` in `[0, 255]`
            and int64 seeds `(batch, 2)` to float32 images in `[0, 255]`.
        """
        import tensorflow as tf

        generator = _make_batch_seeds()
        single, _ = self._layers(channels, generator)

        def change_one(pair: tuple[tf.Tensor, tf.Tensor]) -> tf.Tensor:
            image, seed = pair
            generator.restart(seed)
            x = image[None]
            for layer in single:
                x = layer(x, training=True)
            return tf.ensure_shape(x[0], image.shape)

        def change(images: tf.Tensor, seeds: tf.Tensor) -> tf.Tensor:
            images = tf.cast(images, tf.float32)
            changed = tf.map_fn(
                change_one, (images, seeds), fn_output_signature=tf.float32
            )
            return tf.clip_by_value(changed, 0.0, 255.0)

        return change

    def _check_spec(self, spec: Any) -> tuple[Any, Any]:
        if not isinstance(spec, tuple) or len(spec) != 2:
            raise ValueError(
                "`dataset` must hold pairs (images, labels). Received: "
                f"element_spec={spec}."
            )
        images, labels = spec
        if images.shape.rank != 4 or images.shape[-1] is None:
            raise ValueError(
                "`dataset` must hold batches of images of shape (batch, "
                f"height, width, channels). Received: shape={images.shape}."
            )
        if self.mixes_labels and labels.shape.rank != 2:
            raise ValueError(
                "`mixup` and `cutmix` need one-hot labels of shape (batch, "
                f"num_classes). Received: labels of shape={labels.shape}. Use "
                'label_mode="categorical".'
            )
        if self.color_jitter and images.shape[-1] not in (1, 3):
            raise ValueError(
                "`color_jitter` needs images with 1 or 3 channels. Received: "
                f"shape={images.shape}. Use `lighting`."
            )
        return images, labels

    def _layers(
        self, channels: int, generator: Any
    ) -> tuple[list[Callable], list[Callable]]:
        """Returns the layers for single images, and the layers that mix two."""
        from keras import layers

        kwargs = {"dtype": "float32", "data_format": "channels_last"}
        flip = self.horizontal_flip, self.vertical_flip
        mode = "_and_".join(
            n
            for n, on in zip(("horizontal", "vertical"), flip, strict=True)
            if on
        )
        half, hue = self.color_jitter / 2, self.color_jitter / 4
        color = channels == 3
        single = [
            mode and layers.RandomFlip(mode, **kwargs),
            self.rotation
            and layers.RandomRotation(self.rotation / 360, **kwargs),
            self.zoom and layers.RandomZoom(self.zoom, **kwargs),
            # The centre of a window of side 1 - crop moves by up to crop / 2.
            self.crop
            and layers.RandomTranslation(
                self.crop / 2, self.crop / 2, **kwargs
            ),
            self.crop and layers.RandomZoom((-self.crop,) * 2, **kwargs),
            self.translation
            and layers.RandomTranslation(
                self.translation, self.translation, **kwargs
            ),
            self.color_jitter
            and layers.RandomColorJitter(
                brightness_factor=self.color_jitter,
                contrast_factor=self.color_jitter,
                saturation_factor=(0.5 - half, 0.5 + half) if color else None,
                hue_factor=hue if color else None,
                **kwargs,
            ),
            self.lighting and layers.RandomBrightness(self.lighting, **kwargs),
            self.lighting and layers.RandomContrast(self.lighting, **kwargs),
            self.erasing
            and layers.RandomErasing(
                (self.erasing,) * 2, fill_value=127.5, **kwargs
            ),
        ]
        mixing = [
            self.mixup and layers.MixUp(self.mixup, **kwargs),
            self.cutmix and layers.CutMix((self.cutmix,) * 2, **kwargs),
        ]
        for layer in (*single, *mixing):
            if layer:
                layer.generator = generator
        return [x for x in single if x], [x for x in mixing if x]


def _mix(
    layer: Callable, images: tf.Tensor, labels: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    mixed = layer({"images": images, "labels": labels}, training=True)
    return mixed["images"], mixed["labels"]


def _make_batch_seeds() -> Any:
    """Makes the generator from which all layers of one `apply` draw seeds.

    Keras' own generator has its state in a variable, for which batches that are
    augmented in parallel would race. This generator counts from the seed of the
    batch while the pipeline is traced, and has no state when it runs.
    """
    import keras
    import tensorflow as tf

    class BatchSeeds(keras.random.SeedGenerator):
        def restart(self, batch_seed: tf.Tensor) -> None:
            self._batch_seed = batch_seed
            self._drawn = 0

        def next(self, ordered: bool = True) -> tf.Tensor:
            self._drawn += 1
            return self._batch_seed + tf.constant([0, self._drawn], tf.int64)

    return BatchSeeds(seed=0)
