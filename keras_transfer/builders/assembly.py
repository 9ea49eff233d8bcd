"""Assembly of preprocessing, backbone and head into one model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import keras

from keras_transfer._utils.checks import check_class_names
from keras_transfer.backbones import Backbone
from keras_transfer.backbones.kerashub import loading as kerashub
from keras_transfer.heads.head_building import build_head
from keras_transfer.structure import graph
from keras_transfer.structure.model_parts import has_children
from keras_transfer.structure.trainable import copy_mark

if TYPE_CHECKING:
    from keras_transfer.data import LabelledData


def names_of(
    class_names: Sequence[str] | None, data: LabelledData | None
) -> tuple[str, ...] | None:
    """Returns the class names of an argument, or those of the data."""
    names = check_class_names(class_names)
    from_data = None if data is None else tuple(data.class_names)
    if names and from_data and names != from_data:
        raise ValueError(
            "`class_names` must be those of `data`, in the same order, which "
            f"are {from_data}. Received: class_names={names}. Omit it."
        )
    return names or from_data


def number_of_classes(
    num_classes: int | None,
    names: tuple[str, ...] | None,
    activation: str,
    multi_label: bool = False,
) -> int:
    """Returns the number of outputs for classes; raises if they do not fit.

    Args:
        num_classes: Number that the user passed, or `None`.
        names: Names of the classes, or `None`.
        activation: Activation of the output: without a softmax a single output
            is the second of two classes that exclude each other.
        multi_label: Whether an example may have several classes. Defaults to
            `False`.
    """
    if num_classes is None:
        if names is None:
            raise ValueError(
                "`num_classes` must be given, or `data` or `class_names` to "
                "take it from. Received: num_classes=None"
            )
        return len(names)
    is_second = (
        num_classes == 1
        and len(names or ()) == 2
        and activation != "softmax"
        and not multi_label
    )
    if names is not None and num_classes != len(names) and not is_second:
        raise ValueError(
            f"`num_classes` must be {len(names)}, the number of class names "
            f"({', '.join(names[:5])}{', ...' if len(names) > 5 else ''}). "
            f"Received: num_classes={num_classes}. Omit it."
        )
    return num_classes


def copy_model(model: keras.Model) -> keras.Model:
    """Returns a copy of a model: weights, and frozen layers, are the same.

    Args:
        model: A model made by a builder, or any functional one.

    Returns:
        A model with variables of its own, not compiled. A text model shares
        its tokenizer with the copy.

    Raises:
        ValueError: If Keras cannot clone its layers.

    Example:

    >>> model = build_classifier(backbone, num_classes=3)
    >>> copy_model(model).name == model.name
    True
    """
    if has_children(model):
        preprocessing, backbone, head = (
            model.get_layer(name)
            for name in ("preprocessing", "backbone", "head")
        )
        if not graph.takes_texts(preprocessing):
            preprocessing = keras.models.clone_model(preprocessing)
        (tensor,) = graph.tensors_in(model)
        inputs = graph.input_like(tensor, tensor.name)
        x = kerashub.clone(backbone)(preprocessing(inputs))
        outputs = keras.models.clone_model(head)(x)
        copy = keras.Model(inputs, outputs, name=model.name)
    else:
        copy = kerashub.clone(model)
    # Containers come first, since setting `trainable` on one sets it on its
    # layers.
    pairs = zip(
        graph.layers_below(model), graph.layers_below(copy), strict=True
    )
    for old, new in pairs:
        new.trainable = old.trainable
        copy_mark(old, new)
    for variable, other in zip(model.variables, copy.variables, strict=True):
        other.trainable = variable.trainable
    graph.set_weights(copy, model.get_weights())
    return copy


def assemble(
    backbone: Backbone, *, suffix: str, **head_options: Any
) -> keras.Model:
    """Puts a head on a backbone whose weights no other model shares."""
    # Freeze layer by layer. In a frozen container Keras would hide the weights
    # that `unfreeze` makes trainable.
    for layer in backbone.model.layers:
        layer.trainable = False
    head = build_head(tuple(backbone.model.output_shape[1:]), **head_options)
    tensor = backbone.preprocessing.inputs[0]
    takes_texts = graph.takes_texts(backbone.preprocessing)
    inputs = graph.input_like(tensor, "text" if takes_texts else "image")
    x = backbone.preprocessing(inputs)
    x = backbone.model(x)
    outputs = head(x)
    name = f"{backbone.name}_{suffix}".lower().replace("/", "_")
    return keras.Model(inputs, outputs, name=name)
