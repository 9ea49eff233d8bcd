"""Tables of word vectors, as GloVe, fastText and word2vec publish them."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

import keras
import numpy as np

from keras_transfer.backbones import tokens

SUFFIXES = (".txt", ".vec", ".bin")


# Keras' TextVectorization has 0 for nothing and 1 for an unknown word.
_RESERVED = 2


_SEQUENCE_LENGTH = 128


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
    """Makes the layers that look up the words of a text.

    Words are put in lower case and their punctuation is stripped; an unknown
    one has the mean of all vectors.

    Args:
        path: The file.
        pretrained: Whether to take its vectors, or its words alone.
        pooling: `"avg"` or `"max"`.
        sequence_length: Longest text in words, or `None`: 128, or less where
            `fit_to` needs less.
        bucketing: Whether a batch is only as long as its longest text; then
            nothing is cut.
        max_words: How many to read, or `None`.
        fit_to: Texts whose longest is the length, or `None`.

    Returns:
        Tuple of a model from texts to word numbers and a model from there to
        vectors.

    Raises:
        ValueError: If the file is no table of word vectors.
    """
    words, vectors = read(path, max_words)
    length = None if bucketing else sequence_length or _SEQUENCE_LENGTH
    if length and fit_to is not None and sequence_length is None:
        length = min(length, _longest(words, fit_to))
    texts = keras.Input((), dtype="string", name="text")
    lookup = keras.layers.TextVectorization(
        output_sequence_length=length,
        vocabulary=words,
        name="words",
    )
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


def _longest(words: list[str], texts: Sequence[str] | np.ndarray) -> int:
    """The number of words of the longest text, in multiples of 8."""
    lookup = keras.layers.TextVectorization(vocabulary=words)
    most = max(
        int(lookup(list(texts[start : start + 1024])).shape[1])
        for start in range(0, len(texts), 1024)
    )
    return -(-max(most, 1) // 8) * 8


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
                if not np.isfinite(vector).all():
                    raise ValueError(f"{word!r} has numbers that are none")
                if word.strip():
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
    width = 0
    for number, line in enumerate(file):
        parts = line.rstrip().split(b" ")
        if number == 0 and len(parts) == 2:
            width = int(parts[1])  # after how many words there are
            continue
        width = width or len(parts) - 1
        # A word may hold spaces.
        word, *numbers = line.rstrip().rsplit(b" ", width)
        if not numbers or len(numbers) != width:
            raise ValueError(
                f"line {number + 1} has {len(parts) - 1} numbers, not {width}"
            )
        yield word, np.array(numbers, np.float32)


def _binary(file: BinaryIO) -> Iterator[tuple[bytes, np.ndarray]]:
    counts = file.readline().split()
    if len(counts) != 2:
        raise ValueError("it does not begin with two counts")
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
