"""Solves for the head on frozen features."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import keras
import numpy as np

from keras_transfer.caching.compiled import compiled
from keras_transfer.caching.prefixes import Vectors
from keras_transfer.probes import fit_binary, fit_logistic, fit_ridge
from keras_transfer.structure import depth
from keras_transfer.tasks.task import Objective

if TYPE_CHECKING:
    import tensorflow as tf


# Vectors that go through the head at once.
_AT_ONCE = 4096


def compute_vectors(model: keras.Model, dataset: tf.data.Dataset) -> Vectors:
    """Computes what the output layer of the head is fed with.

    Args:
        model: A model whose head is pooling and one dense layer.
        dataset: Batches of (images, labels) or (images, labels, weights).

    Returns:
        `Vectors`.
    """
    head = model.get_layer("head")
    prefix, _ = depth.split(model, 0)
    fed = keras.Model(head.inputs[0], _output_layer(model).input)
    extractor = keras.Model(prefix.inputs[0], fed(prefix.outputs[0]))
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
    """Computes what is between pooling and the output layer of the head.

    Args:
        model: A model whose head is pooling and one dense layer.
        vectors: What the pooling gave.

    Returns:
        What the output layer is fed with: most often the same.
    """
    start = depth.pooling_of(model)
    if start is None:
        start = model.get_layer("head").inputs[0]
    end = _output_layer(model).input
    if end is start:
        return vectors
    between = keras.Model(start, end)
    given = vectors.features
    compute = compiled(between, given.shape[1:])
    parts = [
        np.asarray(compute(given[first : first + _AT_ONCE])[0])
        for first in range(0, len(given), _AT_ONCE)
    ]
    return vectors._replace(features=np.concatenate(parts))


def _output_layer(model: keras.Model) -> keras.layers.Layer:
    return model.get_layer("head").get_layer("predictions")


def set_exact_probe(
    model: keras.Model,
    train: Vectors,
    validation: Vectors | None,
    objective: Objective,
    class_weight: Mapping[int, float] | None = None,
) -> None:
    """Solves for the head on frozen features, and writes it there.

    Args:
        model: A model whose head is pooling and one dense layer.
        train: Features of the training examples, not augmented.
        validation: Those to choose lambda by, or `None`.
        objective: What the outputs mean.
        class_weight: Weights of the class indices. Defaults to `None`.
    """
    output = _output_layer(model)
    features, labels, weights = train
    held_out = None if validation is None else validation[:2]
    shape = (-1, output.units)
    if objective.kind == "classification":
        indices = _indices(labels)
        if class_weight is not None:
            factors = [class_weight.get(int(label), 1.0) for label in indices]
            weights = np.asarray(factors) * (1 if weights is None else weights)
        if held_out is not None:
            held_out = held_out[0], _indices(held_out[1])
        probe = fit_logistic(
            features,
            indices,
            output.units,
            validation=held_out,
            sample_weight=weights,
        )
    elif objective.kind == "multi-label":
        if held_out is not None:
            held_out = held_out[0], held_out[1].reshape(shape)
        probe = fit_binary(
            features,
            labels.reshape(shape),
            validation=held_out,
            sample_weight=weights,
        )
    else:
        probe = fit_ridge(
            features, labels.reshape(shape), sample_weight=weights
        )
    output.kernel.assign(probe.kernel)
    output.bias.assign(probe.bias)


def _indices(labels: np.ndarray) -> np.ndarray:
    if labels.ndim == 2 and labels.shape[1] > 1:
        return labels.argmax(axis=-1)
    return labels.reshape(-1).astype(int)
