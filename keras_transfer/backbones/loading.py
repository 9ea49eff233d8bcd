"""`load_backbone`: pretrained networks from any source."""

from __future__ import annotations

import fnmatch
from pathlib import Path
from typing import Any

import keras

from keras_transfer._utils.checks import did_you_mean, is_integer
from keras_transfer.backbones import (
    applications,
    embedded,
    input_channels,
    user_model,
)
from keras_transfer.backbones.backbone import Backbone
from keras_transfer.backbones.dropout import turn_off_dropout
from keras_transfer.backbones.embedded import resnet20
from keras_transfer.backbones.kerashub import loading as kerashub
from keras_transfer.backbones.preprocessing import build_preprocessing
from keras_transfer.backbones.spec import BackboneSpec, Normalization
from keras_transfer.backbones.tfhub import loading as tfhub
from keras_transfer.backbones.weight_files import check_path, load_weights
from keras_transfer.structure import graph

PRETRAINED = "pretrained"


# Arguments of the Keras functions that `load_backbone` sets itself.
_RESERVED = {
    "classes",
    "classifier_activation",
    "include_preprocessing",
    "include_top",
    "input_tensor",
    "pooling",
}


_MODEL_FILES = (".keras", ".h5", ".hdf5")


def list_backbones(pattern: str = "*") -> dict[str, BackboneSpec]:
    """Returns the backbones that `load_backbone` knows by name.

    Args:
        pattern: Shell-style pattern for the name; case is ignored. Defaults to
            `"*"`.

    Returns:
        Dictionary from name to `BackboneSpec` (source, pixel range, default
        and smallest size, number of features, licence), sorted by name. Empty
        if nothing matches.

    Example:

    >>> list(list_backbones("resnet50*"))
    ['ResNet50', 'ResNet50V2']
    >>> list_backbones()["MobileNetV2"].num_features
    1280
    """
    known = {**applications.SPECS, **embedded.SPECS}
    return {
        name: known[name]
        for name in sorted(known)
        if fnmatch.fnmatchcase(name.casefold(), pattern.casefold())
    }


def load_backbone(
    source: str | Path | keras.Model,
    *,
    weights: str | Path | None = PRETRAINED,
    input_shape: tuple[int | None, int | None, int] | None = None,
    **source_options: Any,
) -> Backbone:
    """Loads a pretrained network without its classifier.

    Pixels are in `[0, 255]` for every family, since the scaling is part of the
    backbone. With pretrained weights dropout is off, so that frozen layers
    compute the same in each epoch.

    A single channel is repeated three times, which is exactly the grey image in
    colour. For 2, 4 or more channels the first convolution is adapted, and
    channels beyond the third have no effect before training.

    Args:
        source: One of:

            - a name from `list_backbones()`
            - the path of a `.keras` or legacy `.h5` file with a model
            - a `keras.Model`, functional or Sequential, which is copied
            - `"hub:"` and the folder, archive or address of a TF-Hub model: a
              TensorFlow 2 SavedModel that takes images, which is one block
            - `"kerashub:"` and a preset of KerasHub, or a folder of KerasHub,
              Hugging Face or timm; or `"hf://..."`
            - a backbone or task object of KerasHub
        weights: `"pretrained"`, the published weights, or those of the model;
            the name of published weights, such as `"imagenet"`; the path of a
            `.weights.h5`, legacy `.h5` or `.keras` file; or `None`, new random
            weights (architecture transfer). Defaults to `"pretrained"`.
        input_shape: `(height, width, channels)` of the images; height and
            width may be `None` for any size. Defaults to `None`: any size
            with three channels (NASNet: the default size), or the shape of
            the user's model.
        **source_options: Further options, which depend on the source:

            - name: arguments of its `keras.applications` function, such as
              `alpha=0.35`
            - model: `pixel_range` (required; `"[0, 1]"`, `"[-1, 1]"`,
              `"[0, 255]"`, `"caffe"`, `"tf"`, `"torch"` or `"scale128"`;
              `"[0, 255]"` if the model scales pixels itself, as those made
              by a builder do, which need none), and
              `output_layer`, the name of the layer that outputs the features
            - TF-Hub: `pixel_range` (default `"[0, 1]"`), `signature`, `output`
              (the name of one of several) and `training_mode` (whether
              BatchNormalization statistics update where it trains; default
              `False`)
            - KerasHub: `pixel_range`, if it has no image converter

    Returns:
        A `Backbone`.

    Raises:
        ValueError: If the name is unknown, the weights do not fit, the images
            are too small or Keras is set to `channels_first`.
        TypeError: If `source` is of another type, or an option is unknown.
        ImportError: If KerasHub is needed and not installed.
        ConnectionError: If a download fails.

    Example:

    >>> backbone = load_backbone("ResNet20", input_shape=(32, 32, 1))
    >>> backbone.num_features
    64
    """
    if keras.config.image_data_format() != "channels_last":
        raise ValueError(
            "Keras' image data format must be 'channels_last'. Received: "
            f"{keras.config.image_data_format()!r}. Call "
            "`keras.config.set_image_data_format('channels_last')`."
        )
    if isinstance(source, str | Path) and str(source).endswith(_MODEL_FILES):
        if not Path(source).is_file():
            raise ValueError(
                "`source` must be an existing model file. Received: "
                f"source={str(source)!r}, which does not exist."
            )
        source = user_model.read_model(Path(source))
    if kerashub.is_handle(source) or kerashub.is_backbone(source):
        return _load_kerashub(source, weights, input_shape, source_options)
    if isinstance(source, keras.Model):
        return _load_own(source, weights, input_shape, source_options)
    if isinstance(source, str) and source.startswith(tfhub.PREFIX):
        return _load_hub(source, weights, input_shape, source_options)
    if not isinstance(source, str):
        raise TypeError(
            "`source` must be a name, a path or a keras.Model. Received: "
            f"source={source!r}"
        )
    return _load_by_name(source, weights, input_shape, source_options)


