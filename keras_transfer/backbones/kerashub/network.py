"""A KerasHub network as one graph, down to its transformer blocks."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras

from keras_transfer.backbones import tokens
from keras_transfer.backbones.dropout import turn_off_dropout
from keras_transfer.structure import graph
from keras_transfer.structure.adapters import settle

# Networks that cannot be taken apart. KerasHub states wrong shapes for tensors
# between the blocks of XLNet.
_INDIVISIBLE = ("XLNetBackbone",)


_INTERPOLATED = "interpolated_position_embeddings"


@keras.saving.register_keras_serializable("keras_transfer")
class KerasHubNetwork(keras.Model):
    """A functional model over the layers of a KerasHub backbone.

    KerasHub nests the blocks of a transformer in one layer, and recreates its
    networks from a single config, since the config of a nested layer is often
    incomplete. So this graph opens layers that are stacks of others, to make
    their parts blocks, and its config is that of KerasHub, plus the positions
    of trainable layers.

    Args:
        hub: The backbone, or its serialization by `keras.saving`. It becomes
            part of this network.
        part: Attribute of `hub` to use instead of all of it, such as
            `"vision_encoder"`. Defaults to `None`.
        text: Arguments of `read_tokens` besides the network, for a text
            network. Defaults to `None`, for images.
        still: Whether dropout is turned off. Defaults to `True`.
        adapters: Ranks of low-rank adapters by the position of their layer.
            Defaults to `None`, none.
        closed: Positions of the frozen layers. Defaults to `()`.
        name: Name of the model. Defaults to `"backbone"`.
        **options: Further arguments of `keras.Model`, such as `trainable`.

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
        # As text, since Keras would track the contents of a dictionary.
        self._arguments = json.dumps(
            {"hub": hub, "part": part, "text": text, "still": still}
        )
        if still:
            turn_off_dropout(self)
        layers = list(graph.layers_below(self))
        for position, rank in (adapters or {}).items():
            layers[int(position)].enable_lora(rank)
        for index, layer in enumerate(layers):
            if index:  # Index 0 is the model itself.
                layer.trainable = index not in closed
            if hasattr(layer, _INTERPOLATED):
                _save_unchanged(layer)
        settle(layers)

    def get_config(self) -> dict[str, Any]:
        """Returns the config of the backbone, and the frozen layers."""
        layers = list(enumerate(graph.layers_below(self)))
        closed = [i for i, layer in layers if i and not layer.trainable]
        ranks = {
            str(i): layer.lora_rank
            for i, layer in layers
            if getattr(layer, "lora_enabled", False)
        }
        return {
            **json.loads(self._arguments),
            "adapters": ranks,
            "closed": closed,
            "name": self.name,
            "trainable": self.trainable,
        }

    @classmethod
    def from_config(
        cls, config: dict[str, Any], custom_objects: Any = None
    ) -> KerasHubNetwork:
        """Creates a network from its config, without weights."""
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
    """Builds the graph of a network that takes images.

    Args:
        network: A functional model with one input.

    Returns:
        The symbolic input and features.
    """
    (end,) = graph.tensors_in(network)
    images = keras.Input(end.shape[1:], dtype=end.dtype, name="image")
    return images, _last(images, unfold(network, images))


