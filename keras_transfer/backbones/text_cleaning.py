"""Normalisation of texts before they are split into words, as a graph."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from typing import TYPE_CHECKING

import keras

if TYPE_CHECKING:
    import tensorflow as tf

# RE2 matches white space of ASCII alone with `\s`.
_SPACES = r"[\t\n\r\p{Z}]"
# Control and format characters, as BERT removes them: a zero-width space within
# a word does not split it.
_CONTROLS = r"[\p{Cc}\p{Cf}\p{Co}\x{FFFD}]"

_APOSTROPHES = r"[\x{2018}\x{2019}]"
# Marks that end a word where they stand; others, as in "well-known", "don't" or
# "3.5", may be within one.
_SEPARATORS = (
    r"[,;:!?\"<>|=*~^`\\\p{Ps}\p{Pe}\p{Pi}\p{Pf}\x{2013}\x{2014}\x{2026}]"
)


def clean(
    texts: tf.Tensor, *, lowercase: bool, strip_accents: bool
) -> tf.Tensor:
    """Normalises texts as BERT does before it splits them into words.

    White space of any kind becomes a space, control characters are removed.
    The `BertNormalizer` of Hugging Face, but for Chinese characters, which
    KerasHub splits.

    Args:
        texts: Strings in UTF-8.
        lowercase: Whether to put all alphabets in lower case.
        strip_accents: Whether to remove accents.

    Returns:
        Strings.
    """
    import tensorflow as tf

    texts = tf.strings.regex_replace(texts, _SPACES, " ")
    texts = tf.strings.regex_replace(texts, _CONTROLS, "")
    if strip_accents:
        import tensorflow_text

        texts = tensorflow_text.normalize_utf8(texts, "NFD")
        texts = tf.strings.regex_replace(texts, r"\p{Mn}", "")
    return lower(texts) if lowercase else texts


def lower(texts: tf.Tensor) -> tf.Tensor:
    """Returns texts in lower case, in all alphabets."""
    import tensorflow as tf

    return tf.strings.lower(texts, encoding="utf-8")


def uncased_options(
    tokenizer_config: Mapping[str, object], lowercase: bool
) -> dict[str, bool]:
    """Returns the arguments of `clean` for a WordPiece tokenizer.

    Args:
        tokenizer_config: The `tokenizer_config.json` of Hugging Face, or `{}`.
        lowercase: Whether the tokenizer lower-cases.

    Returns:
        A dict of arguments. Accents are stripped where texts are lower-cased,
        as in the vocabularies of BERT, unless the config says otherwise.
    """
    strip = tokenizer_config.get("strip_accents")
    return {
        "lowercase": lowercase,
        "strip_accents": lowercase if strip is None else bool(strip),
    }


@keras.saving.register_keras_serializable("keras_transfer")
def split_words(texts: tf.Tensor) -> tf.Tensor:
    """Standardises texts for a table of word vectors, in all alphabets.

    Lower case; punctuation becomes a space at the edges of words and stays
    within them, as in "don't".

    Args:
        texts: Strings in UTF-8.

    Returns:
        Strings of words separated by spaces.
    """
    import tensorflow as tf

    texts = clean(texts, lowercase=True, strip_accents=False)
    texts = tf.strings.regex_replace(texts, _APOSTROPHES, "'")
    texts = tf.strings.regex_replace(texts, _SEPARATORS, " ")
    for pattern in (r"(^|\s)[\p{P}\p{S}]+", r"[\p{P}\p{S}]+(\s|$)"):
        texts = tf.strings.regex_replace(texts, pattern, " ")
    return texts


def standard_word(word: str) -> str:
    """Returns a word of a table in the form that `split_words` gives it."""
    word = re.sub("[\u2018\u2019]", "'", word.lower())
    marks = {c for c in word if unicodedata.category(c)[0] in "PS"}
    return word.strip("".join(marks)) or word
