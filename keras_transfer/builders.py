"""Whole models: preprocessing, backbone and head in one `keras.Model`."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras

from keras_transfer import _graph
from keras_transfer._blocks import has_children
from keras_transfer._checks import check_class_names
from keras_transfer._names import encode_class_names, find_class_names
from keras_transfer._trainable import copy_mark
from keras_transfer.backbones import (
    Backbone,
    kerashub,
    list_backbones,
    load_backbone,
    load_text_backbone,
)
from keras_transfer.distribute import scope_of
from keras_transfer.heads import build_head

if TYPE_CHECKING:
    from keras_transfer.data import ImageData, LabelledData, TextData


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

    A plain functional `keras.Model` with three children: `preprocessing`
    (scales pixels as the backbone wants them), `backbone` (frozen; see
    `unfreeze`) and `head` (pooling and dense layers, trainable).

    Args:
        backbone: A name out of `list_backbones()`, or what `load_backbone`
            returned, whose weights are copied.
        num_classes: Number of classes. Defaults to `None`: that of `data` or
            `class_names`.
        data: What `load_images` returned: gives the number and names of the
            classes and the image size, the backbone's own where the images
            have none. Defaults to `None`.
        class_names: Names of the classes in the order of the labels; they
            travel in the saved file. Defaults to `None`: those of `data`.
        pooling: `"avg"`, `"max"`, `"avgmax"`, `"gem"` or `"flatten"`; see
            `keras_transfer.heads.build_head`. Defaults to `"avg"`.
        hidden_units: Sizes of dense layers below the output. Defaults to
            `()`.
        hidden_activation: Their activation. Defaults to `"relu"`.
        batch_norm: Whether hidden layers are batch-normalised. Defaults to
            `False`.
        dropout: Fraction in `[0, 1)` dropped before each dense layer in
            training. Defaults to `0.0`.
        activation: `"softmax"`; `"sigmoid"` for several labels an image (or
            one class, present or not); `"linear"` for logits. Defaults to
            `"softmax"`.
        devices: Where `fit` of Keras is to train it: `"auto"`, a number or a
            strategy on this machine. Compile it in
            `model.distribute_strategy.scope()`. `fine_tune` needs no such
            model. Defaults to `None`.

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
    names = _names(class_names, data)
    num_classes = _num_classes(num_classes, names)
    _check_softmax(activation, num_classes)
    if activation == "softmax" and getattr(data, "multi_label", False):
        raise ValueError(
            '`activation` must be "sigmoid" for images with several labels: '
            "the classes of a softmax exclude each other. Received: "
            'activation="softmax"'
        )
    with scope_of(devices):
        return _assemble(
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


def build_text_classifier(
    backbone: str | Path | keras.Model | Backbone,
    num_classes: int | None = None,
    *,
    data: TextData | None = None,
    class_names: Sequence[str] | None = None,
    hidden_units: Sequence[int] = (),
    hidden_activation: str = "relu",
    batch_norm: bool = False,
    dropout: float = 0.0,
    activation: str = "softmax",
    devices: Any = None,
    **backbone_options: Any,
) -> keras.Model:
    """Builds a text classifier on a frozen pretrained backbone.

    A `keras.Model` that takes texts as they are, with three children:
    `preprocessing` (the tokenizer, vocabulary included), `backbone` (frozen;
    its blocks are those of the transformer) and `head` (trainable).

    Args:
        backbone: A preset of KerasHub, a folder or a file of word vectors, as
            `load_text_backbone` takes it; or what that returned, whose weights
            are copied.
        num_classes: Number of classes. Defaults to `None`: that of `data` or
            `class_names`.
        data: What `load_texts` returned: gives the number and names of the
            classes and, where no `sequence_length` is given, the longest text:
            that of the training texts, 128 tokens at most. Defaults to `None`.
        class_names: Names of the classes in the order of the labels; they
            travel in the saved file. Defaults to `None`: those of `data`.
        hidden_units: Sizes of dense layers below the output. Defaults to
            `()`.
        hidden_activation: Their activation. Defaults to `"relu"`.
        batch_norm: Whether hidden layers are batch-normalised. Defaults to
            `False`.
        dropout: Fraction in `[0, 1)` dropped before each dense layer in
            training. Defaults to `0.0`.
        activation: As in `build_classifier`. Defaults to `"softmax"`.
        devices: Where `fit` of Keras is to train it: `"auto"`, a number or a
            strategy on this machine. Compile it in
            `model.distribute_strategy.scope()`. `fine_tune` needs no such
            model. Defaults to `None`.
        **backbone_options: Further arguments of `load_text_backbone`, such as
            `pooling="token"` or `sequence_length=64`.

    Returns:
        A `keras.Model` from string `(batch,)` to `(batch, num_classes)` in
        float32, not compiled.

    Raises:
        ImportError: If KerasHub is needed and not installed.
        ValueError: If the arguments do not fit each other.
        TypeError: If `backbone` is none of these, or what was loaded is to be
            loaded otherwise.

    Example:

    >>> model = build_text_classifier("bert_tiny_en", 2)  # doctest: +SKIP
    """
    if data is not None and not hasattr(data.train, "texts"):
        raise TypeError(
            "`data` must be what `load_texts` returned. Received: "
            f"{data!r}. For images there is `build_classifier`."
        )
    names = _names(class_names, data)
    num_classes = _num_classes(num_classes, names)
    _check_softmax(activation, num_classes)
    if isinstance(backbone, Backbone):
        if backbone_options:
            raise TypeError(
                "What `load_text_backbone` returned is as it was loaded. "
                f"Received: {', '.join(sorted(backbone_options))}. Load it "
                "with these."
            )
        backbone = backbone.copy()
    else:
        texts = None if data is None else data.train.texts
        if backbone_options.get("sequence_length") is None:
            backbone_options["fit_to"] = texts
        backbone = load_text_backbone(backbone, **backbone_options)
    if not _graph.takes_texts(backbone.preprocessing):
        raise ValueError(
            "`backbone` must take text. Received: "
            f"{backbone.name!r}, which takes images. Load it with "
            "`load_text_backbone`, or use `build_classifier`."
        )
    with scope_of(devices):
        return _assemble(
            backbone,
            suffix="classifier",
            num_outputs=num_classes,
            input_name=encode_class_names(names) if names else "features",
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
    """Builds a model that predicts numbers, on a frozen pretrained backbone.

    Args:
        backbone: A name out of `list_backbones()`, or what `load_backbone`
            returned, whose weights are copied.
        num_outputs: How many numbers for an image. Defaults to `1`.
        data: Gives the image size. Defaults to `None`.
        pooling: As in `build_classifier`. Defaults to `"avg"`.
        hidden_units: Sizes of dense layers below the output. Defaults to
            `()`.
        hidden_activation: Their activation. Defaults to `"relu"`.
        batch_norm: Whether hidden layers are batch-normalised. Defaults to
            `False`.
        dropout: Fraction in `[0, 1)` dropped before each dense layer in
            training. Defaults to `0.0`.
        activation: Activation of the output. Defaults to `"linear"`.
        devices: Where `fit` of Keras is to train it: `"auto"`, a number or a
            strategy on this machine. Compile it in
            `model.distribute_strategy.scope()`. `fine_tune` needs no such
            model. Defaults to `None`.

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
        return _assemble(
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


def load_model(path: str | Path) -> keras.Model:
    """Opens a saved model, whatever its backbone was.

    `keras.models.load_model` does it alone where the model is made of Keras'
    own layers. Transformers of KerasHub, models of TF-Hub and tokenizers are
    layers of this package, which Keras has to know before.

    Args:
        path: A `.keras` file.

    Returns:
        The model, not compiled.

    Raises:
        ImportError: If it needs KerasHub, which is not installed.
        ValueError: If there is no such file.

    Example:

    >>> build_classifier("ResNet20", num_classes=3).save("model.keras")
    >>> load_model("model.keras").output_shape
    (None, 3)
    """
    # Importing this module has made the layers known.
    return keras.models.load_model(path, compile=False)


def class_names(model: keras.Model | str | Path) -> tuple[str, ...]:
    """Returns the names of the classes that a model was built for.

    They are part of the model's configuration (in the name of the head's
    input), so that they survive saving, loading and cloning, with or without
    keras_transfer.

    Args:
        model: A model made by `build_classifier`, also one loaded from a file,
            or the path of its `.keras` file, which is not loaded.

    Returns:
        Tuple of names; index `i` is output `i`.

    Raises:
        ValueError: If the model has no class names or the file is no
            `.keras` file.
        TypeError: If `model` is neither a model nor a path.

    Example:

    >>> model = build_classifier("ResNet20", class_names=["cat", "dog"])
    >>> class_names(model)
    ('cat', 'dog')
    """
    if isinstance(model, keras.Model):
        config = model.get_config()
    else:
        if not isinstance(model, str | Path):
            raise TypeError(
                "`model` must be a keras.Model or the path of a `.keras` file. "
                f"Received: model={model!r}"
            )
        config = _config_in(Path(model))
    found = find_class_names(config)
    if found is not None:
        return found
    raise ValueError(
        "`model` must have been built with class names: pass `data` or "
        f"`class_names` to `build_classifier`. Received: {model!r}"
    )


def _config_in(path: Path) -> dict[str, Any]:
    """Reads the configuration in a `.keras` file, which is a zip archive."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            if "config.json" in archive.namelist():
                return json.loads(archive.read("config.json"))["config"]
    what = "is something else" if path.exists() else "does not exist"
    raise ValueError(
        "`model` must be a keras.Model or the path of a `.keras` file. "
        f"Received: model={str(path)!r}, which {what}."
    )


def _names(
    class_names: Sequence[str] | None, data: LabelledData | None
) -> tuple[str, ...] | None:
    given = check_class_names(class_names)
    from_data = None if data is None else tuple(data.class_names)
    if given and from_data and given != from_data:
        raise ValueError(
            "`class_names` must be those of `data`, in the same order, which "
            f"are {from_data}. Received: class_names={given}. Leave it out."
        )
    return given or from_data


def _num_classes(num_classes: int | None, names: tuple[str, ...] | None) -> int:
    if num_classes is None:
        if names is None:
            raise ValueError(
                "`num_classes` must be given, or `data` or `class_names` to "
                "take it from. Received: num_classes=None"
            )
        return len(names)
    if names is not None and num_classes != len(names):
        raise ValueError(
            f"`num_classes` must be {len(names)}, the number of class names "
            f"({', '.join(names[:5])}{', ...' if len(names) > 5 else ''}). "
            f"Received: num_classes={num_classes}. Leave it out."
        )
    return num_classes


def copy_model(model: keras.Model) -> keras.Model:
    """Returns a model with the same weights, open and closed alike.

    Args:
        model: A model made by a builder, or any functional one.

    Returns:
        A model with variables of its own, not compiled; one that takes texts
        shares its tokenizer.

    Raises:
        ValueError: If Keras cannot make its layers anew.

    Example:

    >>> model = build_classifier("ResNet20", num_classes=3)
    >>> copy_model(model).name == model.name
    True
    """
    if has_children(model):
        preprocessing, backbone, head = (
            model.get_layer(name)
            for name in ("preprocessing", "backbone", "head")
        )
        if not _graph.takes_texts(preprocessing):
            preprocessing = keras.models.clone_model(preprocessing)
        (given,) = _graph.tensors_in(model)
        inputs = _graph.input_like(given, given.name)
        x = kerashub.clone(backbone)(preprocessing(inputs))
        outputs = keras.models.clone_model(head)(x)
        copy = keras.Model(inputs, outputs, name=model.name)
    else:
        copy = kerashub.clone(model)
    # Containers first: they pass it on.
    pairs = zip(
        _graph.layers_below(model), _graph.layers_below(copy), strict=True
    )
    for old, new in pairs:
        new.trainable = old.trainable
        copy_mark(old, new)
    for variable, other in zip(model.variables, copy.variables, strict=True):
        other.trainable = variable.trainable
    _graph.set_weights(copy, model.get_weights())
    return copy


def _check_softmax(activation: str, num_classes: int) -> None:
    if activation == "softmax" and num_classes == 1:
        raise ValueError(
            "`num_classes` must be at least 2 for a softmax, which gives a "
            "single class probability 1 whatever goes in. Received: "
            'num_classes=1. Use `activation="sigmoid"` for yes or no.'
        )


def _image_backbone(
    backbone: str | Path | Backbone, data: ImageData | None
) -> Backbone:
    """Loads a backbone, or copies one."""
    if data is not None and not hasattr(data, "image_size"):
        raise TypeError(
            "`data` must be what `load_images` returned. Received: "
            f"{data!r}. For texts there is `build_text_classifier`."
        )
    if isinstance(backbone, Backbone):
        if not backbone.input_shape:
            raise ValueError(
                f"`backbone` must take images. Received: {backbone.name!r}, "
                "which takes texts. Use `build_text_classifier`."
            )
        if data is not None:
            _check_data(backbone, data)
        return backbone.copy()
    if isinstance(backbone, str | Path):
        shape = None if data is None else _data_shape(str(backbone), data)
        return load_backbone(backbone, input_shape=shape)
    raise TypeError(
        "`backbone` must be a name or what `load_backbone` returns. "
        f"Received: backbone={backbone!r}. Wrap a model of your own: "
        '`load_backbone(model, pixel_range="[0, 255]")`.'
    )


def _assemble(
    backbone: Backbone, *, suffix: str, **head_options: Any
) -> keras.Model:
    """Puts a head on a backbone whose weights are of this model alone."""
    # Layer by layer: were the container closed, Keras would hide what
    # `unfreeze` opens within it.
    for layer in backbone.model.layers:
        layer.trainable = False
    head = build_head(tuple(backbone.model.output_shape[1:]), **head_options)
    given = backbone.preprocessing.inputs[0]
    texts = _graph.takes_texts(backbone.preprocessing)
    inputs = _graph.input_like(given, "text" if texts else "image")
    x = backbone.preprocessing(inputs)
    x = backbone.model(x)
    outputs = head(x)
    name = f"{backbone.name}_{suffix}".lower().replace("/", "_")
    return keras.Model(inputs, outputs, name=name)


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


def _check_data(backbone: Backbone, data: ImageData) -> None:
    height, width, channels = backbone.input_shape
    if data.channels != channels:
        raise ValueError(
            f"`data` must have {channels} channels for this backbone. "
            f"Received: images with {data.channels}. Load one of them anew: "
            f"`load_backbone(..., input_shape=(height, width, "
            f"{data.channels}))` or `load_images(..., channels={channels})`."
        )
    if data.image_size is None:
        return
    fits = all(
        wanted in (None, size) and size >= backbone.spec.min_size
        for wanted, size in zip((height, width), data.image_size, strict=True)
    )
    if not fits:
        raise ValueError(
            "`data` must have images of the size that the backbone takes: "
            f"{height} x {width} (None: any), at least "
            f"{backbone.spec.min_size}. Received: images of "
            f"{data.image_size[0]} x {data.image_size[1]}. Load one of them "
            "anew: `load_images(..., image_size=...)` or "
            "`load_backbone(..., input_shape=...)`."
        )