def _load_by_name(
    source: str,
    weights: str | Path | None,
    input_shape: tuple[int | None, int | None, int] | None,
    options: dict[str, Any],
) -> Backbone:
    known = list_backbones()
    if source not in known:
        raise ValueError(
            f"`source` must be one of the {len(known)} names of "
            "`list_backbones()`, the path of a model file, a keras.Model, or "
            f'"hub:" or "kerashub:" and a handle; texts: `load_text_backbone`. '
            f"Received: source={source!r}.{did_you_mean(source, known)}"
        )
    spec = known[source]
    reserved = sorted(_RESERVED & set(options))
    if reserved:
        raise TypeError(
            "`source_options` must not hold arguments that `load_backbone` and "
            f"the builders set. Received: {', '.join(reserved)}"
        )
    free = spec.default_size if spec.fixed_size else None
    shape = input_shape or (free, free, 3)
    _check_shape(spec, shape)
    model = _load_named(spec, weights, shape, options)
    if weights is not None:
        turn_off_dropout(model)
    # Families with built-in scaling have it only for three channels.
    outside = not spec.built_in or (
        shape[-1] not in (1, 3) and not _has_normalization(model)
    )
    published = weights in (PRETRAINED, spec.weights)
    top1 = published and applications.imagenet_top1(spec, options)
    return Backbone(
        spec=spec._replace(
            num_features=int(model.output_shape[-1]),
            imagenet_top1=top1 or None,
            licence=_licence(spec, weights),
        ),
        preprocessing=build_preprocessing(
            spec.normalization if outside else None, shape
        ),
        model=model,
    )


def _licence(spec: BackboneSpec, weights: str | Path | None) -> str:
    if weights is None:
        return "none (new weights)"
    published = weights in (PRETRAINED, spec.weights)
    return spec.licence if published else "as the weights file's"


def _load_own(
    source: keras.Model,
    weights: str | Path | None,
    input_shape: tuple[int | None, int | None, int] | None,
    options: dict[str, Any],
) -> Backbone:
    unknown = set(options) - {"pixel_range", "output_layer"}
    if unknown:
        raise TypeError(
            "`source_options` of a model must be `pixel_range` and "
            f"`output_layer`. Received: {', '.join(sorted(unknown))}"
        )
    if graph.is_functional(source) and graph.takes_texts(source):
        raise ValueError(
            f"`source` must take images. Received: {source.name!r}, which "
            "takes texts. Use `load_text_backbone`."
        )
    parts = list(graph.layers_below(source))
    nested = [part.name for part in parts if kerashub.is_backbone(part)]
    if nested:
        raise ValueError(
            "`source` must be made of layers that can be separated. "
            f"Received: model {source.name!r}, which holds {nested[0]!r}, a "
            "network of KerasHub. Load that alone: "
            f'`load_backbone(model.get_layer("{nested[0]}"), ...)`.'
        )
    model, classifier, spec = user_model.build(
        source,
        pixel_range=options.get("pixel_range"),
        input_shape=input_shape,
        output_layer=options.get("output_layer"),
        keep_weights=weights is not None,
    )
    if weights not in (None, PRETRAINED):
        load_weights(model, check_path(weights))
    if weights is not None:
        turn_off_dropout(model)
    return Backbone(
        spec=spec,
        preprocessing=_scaling_only(spec.normalization, model),
        model=model,
        classifier=classifier if weights == PRETRAINED else None,
    )


def _load_hub(
    source: str,
    weights: str | Path | None,
    input_shape: tuple[int | None, int | None, int] | None,
    options: dict[str, Any],
) -> Backbone:
    known = ("pixel_range", "signature", "output", "training_mode")
    unknown = set(options) - set(known)
    if unknown:
        raise TypeError(
            "`source_options` of a TF-Hub model must be among "
            f"{', '.join(known)}. Received: {', '.join(sorted(unknown))}"
        )
    if weights != PRETRAINED:
        raise ValueError(
            '`weights` must be "pretrained" for a TF-Hub model, whose weights '
            f"are part of it. Received: weights={weights!r}"
        )
    model, spec = tfhub.build(
        source.removeprefix(tfhub.PREFIX), input_shape, **options
    )
    return Backbone(
        spec=spec,
        preprocessing=_scaling_only(spec.normalization, model),
        model=model,
    )


