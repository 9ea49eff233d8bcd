"""Tokenization of texts, and pooling of token features."""

from __future__ import annotations

import functools
import hashlib
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_transfer.backbones import text_cleaning

POOLINGS = ("avg", "max", "token")


# With bucketing, lengths of batches are multiples of this.
_TOKENS_PER_BUCKET = 16


@keras.saving.register_keras_serializable("keras_transfer")
class TextTokenizer(keras.layers.Layer):
    """Converts texts to token ids, with a tokenizer of KerasHub.

    The layer is saved with its model, vocabulary included.

    Args:
        tokenizer: A `keras_hub.tokenizers.Tokenizer`, or its serialization by
            `keras.saving`. Its start and end tokens, if any, are added to each
            text.
        sequence_length: Largest number of tokens of a text, including start
            and end; longer ones are truncated. Defaults to `128`.
        bucketing: Whether a batch is only as long as its longest text, rounded
            up to a multiple of 16, instead of `sequence_length`. Defaults to
            `False`.
        name: Name of the layer. Defaults to `"tokenizer"`.
        cleaning: Arguments of `text_cleaning.clean` for texts before the
            tokenizer, or `None` for none. Defaults to `None`.
        content: Digest of the vocabulary, only for configs. Defaults to
            `None`.
        **options: Further arguments of `keras.layers.Layer`, such as `dtype`.

    Raises:
        ValueError: If it is called without its vocabulary, which
            `keras.models.clone_model` does not copy.

    Input: string `(batch,)`. Output: int32 `(batch, sequence_length)`, -1
    after the end of a text.

    Example:

    >>> layer = TextTokenizer(tokenizer, sequence_length=64)  # doctest: +SKIP
    """

    # XLA does not support strings.
    supports_jit = False

    def __init__(
        self,
        tokenizer: Any,
        sequence_length: int = 128,
        bucketing: bool = False,
        name: str = "tokenizer",
        cleaning: Mapping[str, bool] | None = None,
        content: str | None = None,
        **options: Any,
    ) -> None:
        super().__init__(name=name, **options)
        if isinstance(tokenizer, dict):
            tokenizer = keras.saving.deserialize_keras_object(tokenizer)
        self.tokenizer = tokenizer
        self.sequence_length = sequence_length
        self.bucketing = bucketing
        self.cleaning = None if cleaning is None else dict(cleaning)
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
        """The tokenizer as a graph, since KerasHub runs other code eagerly."""
        import tensorflow as tf

        try:
            self.tokenizer.vocabulary_size()
        except Exception as err:  # Any error of KerasHub without a vocabulary.
            raise ValueError(
                f"Layer {self.name!r} has lost its vocabulary, which is not in "
                "the config. Copy a text model by saving and loading it "
                "(`model.save`, `keras.models.load_model`), not by "
                "`clone_model` or `from_config`."
            ) from err
        spec = tf.TensorSpec((None,), tf.string)
        return tf.function(self._encode, input_signature=[spec])

    def _encode(self, texts: Any) -> Any:
        import tensorflow as tf

        ends = _ends(self.tokenizer)
        ids = encode(self.tokenizer, self.cleaning, texts)
        ids = ids[:, : self.sequence_length - len(ends)]
        parts = [tf.cast(ids, tf.int32)]
        for name, token in ends.items():
            column = tf.fill([tf.size(texts), 1], token)
            parts.insert(0 if name == "start_token_id" else 2, column)
        ids = tf.concat(parts, axis=1)
        if not self.bucketing:
            return ids.to_tensor(-1, shape=(None, self.sequence_length))
        longest = tf.maximum(tf.reduce_max(ids.row_lengths()), 1)
        rounded = -(-longest // _TOKENS_PER_BUCKET) * _TOKENS_PER_BUCKET
        length = tf.minimum(rounded, self.sequence_length)
        return ids.to_tensor(-1, shape=tf.stack([-1, length]))

    def get_config(self) -> dict[str, Any]:
        """Returns the config of the layer."""
        return {
            **super().get_config(),
            "tokenizer": keras.saving.serialize_keras_object(self.tokenizer),
            "sequence_length": self.sequence_length,
            "bucketing": self.bucketing,
            "cleaning": self.cleaning,
            # Tokenizers with equal configs may have different vocabularies.
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


def encode(
    tokenizer: Any, cleaning: Mapping[str, bool] | None, texts: Any
) -> Any:
    """Returns the token ids of texts, without start and end, as rows."""
    if cleaning is None:
        return tokenizer(texts)
    return tokenizer(text_cleaning.clean(texts, **cleaning))


def longest(
    tokenizer: Any,
    texts: Sequence[str] | np.ndarray,
    cleaning: Mapping[str, bool] | None = None,
) -> int:
    """Returns the sequence length that the longest text needs.

    Args:
        tokenizer: A tokenizer of KerasHub.
        texts: The texts.
        cleaning: Same as in `TextTokenizer`. Defaults to `None`.

    Returns:
        Number of tokens, including start and end, rounded up to a multiple of
        8.
    """
    import tensorflow as tf

    lengths = tf.function(
        lambda batch: encode(tokenizer, cleaning, batch).row_lengths()
    )
    if not len(texts):
        raise ValueError("`fit_to` must hold texts. Received: none.")
    batches = tf.data.Dataset.from_tensor_slices(list(texts)).batch(1024)
    most = max(int(tf.reduce_max(lengths(batch))) for batch in batches)
    return -(-(most + len(_ends(tokenizer))) // 8) * 8


def _ends(tokenizer: Any) -> dict[str, int]:
    """Returns the ids of start and end tokens, by name, if there are any."""
    names = ("start_token_id", "end_token_id")
    ids = {name: getattr(tokenizer, name, None) for name in names}
    return {name: token for name, token in ids.items() if token is not None}


def pool(
    features: keras.KerasTensor, mask: keras.KerasTensor, pooling: str
) -> keras.KerasTensor:
    """Pools the token features of a text to one vector.

    Args:
        features: Tensor `(batch, length, channels)`.
        mask: Boolean or 0/1 tensor `(batch, length)`, true for tokens, false
            for padding.
        pooling: `"avg"` or `"max"` over tokens, `"token"`, the first one, or
            `"last"`, the last one that is not padding.

    Returns:
        Tensor `(batch, channels)`.

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
        ones = ops.expand_dims(ops.cast(mask, "float32"), -1)
        count = ops.maximum(ops.sum(ones, axis=1), 1)
        total = ops.sum(ops.cast(features, "float32") * ones, axis=1)
        return ops.cast(total / count, features.dtype)
    ones = ops.expand_dims(ops.cast(mask, features.dtype), -1)
    # Padding becomes -3e4: less than any feature, and finite in float16.
    largest = ops.max(features * ones - 3e4 * (1 - ones), axis=1)
    # A text without tokens gives 0.
    return largest * ops.max(ones, axis=1)
