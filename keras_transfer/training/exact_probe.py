"""Solves for the head on frozen features."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import keras
import numpy as np

from keras_transfer.caching.compiled import compiled
from keras_transfer.caching.phase_data import PhaseData, Vectors
from keras_transfer.structure import depth
from keras_transfer.structure.model_parts import parts_of
from keras_transfer.training.spec import RunSpec

if TYPE_CHECKING:
    import tensorflow as tf


# Vectors in one forward pass through the head.
_ROWS_PER_CHUNK = 4096


def compute_vectors(model: keras.Model, dataset: tf.data.Dataset) -> Vectors:
    """Computes the input vectors of the output layer of the head.

    Args:
        model: A model whose head is pooling and one dense layer.
        dataset: Batches of (images, labels) or (images, labels, weights).

    Returns:
        `Vectors`.
    """
    head = model.get_layer("head")
    prefix, _ = depth.split(model, 0)
    before_output = keras.Model(head.inputs[0], _output_layer(model).input)
    extractor = keras.Model(prefix.inputs[0], before_output(prefix.outputs[0]))
    compute = compiled(extractor, extractor.input_shape[1:])
    features, labels, weights = [], [], []
    for images, answers, *rest in dataset:
        features.append(np.asarray(compute(images)[0]))
        labels.append(np.asarray(answers))
        weights += [np.asarray(weight).reshape(-1) for weight in rest]
    return Vectors(
        np.concatenate(features),
        np.concatenate(labels),
        np.concatenate(weights) if weights else None,
    )


def through_head(model: keras.Model, vectors: Vectors) -> Vectors:
    """Passes pooled vectors through the head up to its output layer.

    Args:
        model: A model whose head is pooling and one dense layer.
        vectors: Outputs of the pooling.

    Returns:
        Inputs of the output layer, mostly the same vectors.
    """
    parts = parts_of(model)
    start, head = parts.pooling, parts.head
    if start is None and head is not None:
        start = head.inputs[0]
    end = _output_layer(model).input
    if end is start:
        return vectors
    between = keras.Model(start, end)
    features = vectors.features
    compute = compiled(between, features.shape[1:])
    chunks = [
        np.asarray(compute(features[first : first + _ROWS_PER_CHUNK])[0])
        for first in range(0, len(features), _ROWS_PER_CHUNK)
    ]
    return vectors._replace(features=np.concatenate(chunks))


def _output_layer(model: keras.Model) -> keras.layers.Layer:
    return model.get_layer("head").get_layer("predictions")


def solve_head(
    spec: RunSpec, cached: PhaseData, uncached: Callable[[], PhaseData]
) -> None:
    """Solves for the head on frozen features, and assigns the solution.

    Args:
        spec: The run; the head of its model is pooling and one dense layer.
        cached: The data of the phase.
        uncached: Function that makes the data of the whole model, for features
            that are not cached.
    """
    model, data = spec.model, spec.data
    train = cached.vectors("train")
    validation = cached.vectors("validation")
    if train is None:
        train = compute_vectors(model, data.plain())
        held_out = uncached().validation()
        if held_out is not None:
            validation = compute_vectors(model, held_out)
    else:
        train = through_head(model, train)
        if validation is not None:
            validation = through_head(model, validation)
    output = _output_layer(model)
    weights = train.weights
    of_examples = spec.weighing.of_examples
    if of_examples is not None:
        weights = np.asarray(of_examples(train.labels), np.float64)
        weights *= 1 if train.weights is None else train.weights
    probe = spec.task.fit_head(
        train.features,
        train.labels,
        output.units,
        validation=None if validation is None else validation[:2],
        sample_weight=weights,
    )
    output.kernel.assign(probe.kernel)
    output.bias.assign(probe.bias)
