"""Builders of image models: classifiers and regressors."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras

from keras_transfer.backbones import (
    Backbone,
    list_backbones,
    load_backbone,
)
from keras_transfer.builders.assembly import (
    assemble,
    names_of,
    number_of_classes,
)
from keras_transfer.distribute import scope_of
from keras_transfer.structure.class_names import encode_class_names

if TYPE_CHECKING:
    from keras_transfer.data import ImageData


def build_classifier(
    backbone: str | Path | Backbone,
    num_classes: int | None = None,
    *,
    data: ImageData | None = None,
    class_names: Sequence[str] | None = None,
    pooling: str = "avg",
    hidden_units: Sequence[int] = (),
    hidden_activation: str = "relu",
    batch_norm: bool = False,
    dropout: float = 0.0,
    activation: str = "softmax",
    devices: Any = None,
) -> keras.Model:
    """Builds an image classifier on a frozen pretrained backbone.

    A plain functional `keras.Model` with three layers: `preprocessing`
    (scales pixels to the range of the backbone), `backbone` (frozen; see
    `unfreeze`) and `head` (pooling and dense layers, trainable).

    Args:
        backbone: A name from `list_backbones()`, or a `Backbone`, from
            `load_backbone`, whose weights are copied.
        num_classes: Number of classes; `1` for a single output that says how
            likely the second of two classes is, not with a softmax. Defaults
            to `None`: that of `data` or `class_names`.
        data: An `ImageData`, from `load_images`, which gives the number and
            names of the classes and the image size (the default size of the
            backbone if images have different sizes). Defaults to `None`.
        class_names: Names of the classes in the order of the labels; they are
            stored in the saved file. Defaults to `None`: those of `data`.
        pooling: `"avg"`, `"max"`, `"avgmax"`, `"gem"` or `"flatten"`; see
            `keras_transfer.heads.build_head`. Defaults to `"avg"`.
        hidden_units: Sizes of dense layers below the output. Defaults to
            `()`.
        hidden_activation: Activation of these layers. Defaults to `"relu"`.
        batch_norm: Whether hidden layers are batch-normalised. Defaults to
            `False`.
        dropout: Fraction in `[0, 1)` of inputs that is dropped before each
            dense layer in training. Defaults to `0.0`.
        activation: Activation of the output: `"softmax"`; `"sigmoid"` for
            several labels per image, or a single class; `"linear"` for logits.
            Defaults to `"softmax"`.
        devices: Devices on which `keras.Model.fit` is to train it: `"auto"`, a
            number or a strategy on this machine. Compile the model in
            `model.distribute_strategy.scope()`. Not needed for `fine_tune`.
            Defaults to `None`.

    Returns:
        A `keras.Model` from `(batch, height, width, channels)` pixels in
        `[0, 255]` to `(batch, num_classes)` in float32, not compiled.

    Raises:
        ValueError: If the arguments do not fit each other.
        TypeError: If `backbone` is neither a name nor a `Backbone`.

    Example:

    >>> model = build_classifier("ResNet20", num_classes=10)
    >>> model.compile("adam", "categorical_crossentropy")
    >>> [layer.name for layer in model.layers[1:]]
    ['preprocessing', 'backbone', 'head']
    """
    names = names_of(class_names, data)
    several = bool(getattr(data, "multi_label", False))
    num_classes = number_of_classes(num_classes, names, activation, several)
    _check_softmax(activation, num_classes)
    if activation == "softmax" and several:
        raise ValueError(
            '`activation` must be "sigmoid" for images with several labels: '
            "the classes of a softmax exclude each other. Received: "
            'activation="softmax"'
        )
    with scope_of(devices):
        return assemble(
            _image_backbone(backbone, data),
            suffix="classifier",
            num_outputs=num_classes,
            input_name=encode_class_names(names) if names else "features",
            pooling=pooling,
            hidden_units=hidden_units,
            hidden_activation=hidden_activation,
            batch_norm=batch_norm,
            dropout=dropout,
            activation=activation,
        )


def build_regressor(
    backbone: str | Path | Backbone,
    num_outputs: int = 1,
    *,
    data: ImageData | None = None,
    pooling: str = "avg",
    hidden_units: Sequence[int] = (),
    hidden_activation: str = "relu",
    batch_norm: bool = False,
    dropout: float = 0.0,
    activation: str = "linear",
    devices: Any = None,
) -> keras.Model:
    """Builds an image regressor on a frozen pretrained backbone.

    Args:
        backbone: A name from `list_backbones()`, or a `Backbone`, from
            `load_backbone`, whose weights are copied.
        num_outputs: Number of outputs per image. Defaults to `1`.
        data: An `ImageData`, which gives the image size. Defaults to `None`.
        pooling: Pooling, as in `build_classifier`. Defaults to `"avg"`.
        hidden_units: Sizes of dense layers below the output. Defaults to
            `()`.
        hidden_activation: Activation of these layers. Defaults to `"relu"`.
        batch_norm: Whether hidden layers are batch-normalised. Defaults to
            `False`.
        dropout: Fraction in `[0, 1)` of inputs that is dropped before each
            dense layer in training. Defaults to `0.0`.
        activation: Activation of the output. Defaults to `"linear"`.
        devices: Devices on which `keras.Model.fit` is to train it: `"auto"`, a
            number or a strategy on this machine. Compile the model in
            `model.distribute_strategy.scope()`. Not needed for `fine_tune`.
            Defaults to `None`.

    Returns:
        A `keras.Model` from `(batch, height, width, channels)` pixels in
        `[0, 255]` to `(batch, num_outputs)` in float32, not compiled.

    Raises:
        ValueError: If an argument is out of range.
        TypeError: If `backbone` is neither a name nor a `Backbone`.

    Example:

    >>> model = build_regressor("ResNet20", num_outputs=2)
    >>> model.compile("adam", "mse")
    """
    with scope_of(devices):
        return assemble(
            _image_backbone(backbone, data),
            suffix="regressor",
            num_outputs=num_outputs,
            input_name="features",
            pooling=pooling,
            hidden_units=hidden_units,
            hidden_activation=hidden_activation,
            batch_norm=batch_norm,
            dropout=dropout,
            activation=activation,
        )


def _check_softmax(activation: str, num_classes: int) -> None:
    if activation == "softmax" and num_classes == 1:
        raise ValueError(
            "`num_classes` must be at least 2 for a softmax, which always "
            "gives a single class probability 1. Received: num_classes=1. Use "
            '`activation="sigmoid"` for a binary label.'
        )


def _image_backbone(
    backbone: str | Path | Backbone, data: ImageData | None
) -> Backbone:
    """Loads a backbone by name, or copies a `Backbone`."""
    if data is not None and not hasattr(data, "image_size"):
        raise TypeError(
            "`data` must be an `ImageData`, from `load_images`. Received: "
            f"{data!r}. For texts use `build_text_classifier`."
        )
    if isinstance(backbone, Backbone):
        if not backbone.input_shape:
            raise ValueError(
                f"`backbone` must take images. Received: {backbone.name!r}, "
                "which takes texts. Use `build_text_classifier`."
            )
        if data is not None:
            check_data(backbone, data)
        return backbone.copy()
    if isinstance(backbone, str | Path):
        shape = None if data is None else _data_shape(str(backbone), data)
        return load_backbone(backbone, input_shape=shape)
    raise TypeError(
        "`backbone` must be a name or a `Backbone`, from `load_backbone`. "
        f"Received: backbone={backbone!r}. Wrap a model of your own: "
        '`load_backbone(model, pixel_range="[0, 255]")`.'
    )


def _data_shape(name: str, data: ImageData) -> tuple[int, int, int]:
    if data.image_size is not None:
        return (*data.image_size, data.channels)
    specs = list_backbones()
    size = specs[name].default_size if name in specs else None
    if size is None:
        raise ValueError(
            "`data` must have an `image_size` for this backbone. Received: "
            "images of their own sizes. Pass `image_size` to `load_images`."
        )
    return (size, size, data.channels)


def check_data(backbone: Backbone, data: ImageData) -> None:
    """Raises if images of the data do not fit the backbone."""
    height, width, channels = backbone.input_shape
    if data.channels != channels:
        raise ValueError(
            f"`data` must have {channels} channels for this backbone. "
            f"Received: images with {data.channels}. Reload one of them: "
            f"`load_backbone(..., input_shape=(height, width, "
            f"{data.channels}))` or `load_images(..., channels={channels})`."
        )
    if data.image_size is None:
        return
    fits = all(
        side in (None, size) and size >= backbone.spec.min_size
        for side, size in zip((height, width), data.image_size, strict=True)
    )
    if not fits:
        raise ValueError(
            "`data` must have images of the size that the backbone takes: "
            f"{height} x {width} (None: any), at least "
            f"{backbone.spec.min_size}. Received: images of "
            f"{data.image_size[0]} x {data.image_size[1]}. Reload one of "
            "them: `load_images(..., image_size=...)` or "
            "`load_backbone(..., input_shape=...)`."
        )
