"""Random changes to training batches, all of them by Keras' own layers."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from keras_transfer.data.pipeline import Epoch, epoch_numbers

if TYPE_CHECKING:
    import tensorflow as tf


# The largest value of each field that a layer of Keras makes sense of.
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
    """What `ImageSplit.batches(augment=...)` does to training images.

    Plain values; `0.0` switches a change off. Each image of a batch draws its
    own change. It acts on a dataset and never becomes part of a model, so that
    inference is never augmented. Images stay float32 in `[0, 255]`; what a
    geometric change uncovers is filled by reflection.

    Args:
        horizontal_flip: Whether half of the images are mirrored left to right
            (`RandomFlip`). Defaults to `True`.
        vertical_flip: Whether half of the images are mirrored top to bottom
            (`RandomFlip`). Defaults to `False`.
        rotation: Degrees in `[0, 180]`; the angle is drawn from
            `[-rotation, rotation]` (`RandomRotation`). Defaults to `0.0`.
        zoom: Fraction in `[0, 0.9]`; the visible side is
            `1 - zoom` to `1 + zoom` of the image's, with its shape kept
            (`RandomZoom`). Defaults to `0.0`.
        crop: Fraction in `[0, 0.9]` of each side that is cut off: a window of
            side `1 - crop` at a random place, stretched to the full size
            (`RandomTranslation`, then `RandomZoom`; `RandomCrop` would cut the
            whole batch at one place). Defaults to `0.0`.
        translation: Fraction in `[0, 1]` of the side by which images shift at
            most (`RandomTranslation`). Defaults to `0.0`.
        erasing: Probability in `[0, 1]` that a rectangle is painted mid-grey
            (`RandomErasing`). Defaults to `0.0`.
        color_jitter: Strength in `[0, 1]`: brightness and contrast change by
            this fraction, saturation likewise, hue by a quarter of it
            (`RandomColorJitter`; 1 or 3 channels, for 1 no saturation and
            hue). Defaults to `0.0`.
        lighting: Strength in `[0, 1]` of changes in brightness and contrast
            alone (`RandomBrightness`, `RandomContrast`), for any number of
            channels. Keras has no layer for the PCA lighting of AlexNet.
            Defaults to `0.0`.
        mixup: Alpha in `[0, 1]` of the Beta distribution that weighs two
            images and their labels (`MixUp`). Defaults to `0.0`.
        cutmix: Alpha in `[0, 1]`, likewise for a rectangle pasted from another
            image (`CutMix`). With both, each batch takes one of the two at
            random. Defaults to `0.0`.

    Raises:
        ValueError: If a value is out of range.
        TypeError: If a flip is no bool.

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
            good = isinstance(value, int | float) and not isinstance(
                value, bool
            )
            if not good or not 0 <= value <= limit:
                unit = " degrees" if name == "rotation" else ""
                raise ValueError(
                    f"`{name}` must be a number in [0, {limit:g}]{unit}. "
                    f"Received: {name}={value!r}."
                )

    @property
    def changes_pixels(self) -> bool:
        """Whether single images change, beside being mixed."""
        names = set(dataclasses.asdict(self)) - {"mixup", "cutmix"}
        return any(getattr(self, name) for name in names)

    @property
    def mixes_labels(self) -> bool:
        """Whether labels change too, and so must be one-hot."""
        return self.mixup > 0 or self.cutmix > 0

    def apply(
        self,
        dataset: tf.data.Dataset,
        seed: int = 0,
        initial_epoch: Epoch = 0,
    ) -> tf.data.Dataset:
        """Augments a batched dataset.

        What happens to a batch follows from `seed`, the number of the epoch
        (how often the result was iterated) and the number of the batch; it is
        the same in another process.

        Args:
            dataset: `tf.data.Dataset` of (images, labels): images of shape
                `(batch, height, width, channels)` in `[0, 255]`, labels one-hot
                or multi-hot where `mixup` or `cutmix` is on.
            seed: Integer. Defaults to `0`.
            initial_epoch: The number of the first epoch, or a function that
                gives that of an iteration when it begins. Defaults to `0`.

        Returns:
            `tf.data.Dataset` of (float32 images in `[0, 255]`, labels).

        Raises:
            ValueError: If the dataset has other shapes, or integer labels
                where `mixup` or `cutmix` is on.
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
            # Interpolation and Keras' saturation may step over the ends.
            x = tf.clip_by_value(x, 0.0, 255.0)
            x = tf.ensure_shape(x, images.shape)
            return x, tf.ensure_shape(y, labels.shape)

        seeds = epoch_numbers(initial_epoch).flat_map(
            lambda epoch: tf.data.Dataset.counter().map(
                # No batch draws as often as 256 times.
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
        """Makes a function that changes each image by a seed of its own.

        The change follows from the image and its seed alone, whatever else is
        in the batch; `mixup` and `cutmix` have no part in it.

        Args:
            channels: Of the images.

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
        """Returns the layers that act on one image, and those that mix two."""
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
            # The middle of a window of side 1 - crop moves by crop / 2.
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
    """Makes the generator that all layers of one `apply` draw seeds from.

    Keras' own keeps its state in a variable, which batches that are augmented
    side by side would race for. This one counts from the seed of the batch
    while the pipeline is traced, so it has no state when it runs.
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
