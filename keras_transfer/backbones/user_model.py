"""Backbones from the user's own models."""

from __future__ import annotations

import json
import shutil
import tempfile
import warnings
from pathlib import Path
from typing import Any

import h5py
import keras

from keras_transfer.backbones.spec import (
    NORMALIZATIONS,
    BackboneSpec,
    spec_of_own,
)
from keras_transfer.structure import graph
from keras_transfer.structure.model_parts import has_children

# Pixel range of a model that scales pixels itself.
_UNSCALED = "[0, 255]"


_GLOBAL_POOLINGS = (
    keras.layers.GlobalAveragePooling2D,
    keras.layers.GlobalMaxPooling2D,
)


# Layers above the features in a classifier.
_HEAD_LAYERS = (
    keras.layers.Dense,
    keras.layers.Dropout,
    keras.layers.Activation,
    keras.layers.Softmax,
)


def read_model(path: Path) -> keras.Model:
    """Reads a whole model from a `.keras` or legacy `.h5` file.

    Args:
        path: The file.

    Returns:
        The model, not compiled.

    Raises:
        ValueError: If the file does not hold a model.
    """
    if path.suffix == ".keras":
        return keras.models.load_model(path, compile=False)
    with h5py.File(path, "r") as file:
        if "model_config" not in file.attrs:
            raise ValueError(
                f"`source` must hold a whole model. Received: "
                f"source={str(path)!r}, which holds weights alone. Pass the "
                "architecture's name, and the file as `weights`."
            )
        config = json.loads(file.attrs["model_config"])
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / path.name
        shutil.copyfile(path, copy)
        with h5py.File(copy, "r+") as file:
            file.attrs["model_config"] = json.dumps(_modernise(config))
        with warnings.catch_warnings():
            # Keras warns of obsolete arguments in the layers of old files.
            warnings.simplefilter("ignore")
            return keras.models.load_model(copy, compile=False)


def _modernise(config: Any) -> Any:
    """Returns the config of a Keras 2 model, rewritten for Keras 3."""
    if isinstance(config, list):
        return [_modernise(value) for value in config]
    if not isinstance(config, dict):
        return config
    config = {key: _modernise(value) for key, value in config.items()}
    if config.get("class_name") == "DepthwiseConv2D":
        # Keras 3 rejects this argument, which was always 1 (keras#19151).
        config["config"].pop("groups", None)
    outputs = config.get("output_layers")
    if outputs and len(outputs) == 1 and isinstance(outputs[0], list):
        # Keras 3 would return a list of one tensor, which the next layer of an
        # enclosing Sequential would mistake for several inputs.
        config["output_layers"] = outputs[0]
    return config


def build(
    model: keras.Model,
    *,
    pixel_range: str | None,
    input_shape: tuple[int | None, int | None, int] | None,
    output_layer: str | None,
    keep_weights: bool,
) -> tuple[keras.Model, keras.Model | None, BackboneSpec]:
    """Makes a backbone from a copy of the user's model.

    Nested models are inlined, so that blocks can be cut anywhere. Layers after
    the last feature map (pooling, dense layers) are removed.

    Args:
        model: A functional or Sequential model with one image input.
        pixel_range: Pixel range of the training, a key of `NORMALIZATIONS`.
        input_shape: `(height, width, channels)`, or `None` for the model's.
        output_layer: Name of the layer that outputs the features, or `None`:
            the last one with four dimensions that all paths pass through, below
            any global pooling; without one, the input of the last dense layers.
        keep_weights: Whether to copy the weights.

    Returns:
        The functional model, its classifier (see `Backbone.classifier`), and
        its spec.

    Raises:
        TypeError: If `model` is subclassed.
        ValueError: If an argument does not fit the model.
    """
    if not graph.is_functional(model):
        raise TypeError(
            "`source` must be a functional or built Sequential model, since "
            "blocks are read off its graph. Received: a "
            f"{type(model).__name__} named {model.name!r}. Build it on "
            "`keras.Input` first."
        )
    if has_children(model):
        # Builders put the scaling of pixels into the model.
        if pixel_range not in (None, _UNSCALED):
            raise ValueError(
                f"`pixel_range` must be {_UNSCALED!r} or omitted for a model "
                "made by a builder, which scales pixels itself. Received: "
                f"pixel_range={pixel_range!r}"
            )
        pixel_range = _UNSCALED
    if pixel_range not in NORMALIZATIONS:
        raise ValueError(
            "`pixel_range` must be that of the model's training, one of "
            f"{', '.join(map(repr, NORMALIZATIONS))}. "
            f"Received: pixel_range={pixel_range!r}"
        )
    if len(graph.tensors_in(model)) != 1:
        raise ValueError(
            "`source` must have one input, the image. Received: model "
            f"{model.name!r} with {len(graph.tensors_in(model))}."
        )
    own_shape = tuple(graph.tensors_in(model)[0].shape[1:])
    input_shape = input_shape or own_shape
    if len(own_shape) != 3 or input_shape[-1] != own_shape[-1]:
        raise ValueError(
            f"`input_shape` must fit model {model.name!r}, whose input is "
            f"{own_shape}. Received: input_shape={input_shape}"
        )
    copy = keras.models.clone_model(model)
    if keep_weights:
        graph.set_weights(copy, model.get_weights())
    inputs = keras.Input(own_shape, name="image")
    whole = keras.Model(inputs, graph.inline(copy, inputs))
    end = _features(whole, output_layer)
    below = keras.Model(inputs, end)
    # The new shape comes last, since removed layers may need the old one.
    inputs = keras.Input(input_shape, name="image")
    features = graph.inline(below, inputs)
    network = keras.Model(inputs, features, name="backbone")
    spec = spec_of_own(
        model.name, "user", pixel_range, own_shape[0], int(features.shape[-1])
    )
    return network, _classifier(whole, end), spec


