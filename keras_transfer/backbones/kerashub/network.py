"""A KerasHub network as one graph, down to its transformer blocks."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras

from keras_transfer.backbones import tokens
from keras_transfer.backbones.dropout import still_dropout
from keras_transfer.structure import graph
from keras_transfer.structure.adapters import freeze_adapted_kernels

# Between its blocks tensors cross whose shapes KerasHub states wrongly.
_WHOLE = ("XLNetBackbone",)


_INTERPOLATED = "interpolated_position_embeddings"


@keras.saving.register_keras_serializable("keras_transfer")
class KerasHubNetwork(keras.Model):
    """A functional model over the layers of a KerasHub backbone.

    KerasHub keeps the blocks of a transformer within one layer, and makes its
    networks anew from one config of all: that of a single layer often does not
    say how to make it. So the graph goes through the layers that are stacks of
    others, which makes their parts blocks, and the config is KerasHub's own,
    with what is trainable beside it.

    Args:
        hub: The backbone, or what `keras.saving` serializes it to. It becomes
            part of this network.
        part: Name of the attribute of it that is meant, such as
            `"vision_encoder"`. Defaults to `None`, all of it.
        text: For a network that takes text, the arguments of
            `read_tokens` beside the network.
            Defaults to `None`, one that takes images.
        still: Whether what drops at random is off. Defaults to `True`.
        adapters: Ranks of low-rank adapters by the position of their layer.
            Defaults to `None`, none.
        closed: Positions of the layers in it that do not train. Defaults to
            `()`.
        name: Name of the model. Defaults to `"backbone"`.
        **options: Of every model, such as `trainable`.

    Raises:
        ImportError: If KerasHub is not installed.

    Example:

    >>> network = load_backbone("kerashub:vit_tiny/").model  # doctest: +SKIP
    """

    def __init__(
        self,
        hub: dict[str, Any] | keras.Model,
        *,
        part: str | None = None,
        text: dict[str, Any] | None = None,
        still: bool = True,
        adapters: Mapping[str, int] | None = None,
        closed: Sequence[int] = (),
        name: str = "backbone",
        **options: Any,
    ) -> None:
        import_keras_hub()
        if isinstance(hub, keras.Model):
            whole, hub = hub, keras.saving.serialize_keras_object(hub)
        else:
            whole = keras.saving.deserialize_keras_object(hub)
        network = whole if part is None else getattr(whole, part)
        if text is None:
            inputs, features = read_images(network)
        else:
            inputs, features = read_tokens(network, **text)
        super().__init__(inputs, features, name=name, **options)
        # As text: Keras would wrap a dictionary and look for layers in it.
        self._made_of = json.dumps(
            {"hub": hub, "part": part, "text": text, "still": still}
        )
        if still:
            still_dropout(self)
        layers = list(graph.layers_below(self))
        for place, rank in (adapters or {}).items():
            layers[int(place)].enable_lora(rank)
        for index, layer in enumerate(layers):
            if index:  # not the model itself
                layer.trainable = index not in closed
            if hasattr(layer, _INTERPOLATED):
                _save_as_they_are(layer)
        freeze_adapted_kernels(layers)

    def get_config(self) -> dict[str, Any]:
        """Returns what the network is made of, and which layers are closed."""
        layers = list(enumerate(graph.layers_below(self)))
        closed = [i for i, layer in layers if i and not layer.trainable]
        ranks = {
            str(i): layer.lora_rank
            for i, layer in layers
            if getattr(layer, "lora_enabled", False)
        }
        return {
            **json.loads(self._made_of),
            "adapters": ranks,
            "closed": closed,
            "name": self.name,
            "trainable": self.trainable,
        }

    @classmethod
    def from_config(
        cls, config: dict[str, Any], custom_objects: Any = None
    ) -> KerasHubNetwork:
        """Makes the network anew, without its weights."""
        return cls(**config)


def import_keras_hub() -> Any:
    """Returns the package `keras_hub`.

    Raises:
        ImportError: If it is not installed.
    """
    try:
        import keras_hub
    except ImportError as err:
        raise ImportError(
            "KerasHub is needed for this backbone and is not installed: "
            'pip install "keras_transfer[kerashub]"'
        ) from err
    return keras_hub


def read_images(network: keras.Model) -> tuple[keras.KerasTensor, ...]:
    """Runs a network on one batch of images.

    Args:
        network: A functional model with one input.

    Returns:
        The input and the features.
    """
    (end,) = graph.tensors_in(network)
    images = keras.Input(end.shape[1:], dtype=end.dtype, name="image")
    return images, _last(images, unfold(network, images))


def read_tokens(
    network: keras.Model, *, pad: int, pooling: str
) -> tuple[keras.KerasTensor, ...]:
    """Runs a network on one batch of token ids.

    Args:
        network: A functional model that takes `token_ids` and, if it likes,
            `padding_mask` and `segment_ids`.
        pad: Id of the token that stands for nothing.
        pooling: As `keras_transfer.backbones.tokens.pool` takes it.

    Returns:
        The input, int32 `(batch, length)` with -1 beyond the end of a text,
        and the features `(batch, channels)`.

    Raises:
        ValueError: If the network takes something else.
    """
    token_ids = keras.Input((None,), dtype="int32", name="tokens")
    mask = token_ids >= 0
    given = {
        "token_ids": keras.ops.where(mask, token_ids, pad),
        "padding_mask": mask,
        "segment_ids": keras.ops.zeros_like(token_ids),
    }
    ends = graph.tensors_in(network)
    names = [end.name for end in ends]
    if not {"token_ids"} <= set(names) <= set(given):
        raise ValueError(
            "`source` must take text: token_ids and, if it likes, "
            f"padding_mask and segment_ids. Received: {network.name!r}, a "
            f"{type(network).__name__}, which takes {', '.join(names)}."
        )
    given = {
        end.name: keras.ops.cast(given[end.name], end.dtype) for end in ends
    }
    outputs = unfold(network, [given[name] for name in names])
    if isinstance(outputs, dict):
        outputs = outputs["sequence_output"]
    # The mask as the blocks read it: one tensor less that crosses a cut.
    mask = given.get("padding_mask", mask)
    return token_ids, tokens.pool(outputs, mask, pooling)


def unfold(network: keras.Model, inputs: Any) -> Any:
    """Calls a network with the stacks of layers in it taken apart.

    Args:
        network: A functional model; its layers are shared.
        inputs: Symbolic tensor, or a list of several.

    Returns:
        What the network returns.
    """
    if type(network).__name__ in _WHOLE:
        ends = graph.tensors_in(network)
        given = zip(ends, keras.tree.flatten(inputs), strict=True)
        return network({end.name: tensor for end, tensor in given})
    outputs = graph.inline(network, inputs, parts=_opened)
    flat = keras.tree.flatten(outputs)
    if len(keras.Model(inputs, flat).weights) == len(network.weights):
        return outputs
    # A stack has weights that no layer in it is asked for.
    return graph.inline(network, inputs)


def _save_as_they_are(layer: keras.layers.Layer) -> None:
    """Makes a layer save its variables, and not others in their place.

    DINOv2 saves position embeddings in the size of its pretraining: what it
    learned in another size comes back blurred, or does not come back at all
    where the sum of the changes is negative.
    """
    for name in ("save_own_variables", "load_own_variables"):
        plain = getattr(keras.layers.Layer, name)
        setattr(layer, name, functools.partial(plain, layer))


def _last(inputs: keras.KerasTensor, outputs: Any) -> keras.KerasTensor:
    """Of several outputs the one that most of the network leads to."""
    ends = keras.tree.flatten(outputs)
    if len(ends) == 1:
        return ends[0]
    found = [len(graph.steps(keras.Model(inputs, end))) for end in ends]
    return ends[found.index(max(found))]


def _opened(operation: keras.Operation) -> Callable[..., Any] | None:
    """Returns what calls the layers of a stack one by one."""
    if not _is_stack(operation):
        return None
    # Keras wants each name once in a graph, and each stack counts from 0.
    for part in _parts(operation):
        if not part.name.startswith(operation.name):
            part.name = f"{operation.name}_{part.name}"
    return functools.partial(_call, operation)


def _call(stack: keras.layers.Layer, *args: Any, **kwargs: Any) -> Any:
    try:
        return stack.call(*args, **kwargs)
    except Exception:  # Whatever a layer raises that wants real tensors.
        return stack(*args, **kwargs)


def _is_stack(operation: keras.Operation) -> bool:
    """Whether a layer keeps others in a list, and no weights itself."""
    if not isinstance(operation, keras.layers.Layer):
        return False
    if type(operation).__module__.startswith("keras."):
        return False
    below = {id(w) for part in _parts(operation) for w in part.weights}
    if any(id(weight) not in below for weight in operation.weights):
        return False
    return any(
        isinstance(value, list | tuple)
        and sum(isinstance(each, keras.layers.Layer) for each in value) > 1
        for name, value in vars(operation).items()
        if not name.startswith("_")
    )


def _parts(layer: keras.layers.Layer) -> list[keras.layers.Layer]:
    """The layers that a layer is made of, not those within them."""
    below = list(graph.layers_below(layer))[1:]
    inner = {
        id(x) for part in below for x in list(graph.layers_below(part))[1:]
    }
    return [part for part in below if id(part) not in inner]
