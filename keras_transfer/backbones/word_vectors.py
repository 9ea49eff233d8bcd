"""Word vectors in the file formats of GloVe, fastText and word2vec."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import keras
import numpy as np

from keras_transfer.backbones import text_cleaning, tokens

SUFFIXES = (".txt", ".vec", ".bin")


# In Keras' TextVectorization 0 is padding, and 1 an unknown word.
_RESERVED = 2


# Words that Keras' own standardization finds.
_PLAIN = re.compile("[a-z0-9]+")


_SEQUENCE_LENGTH = 128


_TEXTS_PER_BATCH = 1024


def build(
    path: Path,
    *,
    pretrained: bool,
    pooling: str,
    sequence_length: int | None,
    bucketing: bool,
    max_words: int | None,
    fit_to: Sequence[str] | np.ndarray | None,
) -> tuple[keras.Model, keras.Model]:
    """Makes models that look up and pool the word vectors of texts.

    Words are lower-cased and stripped of punctuation at their edges. An unknown
    word has the mean of all vectors.

    Args:
        path: The file.
        pretrained: Whether to use its vectors, else only its words.
        pooling: `"avg"` or `"max"`.
        sequence_length: Largest number of words of a text, or `None`: 128, or
            less if the texts of `fit_to` are shorter.
        bucketing: Whether a batch is as long as its longest text, without
            truncation.
        max_words: Number of words to read, or `None` for all.
        fit_to: Texts whose maximum length becomes the length, or `None`.

    Returns:
        Tuple of a model from texts to word indices and a model from there to
        vectors.

    Raises:
        ValueError: If the file does not hold word vectors.
    """
    words, vectors = read(path, max_words)
    length = None if bucketing else sequence_length or _SEQUENCE_LENGTH
    if length and fit_to is not None and sequence_length is None:
        length = min(length, _longest(words, fit_to))
    texts = keras.Input((), dtype="string", name="text")
    lookup = _lookup(words, output_sequence_length=length, name="words")
    preprocessing = keras.Model(texts, lookup(texts), name="preprocessing")
    numbers = keras.Input((None,), dtype="int64", name="tokens")
    count, width = vectors.shape
    table = keras.layers.Embedding(count + _RESERVED, width, name="embedding")
    features = tokens.pool(table(numbers), numbers > 0, pooling)
    model = keras.Model(numbers, features, name="backbone")
    if pretrained:
        unknown = vectors.mean(axis=0, keepdims=True)
        nothing = np.zeros((1, width), np.float32)
        table.set_weights([np.concatenate([nothing, unknown, vectors])])
    return preprocessing, model


def _lookup(words: list[str], **options: Any) -> keras.layers.Layer:
    """Makes the layer from texts to the places of words."""
    standardize: Any = "lower_and_strip_punctuation"
    if not all(_PLAIN.fullmatch(word) for word in words):
        # Keras knows the letters and marks of ASCII alone.
        standardize = text_cleaning.split_words
    return keras.layers.TextVectorization(
        vocabulary=words, standardize=standardize, **options
    )


def _longest(words: list[str], texts: Sequence[str] | np.ndarray) -> int:
    """Returns the number of words of the longest text, in multiples of 8."""
    lookup = _lookup(words)
    most = max(
        int(lookup(list(texts[start : start + _TEXTS_PER_BATCH])).shape[1])
        for start in range(0, len(texts), _TEXTS_PER_BATCH)
    )
    return -(-max(most, 1) // 8) * 8


def read(path: Path, max_words: int | None) -> tuple[list[str], np.ndarray]:
    """Reads words and their vectors.

    Of words that are equal in that form, the first vector is used.

    Args:
        path: The file, with a word and its numbers in each line, optionally
            after a line of two counts; or in the binary format of word2vec
            (`.bin`).
        max_words: Number of lines to read, or `None` for all.

    Returns:
        Tuple of a list of words and their vectors, float32 `(words, width)`.

    Raises:
        ValueError: If there is no such file, or it has another format.
    """
    if not path.is_file():
        raise ValueError(
            "`source` must be an existing file of word vectors. Received: "
            f"source={str(path)!r}, which does not exist."
        )
    table: dict[str, np.ndarray] = {}
    with path.open("rb") as file:
        rows = _binary(file) if path.suffix == ".bin" else _lines(file)
        try:
            for word, vector in itertools.islice(rows, max_words):
                if not np.isfinite(vector).all():
                    raise ValueError(
                        f"{word!r} has numbers that are not finite"
                    )
                if word.strip():
                    key = text_cleaning.standard_word(word.decode("utf-8"))
                    table.setdefault(key, vector)
            vectors = np.stack(list(table.values()))
        except ValueError as err:
            raise ValueError(
                "`source` must hold a word and the same number of values per "
                "line (GloVe, fastText, word2vec). Received: "
                f"source={str(path)!r}, which does not: {err}"
            ) from err
    return list(table), vectors


def _lines(file: BinaryIO) -> Iterator[tuple[bytes, np.ndarray]]:
    width = 0
    for number, line in enumerate(file):
        parts = line.rstrip().split(b" ")
        if number == 0 and len(parts) == 2:
            width = int(parts[1])  # The first count is the number of words.
            continue
        width = width or len(parts) - 1
        # A word may contain spaces.
        word, *numbers = line.rstrip().rsplit(b" ", width)
        if not numbers or len(numbers) != width:
            raise ValueError(
                f"line {number + 1} has {len(parts) - 1} numbers, not {width}"
            )
        yield word, np.array(numbers, np.float32)


def _binary(file: BinaryIO) -> Iterator[tuple[bytes, np.ndarray]]:
    counts = file.readline().split()
    if len(counts) != 2:
        raise ValueError("it does not start with two counts")
    size, width = (int(count) for count in counts)
    for _ in range(size):
        word = b""
        while (byte := file.read(1)) not in (b" ", b""):
            word += byte
        word = word.lstrip(b"\n")
        vector = np.frombuffer(file.read(4 * width), np.float32)
        if len(vector) != width:
            raise ValueError("it ends too early")
        yield word, vector