def read_tokens(
    network: keras.Model, *, pad: int, pooling: str
) -> tuple[keras.KerasTensor, ...]:
    """Builds the graph of a network that takes token ids.

    Args:
        network: A functional model that takes `token_ids` and, optionally,
            `padding_mask` and `segment_ids`.
        pad: Id of the padding token.
        pooling: Pooling, as for `keras_transfer.backbones.tokens.pool`.

    Returns:
        The symbolic input, int32 `(batch, length)` with -1 after the end of a
        text, and features `(batch, channels)`.

    Raises:
        ValueError: If the network has other inputs.
    """
    token_ids = keras.Input((None,), dtype="int32", name="tokens")
    mask = token_ids >= 0
    tensors = {
        "token_ids": keras.ops.where(mask, token_ids, pad),
        "padding_mask": mask,
        "segment_ids": keras.ops.zeros_like(token_ids),
    }
    ends = graph.tensors_in(network)
    names = [end.name for end in ends]
    if not {"token_ids"} <= set(names) <= set(tensors):
        raise ValueError(
            "`source` must take text: token_ids and, optionally, "
            f"padding_mask and segment_ids. Received: {network.name!r}, a "
            f"{type(network).__name__}, which takes {', '.join(names)}."
        )
    tensors = {
        end.name: keras.ops.cast(tensors[end.name], end.dtype) for end in ends
    }
    outputs = unfold(network, [tensors[name] for name in names])
    if isinstance(outputs, dict):
        outputs = outputs["sequence_output"]
    # Reuse the mask of the blocks, so that one tensor less crosses a cut.
    mask = tensors.get("padding_mask", mask)
    return token_ids, tokens.pool(outputs, mask, pooling)


def unfold(network: keras.Model, inputs: Any) -> Any:
    """Calls a network, with the layers in its stacks called one by one.

    Args:
        network: A functional model; its layers are shared.
        inputs: Symbolic tensor, or a list of several.

    Returns:
        The outputs of the network.
    """
    if type(network).__name__ in _INDIVISIBLE:
        ends = graph.tensors_in(network)
        pairs = zip(ends, keras.tree.flatten(inputs), strict=True)
        return network({end.name: tensor for end, tensor in pairs})
    outputs = graph.inline(network, inputs, parts=_opened)
    flat = keras.tree.flatten(outputs)
    if len(keras.Model(inputs, flat).weights) == len(network.weights):
        return outputs
    # A stack has weights of its own, which its layers do not include.
    return graph.inline(network, inputs)


def _save_unchanged(layer: keras.layers.Layer) -> None:
    """Makes a layer save its variables without interpolation.

    DINOv2 saves position embeddings in the size of its pretraining. Embeddings
    trained in another size are blurred by that, or lost where the sum of the
    changes is negative.
    """
    for name in ("save_own_variables", "load_own_variables"):
        plain = getattr(keras.layers.Layer, name)
        setattr(layer, name, functools.partial(plain, layer))


def _last(inputs: keras.KerasTensor, outputs: Any) -> keras.KerasTensor:
    """Returns the output that depends on the largest part of the network."""
    ends = keras.tree.flatten(outputs)
    if len(ends) == 1:
        return ends[0]
    sizes = [len(graph.steps(keras.Model(inputs, end))) for end in ends]
    return ends[sizes.index(max(sizes))]


def _opened(operation: keras.Operation) -> Callable[..., Any] | None:
    """Returns a function that calls the layers of a stack one by one."""
    if not _is_stack(operation):
        return None
    # Names must be unique in a graph, but each stack counts from 0.
    for part in _parts(operation):
        if not part.name.startswith(operation.name):
            part.name = f"{operation.name}_{part.name}"
    return functools.partial(_call, operation)


def _call(stack: keras.layers.Layer, *args: Any, **kwargs: Any) -> Any:
    try:
        return stack.call(*args, **kwargs)
    except Exception:  # Some layers fail on symbolic tensors, with any error.
        return stack(*args, **kwargs)


def _is_stack(operation: keras.Operation) -> bool:
    """Returns `True` for a list of layers without weights of its own."""
    if not isinstance(operation, keras.layers.Layer):
        return False
    if type(operation).__module__.startswith("keras."):
        return False
    below = {id(w) for part in _parts(operation) for w in part.weights}
    if any(id(weight) not in below for weight in operation.weights):
        return False
    return any(
        isinstance(value, list | tuple)
        and sum(isinstance(item, keras.layers.Layer) for item in value) > 1
        for name, value in vars(operation).items()
        if not name.startswith("_")
    )


def _parts(layer: keras.layers.Layer) -> list[keras.layers.Layer]:
    """Returns the direct sublayers of a layer."""
    below = list(graph.layers_below(layer))[1:]
    inner = {
        id(x) for part in below for x in list(graph.layers_below(part))[1:]
    }
    return [part for part in below if id(part) not in inner]
