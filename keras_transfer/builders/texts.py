"""Builders of text classifiers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras

from keras_transfer.backbones import Backbone, load_text_backbone
from keras_transfer.builders.assembly import (
    assemble,
    names_of,
    number_of_classes,
)
from keras_transfer.builders.images import _check_softmax
from keras_transfer.distribute import scope_of
from keras_transfer.structure import graph
from keras_transfer.structure.class_names import encode_class_names

if TYPE_CHECKING:
    from keras_transfer.data import TextData


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

    A `keras.Model` of raw texts, with three layers: `preprocessing` (the
    tokenizer, vocabulary included), `backbone` (frozen; its blocks are those of
    the transformer) and `head` (trainable).

    Args:
        backbone: A preset of KerasHub, a folder or a file of word vectors, as
            for `load_text_backbone`; or a `Backbone`, whose weights are copied.
        num_classes: Number of classes, as in `build_classifier`. Defaults to
            `None`: that of `data` or `class_names`.
        data: A `TextData`, from `load_texts`, which gives the number and names
            of the classes and, without a `sequence_length`, the length of the
            longest training text, at most 128 tokens. Defaults to `None`.
        class_names: Names of the classes in the order of the labels; they are
            stored in the saved file. Defaults to `None`: those of `data`.
        hidden_units: Sizes of dense layers below the output. Defaults to
            `()`.
        hidden_activation: Activation of these layers. Defaults to `"relu"`.
        batch_norm: Whether hidden layers are batch-normalised. Defaults to
            `False`.
        dropout: Fraction in `[0, 1)` of inputs that is dropped before each
            dense layer in training. Defaults to `0.0`.
        activation: Activation of the output, as in `build_classifier`.
            Defaults to `"softmax"`.
        devices: Devices on which `keras.Model.fit` is to train it: `"auto"`, a
            number or a strategy on this machine. Compile the model in
            `model.distribute_strategy.scope()`. Not needed for `fine_tune`.
            Defaults to `None`.
        **backbone_options: Further arguments of `load_text_backbone`, such as
            `pooling="token"` or `sequence_length=64`.

    Returns:
        A `keras.Model` from string `(batch,)` to `(batch, num_classes)` in
        float32, not compiled.

    Raises:
        ImportError: If KerasHub is needed and not installed.
        ValueError: If the arguments do not fit each other.
        TypeError: If `backbone` is of another type, or `backbone_options` are
            given for a `Backbone`.

    Example:

    >>> model = build_text_classifier("bert_tiny_en", 2)  # doctest: +SKIP
    """
    if data is not None and not hasattr(data.train, "texts"):
        raise TypeError(
            "`data` must be a `TextData`, from `load_texts`. Received: "
            f"{data!r}. For images use `build_classifier`."
        )
    names = names_of(class_names, data)
    num_classes = number_of_classes(num_classes, names, activation)
    _check_softmax(activation, num_classes)
    if isinstance(backbone, Backbone):
        if backbone_options:
            raise TypeError(
                "`backbone_options` must be empty for a `Backbone`, which is "
                f"loaded. Received: {', '.join(sorted(backbone_options))}. "
                "Pass them to `load_text_backbone`."
            )
        backbone = backbone.copy()
    else:
        texts = None if data is None else data.train.texts
        if backbone_options.get("sequence_length") is None:
            backbone_options["fit_to"] = texts
        backbone = load_text_backbone(backbone, **backbone_options)
    if not graph.takes_texts(backbone.preprocessing):
        raise ValueError(
            "`backbone` must take text. Received: "
            f"{backbone.name!r}, which takes images. Load it with "
            "`load_text_backbone`, or use `build_classifier`."
        )
    with scope_of(devices):
        return assemble(
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