def _classifier(
    whole: keras.Model, end: keras.KerasTensor
) -> keras.Model | None:
    """Returns the classifier from averages of the features to probabilities.

    `None` without a softmax, since outputs could be regression, or logits of
    independent labels.
    """
    outputs = graph.tensors_out(whole)
    if len(outputs) != 1 or outputs[0] is end or len(end.shape) not in (2, 4):
        return None
    steps = graph.steps(whole)
    (last,) = (s.operation for s in steps if outputs[0] is s.outputs[0])
    function = getattr(last, "activation", None)
    is_softmax = function is keras.activations.softmax
    is_softmax |= isinstance(last, keras.layers.Softmax)
    if len(outputs[0].shape) != 2 or not is_softmax:
        return None
    if not any(
        len(cut.tensors) == 1 and cut.tensors[0] is end
        for cut in graph.cuts(whole, max_width=1)
    ):
        return None  # The classifier has other inputs as well.
    behind = [
        step.operation
        for step in steps
        if any(tensor is end for tensor in step.inputs)
    ]
    features = int(end.shape[-1])
    is_map = len(end.shape) == 4
    pooling = keras.layers.GlobalAveragePooling2D
    if is_map and not (len(behind) == 1 and isinstance(behind[0], pooling)):
        return None  # It needs more of a map than its average.
    # New layers must not have the name of one of the user's.
    names = {step.operation.name for step in steps}
    start, place = "features", "one_place"
    while names & {start, place}:
        start, place = f"{start}_", f"{place}_"
    inputs = keras.Input((features,), name=start)
    x = inputs
    if is_map:  # A map with one position is its own average.
        x = keras.layers.Reshape((1, 1, features), name=place)(x)
    x = graph.inline(keras.Model(end, outputs[0]), x)
    return keras.Model(inputs, x, name="classifier")


def _features(
    model: keras.Model, output_layer: str | None
) -> keras.KerasTensor:
    steps = graph.steps(model)
    if output_layer is not None:
        outputs = {step.operation.name: step.outputs[0] for step in steps}
        if output_layer not in outputs:
            raise ValueError(
                "`output_layer` must be a layer of the model, one of "
                f"{', '.join(outputs)}. Received: "
                f"output_layer={output_layer!r}"
            )
        return outputs[output_layer]
    cuts = graph.cuts(model, max_width=1)
    cuts = tuple(cut for cut in cuts if len(cut.tensors) == 1)
    operations = [step.operation for step in steps]
    by_name = {operation.name: operation for operation in operations}
    # The classifier of MobileNets is a convolution after the pooling.
    pooled = [isinstance(by_name[cut.name], _GLOBAL_POOLINGS) for cut in cuts]
    below = cuts[: pooled.index(True)] if any(pooled) else cuts
    maps = [cut for cut in below if len(cut.tensors[0].shape) == 4]
    if maps:
        chosen = maps[-1]
    else:  # A dense network: cut below the classifier.
        last = len(cuts) - 1
        while last > 0 and isinstance(by_name[cuts[last].name], _HEAD_LAYERS):
            last -= 1
        chosen = cuts[last]
    removed = [
        operation
        for index, operation in enumerate(operations)
        if index not in chosen.steps and not _may_be_in_head(operation)
    ]
    if removed:
        raise ValueError(
            "`output_layer` must be the name of the layer that outputs the "
            "features, since the last feature map of the model is followed by "
            "more than pooling and dense layers, such as "
            f"{removed[0].name!r}. Received: output_layer=None"
        )
    return chosen.tensors[0]


def _may_be_in_head(operation: keras.Operation) -> bool:
    """Returns `True` for layers that classifiers have above the features."""
    if not getattr(operation, "weights", None):
        return True
    if isinstance(operation, keras.layers.Conv2D):
        return operation.kernel_size == (1, 1)
    kinds = (keras.layers.Dense, keras.layers.BatchNormalization)
    return isinstance(operation, kinds)
