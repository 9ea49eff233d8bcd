"""Texts in, token ids out; token features in, one vector out."""

from __future__ import annotations

import functools
import hashlib
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

POOLINGS = ("avg", "max", "token")


# Lengths of batches are multiples of this where they differ.
_BUCKET = 16


@keras.saving.register_keras_serializable("keras_transfer")
class TextTokenizer(keras.layers.Layer):
    """Turns texts into token ids, with a tokenizer of KerasHub.

    It is part of the model and of its file, vocabulary included.

    Args:
        tokenizer: A `keras_hub.tokenizers.Tokenizer`, or what `keras.saving`
            serializes it to. The tokens that it begins and ends texts with are
            added where it has any.
        sequence_length: Longest text in tokens, those included; what is longer
            is cut. Defaults to `128`.
        bucketing: Whether a batch is only as long as its longest text, rounded
            up to a multiple of 16, and not `sequence_length`. Defaults to
            `False`.
        name: Name of the layer. Defaults to `"tokenizer"`.
        content: Digest of the vocabulary, in configs; not read. Defaults to
            `None`.
        **options: Of every layer, such as `dtype`.

    Raises:
        ValueError: If it is called without its vocabulary, as after
            `keras.models.clone_model`, which copies none.

    Input: string `(batch,)`. Output: int32 `(batch, sequence_length)`, -1
    beyond the end of a text.

    Example:

    >>> layer = TextTokenizer(tokenizer, sequence_length=64)  # doctest: +SKIP
    """

    # Strings are none of XLA's types.
    supports_jit = False

    def __init__(
        self,
        tokenizer: Any,
        sequence_length: int = 128,
        bucketing: bool = False,
        name: str = "tokenizer",
        content: str | None = None,
        **options: Any,
    ) -> None:
        super().__init__(name=name, **options)
        if isinstance(tokenizer, dict):
            tokenizer = keras.saving.deserialize_keras_object(tokenizer)
        self.tokenizer = tokenizer
        self.sequence_length = sequence_length
        self.bucketing = bucketing
        self.built = True

    def compute_output_spec(self, texts: Any) -> keras.KerasTensor:
        """Returns the shape and dtype of the output."""
        length = None if self.bucketing else self.sequence_length
        return keras.KerasTensor((*texts.shape[:1], length), "int32")

    def call(self, texts: Any) -> Any:
        """Returns the token ids of `texts`."""
        return self._graph(texts)

    @functools.cached_property
    def _graph(self) -> Any:
        """The tokenizer as a graph: outside of one KerasHub runs other code."""
        import tensorflow as tf

        try:
            self.tokenizer.vocabulary_size()
        except Exception as err:  # KerasHub's, where there is none.
            raise ValueError(
                f"Layer {self.name!r} has lost its vocabulary, which is in no "
                "config. Copy a text model by saving and loading it "
                "(`model.save`, `keras.models.load_model`), not by "
                "`clone_model` or `from_config`."
            ) from err
        spec = tf.TensorSpec((None,), tf.string)
        return tf.function(self._encode, input_signature=[spec])

    def _encode(self, texts: Any) -> Any:
        import tensorflow as tf

        ends = _ends(self.tokenizer)
        ids = self.tokenizer(texts)[:, : self.sequence_length - len(ends)]
        parts = [tf.cast(ids, tf.int32)]
        for name, token in ends.items():
            column = tf.fill([tf.size(texts), 1], token)
            parts.insert(0 if name == "start_token_id" else 2, column)
        ids = tf.concat(parts, axis=1)
        if not self.bucketing:
            return ids.to_tensor(-1, shape=(None, self.sequence_length))
        longest = tf.maximum(tf.reduce_max(ids.row_lengths()), 1)
        rounded = -(-longest // _BUCKET) * _BUCKET
        length = tf.minimum(rounded, self.sequence_length)
        return ids.to_tensor(-1, shape=tf.stack([-1, length]))

    def get_config(self) -> dict[str, Any]:
        """Returns what the layer is made of."""
        return {
            **super().get_config(),
            "tokenizer": keras.saving.serialize_keras_object(self.tokenizer),
            "sequence_length": self.sequence_length,
            "bucketing": self.bucketing,
            # Two tokenizers with one config may know other words.
            "content": self._digest(),
        }

    def _digest(self) -> str:
        digest = hashlib.blake2b(digest_size=16)
        with tempfile.TemporaryDirectory() as folder:
            self.tokenizer.save_assets(folder)
            for file in sorted(Path(folder).iterdir()):
                digest.update(file.name.encode() + b"\0")
                digest.update(file.read_bytes())
        return digest.hexdigest()


def longest(tokenizer: Any, texts: Sequence[str] | np.ndarray) -> int:
    """Returns the number of tokens of the longest text, as lengths are given.

    Args:
        tokenizer: A tokenizer of KerasHub.
        texts: The texts.

    Returns:
        That number, with the tokens at both ends, rounded up to a multiple of
        8.
    """
    import tensorflow as tf

    lengths = tf.function(lambda some: tokenizer(some).row_lengths())
    if not len(texts):
        raise ValueError("`fit_to` must hold texts. Received: none.")
    batches = tf.data.Dataset.from_tensor_slices(list(texts)).batch(1024)
    most = max(int(tf.reduce_max(lengths(batch))) for batch in batches)
    return -(-(most + len(_ends(tokenizer))) // 8) * 8


def _ends(tokenizer: Any) -> dict[str, int]:
    """The tokens that texts begin and end with, where there are any."""
    names = ("start_token_id", "end_token_id")
    found = {name: getattr(tokenizer, name, None) for name in names}
    return {name: token for name, token in found.items() if token is not None}


def pool(
    features: keras.KerasTensor, mask: keras.KerasTensor, pooling: str
) -> keras.KerasTensor:
    """Makes one vector of the tokens of a text.

    Args:
        features: `(batch, length, channels)`.
        mask: bool or 0/1 `(batch, length)`, whether there is a token.
        pooling: `"avg"` or `"max"` of the tokens that there are, `"token"`,
            the first one, or `"last"`, the last one there is.

    Returns:
        `(batch, channels)`.

    Example:

    >>> x = np.array([[[1.0], [3.0], [9.0]]])
    >>> float(pool(x, np.array([[True, True, False]]), "avg")[0, 0])
    2.0
    """
    ops = keras.ops
    if pooling == "token":
        return features[:, 0]
    if pooling == "last":
        count = ops.sum(ops.cast(mask, "int32"), axis=1, keepdims=True)
        index = ops.expand_dims(ops.maximum(count - 1, 0), -1)
        return ops.squeeze(ops.take_along_axis(features, index, axis=1), 1)
    if pooling == "avg":
        # In float32, since a sum of tokens may overflow float16.
        there = ops.expand_dims(ops.cast(mask, "float32"), -1)
        count = ops.maximum(ops.sum(there, axis=1), 1)
        total = ops.sum(ops.cast(features, "float32") * there, axis=1)
        return ops.cast(total / count, features.dtype)
    there = ops.expand_dims(ops.cast(mask, features.dtype), -1)
    # Below all that a network gives, and within float16.
    lowest = ops.max(features * there - 3e4 * (1 - there), axis=1)
    return lowest * ops.max(there, axis=1)
