"""Backbones from KerasHub: presets, and folders of Hugging Face and timm."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_transfer._utils.checks import did_you_mean
from keras_transfer.backbones.kerashub.network import (
    KerasHubNetwork,
    import_keras_hub,
)
from keras_transfer.backbones.spec import (
    NORMALIZATIONS,
    BackboneSpec,
    Normalization,
    name_of,
    spec_of_own,
)
from keras_transfer.backbones.text_cleaning import uncased_options
from keras_transfer.structure import graph

PREFIX = "kerashub:"


# Handles that KerasHub resolves without our prefix.
ADDRESSES = ("hf://", "kaggle://", "modelscope://")


# Attribute of a network for images and text that takes the images.
_IMAGE_PART = "vision_encoder"


def is_handle(source: object) -> bool:
    """Returns `True` if `source` is a handle of KerasHub."""
    return isinstance(source, str) and source.startswith((PREFIX, *ADDRESSES))


def is_backbone(source: object) -> bool:
    """Returns `True` for a KerasHub object, or a `KerasHubNetwork`.

    It does not import KerasHub, which any such object has imported.
    """
    return isinstance(source, keras.Model) and any(
        kind.__module__.startswith("keras_hub.") or kind is KerasHubNetwork
        for kind in type(source).__mro__
    )


def build(
    source: str | keras.Model,
    input_shape: tuple[int | None, int | None, int] | None,
    *,
    pretrained: bool = True,
    pixel_range: str | None = None,
) -> tuple[keras.Model, BackboneSpec]:
    """Makes a backbone from a KerasHub network that takes images.

    Args:
        source: `"kerashub:"` and the name of a preset or a folder; an address
            (`"hf://..."`); a backbone or a task of KerasHub, which is copied.
        input_shape: `(height, width, channels)`, or `None` for that of the
            network.
        pretrained: Whether to use its weights. Defaults to `True`.
        pixel_range: A key of `NORMALIZATIONS`. Defaults to `None`: that of its
            image converter.

    Returns:
        The functional model, and its spec.

    Raises:
        ImportError: If KerasHub is not installed.
        ValueError: If there is no such preset, it does not take images or fit
            `input_shape`, or its pixel range is unknown.
        ConnectionError: If a download fails.
    """
    shape = None if input_shape is None else (*input_shape[:2], 3)
    if input_shape is not None and input_shape[-1] not in (1, 3):
        raise ValueError(
            "`input_shape` must have 1 or 3 channels for a network of "
            f"KerasHub. Received: input_shape={input_shape}"
        )
    if isinstance(source, keras.Model):
        name = source.name
        backbone, converter = _parts_of(source)
        network = _network(backbone, shape, pretrained=pretrained, copied=True)
    else:
        name = source
        backbone = load(source, shape, pretrained)
        converter = load_converter(source)
        network = _network(backbone, shape, pretrained=pretrained, copied=False)
    normalization = pixel_range or _normalization_of(converter)
    if normalization is None or (
        isinstance(normalization, str) and normalization not in NORMALIZATIONS
    ):
        raise ValueError(
            "`pixel_range` must be the pixel range of the pretraining, since "
            f"{name!r} has no image converter: one of "
            f"{', '.join(map(repr, NORMALIZATIONS))}. Received: "
            f"pixel_range={pixel_range!r}"
        )
    size = getattr(converter, "image_size", None)
    own = network.input_shape[1]
    spec = spec_of_own(
        name_of(name),
        "keras_hub",
        normalization,
        int(size[0]) if size else own,
        int(network.output_shape[-1]),
    )
    return network, spec


def clone(model: keras.Model) -> keras.Model:
    """Returns a clone of `model`, with weights of its own.

    Args:
        model: Any functional model, including a `KerasHubNetwork`, which
            `keras.models.clone_model` would clone layer by layer.
    """
    if isinstance(model, KerasHubNetwork):
        return KerasHubNetwork.from_config(model.get_config())
    return keras.models.clone_model(model)


def load(
    handle: str,
    image_shape: tuple[int | None, int | None, int] | None,
    pretrained: bool,
) -> keras.Model:
    """Loads a backbone of KerasHub.

    Args:
        handle: Handle, as for `build`, with or without `"kerashub:"`.
        image_shape: Shape of the images, or `None` for its own.
        pretrained: Whether to use its weights.

    Returns:
        The backbone.

    Raises:
        ImportError: If KerasHub, or its download client, is not installed.
        ValueError: If there is no such preset, or it does not fit.
        ConnectionError: If a download fails.
    """
    hub = import_keras_hub()
    preset = handle.removeprefix(PREFIX)
    options = {} if image_shape is None else {"image_shape": image_shape}
    try:
        return hub.models.Backbone.from_preset(
            preset, load_weights=pretrained, **options
        )
    except ImportError:
        raise
    except Exception as err:  # Any error of its download clients.
        raise _explain(handle, preset, image_shape, err, hub) from err


def load_converter(handle: str) -> Any:
    """Returns the image converter beside a backbone, or `None`."""
    return _beside(handle, import_keras_hub().layers.ImageConverter)


def load_tokenizer(handle: str) -> Any:
    """Returns the tokenizer beside a backbone, or `None`."""
    try:
        return _beside(handle, import_keras_hub().tokenizers.Tokenizer)
    except KeyError as err:
        raise ValueError(
            "`source` must have a `tokenizer_config.json` that says "
            f"{err.args[0]!r}. Received: source={handle!r}, whose does not. "
            "Add it as in the original (true for an uncased model), or pass "
            "`tokenizer`."
        ) from err


def take_cleaning(tokenizer: Any, handle: str) -> dict[str, bool] | None:
    """Returns the cleaning of texts that a tokenizer leaves to its caller.

    KerasHub does not normalise texts as BERT was pretrained: it keeps accents,
    folds case (which turns ß into ss) and splits at fewer kinds of space. Where
    a WordPiece tokenizer comes from a preset or a folder, our cleaning takes
    the place of its own.

    Args:
        tokenizer: The tokenizer of a preset or folder, or `None`; changed.
        handle: The preset or folder.

    Returns:
        Arguments of `text_cleaning.clean`, or `None` for another tokenizer.
    """
    kind = import_keras_hub().tokenizers.WordPieceTokenizer
    if not isinstance(tokenizer, kind):
        return None
    file = Path(handle.removeprefix(PREFIX)) / "tokenizer_config.json"
    config = json.loads(file.read_text("utf-8")) if file.is_file() else {}
    cleaning = uncased_options(config, bool(tokenizer.lowercase))
    tokenizer.lowercase = tokenizer.strip_accents = False
    if config.get("tokenize_chinese_chars") is False:
        tokenizer.split_on_cjk = False
    return cleaning


def _beside(handle: str, kind: Any) -> Any:
    try:
        return kind.from_preset(handle.removeprefix(PREFIX))
    except (ValueError, FileNotFoundError):
        return None


def _explain(
    handle: str, preset: str, shape: object, err: Exception, hub: Any
) -> Exception:
    """Returns an error of ours, with a remedy, for one of KerasHub."""
    first = (str(err).strip() or type(err).__name__).splitlines()[0]
    if Path(preset, "config.json").is_file() and shape is not None:
        return ValueError(
            f"`input_shape` must fit {handle!r}; omit it for the image size of "
            f"the pretraining. Received: input_shape={shape}. KerasHub says: "
            f"{first}"
        )
    if Path(preset).is_dir():
        return ValueError(
            "`source` must be a folder that KerasHub reads: of a preset, from "
            "Hugging Face or timm (config.json and its weights). Received: "
            f"source={handle!r}. KerasHub says: {first}"
        )
    known = hub.models.Backbone.presets
    if "://" not in preset and preset not in known:
        return ValueError(
            f"`source` must be an existing folder or one of the {len(known)} "
            "presets of KerasHub (`keras_hub.models.Backbone.presets`); word "
            "vectors are files ending in .txt, .vec or .bin. Received: "
            f"source={handle!r}.{did_you_mean(preset, known)}"
        )
    return ConnectionError(
        f"Preset {preset!r} is not in the cache and could not be fetched "
        f"({first}). Either connect to the internet once, or set "
        "KAGGLEHUB_CACHE (or HF_HOME) to a cache that has it, or pass "
        f"{PREFIX!r} and the folder of a copy."
    )


def _parts_of(source: keras.Model) -> tuple[keras.Model, Any]:
    """Returns the backbone and image converter of a KerasHub object."""
    preprocessor = getattr(source, "preprocessor", None)
    return (
        getattr(source, "backbone", source),
        getattr(preprocessor, "image_converter", None),
    )


def _network(
    source: keras.Model,
    shape: tuple[int | None, int | None, int] | None,
    *,
    pretrained: bool,
    copied: bool,
) -> keras.Model:
    """Makes one graph of a backbone, with the images as its only input.

    Args:
        source: A backbone of KerasHub, or a `KerasHubNetwork`.
        shape: Shape of the images, or `None` for its own.
        pretrained: Whether to use its weights.
        copied: Whether to copy `source`; else it becomes part of the result.
    """
    ends = graph.tensors_in(source)
    fits = len(ends) == 1 and tuple(ends[0].shape[1:]) == shape
    if shape is None or fits:
        shape = None
    whole = source
    if copied or shape is not None:
        whole = copy_of(source, pretrained, shape)
    if isinstance(whole, KerasHubNetwork):
        return whole
    part = None
    inputs = graph.tensors_in(whole)
    if len(inputs) > 1 and hasattr(whole, _IMAGE_PART):
        part = _IMAGE_PART
        inputs = graph.tensors_in(getattr(whole, part))
    if len(inputs) != 1 or len(inputs[0].shape) != 4:
        shapes = ", ".join(f"{t.name} {tuple(t.shape[1:])}" for t in inputs)
        raise ValueError(
            f"`source` must take images. Received: {source.name!r}, a "
            f"{type(whole).__name__}, which takes {shapes}. For text use "
            "`build_text_classifier`."
        )
    network = KerasHubNetwork(whole, part=part, still=pretrained)
    below = list(graph.layers_below(network))[1:]
    if any(not type(x).__module__.startswith("keras.") for x in below):
        return network
    # All layers are built into Keras, so a saved model loads without KerasHub.
    return keras.Model(network.inputs[0], network.outputs[0], name=network.name)


def copy_of(
    source: keras.Model, pretrained: bool, shape: tuple | None = None
) -> keras.Model:
    """Returns a copy of a backbone, possibly for images of another shape.

    Args:
        source: A backbone of KerasHub, or a `KerasHubNetwork`.
        pretrained: Whether to copy its weights.
        shape: Shape of the images, or `None` for the same. Defaults to `None`.

    Raises:
        ValueError: If it does not fit `shape`.
    """
    config = keras.saving.serialize_keras_object(source)
    if shape is not None:
        _set_shape(config, shape, source)
    copy = keras.saving.deserialize_keras_object(config)
    if pretrained:
        _set_weights(copy, source, shape)
    return copy


def _set_shape(config: dict[str, Any], shape: tuple, source: object) -> None:
    """Writes the shape of the images into a config of KerasHub."""
    options = config["config"]
    if "hub" in options:  # of a KerasHubNetwork
        options = options["hub"]["config"]
    names = {"image_shape", "input_shape"} & set(options)
    if not names:
        raise ValueError(
            "`input_shape` must be omitted for "
            f"{type(source).__name__}, whose image shape is fixed. "
            f"Received: input_shape={shape}"
        )
    options[names.pop()] = shape


def _set_weights(
    network: keras.Model, source: keras.Model, shape: tuple | None
) -> None:
    try:
        graph.set_weights(network, source.get_weights())
    except ValueError as err:
        raise ValueError(
            f"`input_shape` must fit the weights of {source.name!r}, some of "
            "which depend on positions in the image. Received: "
            f"input_shape={shape}. Omit it, and load the images in the size of "
            f"the network, {tuple(source.input_shape[1:3])}."
        ) from err


def _normalization_of(converter: Any) -> str | Normalization | None:
    """Returns `x * scale + offset` of an image converter as mean and std."""
    if converter is None:
        return None
    scale = np.broadcast_to(
        1.0 if converter.scale is None else converter.scale, 3
    )
    offset = np.broadcast_to(
        0.0 if converter.offset is None else converter.offset, 3
    )
    normalization = Normalization(
        tuple((-offset / scale).tolist()), tuple((1.0 / scale).tolist())
    )
    for name, known in NORMALIZATIONS.items():
        if not known.bgr and np.allclose(
            normalization[:2], known[:2], rtol=1e-6
        ):
            return name
    return normalization
