"""Tables of word vectors, as GloVe, fastText and word2vec publish them."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import keras
import numpy as np

from keras_transfer.backbones import tokens

SUFFIXES = (".txt", ".vec", ".bin")
# Keras' TextVectorization has 0 for nothing and 1 for an unknown word.
_RESERVED = 2


def build(
    path: Path,
    *,
    pretrained: bool,
    pooling: str,
    sequence_length: int,
    max_words: int | None,
) -> tuple[keras.Model, keras.Model]:
    """Makes the layers that look up the words of a text.

    Words are put in lower case and their punctuation is stripped; an unknown
    one has the mean of all vectors.

    Args:
        path: The file.
        pretrained: Whether to take its vectors, or its words alone.
        pooling: `"avg"` or `"max"`.
        sequence_length: Longest text in words.
        max_words: How many to read, or `None`.

    Returns:
        Tuple of a model from texts to word numbers and a model from there to
        vectors.

    Raises:
        ValueError: If the file is no table of word vectors.
    """
    words, vectors = read(path, max_words)
    texts = keras.Input((), dtype="string", name="text")
    lookup = keras.layers.TextVectorization(
        output_sequence_length=sequence_length,
        vocabulary=words,
        name="words",
    )
    preprocessing = keras.Model(texts, lookup(texts), name="preprocessing")
    numbers = keras.Input((sequence_length,), dtype="int64", name="tokens")
    count, width = vectors.shape
    table = keras.layers.Embedding(count + _RESERVED, width, name="embedding")
    features = tokens.pool(table(numbers), numbers > 0, pooling)
    model = keras.Model(numbers, features, name="backbone")
    if pretrained:
        unknown = vectors.mean(axis=0, keepdims=True)
        nothing = np.zeros((1, width), np.float32)
        table.set_weights([np.concatenate([nothing, unknown, vectors])])
    return preprocessing, model


def read(path: Path, max_words: int | None) -> tuple[list[str], np.ndarray]:
    """Reads words and their vectors.

    A word that comes twice in lower case has its first vector.

    Args:
        path: The file: a word and its numbers in a line, with or without a
            first line of two counts; or word2vec's binary form (`.bin`).
        max_words: How many lines to read, or `None` for all.

    Returns:
        Words, and float32 `(words, width)`.

    Raises:
        ValueError: If there is no such file, or it holds something else.
    """
    if not path.is_file():
        raise ValueError(
            "`source` must be an existing file of word vectors. Received: "
            f"source={str(path)!r}, where there is none."
        )
    found: dict[str, np.ndarray] = {}
    with path.open("rb") as file:
        rows = _binary(file) if path.suffix == ".bin" else _lines(file)
        try:
            for word, vector in itertools.islice(rows, max_words):
                found.setdefault(word.decode("utf-8").lower(), vector)
            vectors = np.stack(list(found.values()))
        except ValueError as err:
            raise ValueError(
                "`source` must hold a word and as many numbers in each line "
                f"(GloVe, fastText, word2vec). Received: source={str(path)!r}, "
                f"which does not: {err}"
            ) from err
    return list(found), vectors


def _lines(file: BinaryIO) -> Iterator[tuple[bytes, np.ndarray]]:
    for number, line in enumerate(file):
        word, *numbers = line.rstrip().split(b" ")
        if number == 0 and len(numbers) == 1:
            continue  # how many words and how many numbers there are
        if not numbers:
            raise ValueError(f"line {number + 1} has no numbers")
        yield word, np.array(numbers, np.float32)


def _binary(file: BinaryIO) -> Iterator[tuple[bytes, np.ndarray]]:
    counts = file.readline().split()
    if len(counts) != 2:
        raise ValueError("it does not begin with two counts")
    size, width = (int(count) for count in counts)
    for _ in range(size):
        word = b"".join(iter(lambda: file.read(1), b" ")).lstrip(b"\n")
        vector = np.frombuffer(file.read(4 * width), np.float32)
        if len(vector) != width:
            raise ValueError("it ends too early")
        yield word, vector
