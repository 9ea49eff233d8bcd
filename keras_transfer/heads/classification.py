"""Heads: pooling and dense layers on top of a backbone's features."""

from __future__ import annotations

from collections.abc import Sequence

import keras
from keras import layers

from keras_transfer._utils.checks import is_integer

POOLINGS = ("avg", "max", "avgmax", "gem", "flatten", "token")


_GEM_POWER = 3.0


# Keys are the number of dimensions of the features, the batch included.
_GLOBAL_POOLINGS = {
    3: (layers.GlobalAveragePooling1D, layers.GlobalMaxPooling1D),
    4: (layers.GlobalAveragePooling2D, layers.GlobalMaxPooling2D),
}


def build_head(
    feature_shape: tuple[int | None, ...],
    num_outputs: int,
    *,
    pooling: str = "avg",
    hidden_units: Sequence[int] = (),
    hidden_activation: str = "relu",
    batch_norm: bool = False,
    dropout: float = 0.0,
    activation: str = "softmax",
    input_name: str = "features",
) -> keras.Model:
    """Builds a head: pooling, hidden dense layers and the output layer.

    Args:
        feature_shape: Shape of the features without the batch: `(height,
            width, channels)`, `(positions, channels)` of a transformer, or
            `(channels,)`.
        num_outputs: Number of outputs, positive.
        pooling: Reduction of a feature map to a vector. `"avg"` and `"max"`
            take the mean or maximum over positions; `"avgmax"` concatenates
            both; `"gem"` is the generalised mean
            `mean(max(x, 1e-6)^3)^(1/3)`; `"flatten"` keeps all positions and
            needs a fixed image size; `"token"` takes the first position of a
            transformer, its class token if it has one. Features that are
            vectors need `"avg"`, which leaves them unchanged. Defaults to
            `"avg"`.
        hidden_units: Sizes of dense layers below the output. Defaults to
            `()`.
        hidden_activation: Activation of these layers. Defaults to `"relu"`.
        batch_norm: Whether each hidden layer is followed by batch
            normalization, before its activation. Defaults to `False`.
        dropout: Fraction in `[0, 1)` of the inputs of each dense layer that is
            dropped in training. Defaults to `0.0`.
        activation: Activation of the output. Defaults to `"softmax"`.
        input_name: Name of the input. Defaults to `"features"`.

    Returns:
        A functional model named `"head"`, with float32 output of shape
        `(batch, num_outputs)`.

    Raises:
        ValueError: If an argument is out of range or does not fit the
            features.

    Example:

    >>> build_head((7, 7, 512), 10).count_params()
    5130

    Reference:
        - Radenovic et al., 2018, https://arxiv.org/abs/1711.02512 (GeM)
    """
    hidden_units = _check(
        num_outputs, pooling, hidden_units, dropout, feature_shape
    )
    inputs = keras.Input(feature_shape, name=input_name)
    x = _pool(inputs, pooling)
    for number, units in enumerate(hidden_units, start=1):
        if dropout:
            x = layers.Dropout(dropout, name=f"dropout_{number}")(x)
        x = layers.Dense(
            units, use_bias=not batch_norm, name=f"hidden_{number}"
        )(x)
        if batch_norm:
            x = layers.BatchNormalization(name=f"batch_norm_{number}")(x)
        x = layers.Activation(hidden_activation, name=f"activation_{number}")(x)
    if dropout:
        x = layers.Dropout(dropout, name="dropout")(x)
    # float32 also under mixed precision: in 16 bits the loss of a softmax
    # underflows.
    outputs = layers.Dense(
        int(num_outputs),
        activation=activation,
        dtype="float32",
        name="predictions",
    )(x)
    return keras.Model(inputs, outputs, name="head")


def _check(
    num_outputs: int,
    pooling: str,
    hidden_units: Sequence[int],
    dropout: float,
    feature_shape: tuple[int | None, ...],
) -> tuple[int, ...]:
    if not is_integer(num_outputs) or num_outputs < 1:
        raise ValueError(
            "`num_classes` or `num_outputs` must be a positive integer. "
            f"Received: {num_outputs!r}"
        )
    if pooling not in POOLINGS:
        raise ValueError(
            f"`pooling` must be one of {', '.join(map(repr, POOLINGS))}. "
            f"Received: pooling={pooling!r}"
        )
    is_sequence = isinstance(hidden_units, Sequence)
    if not is_sequence or any(
        not is_integer(units) or units < 1 for units in hidden_units
    ):
        raise ValueError(
            "`hidden_units` must be a sequence of positive integers, such as "
            f"(256,). Received: hidden_units={hidden_units!r}"
        )
    if not 0 <= dropout < 1:
        raise ValueError(
            "`dropout` must be a fraction in [0, 1). Received: "
            f"dropout={dropout!r}"
        )
    if len(feature_shape) == 1 and pooling != "avg":
        raise ValueError(
            '`pooling` must be left at "avg" for a backbone whose features '
            f"are vectors: there is nothing to pool. Received: pooling="
            f"{pooling!r}"
        )
    if pooling == "token" and len(feature_shape) != 2:
        raise ValueError(
            '`pooling="token"` needs the features of a transformer, of shape '
            f"(positions, channels). Received: features of {feature_shape}"
        )
    if pooling == "flatten" and None in feature_shape:
        raise ValueError(
            '`pooling="flatten"` needs images of one fixed size. Received: '
            f"features of shape {feature_shape}. Give `load_backbone` an "
            "`input_shape` with height and width."
        )
    return tuple(int(units) for units in hidden_units)


def _pool(x: keras.KerasTensor, pooling: str) -> keras.KerasTensor:
    if len(x.shape) == 2:
        return x
    if pooling == "flatten":
        return layers.Flatten(name="flatten")(x)
    if pooling == "token":
        return x[:, 0]
    average, maximum = _GLOBAL_POOLINGS[len(x.shape)]
    if pooling == "gem":
        # In float32, since float16 overflows at 41^3.
        x = keras.ops.cast(x, "float32")
        x = keras.ops.maximum(x, 1e-6) ** _GEM_POWER
        x = average(dtype="float32", name="gem_pool")(x)
        return x ** (1.0 / _GEM_POWER)
    parts = []
    if pooling in ("avg", "avgmax"):
        parts.append(average(name="avg_pool")(x))
    if pooling in ("max", "avgmax"):
        parts.append(maximum(name="max_pool")(x))
    if len(parts) == 1:
        return parts[0]
    return layers.Concatenate(name="avgmax_pool")(parts)
