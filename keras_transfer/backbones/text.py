"""`load_text_backbone`: pretrained networks that take text."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_transfer._utils.checks import is_integer
from keras_transfer.backbones import word_vectors
from keras_transfer.backbones.backbone import Backbone
from keras_transfer.backbones.kerashub import loading as kerashub
from keras_transfer.backbones.kerashub.network import (
    KerasHubNetwork,
    import_keras_hub,
)
from keras_transfer.backbones.loading import PRETRAINED
from keras_transfer.backbones.spec import name_of, spec_of_own
from keras_transfer.backbones.tokens import POOLINGS, TextTokenizer, longest
from keras_transfer.structure import graph
from keras_transfer.structure.blocks import has_children

_SEQUENCE_LENGTH = 128


def load_text_backbone(
    source: str | Path | keras.Model,
    *,
    weights: str | None = PRETRAINED,
    pooling: str = "avg",
    sequence_length: int | None = None,
    bucketing: bool = False,
    tokenizer: Any = None,
    max_words: int | None = None,
    fit_to: Sequence[str] | np.ndarray | None = None,
) -> Backbone:
    """Loads a pretrained network that turns texts into vectors.

    Its `preprocessing` is the tokenizer: texts go in as they are, and a saved
    model takes texts, with nothing beside it. With pretrained weights its
    dropout layers are off, so that what is frozen computes the same in each
    epoch.

    Args:
        source: A preset of KerasHub (`"bert_base_en"`, `"hf://..."`), a folder
            of one or of Hugging Face (BERT, ALBERT, RoBERTa, DistilBERT, GPT-2
            and others), each with or without `"kerashub:"` before it; a
            backbone object of KerasHub, of which a copy is taken; a file of
            word vectors (`.txt`, `.vec` of GloVe, fastText or word2vec; `.bin`
            of word2vec); or a model made by `build_text_classifier` or its
            `.keras` file, whose backbone is taken as it was loaded.
        weights: `"pretrained"`, or `None` for new random weights. Defaults to
            `"pretrained"`.
        pooling: How the vectors of tokens become that of the text, where there
            are tokens: `"avg"`, `"max"`, or `"token"`: the first one
            (`[CLS]`), of a network that reads from left to right the last one.
            Defaults to `"avg"`.
        sequence_length: Longest text in tokens; what is longer is cut. Defaults
            to `None`: 128, or what the network takes at most, or less where
            `fit_to` needs less.
        bucketing: Whether a batch is only as long as its longest text, rounded
            up to a multiple of 16. Saves time in direct training and
            prediction; activations of such batches cannot be kept. Defaults to
            `False`.
        tokenizer: A tokenizer of KerasHub, for a backbone object or a folder
            without one. Defaults to `None`, that of the preset.
        max_words: How many word vectors to read, those at the top of the file.
            Defaults to `None`, all.
        fit_to: Texts whose longest, in tokens, is the `sequence_length`,
            rounded up to a multiple of 8. Defaults to `None`.

    Returns:
        A `Backbone` from string `(batch,)` to `(batch, num_features)`.

    Raises:
        ImportError: If KerasHub is not installed.
        ValueError: If there is no such preset, folder or file, it takes no
            text, or an argument does not fit.
        TypeError: If `source` is of another type.
        ConnectionError: If it has to be fetched and cannot be.

    Example:

    >>> backbone = load_text_backbone("glove.6B.100d.txt")  # doctest: +SKIP
    """
    _check(weights, pooling, sequence_length)
    if not isinstance(source, str | Path | keras.Model):
        raise TypeError(
            "`source` must be a name, a path or a network of KerasHub. "
            f"Received: source={source!r}"
        )
    if str(source).endswith(".keras") and Path(str(source)).is_file():
        source = keras.models.load_model(source, compile=False)
    if isinstance(source, keras.Model) and has_children(source):
        return _of_model(source, weights is not None)
    if max_words is not None and (not is_integer(max_words) or max_words < 1):
        raise ValueError(
            "`max_words` must be an integer above 0, or None. Received: "
            f"max_words={max_words!r}"
        )
    path = Path(source) if isinstance(source, str | Path) else None
    if path is not None and path.suffix in word_vectors.SUFFIXES:
        if tokenizer is not None or pooling == "token":
            raise ValueError(
                '`pooling` must be "avg" or "max" and `tokenizer` None for '
                "word vectors, which come with their words. Received: "
                f"pooling={pooling!r}, tokenizer={tokenizer!r}"
            )
        preprocessing, model = word_vectors.build(
            path,
            pretrained=weights is not None,
            pooling=pooling,
            sequence_length=sequence_length,
            bucketing=bucketing,
            max_words=max_words,
            fit_to=fit_to,
        )
        name, origin = path.stem, "user"
    else:
        if max_words is not None:
            raise ValueError(
                "`max_words` must be None unless `source` is a file of word "
                f"vectors. Received: max_words={max_words}, source={source!r}"
            )
        preprocessing, model = _of_kerashub(
            source if path is None else str(source),
            weights is not None,
            pooling,
            sequence_length,
            bucketing,
            tokenizer,
            fit_to,
        )
        name = name_of(
            source.name if isinstance(source, keras.Model) else str(source)
        )
        origin = "keras_hub"
    width = int(model.output_shape[-1])
    return Backbone(
        spec_of_own(name, origin, None, None, width), preprocessing, model
    )


def _of_model(model: keras.Model, pretrained: bool) -> Backbone:
    """Takes the backbone out of a text model that was built here."""
    preprocessing = model.get_layer("preprocessing")
    network = model.get_layer("backbone")
    if not graph.takes_texts(preprocessing):
        raise ValueError(
            f"`source` must take text. Received: {model.name!r}, which takes "
            "images: `load_backbone` loads it."
        )
    copy = kerashub.clone(network)
    if pretrained:
        graph.set_weights(copy, network.get_weights())
    name = model.name.removesuffix("_classifier")
    width = int(network.output_shape[-1])
    return Backbone(
        spec_of_own(name, "user", None, None, width), preprocessing, copy
    )


def _check(weights: object, pooling: object, sequence_length: Any) -> None:
    if weights not in (None, PRETRAINED):
        raise ValueError(
            '`weights` must be "pretrained" or None for a network that takes '
            f"text. Received: weights={weights!r}"
        )
    if pooling not in POOLINGS:
        raise ValueError(
            f"`pooling` must be one of {', '.join(map(repr, POOLINGS))}. "
            f"Received: pooling={pooling!r}"
        )
    valid = is_integer(sequence_length) and int(sequence_length) > 2
    if sequence_length is not None and not valid:
        raise ValueError(
            "`sequence_length` must be an integer above 2, or None. Received: "
            f"sequence_length={sequence_length!r}"
        )


def _of_kerashub(
    source: str | keras.Model,
    pretrained: bool,
    pooling: str,
    sequence_length: int | None,
    bucketing: bool,
    tokenizer: Any,
    fit_to: Sequence[str] | np.ndarray | None,
) -> tuple[keras.Model, keras.Model]:
    """Makes the tokenizer and the network of something of KerasHub."""
    hub = import_keras_hub()
    if isinstance(source, keras.Model):
        preprocessor = getattr(source, "preprocessor", None)
        tokenizer = tokenizer or getattr(preprocessor, "tokenizer", None)
        network = kerashub.copy_of(
            getattr(source, "backbone", source), pretrained
        )
    else:
        network = kerashub.load(source, None, pretrained)
        if tokenizer is None:
            tokenizer = kerashub.load_tokenizer(source)
    if tokenizer is None:
        raise ValueError(
            "`tokenizer` must be given for a network that comes without one, "
            f"such as {getattr(source, 'name', source)!r}: a "
            "`keras_hub.tokenizers.Tokenizer`. Received: tokenizer=None"
        )
    most = getattr(network, "max_sequence_length", None)
    if most and (sequence_length or 0) > most:
        raise ValueError(
            f"`sequence_length` must be at most {most} for {network.name!r}. "
            f"Received: sequence_length={sequence_length}"
        )
    length = sequence_length or min(_SEQUENCE_LENGTH, most or _SEQUENCE_LENGTH)
    if pooling == "token" and _is_causal(network, hub):
        pooling = "last"
    model = KerasHubNetwork(
        network,
        text={"pad": pad_of(network, tokenizer), "pooling": pooling},
        still=pretrained,
    )
    texts = keras.Input((), dtype="string", name="text")
    if fit_to is not None and sequence_length is None:
        length = min(length, longest(tokenizer, fit_to))
    layer = TextTokenizer(tokenizer, length, bucketing)
    return keras.Model(texts, layer(texts), name="preprocessing"), model


def pad_of(network: keras.Model, tokenizer: Any) -> int:
    """The id of the token that stands for nothing; 0 where there is none."""
    # ESM makes the mask itself, of the tokens that are not this one.
    own = getattr(network, "pad_token_id", None)
    known = getattr(tokenizer, "pad_token_id", None) if own is None else own
    return int(known or 0)


def _is_causal(network: keras.Model, hub: Any) -> bool:
    """Whether tokens see only those before them: it makes texts, no classes."""
    family = type(network).__name__.removesuffix("Backbone")
    return hasattr(hub.models, f"{family}CausalLM")