def _load_kerashub(
    source: str | keras.Model,
    weights: str | Path | None,
    input_shape: tuple[int | None, int | None, int] | None,
    options: dict[str, Any],
) -> Backbone:
    unknown = set(options) - {"pixel_range"}
    if unknown:
        raise TypeError(
            "`source_options` of a network of KerasHub must be `pixel_range`. "
            f"Received: {', '.join(sorted(unknown))}"
        )
    if weights not in (None, PRETRAINED):
        raise ValueError(
            '`weights` must be "pretrained" or None for a network of KerasHub, '
            f"whose weights are in the preset. Received: weights={weights!r}"
        )
    model, spec = kerashub.build(
        source, input_shape, pretrained=weights is not None, **options
    )
    shape = tuple(model.input_shape[1:])
    if input_shape is not None:
        shape = (*shape[:2], input_shape[-1])
    return Backbone(
        spec=spec,
        preprocessing=build_preprocessing(spec.normalization, shape),
        model=model,
    )


def _scaling_only(
    normalization: str | Normalization | None, model: keras.Model
) -> keras.Model:
    shape = tuple(model.input_shape[1:])
    if shape[-1] != 1:
        return build_preprocessing(normalization, shape)
    # The user's own network takes grey images, so undo the repetition.
    inputs = keras.Input(shape, name="pixels")
    colour = build_preprocessing(normalization, shape)(inputs)
    return keras.Model(inputs, colour[..., :1], name="preprocessing")


def _check_shape(spec: BackboneSpec, shape: tuple) -> None:
    valid = isinstance(shape, tuple | list) and len(shape) == 3
    valid = valid and all(
        size is None or (is_integer(size) and size > 0) for size in shape
    )
    if not valid or shape[-1] is None:
        raise ValueError(
            "`input_shape` must be (height, width, channels), height and "
            f"width positive integers or None. Received: input_shape={shape}"
        )
    if spec.fixed_size and None in shape:
        raise ValueError(
            f"`input_shape` must have height and width for {spec.name!r}, "
            f"whose graph depends on them. Received: input_shape={shape}"
        )
    if any(size is not None and size < spec.min_size for size in shape[:2]):
        raise ValueError(
            f"`input_shape` must be at least {spec.min_size} x "
            f"{spec.min_size} pixels for backbone {spec.name!r}. Received: "
            f"input_shape={shape}. Load the images larger "
            f"(`image_size={spec.default_size}`) or choose a backbone for "
            "small images, such as 'ResNet20'."
        )


def _load_named(
    spec: BackboneSpec,
    weights: str | Path | None,
    shape: tuple[int | None, int | None, int],
    options: dict[str, Any],
) -> keras.Model:
    published = weights in (PRETRAINED, spec.weights)
    path = None if published or weights is None else check_path(weights)
    if spec.source == "keras_transfer" and published:
        path, published = embedded.weights_path(spec.name), False
    height, width, count = shape
    colour = (height, width, 3)
    if weights is None:
        model = _build(spec, colour if count == 1 else shape, None, options)
    elif published and spec.pretrained_size:
        size = spec.pretrained_size
        reference = _build(spec, (size, size, 3), "imagenet", options)
        model = _build(spec, colour, None, options)
        graph.set_weights(model, reference.get_weights())
    else:
        model = _build(spec, colour, "imagenet" if published else None, options)
    if weights is not None and count not in (1, 3):
        reference, model = model, _build(spec, shape, None, options)
        if path is None or not _try_load_weights(model, path):
            if path is not None:
                load_weights(reference, path)
            input_channels.adapt_weights(model, reference, spec.normalization)
    elif path is not None:
        load_weights(model, path)
    # The same layers, in a model with the name that `parts_of` looks up.
    return keras.Model(model.inputs[0], model.outputs[0], name="backbone")


def _build(
    spec: BackboneSpec,
    shape: tuple[int | None, int | None, int],
    weights: str | None,
    options: dict[str, Any],
) -> keras.Model:
    if spec.source == "keras_transfer":
        if options:
            raise TypeError(
                f"Backbone {spec.name!r} takes no further options. Received: "
                f"{', '.join(options)}"
            )
        return resnet20(shape)
    try:
        return applications.build(spec, shape, weights, options)
    except Exception as err:
        # Keras raises a bare Exception when a download fails.
        if "URL fetch failure" not in str(err):
            raise
        raise ConnectionError(
            f"The pretrained weights of {spec.name!r} are not in Keras' cache "
            "and could not be fetched. Either connect to the internet once, or "
            "set KERAS_HOME to a folder whose `models/` has the file, or call "
            f"`load_backbone({spec.name!r}, weights=FILE)`, or with "
            "`weights=None` for new random weights."
        ) from None


def _try_load_weights(model: keras.Model, path: Path) -> bool:
    """Loads a file for this number of channels; returns `False` if it fails."""
    try:
        load_weights(model, path)
    except ValueError:
        return False
    return True


def _has_normalization(model: keras.Model) -> bool:
    return any(
        isinstance(layer, keras.layers.Normalization) for layer in model.layers
    )
