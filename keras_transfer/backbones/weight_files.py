"""Loading of pretrained weights from files of Keras 2 and 3."""

from __future__ import annotations

import warnings
from pathlib import Path

import keras
import numpy as np

from keras_transfer.structure import graph

_KINDS = "`.weights.h5`, legacy `.h5` or `.keras`"


def check_path(path: str | Path) -> Path:
    """Returns `path` as a `Path` if it names a weights file.

    Args:
        path: The `weights` argument.

    Returns:
        The path.

    Raises:
        ValueError: If the path has another suffix.
    """
    path = Path(path)
    if path.suffix not in (".h5", ".hdf5", ".keras"):
        raise ValueError(
            f'`weights` must be "pretrained", None, the name of published '
            f"weights or the path of a {_KINDS} file. "
            f"Received: weights={str(path)!r}"
        )
    return path


def load_weights(model: keras.Model, path: Path) -> None:
    """Loads all weights of `model` from a file, or none if it does not fit.

    Args:
        model: The network.
        path: A `.weights.h5` file of the same architecture, with or without
            its classifier; a legacy `.h5` file likewise; or a `.keras` file
            with a model of the same architecture.

    Raises:
        ValueError: If the file does not hold all weights of `model`.
    """
    if not path.is_file():
        raise ValueError(
            f"`weights` must be an existing file. Received: weights="
            f"{str(path)!r}, which does not exist."
        )
    before = model.get_weights()
    # Keras ignores missing arrays, or only warns. Mark all arrays first, to see
    # whether each one is loaded.
    graph.set_weights(model, [_unset(array) for array in before])
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            _read(model, path)
        _check_complete(model)
    except Exception as err:
        graph.set_weights(model, before)
        raise ValueError(
            f"`weights` must fit the backbone {model.name!r} "
            f"({len(model.weights)} arrays, {model.count_params():,} "
            f"parameters). Received: weights={str(path)!r}, which does not: "
            f"{_first_line(err)} Was it saved from another architecture, "
            "width (`alpha`) or number of channels, or with a head on top "
            '(`model.get_layer("backbone").save_weights(...)` omits it)?'
        ) from err
    _mend_efficientnet(model)


def _read(model: keras.Model, path: Path) -> None:
    if path.suffix == ".keras":
        _from_model(model, keras.models.load_model(path, compile=False))
    elif path.name.endswith(".weights.h5"):
        model.load_weights(path)
    else:
        try:
            model.load_weights(path)
        except ValueError:
            # The file may hold a classifier on top.
            model.load_weights(path, by_name=True)


def _unset(array: np.ndarray) -> np.ndarray:
    if array.dtype.kind != "f":  # A counter or a seed.
        return array
    return np.full_like(array, np.nan)


def _check_complete(model: keras.Model) -> None:
    missing = [
        weight.path
        for weight, array in zip(
            model.weights, model.get_weights(), strict=True
        )
        if np.isnan(array).any()
    ]
    if missing:
        raise ValueError(
            f"no values for {len(missing)} of {len(model.weights)} arrays, "
            f"among them {missing[0]}."
        )


def _from_model(model: keras.Model, source: keras.Model) -> None:
    names = {layer.name for layer in source.layers}
    if "backbone" in names:
        source = source.get_layer("backbone")
    arrays = source.get_weights()
    # The arrays of a classifier on top come last.
    arrays = arrays[: len(model.weights)]
    graph.set_weights(model, arrays)


def _mend_efficientnet(model: keras.Model) -> None:
    """Corrects the pixel scaling of Keras' EfficientNet v1.

    Its published weights hold the standard deviation in place of the variance,
    of which Keras takes the square root. Only a graph made with
    `weights="imagenet"` has a layer that divides once more; without it the
    same weights would scale pixels wrongly.
    """
    rescalings = [
        layer
        for layer in model.layers
        if isinstance(layer, keras.layers.Rescaling)
    ]
    for layer in model.layers:
        if not isinstance(layer, keras.layers.Normalization):
            continue
        if not layer.weights or len(rescalings) > 1:
            continue
        mean, variance, count = layer.get_weights()
        published = np.array((0.229, 0.224, 0.225), "float32")
        if variance.shape == (3,) and np.allclose(variance, published):
            graph.set_weights(layer, [mean, variance**2, count])


def _first_line(err: Exception) -> str:
    text = str(err).strip().split("\n")[0].split(" Example error")[0]
    return text if text.endswith(".") else f"{text}."
