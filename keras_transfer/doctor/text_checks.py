"""Checks of texts: words that the network does not know."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import keras
import numpy as np

from keras_transfer.doctor.context import Context, InspectedSplit
from keras_transfer.doctor.diagnosis import Finding
from keras_transfer.structure import graph
from keras_transfer.structure.model_parts import is_readable, parts_of

# Texts that are read, and the share of unknown tokens that is reported.
_TEXTS_READ = 256
_MAX_SHARE = 0.1


def unknown_tokens(context: Context) -> Iterator[Finding]:
    """Finds texts of which the tokenizer knows few words."""
    if not is_readable(context.model):
        return
    preprocessing = parts_of(context.model).preprocessing
    if preprocessing is None or not graph.takes_texts(preprocessing):
        return
    unknown = _unknown_id(preprocessing)
    texts = _texts(context.train)
    if unknown is None or not len(texts):
        return
    ids = np.asarray(preprocessing(keras.ops.convert_to_tensor(texts)))
    # Padding is 0 for word vectors, -1 for a tokenizer of KerasHub.
    tokens = ids[ids > 0] if unknown == 1 else ids[ids >= 0]
    share = float((tokens == unknown).mean()) if tokens.size else 0.0
    if share > _MAX_SHARE:
        yield Finding(
            "unknown-tokens",
            "warning",
            f"{share:.0%} of the tokens of {len(texts)} training texts are "
            "unknown to the tokenizer, and mean the same to the network.",
            "Use a backbone of the language and alphabet of the texts, or one "
            "with a larger vocabulary.",
        )


def _unknown_id(preprocessing: keras.Model) -> int | None:
    """Returns the id of an unknown token, or `None` if there is none."""
    for layer in graph.layers_below(preprocessing):
        if isinstance(layer, keras.layers.TextVectorization):
            return 1
        tokenizer: Any = getattr(layer, "tokenizer", None)
        word = getattr(tokenizer, "oov_token", None)
        if word is not None:
            return int(tokenizer.token_to_id(word))
    return None


def _texts(split: InspectedSplit) -> list[str]:
    texts = getattr(split.source, "texts", split.inputs)
    return [] if texts is None else [str(x) for x in texts[:_TEXTS_READ]]


CHECKS = (unknown_tokens,)
