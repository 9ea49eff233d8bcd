"""A backbone out of the user's own model."""

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

_GLOBAL_POOLINGS = (
    keras.layers.GlobalAveragePooling2D,
    keras.layers.GlobalMaxPooling2D,
)


# What stands above the features in a classifier.
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
        ValueError: If the file holds no model.
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
            # The layers of the old file carry arguments that are out of use.
            warnings.simplefilter("ignore")
            return keras.models.load_model(copy, compile=False)


def _modernise(config: Any) -> Any:
    """Rewrites what Keras 2 wrote and Keras 3 misreads in a model's config."""
    if isinstance(config, list):
        return [_modernise(value) for value in config]
    if not isinstance(config, dict):
        return config
    config = {key: _modernise(value) for key, value in config.items()}
    if config.get("class_name") == "DepthwiseConv2D":
        # Keras 3 refuses this argument, which was always 1 (keras#19151).
        config["config"].pop("groups", None)
    outputs = config.get("output_layers")
    if outputs and len(outputs) == 1 and isinstance(outputs[0], list):
        # Keras 3 would return a list of one, and the next layer of an
        # enclosing Sequential would take it for several inputs.
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
    """Makes a backbone of a copy of the user's model.

    Models inside the model are opened up, so that blocks can be cut anywhere.
    What follows the last feature map (pooling, dense layers) is left off.

    Args:
        model: A functional or Sequential model with one image input.
        pixel_range: A key of `NORMALIZATIONS`: what the model was trained on.
        input_shape: `(height, width, channels)`, or `None` for the model's.
        output_layer: Name of the layer whose output are the features, or
            `None`: the last one with four dimensions through which all paths
            pass, below any global pooling; without one, what feeds the last
            dense layers.
        keep_weights: Whether to copy the weights.

    Returns:
        The functional model, what it says of its own classes (see
        `Backbone.classifier`), and what is known about it.

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
    if pixel_range not in NORMALIZATIONS:
        raise ValueError(
            "`pixel_range` must say what the model was trained on, one of "
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
    # Only now, since what was left off may want one size.
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
    """Makes a model from averages of the features to probabilities.

    `None` where there is no softmax: numbers have no classes, nor do logits
    say whether they are some.
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
        return None  # It reads something else as well.
    behind = [
        step.operation
        for step in steps
        if any(tensor is end for tensor in step.inputs)
    ]
    features = int(end.shape[-1])
    is_map = len(end.shape) == 4
    pooling = keras.layers.GlobalAveragePooling2D
    if is_map and not (len(behind) == 1 and isinstance(behind[0], pooling)):
        return None  # It takes more of a map than its average.
    # Names of ours that none of the user's layers has.
    taken = {step.operation.name for step in steps}
    start, place = "features", "one_place"
    while taken & {start, place}:
        start, place = f"{start}_", f"{place}_"
    inputs = keras.Input((features,), name=start)
    x = inputs
    if is_map:  # A map of one place is its own average.
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
    # The classifier of the MobileNets is a convolution behind the pooling.
    pooled = [isinstance(by_name[cut.name], _GLOBAL_POOLINGS) for cut in cuts]
    below = cuts[: pooled.index(True)] if any(pooled) else cuts
    maps = [cut for cut in below if len(cut.tensors[0].shape) == 4]
    if maps:
        chosen = maps[-1]
    else:  # a dense network: cut below the classifier
        last = len(cuts) - 1
        while last > 0 and isinstance(by_name[cuts[last].name], _HEAD_LAYERS):
            last -= 1
        chosen = cuts[last]
    left_off = [
        operation
        for index, operation in enumerate(operations)
        if index not in chosen.steps and not _may_top(operation)
    ]
    if left_off:
        raise ValueError(
            "`output_layer` must say where the features are: behind the last "
            "feature map of the model there is more than "
            f"pooling and dense layers, such as {left_off[0].name!r}. "
            "Received: output_layer=None"
        )
    return chosen.tensors[0]


def _may_top(operation: keras.Operation) -> bool:
    """Whether a classifier may have this layer above the features."""
    if not getattr(operation, "weights", None):
        return True
    if isinstance(operation, keras.layers.Conv2D):
        return operation.kernel_size == (1, 1)
    top = (keras.layers.Dense, keras.layers.BatchNormalization)
    return isinstance(operation, top)
